"""Measure how a checkout is built: the table of "the house", from the syntax trees alone; nothing is imported.

    python benchmarks/house.py [--root DIR] [--json]

Definitions, which tests/test_layering.py shares:

- entries: files and folders directly in `harness/`, without `__init__.py`, `__main__.py`, `py.typed`, `__pycache__`
- module: a `.py` file; arrow: a module that imports another one of the package, each pair once, wherever the import
  stands (in a function and under TYPE_CHECKING too). A name taken from a package is an arrow to the package, a
  submodule taken from it one to the submodule. Imports by a computed name (`importlib`) are not seen
- room: an entry of the package; the arrows between rooms are those of their modules, each pair once
- fan-out of a module: the arrows that leave it; `harness` itself, which holds the version, is not counted
- circle: modules that import one another in a ring, at import (statements that run) or also by nested imports
- length: lines from `def` or `class` to the last line, the docstring included, decorators not
- attributes of a class: names assigned through `self` in its own methods, and the fields of a dataclass that can
  change; those of its bases are theirs. The fields of a frozen dataclass are data and not counted
- annotated: every parameter but `self` and `cls`, and the return value; lambdas aside
- gate "baseline": files with that string constant; the gate's own file is one of them
- option flag: files with a string constant that is exactly the flag, such as "--batch-size"
- twins: methods of one name in TrtEngine and OrtCudaEngine whose source, without comments and layout, is at least 0.9
  alike by `difflib`
- name test: a recipe's, backend's or case's name that is asked for its parts (`startswith`, `split`, a slice,
  `"-int8" in id`); backend branch: a backend's name compared with a string outside that backend's own file or folder
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import re
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "harness"
UNCOUNTED_ENTRIES = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
MAX_CLASS_LINES = 150
MAX_FUNCTION_LINES = 60
NAMES = {"recipe", "backend", "case_id", "id", "recipe_name", "backend_name"}  # of things that say what they are
PART_METHODS = {"startswith", "endswith", "removeprefix", "removesuffix", "split", "rsplit", "partition", "rpartition"}
FLAG = re.compile(r"--[a-z0-9][a-z0-9-]+")
GATE = "baseline"
TWIN_CLASSES = ("TrtEngine", "OrtCudaEngine")
TWIN_LIKENESS = 0.9

Function = ast.FunctionDef | ast.AsyncFunctionDef
Arrows = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str  # dotted: harness.gates.floor; a package bears its folder's name
    path: str  # below the checkout
    is_package: bool
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        """Return the syntax tree."""
        return ast.parse(self.source, self.path)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Return all nodes in the order of their lines; walked once, because every check asks for them."""
        return tuple(sorted(ast.walk(self.tree), key=lambda node: getattr(node, "lineno", 0)))

    @property
    def room(self) -> str:
        """Return the entry of the package that the module lies in."""
        return ".".join(self.name.split(".")[:2])


def read_package(root: Path) -> dict[str, Module]:
    """Return every module of `root`/harness by its dotted name. Raises: FileNotFoundError without any."""
    modules = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        relative = path.relative_to(root)
        parts = relative.with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, relative.as_posix(), is_package, path.read_text(encoding="utf-8"))
    if not modules:
        raise FileNotFoundError(f"{root / PACKAGE}: expected the package's Python files")
    return modules


def entries(root: Path) -> list[str]:
    """Return the names of what lies directly in the package."""
    return sorted(path.name for path in (root / PACKAGE).iterdir() if path.name not in UNCOUNTED_ENTRIES)


# -- imports


def imports(module: Module, names: Collection[str], *, nested: bool = True) -> Iterator[tuple[str, int]]:
    """Yield (module of `names`, line) of every import; `nested`: those in functions and under TYPE_CHECKING too."""
    for node in module.nodes if nested else _run_at_import(module.tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            targets = [f"{_absolute(node, module)}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((known, node.lineno) for target in targets if (known := _known(target, names)))


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*parts, node.module] if node.module else parts)


