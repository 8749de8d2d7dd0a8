"""The house holds: every import goes down, and no part grows beyond its limit. Read from the source, nothing is run."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Rooms from the ground up: a module imports its own room and those before it in this list.
ROOMS = (
    "errors",
    "specs",
    "records",
    "protocols",
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
    "fleet",
    "testing",
    "plugin",
    "cli",
    "__main__",
)
RUNTIMES = {"onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "nncf", "torch"}
RUNTIMES |= {"tensorflow", "tf2onnx", "keras", "onnxscript", "google", "pynvml"}
RUNTIME_HOMES = ("backends", "precision", "models", "testing")

MAX_ENTRIES = 22
MAX_FAN_OUT = 10
MAX_FAN_OUT_OF = {"harness.plugin": 12, "harness.cli.runs": 12, "harness.run.session": 12}
MAX_CLASS_LINES = 150
MAX_ATTRIBUTES = 12
MAX_FUNCTION_LINES = 60


def load_house():
    spec = importlib.util.spec_from_file_location("house", ROOT / "benchmarks" / "house.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


house = load_house()
MODULES = house.read_package(ROOT)


# -- rooms


def room_of(module):
    return module.name.split(".")[1]


def upward_imports(module, modules):
    mine = ROOMS.index(room_of(module))
    for target, line in house.imports(module, modules):
        if target != "harness" and ROOMS.index(target.split(".")[1]) > mine:
            yield f"{module.path}:{line} imports {target}, a room further up"


def outside_imports(module):
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0], node.lineno


def test_every_module_has_a_room():
    names = {room_of(module) for module in MODULES.values() if module.name != "harness"}
    assert names == set(ROOMS), "tests/test_layering.py and docs/architecture.md list the rooms"


@pytest.mark.parametrize("module", [m for m in MODULES.values() if m.name != "harness"], ids=lambda m: m.path)
def test_imports_go_down(module):
    assert not list(upward_imports(module, MODULES))


@pytest.mark.parametrize("module", [m for m in MODULES.values() if m.name != "harness"], ids=lambda m: m.path)
def test_runtimes_are_imported_in_adapters_only(module):
    runtimes = [f"{name}:{line}" for name, line in outside_imports(module) if name in RUNTIMES]
    assert room_of(module) in RUNTIME_HOMES or not runtimes


def test_pytest_and_typer_are_imported_in_one_room_each():
    users = {name: set() for name in ("pytest", "typer")}
    for module in MODULES.values():
        for name, _ in outside_imports(module):
            if name in users:
                users[name].add(room_of(module))
    assert users == {"pytest": {"plugin", "testing"}, "typer": {"cli"}}


# -- limits: every check returns what breaks it


def over(numbers, limit):
    return [f"{name}: {number}, limit {limit}" for name, number in numbers.items() if number > limit]


def too_many_entries(root, _):
    return over({"harness/": len(house.entries(root))}, MAX_ENTRIES)


def too_many_imports(_, modules):
    for name, targets in house.arrows(modules).items():
        yield from over({name: len(targets)}, MAX_FAN_OUT_OF.get(name, MAX_FAN_OUT))


def long_classes(_, modules):
    return over({where: house.length(node) for where, node in house.classes(modules).items()}, MAX_CLASS_LINES)


def too_many_attributes(_, modules):
    return over({where: len(house.attributes(node)) for where, node in house.classes(modules).items()}, MAX_ATTRIBUTES)


def long_functions(_, modules):
    return over({where: house.length(node) for where, node in house.functions(modules).items()}, MAX_FUNCTION_LINES)


CHECKS = {
    "entries": too_many_entries,
    "fan-out": too_many_imports,
    "class length": long_classes,
    "attributes": too_many_attributes,
    "function length": long_functions,
    "circles": lambda _, modules: house.circles(house.arrows(modules)),
    "annotations": lambda _, modules: house.unannotated(modules),
    "name tests": lambda _, modules: house.name_tests(modules),
    "backend branches": lambda _, modules: house.backend_branches(modules),
    "cuda twins": lambda _, modules: house.twins(modules),
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_house_keeps_its_limits(check):
    broken = list(CHECKS[check](ROOT, MODULES))
    assert not broken, f"{check}: {broken}"


# -- every check finds a small bad example, and leaves its good neighbour alone


def package(root, files):
    """Write files below root/harness, and read them as the package."""
    for path, source in files.items():
        (root / "harness" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "harness" / path).write_text(source)
    return house.read_package(root)


def block(head, lines):
    return "\n".join([head, *(f"    {line}" for line in lines)]) + "\n"


def importing(count):
    return {f"m{i}.py": "" for i in range(count)} | {"many.py": "".join(f"import harness.m{i}\n" for i in range(count))}


ANNOTATIONS = """\
class C:
    def good(self, *, x: int) -> None: ...
    def bad(self, *rest) -> None: ...
