"""A model with a plug-in layer of our own, built and run in one process: gpu_plugin.py BACKEND FOLDER [LIB.so].

Prints what it found as JSON; plugin_library in gpu_checks.py runs it several times, because what a library has once
registered stays in its process. The layer is HarnessOverwrite of gpu_plugin.cpp: it copies its input and writes the
attribute `value` into one element of each row.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from gpu_scoring import ROOT, tactic_sources

from harness.backends import load_backend
from harness.errors import HarnessError
from harness.records import Artifact
from harness.specs import BuildOptions, Precision
from harness.store.cache import sha256_of_file

SOURCE = Path(__file__).with_suffix(".cpp")
PREBUILT = "HARNESS_GPU_PLUGIN"  # environment variable: the compiled library, for a machine without a C++ compiler
COMPILERS = ("g++", "c++", "clang++")
FLAGS = ("-std=c++14", "-O1", "-shared", "-fPIC", "-fno-exceptions", "-fvisibility=hidden")
OP, NODE = "HarnessOverwrite", "our_own_layer"
VALUE, COLUMN = 2.5, 3
IMAGE, HIDDEN, CLASSES = (1, 4, 4), 8, 5
BATCH_SIZES = (1, 4)
OPSET, IR = 13, 8


def plugin_library(folder):
    """Return the path of the compiled library, None where there is neither a compiler nor a prebuilt one."""
    if prebuilt := os.environ.get(PREBUILT):
        return Path(prebuilt).resolve()
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    library = Path(folder) / "libgpu_plugin.so"
    subprocess.run([compiler, *FLAGS, "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def weights():
    """Return the matrices and biases before and after the plug-in layer."""
    generator = np.random.default_rng(11)
    shapes = {"w1": (int(np.prod(IMAGE)), HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, CLASSES), "b2": (CLASSES,)}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write_model(path):
    """Write flatten, fully connected, HarnessOverwrite, fully connected."""
    from onnx import TensorProto, helper, numpy_helper, save

    attributes = {"value": VALUE, "column": COLUMN, "plugin_version": "1", "plugin_namespace": ""}
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w1", "b1"], ["hidden"], name="before"),
        helper.make_node(OP, ["hidden"], ["overwritten"], name=NODE, domain="harness", **attributes),
        helper.make_node("Gemm", ["overwritten", "w2", "b2"], ["scores"], name="after"),
    ]
    graph = helper.make_graph(
        nodes,
        "plugin",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("N", *IMAGE))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("N", CLASSES))],
        [numpy_helper.from_array(value, name) for name, value in weights().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("harness", 1)])
    model.ir_version = IR
    save(model, str(path))


def expected(images, *, overwrite=True):
    """Return the model's outputs in NumPy; without `overwrite`, as if the layer only copied."""
    w = weights()
    hidden = images.reshape(len(images), -1) @ w["w1"] + w["b1"]
    if overwrite:
        hidden[:, COLUMN] = VALUE
    return hidden @ w["w2"] + w["b2"]


def run(backend, folder, libraries):
    """Build or load the engine and return what it gave: cache state, deviations, layers, notes."""
    model = Path(folder) / "plugin.onnx"
    if not model.exists():
        write_model(model)
    digest = sha256_of_file(model)
    artifact = Artifact(
        model="plugin",
        precision=Precision("fp32"),
        recipe="none",
        onnx_path=str(model),
        sha256=digest,
        source_sha256=digest,
    )
    trt = {"tactic_sources": tactic_sources(), "optimization_level": 0, "plugins": tuple(libraries)}
    options = BuildOptions(cache_dir=str(Path(folder) / "cache"), settings={"trt": trt})
    images = np.random.default_rng(3).random((max(BATCH_SIZES), *IMAGE), np.float32)
    engine = load_backend(backend).build(artifact, device="cuda:0", batch_sizes=BATCH_SIZES, options=options)
    with engine:
        outputs = [engine.infer(images[:n_images]) for n_images in (*BATCH_SIZES, 3)]
        streamed = list(engine.infer_stream([images] * 6))  # the later ones run from a graph
        layers = [[layer.name, layer.kind] for layer in engine.layers()]
    every = [*outputs, *streamed]
    return {
        "cache": engine.facts.cache,
        "largest": max(float(np.abs(one - expected(images[: len(one)])).max()) for one in every),
        "of_a_copy": float(np.abs(outputs[-1] - expected(images[:3], overwrite=False)).max()),
        "layers": layers,
        "notes": [note for note in engine.facts.notes if note.startswith("plug-in")],
    }


def in_a_fresh_process(backend, folder, libraries):
    """Return what `run` found, or {"error": text}. Raises: AssertionError where the process broke."""
    command = [sys.executable, __file__, backend, str(folder), *map(str, libraries)]
    child = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    answers = [line for line in child.stdout.splitlines() if line.startswith("{")]
    assert answers, f"exit {child.returncode}: {child.stderr[-600:]}"
    return json.loads(answers[-1])


def main():
    backend, folder, *libraries = sys.argv[1:]
    try:
        found = run(backend, folder, libraries)
    except HarnessError as error:
        found = {"error": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