def _known(name: str, names: Collection[str]) -> str:
    """Return the longest leading part of a dotted name that is a module; "" when none is."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from (found for other in child.orelse for found in (other, *_run_at_import(other)))
            continue
        yield child
        yield from _run_at_import(child)


def arrows(modules: Mapping[str, Module], *, nested: bool = True) -> dict[str, set[str]]:
    """Return what every module imports of the package, the package itself left out."""
    return {
        m.name: {target for target, _ in imports(m, modules, nested=nested)} - {PACKAGE, m.name}
        for m in modules.values()
    }


def room_arrows(modules: Mapping[str, Module]) -> dict[str, set[str]]:
    """Return what every room imports of other rooms."""
    rooms: dict[str, set[str]] = {m.room: set() for m in modules.values() if m.name != PACKAGE}
    for name, targets in arrows(modules).items():
        room = modules[name].room
        if room != PACKAGE:
            rooms[room] |= {modules[target].room for target in targets} - {room}
    return rooms


def circles(graph: Arrows) -> list[list[str]]:
    """Return the sets of modules that reach one another, each sorted."""
    reached = {name: _reached(name, graph) for name in graph}
    rings = {tuple(sorted(m for m in reached[name] if name in reached[m])) for name in graph if name in reached[name]}
    return [list(ring) for ring in sorted(rings)]


def _reached(start: str, graph: Arrows) -> set[str]:
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(graph[name])
    return reached


# -- classes and functions


def classes(modules: Mapping[str, Module]) -> dict[str, ast.ClassDef]:
    """Return every class by `path:name`."""
    return {f"{m.path}:{n.name}": n for m in modules.values() for n in m.nodes if isinstance(n, ast.ClassDef)}


def functions(modules: Mapping[str, Module]) -> dict[str, Function]:
    """Return every function and method by `path:line name`."""
    return {f"{m.path}:{n.lineno} {n.name}": n for m in modules.values() for n in m.nodes if isinstance(n, Function)}


def length(node: ast.ClassDef | Function) -> int:
    """Return the number of lines from `def` or `class` to the last."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def methods(node: ast.ClassDef) -> list[Function]:
    """Return the functions of a class's own body."""
    return [child for child in node.body if isinstance(child, Function)]


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the names that a class assigns through `self`, and the fields of a dataclass that can change."""
    names = {
        found.attr
        for method in methods(node)
        for found in ast.walk(method)
        if isinstance(found, ast.Attribute)
        and isinstance(found.ctx, ast.Store)
        and isinstance(found.value, ast.Name)
        and found.value.id == "self"
    }
    if _is_dataclass(node) and not _is_frozen(node):
        names |= fields(node)
    return names


def fields(node: ast.ClassDef) -> set[str]:
    """Return the fields of a dataclass or named tuple; of another class, the names its body annotates."""
    return {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _is_frozen(node: ast.ClassDef) -> bool:
    return any("frozen=True" in ast.unparse(decorator) for decorator in node.decorator_list)


def unannotated(modules: Mapping[str, Module]) -> list[str]:
    """Return the functions that leave a parameter or what they return without a type."""
    owned = {id(method) for node in classes(modules).values() for method in methods(node)}
    return [where for where, node in functions(modules).items() if not _is_annotated(node, id(node) in owned)]


def _is_annotated(node: Function, is_method: bool) -> bool:
    given = node.args
    parameters = [*given.posonlyargs, *given.args]
    if is_method and not any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list):
        parameters = parameters[1:]
    parameters += [*given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return node.returns is not None and all(parameter.annotation is not None for parameter in parameters)


# -- words


def files_with(modules: Mapping[str, Module], text: str) -> list[str]:
    """Return the files with a string constant that is exactly `text`."""
    return sorted(m.path for m in modules.values() if text in _strings(m))


def flag_files(modules: Mapping[str, Module]) -> dict[str, list[str]]:
    """Return option flag -> the files that write it as a whole string."""
    files: dict[str, list[str]] = {}
    for module in modules.values():
        for text in sorted(filter(FLAG.fullmatch, _strings(module))):
            files.setdefault(text, []).append(module.path)
    return dict(sorted(files.items()))


def _strings(module: Module) -> set[str]:
    return {n.value for n in module.nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def twins(modules: Mapping[str, Module]) -> dict[str, float]:
    """Return method -> likeness [fraction] of the pairs that two CUDA engines write almost alike.

    Raises: LookupError when one of the two classes is not there.
    """
    engines = {node.name: node for node in classes(modules).values() if node.name in TWIN_CLASSES}
    if len(engines) < len(TWIN_CLASSES):
        raise LookupError(f"not measured: expected the classes {' and '.join(TWIN_CLASSES)}")
    ours, theirs = ({m.name: ast.unparse(m) for m in methods(engines[name])} for name in TWIN_CLASSES)
    alike = {n: difflib.SequenceMatcher(None, ours[n], theirs[n], False).ratio() for n in ours if n in theirs}
    return {name: round(ratio, 3) for name, ratio in alike.items() if ratio >= TWIN_LIKENESS}


# -- names that are asked what a thing is


def name_tests(modules: Mapping[str, Module]) -> list[str]:
    """Return where a recipe's, backend's or case's name is asked for its parts, as `path:line expression`."""
    return _places(modules, lambda node, _: _asks_for_parts(node))


def _asks_for_parts(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in PART_METHODS and _is_name(node.value)
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Slice) and _is_name(node.value)
    if isinstance(node, ast.Compare):
        pairs = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
        return any(isinstance(op, ast.In | ast.NotIn) and any(_text(left)) and _is_name(in_) for left, op, in_ in pairs)
    return False


def _is_name(node: ast.expr, names: Collection[str] = frozenset(NAMES)) -> bool:
    """Tell whether an expression ends in one of the names: `case.recipe`, `row["id"]`, `backend`, `recipe.name`."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value in names
    if isinstance(node, ast.Attribute):
        return node.attr in names or (node.attr == "name" and _is_name(node.value, names))
    return isinstance(node, ast.Name) and node.id in names


def _text(node: ast.AST) -> Iterator[str]:
    """Yield the string that a constant holds, or each of a tuple, list or set of constants."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        yield from (text for element in node.elts for text in _text(element))


