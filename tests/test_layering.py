"""Every import inside harness/ goes down: read with `ast`, function-level and TYPE_CHECKING imports included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {
    0: ("errors", "specs", "records", "requests", "options", "protocols"),
    1: ("stats", "preprocess", "metrics", "cache", "cpu", "layers", "onnx_graph", "changes"),
    2: (
        "drift",
        "compare",
        "clocks",
        "cuda_driver",
        "cuda",
        "environment",
        "datasets",
        "precision",
        "backends",
        "models",
    ),
    3: ("measure", "invariance", "tolerances", "store", "baselines", "history", "comparisons", "render", "reports"),
    4: ("pipeline",),
    5: ("workers", "plan", "doctor", "commands", "case_run", "session"),
    6: ("option_table", "plugin", "cli"),
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
# Within these layers modules import one another, in the order written above or inside one package.
ORDERED = {0: LAYERS[0], 1: LAYERS[1], 2: LAYERS[2], 3: LAYERS[3], 5: LAYERS[5], 6: LAYERS[6]}
RUNTIMES = {"onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "nncf", "torch"}
RUNTIME_HOMES = ("backends", "precision", "models", "cuda", "onnx_graph")


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
    mine = top_name(path)
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "harness" or len(parts) == 1 or parts[1] == mine or parts[1] == "__version__":
            continue
        theirs = parts[1]
        if LAYER_OF[theirs] > LAYER_OF[mine]:
            yield f"{path.relative_to(ROOT)}:{line} imports {module}: layer {LAYER_OF[theirs]} from {LAYER_OF[mine]}"
        elif LAYER_OF[theirs] == LAYER_OF[mine]:
            order = ORDERED[LAYER_OF[mine]]
            if order.index(theirs) > order.index(mine):
                yield f"{path.relative_to(ROOT)}:{line} imports {module}, which stands later in its layer"


def test_every_module_has_a_layer():
    names = {top_name(path) for path in modules()} - {"__init__"}
    assert names == set(LAYER_OF), "tests/test_layering.py and docs/architecture.md list the modules"


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
    bad = tmp_path / "harness" / "stats.py"
    bad.parent.mkdir()
    bad.write_text("def f():\n    from harness import plugin\n")
    assert list(upward_imports(bad)) == ["harness/stats.py:2 imports harness.plugin: layer 6 from 1"]
