"""Every import inside harness/ goes down: read with `ast`, function-level and TYPE_CHECKING imports included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Rooms from the ground up: a module imports its own room and those before it in this list.
ROOMS = (
    "errors",
    "specs",
    "records",
    "protocols",
    "discovery",
    "options",
    "stats",
    "gates",
    "store",
    "machine",
    "tasks",
    "datasets",
    "models",
    "precision",
    "backends",
    "measure",
    "worker",
    "report",
    "run",
    "plugin",
    "cli",
)
RUNTIMES = {"onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "nncf", "torch"}
RUNTIME_HOMES = ("backends", "precision", "models")


def modules():
    return sorted((ROOT / "harness").rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "harness":
                yield from ((f"harness.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def top_name(path):
    return path.relative_to(ROOT / "harness").with_suffix("").parts[0]


def upward_imports(path):
    mine = ROOMS.index(top_name(path))
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "harness" or len(parts) == 1 or parts[1] == "__version__":
            continue
        if ROOMS.index(parts[1]) > mine:
            yield f"{path.relative_to(ROOT)}:{line} imports {module}, a room further up"


def test_every_module_has_a_room():
    names = {top_name(path) for path in modules()} - {"__init__"}
    assert names == set(ROOMS), "tests/test_layering.py and docs/architecture.md list the rooms"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    if path.name == "__init__.py" and path.parent.name == "harness":
        return
    assert not list(upward_imports(path))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_runtimes_are_imported_in_adapters_only(path):
    found = [f"{m}:{line}" for m, line in imports(path) if m.split(".")[0] in RUNTIMES]
    assert top_name(path) in RUNTIME_HOMES or not found


def test_pytest_and_typer_are_imported_once():
    users = {name: set() for name in ("pytest", "typer")}
    for path in modules():
        for module, _ in imports(path):
            if module.split(".")[0] in users:
                users[module.split(".")[0]].add(path.name)
    assert users == {"pytest": {"plugin.py"}, "typer": {"cli.py"}}


def test_an_upward_import_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    bad = tmp_path / "harness" / "stats" / "means.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("def f():\n    from harness import plugin\n")
    assert list(upward_imports(bad)) == ["harness/stats/means.py:2 imports harness.plugin, a room further up"]