def backend_branches(modules: Mapping[str, Module]) -> list[str]:
    """Return where a backend's name is compared with a string outside its own file, as `path:line expression`."""
    return _places(modules, lambda node, path: any(not _is_home(path, name) for name in _compared_backends(node)))


def _compared_backends(node: ast.AST) -> Iterator[str]:
    names = ("backend", "backend_name")
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        if any(_is_name(side, names) for side in sides):
            yield from (text for side in sides for text in _text(side) if text)
    elif isinstance(node, ast.Match) and _is_name(node.subject, names):
        yield from (text for case in node.cases for part in ast.walk(case.pattern) for text in _text(part))


def _is_home(path: str, backend: str) -> bool:
    own = f"{PACKAGE}/backends/{backend.replace('-', '_')}"
    return path == f"{own}.py" or path.startswith(f"{own}/")


def _places(modules: Mapping[str, Module], is_bad: Callable[[ast.AST, str], bool]) -> list[str]:
    places = []
    for module in modules.values():
        for node in module.nodes:
            if is_bad(node, module.path):
                source = f"match {ast.unparse(node.subject)}" if isinstance(node, ast.Match) else ast.unparse(node)
                places.append(f"{module.path}:{getattr(node, 'lineno', 0)} {source}")
    return places


# -- the table


def measure(root: Path) -> dict[str, object]:
    """Return every number of the table, with the names behind it."""
    modules = read_package(root)
    graph, rooms = arrows(modules), room_arrows(modules)
    fan_outs = {name: len(targets) for name, targets in graph.items()}
    class_lines = {where: length(node) for where, node in classes(modules).items()}
    class_attributes = {where: len(attributes(node)) for where, node in classes(modules).items()}
    frozen = {where: len(fields(n)) for where, n in classes(modules).items() if _is_dataclass(n) and _is_frozen(n)}
    function_lines = {where: length(node) for where, node in functions(modules).items()}
    flags = {flag: files for flag, files in flag_files(modules).items() if len(files) > 1}
    without = unannotated(modules)
    return {
        "entries": len(entries(root)),
        "modules": len(modules),
        "module_arrows": sum(map(len, graph.values())),
        "rooms": len(rooms),
        "room_arrows": sum(map(len, rooms.values())),
        "largest_fan_outs": _largest(fan_outs),
        "long_classes": {where: n for where, n in class_lines.items() if n > MAX_CLASS_LINES},
        "most_attributes": _largest(class_attributes),
        "largest_frozen_dataclasses": _largest(frozen),
        "long_functions": {where: n for where, n in function_lines.items() if n > MAX_FUNCTION_LINES},
        "median_function": statistics.median(function_lines.values()),
        "longest_functions": _largest(function_lines),
        "circles_at_import": circles(arrows(modules, nested=False)),
        "circles_with_nested": circles(graph),
        "functions": len(function_lines),
        "unannotated": without,
        "annotated": 1 - len(without) / len(function_lines),
        "baseline_files": files_with(modules, GATE),
        "flags_in_several_files": flags,
        "most_places_of_a_flag": max(map(len, flag_files(modules).values()), default=0),
        "cuda_twins": _twins_or_reason(modules),
        "name_tests": name_tests(modules),
        "backend_branches": backend_branches(modules),
    }


def _twins_or_reason(modules: Mapping[str, Module]) -> dict[str, float] | str:
    try:
        return twins(modules)
    except LookupError as error:
        return str(error)


def _largest(numbers: Mapping[str, int], count: int = 5) -> dict[str, int]:
    return dict(sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:count])


def as_text(found: Mapping[str, object]) -> str:
    """Return the table, one row a line: what, how much, and the names behind it."""
    rows = []
    for key, value in found.items():
        label = key.replace("_", " ")
        if isinstance(value, dict | list):
            named = value.items() if isinstance(value, dict) else ((item, None) for item in value)
            rows.append(f"{label:28} {len(value)}" if not _is_ranking(key) else label)
            rows += [
                f"    {_plain(name)}" + (f": {_plain(number)}" if number is not None else "") for name, number in named
            ]
        else:
            rows.append(f"{label:28} {f'{value:.1%}' if key == 'annotated' else value}")
    return "\n".join(rows)


def _is_ranking(key: str) -> bool:
    return key in ("largest_fan_outs", "most_attributes", "largest_frozen_dataclasses", "longest_functions")


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def main() -> None:
    """Print the table of one checkout."""
    parser = argparse.ArgumentParser(description="Measure how a checkout is built.")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="checkout (default: this one)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    found = measure(given.root.absolute())
    print(json.dumps(found, indent=1) if given.json else as_text(found))


if __name__ == "__main__":
    main()