def bare(x: int): ...
"""
ASSIGNING = """\
class C:
    def f(self):
        self.a, self.b = self.c = 1, 2
        with open("x") as self.file: self.file.position = 0
    def g(self):
        self.a += other.d
"""
NAME_TESTS = """\
a = case.recipe.startswith("trt-")
b = "-int8" in row["id"]
c = backend.name.removeprefix("ort")
d = case_id[:4]
e = path.name.endswith(".gz")
f = case.recipe in VENDOR_RECIPES
"""
BACKEND_BRANCHES = """\
a = case.backend == "ort-cuda"
b = case.backend in ("trt", "ort")
match backend:
    case "trt": ...
c = case.backend == REFERENCE_BACKEND
"""
TWINS = """\
class {name}:
    def close(self) -> None:
        self.context.{verb}()
        self.stream = self.context = self.buffers = None
    def infer(self, {given}): ...
"""
BAD = {  # check -> (files of a package, what breaks the limit)
    "entries": ({f"m{i}.py": "" for i in range(23)} | {"py.typed": ""}, ["harness/: 23, limit 22"]),
    "fan-out": (importing(11), ["harness.many: 11, limit 10"]),
    "class length": (
        {"m.py": block("class A:", ["0"] * 149) + block("class B:", ["0"] * 150)},
        ["harness/m.py:B: 151, limit 150"],
    ),
    "attributes": (
        {
            "m.py": block("class C:\n  def f(self):", [f"self.a{i} = 0" for i in range(13)]),
            "frozen.py": block("@dataclass(frozen=True)\nclass Row:", [f"a{i}: int" for i in range(13)]),
            "state.py": block("@dataclass\nclass State:", [f"a{i}: int" for i in range(13)]),
        },
        ["harness/m.py:C: 13, limit 12", "harness/state.py:State: 13, limit 12"],
    ),
    "function length": (
        {"m.py": block("def short():", ["0"] * 59) + block("async def long():", ["0"] * 60)},
        ["harness/m.py:61 long: 61, limit 60"],
    ),
    "circles": (
        {
            "a.py": "def f():\n    from harness.b import g",
            "b.py": "from harness.c import h",
            "c.py": "from . import a",
            "d.py": "import harness.a",
        },
        [["harness.a", "harness.b", "harness.c"]],
    ),
    "annotations": ({"m.py": ANNOTATIONS}, ["harness/m.py:3 bad", "harness/m.py:4 bare"]),
    "name tests": (
        {"m.py": NAME_TESTS},
        [
            "harness/m.py:1 case.recipe.startswith",
            "harness/m.py:2 '-int8' in row['id']",
            "harness/m.py:3 backend.name.removeprefix",
            "harness/m.py:4 case_id[:4]",
        ],
    ),
    "backend branches": (
        {
            "m.py": BACKEND_BRANCHES,
            "backends/ort_cuda.py": "a = case.backend == 'ort-cuda'",
            "backends/trt/engine.py": "a = case.backend == 'trt'\nb = case.backend == 'trt-rtx'",
        },
        [
            "harness/backends/trt/engine.py:2 case.backend == 'trt-rtx'",
            "harness/m.py:1 case.backend == 'ort-cuda'",
            "harness/m.py:2 case.backend in ('trt', 'ort')",
            "harness/m.py:3 match backend",
        ],
    ),
    "cuda twins": (
        {
            "a.py": TWINS.format(name="TrtEngine", verb="pop", given="batch, out"),
            "b.py": TWINS.format(name="OrtCudaEngine", verb="end", given="images"),
        },
        ["close"],
    ),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_broken_limit_is_found(check, tmp_path):
    files, broken = BAD[check]
    assert list(CHECKS[check](tmp_path, package(tmp_path, files))) == broken


def test_an_upward_import_is_found(tmp_path):
    files = {
        "plugin.py": "",
        "run/plan.py": "from .. import plugin\n",
        "stats/means.py": "def f():\n    from harness import plugin\n",
    }
    modules = package(tmp_path, files)
    assert [line for module in modules.values() for line in upward_imports(module, modules)] == [
        "harness/run/plan.py:1 imports harness.plugin, a room further up",
        "harness/stats/means.py:2 imports harness.plugin, a room further up",
    ]


def test_imports_are_counted_by_what_they_name(tmp_path):
    files = {
        "__init__.py": "__version__ = '1'",
        "errors.py": "",
        "gates/__init__.py": "",
        "gates/floor.py": "",
        "cli.py": "import harness.gates.floor\nfrom harness import errors, __version__\nfrom harness.gates import holm",
        "late.py": "if TYPE_CHECKING:\n    from harness import cli\nelse:\n    import harness.errors",
    }
    modules = package(tmp_path, files)
    assert house.arrows(modules)["harness.cli"] == {"harness.errors", "harness.gates", "harness.gates.floor"}
    assert house.arrows(modules)["harness.late"] == {"harness.cli", "harness.errors"}
    assert house.arrows(modules, nested=False)["harness.late"] == {"harness.errors"}
    assert house.room_arrows(modules)["harness.cli"] == {"harness.errors", "harness.gates"}


def test_attributes_are_what_a_class_assigns_through_self(tmp_path):
    modules = package(tmp_path, {"m.py": ASSIGNING})
    assert house.attributes(house.classes(modules)["harness/m.py:C"]) == {"a", "b", "c", "file"}


def test_a_checkout_without_the_package_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the package's Python files"):
        house.read_package(tmp_path)


def test_twins_that_are_not_there_are_not_zero(tmp_path):
    modules = package(tmp_path, {"a.py": "class TrtEngine: ...\n"})
    with pytest.raises(LookupError, match="expected the classes TrtEngine and OrtCudaEngine"):
        house.twins(modules)


def test_words_are_counted_by_file(tmp_path):
    modules = package(tmp_path, {"a.py": "a = '--floor', 'baseline'", "b.py": "b = f'{x} --floor', '--floor'"})
    assert house.files_with(modules, "baseline") == ["harness/a.py"]
    assert house.flag_files(modules) == {"--floor": ["harness/a.py", "harness/b.py"]}


def test_this_checkout_is_measured():
    table = house.measure(ROOT)
    assert table["annotated"] == 1
    assert table["modules"] == len(MODULES)
    text = house.as_text(table)
    assert "annotated                    100.0%" in text
    assert "largest fan outs\n    harness." in text


# -- the words


ENTRY = re.compile(r"^- \*\*(.+?)\*\*: ", re.MULTILINE)
HOLDER = re.compile(r"(?:`(\w+)`\s+in\s+)?\[(harness/[\w./]+)\]\((\S+)\)")


def wrong_holders(text, root):
    """Yield the files and names of a glossary that are not there."""
    for name, label, target in HOLDER.findall(text):
        path = (root / "docs" / target).resolve()
        if path != (root / label).resolve() or not path.exists():
            yield label
        elif name and not re.search(rf"^(?:class |def )?{name}\b", path.read_text(), re.MULTILINE):
            yield f"{name} in {label}"


def test_the_glossary_is_in_order_and_names_what_is_there():
    text = (ROOT / "docs" / "glossary.md").read_text()
    words = ENTRY.findall(text)
    assert words == sorted(set(words))
    assert len(words) == len(re.findall("^- ", text, re.MULTILINE))
    assert len(HOLDER.findall(text)) == text.count("](../harness")
    assert not list(wrong_holders(text, ROOT))


def test_a_word_whose_holder_has_gone_is_found():
    text = "`Case` in\n [harness/specs.py](../harness/specs.py), `Absent` in [harness/specs.py](../harness/specs.py), "
    text += "[harness/absent.py](../harness/absent.py), [harness/specs.py](../harness/records.py)"
    assert list(wrong_holders(text, ROOT)) == ["Absent in harness/specs.py", "harness/absent.py", "harness/specs.py"]
