"""PyTorch: a module of a Python file, an exported program (.pt2) or TorchScript, by torch.onnx.export.

A pickled module is not read: it runs whatever code it holds, and needs the class's own file anyway.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import DataError
from harness.models.importers._compare import difference_of, random_images, why_not_run
from harness.models.importers._importer import Imported, Importer, ImportRequest
from harness.models.onnx_graph import one_line

OPSET, IR_VERSION = 18, 8  # the exporter's lowest, and the IR version that came with it
SCRIPT_OPSET = 17  # of the older exporter, which TorchScript needs
EXAMPLE_BATCH = 2  # a batch of 1 would be taken for a constant
TRANSLATIONS = "CUSTOM_TRANSLATION_TABLE"
INPUT, OUTPUT = "image", "output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A module as it was found, and how its own operators are translated."""

    module: Any
    title: str
    shape: tuple[int, ...]  # of the images without the batch
    is_script: bool = False
    program: Any = None  # what torch.export made of it, where that is at hand
    batch: int | None = None  # that of a program with a fixed one
    translations: Any = None


def convert(request: ImportRequest) -> Imported:
    """Write the ONNX file of a module and compare its outputs. Raises: DataError."""
    torch = importlib.import_module("torch")
    torch.set_grad_enabled(False)
    source = _source(torch, request)
    images = random_images(source.shape)
    images = images if source.batch is None else np.resize(images, (source.batch, *source.shape))
    file = request.sources[0]
    try:
        _export(torch, source, request)
        expected = np.asarray(source.module(torch.from_numpy(images)), np.float32)
    except Exception as error:  # of the exporter, or of the module's own code
        raise DataError(f"{file}: PyTorch cannot export it: {_reason(error)}") from error
    _finish(request)
    difference = difference_of(expected, request.target, images, file)
    warnings: tuple[str, ...] = ()
    if difference is None:
        why = why_not_run(request.target)
        warnings = (f"outputs were not compared: ONNX Runtime cannot run the file ({why})",)
    return Imported(title=source.title, tools=f"torch {torch.__version__}", difference=difference, warnings=warnings)


def _source(torch: Any, request: ImportRequest) -> Source:
    first, shape = request.sources[0], request.input_shape
    before, _, name = first.rpartition(":")
    if before.endswith(".py"):
        return _of_python_file(torch, Path(before), name, request)
    path = Path(first)
    if path.suffix == ".py":
        raise DataError(f"{path}: name the module too, as {path}:Net; expected {TAKES}")
    if len(request.sources) != 1:
        raise DataError(f"{len(request.sources)} files given; expected {TAKES}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected {TAKES}")
    names = _members(path)
    if not names:
        raise DataError(f"{path}: is no file of PyTorch's, or a truncated one ({path.stat().st_size} bytes)")
    if any(member.endswith(".py") for member in names):
        if not shape:
            raise DataError(f"{path}: does not tell the shape of its input; give --input-shape, as 1,28,28")
        return Source(module=torch.jit.load(str(path)).eval(), title=path.stem, shape=shape, is_script=True)
    if path.suffix == ".pt2":
        program = torch.export.load(str(path))
        example = tuple(program.example_inputs[0]) if program.example_inputs else ()
        if len(example) != 1:
            raise DataError(f"{path}: has {len(example)} example inputs; expected one, the images")
        shape, batch = tuple(example[0].shape[1:]), _fixed_batch(program)
        return Source(module=program.module(), title=path.stem, shape=shape, program=program, batch=batch)
    raise DataError(
        f"{path}: holds weights or a pickled module, which say nothing of the net; give NET.py:NAME and its weights "
        "(a state dict), or save the net with torch.export.save"
    )


def _of_python_file(torch: Any, path: Path, name: str, request: ImportRequest) -> Source:
    """Return the module that an object of a Python file is or makes, with the weights of a second source."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected {TAKES}")
    if not request.input_shape:
        raise DataError(f"{path}: does not tell the shape of its input; give --input-shape, as 1,28,28")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path}: cannot be imported")
    file = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, file)
    spec.loader.exec_module(file)
    if not hasattr(file, name):
        raise DataError(
            f"{path}: holds no {name!r}; expected a torch.nn.Module, its class, or a function that makes one"
        )
    found = getattr(file, name)
    module = found if isinstance(found, torch.nn.Module) else found()
    if not isinstance(module, torch.nn.Module):
        raise DataError(f"{path}: {name} gives {type(module).__name__}; expected a torch.nn.Module")
    for weights in request.sources[1:]:
        module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return Source(
        module=module.eval(),
        title=name,
        shape=request.input_shape,
        translations=getattr(file, TRANSLATIONS, None),
    )


def _export(torch: Any, source: Source, request: ImportRequest) -> None:
    example = torch.from_numpy(random_images(source.shape)[:EXAMPLE_BATCH])
    output = request.output_name or OUTPUT
    named: dict[str, Any] = {"input_names": [INPUT], "output_names": [output], "verbose": False}
    if source.is_script:
        free = {name: {0: "N"} for name in (INPUT, output)}
        torch.onnx.export(
            source.module,
            (example,),
            str(request.target),
            dynamo=False,
            dynamic_axes=free,
            opset_version=SCRIPT_OPSET,
            **named,
        )
        return
    free_batch = {"args": (example,), "dynamic_shapes": ({0: torch.export.Dim("N", min=1)},)}
    program = torch.onnx.export(
        source.program or source.module,
        dynamo=True,
        opset_version=OPSET,
        custom_translation_table=source.translations,
        **({} if source.program else free_batch),
        **named,
    )
    program.save(str(request.target), external_data=False)


def _finish(request: ImportRequest) -> None:
    """Name the free batch and lower the IR version to that of the operator set."""
    import onnx

    model = onnx.load(str(request.target))
    model.ir_version = min(model.ir_version, IR_VERSION)
    for value in (*model.graph.input, *model.graph.output):
        size = value.type.tensor_type.shape.dim[0] if value.type.tensor_type.shape.dim else None
        if size is not None and size.dim_param:
            size.dim_param = "N"
    onnx.save(model, str(request.target))


def _fixed_batch(program: Any) -> int | None:
    """Return the batch that a program was exported for, None where it is free."""
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and "val" in node.meta]
    batch = shapes[-1][0] if shapes and shapes[-1] else None  # weights come first, the images last
    return batch if isinstance(batch, int) else None


def _members(path: Path) -> list[str]:
    """Return the names in PyTorch's archive, none where it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


def _reason(error: Exception) -> str:
    """Return the line that says why: the exporter wraps it and paints its own."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", one_line(cause))
    return f"{type(cause).__name__}: {text}"


TAKES = "NET.py:NAME [STATE_DICT.pt], PROGRAM.pt2 or SCRIPT.pt"
IMPORTER = Importer(
    name="torch",
    summary="PyTorch: a module of a Python file, an exported program or TorchScript",
    takes=TAKES,
    convert=convert,
    required_modules=("torch", "onnxscript", "onnx", "onnxruntime"),
    install_hint="pip install 'nn-engine-harness[import-torch]'",
)
