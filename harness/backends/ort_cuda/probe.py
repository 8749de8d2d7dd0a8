"""Whether ONNX Runtime has a CUDA provider that loads here."""

from __future__ import annotations

import importlib.util

from harness.backends._child import run_child
from harness.backends._cuda.probing import availability
from harness.backends._traits import Traits, takes_files
from harness.machine.cuda_driver import probe_driver
from harness.records import Availability
from harness.specs import Precision

PROVIDER = "CUDAExecutionProvider"
INSTALL_HINT = "pip install 'nn-engine-harness[ort-cuda]'"
MODULES = ("onnxruntime", "onnx")
TRAITS = Traits(
    runtime="ONNX Runtime, CUDA provider",
    extra="ort-cuda",
    device="cuda:0, ...",
    batch="up to the largest asked for",
    layers="names, types; which run on the CPU",
    abilities=takes_files(
        {
            Precision.FP32: "FP32, TF32 when asked",
            Precision.FP16: "FP16",
            Precision.BF16: "where it has kernels",
            Precision.INT8: "Q/DQ in float",
        }
    ),
)
# In a process of its own: the provider's libraries are loaded when the first session is made, and ONNX Runtime goes
# on with its CPU provider when they cannot be.
CHILD = """
import importlib, json, onnx, onnxruntime
for module in sys.argv[2:]:
    importlib.import_module(module)  # tensorrt brings the libraries that its provider needs
from onnx import helper
found = {"onnxruntime": onnxruntime.__version__}
print(json.dumps({"step": "import", "versions": found, "providers": []}), flush=True)
value = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x")], [value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[sys.argv[1]])
print(json.dumps({"step": "done", "versions": found, "providers": session.get_providers()}), flush=True)
"""


def probe_backend(
    name: str, *, provider: str = PROVIDER, modules: tuple[str, ...] = MODULES, hint: str = INSTALL_HINT
) -> Availability:
    """Look for a driver and a device, then make a session of a provider in a child process."""
    driver = probe_driver()
    versions, reason = ({}, driver.reason) if driver.reason else _probe_provider(provider, modules)
    return availability(name, driver, versions=versions, reason=reason, install_hint=hint)


def _probe_provider(provider: str = PROVIDER, modules: tuple[str, ...] = MODULES) -> tuple[dict[str, str], str]:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            return {}, f"the Python module {module} is not installed"
    end = run_child(CHILD, provider, *modules)
    if not end.answers:
        return {}, end.reason("onnxruntime", "when imported")
    last = end.answers[-1]
    if last["step"] != "done" or end.returncode:
        return last["versions"], end.reason("onnxruntime", "when a session was made")
    if last["providers"][0] != provider:
        found = last["versions"]["onnxruntime"]
        return last["versions"], f"onnxruntime {found} has no {provider} that loads; is it onnxruntime-gpu?"
    return last["versions"], ""
