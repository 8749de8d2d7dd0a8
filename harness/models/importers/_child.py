"""The process that converts: it may import any framework, crash or hang, and it says how it ended in JSON lines."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import msgspec

from harness.errors import BackendUnavailable, BuildError, DataError, HarnessError
from harness.models.importers import Imported, Importer, ImportRequest, find_importer
from harness.models.inspection import inspect_onnx
from harness.models.onnx_graph import check_model, load_model, one_line
from harness.options.discovery import add_extension_dir
from harness.specs import ModelSpec

CODE = "from harness.models.importers._child import main; main(sys.argv[1])"


class Order(msgspec.Struct, kw_only=True):
    """What the child is asked for."""

    importer: str
    request: ImportRequest
    extension_dirs: tuple[str, ...] = ()


class Done(msgspec.Struct, kw_only=True):
    """What the child found: what the importer says, and what the ONNX file says of itself."""

    imported: Imported
    spec: ModelSpec


def encode_order(order: Order) -> str:
    """Return an order as JSON, for `main`."""
    return msgspec.json.encode(order, enc_hook=str).decode()


def main(order: str) -> None:
    """Convert as ordered (JSON) and print one line: {"step": "done" or "error", ...}."""
    asked = msgspec.json.decode(order, type=Order, dec_hook=lambda kind, text: kind(text))  # a path
    try:
        answer = {"step": "done", "done": msgspec.to_builtins(_done(asked))}
    except HarnessError as error:
        answer = {"step": "error", "kind": type(error).__name__, "message": str(error)}
    # A framework may have left a line unfinished.
    print(f"\n{json.dumps(answer)}", flush=True)


def _done(order: Order) -> Done:
    for folder in order.extension_dirs:
        add_extension_dir(folder)
    importer, request = find_importer(order.importer), order.request
    missing = [name for name in importer.required_modules if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendUnavailable(f"importer {importer.name} needs {', '.join(missing)}; {importer.install_hint}")
    imported = _converted(importer, request)
    if not request.target.is_file():
        raise BuildError(f"importer {importer.name} wrote no file for {request.sources[0]}")
    if imported.spec is not None:
        return Done(imported=imported, spec=imported.spec)
    source = request.sources[0]
    try:
        if not any(node.domain not in ("", "ai.onnx") for node in load_model(request.target).graph.node):
            check_model(request.target)  # a foreign domain has no schema to check
        spec = inspect_onnx(request.target)
    except (BuildError, DataError) as error:
        raise DataError(str(error).replace(str(request.target), f"{source}, imported")) from error
    return Done(imported=imported, spec=spec)


def _converted(importer: Importer, request: ImportRequest) -> Imported:
    try:
        return importer.convert(request)
    except HarnessError:
        raise
    except Exception as error:  # a framework's own kinds; none may reach the user as a traceback
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise DataError(f"{Path(request.sources[0])}: importer {importer.name} cannot convert it ({reason})") from error
