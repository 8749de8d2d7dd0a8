"""Mutation testing of what decides: each mutant of gates/, stats/ and tasks/ must turn a test red.

    pip install -e '.[test,mutation]'
    python benchmarks/mutants.py --n 300 --results mutants.jsonl             # goes on where an earlier call stopped
    python benchmarks/mutants.py --n 300 --results mutants.jsonl --write     # also into docs/reliability.md

Mutants are Cosmic Ray's. A sample is drawn by place, then by operator at that place, with a seed; a larger one begins
with a smaller one. Each mutant meets the tests that run its line (coverage's contexts; those of a file named after the
module first, then the quickest), in a fork of a process that has the libraries loaded. A line that runs when its module
is imported (a constant, a table, a default) is seen to run in one test alone, whichever came first: its mutants meet
those that run anything of the file, then all others of the room. Left out are annotations, which
nothing evaluates, decorators (whether a value is frozen), the stars of signatures, and what only says something: what a
message reads is no decision. A mutant that runs for too long counts as killed.
"""

import argparse
import ast
import importlib.abc
import importlib.util
import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from reliability import versions, write_section  # noqa: E402

ROOMS = {  # what is mutated -> the tests near it
    "gates": ("tests/gates", "tests/run/test_drill.py", "tests/store/test_ratchet.py", "tests/report/test_standing.py"),
    "stats": ("tests/stats", "tests/gates"),
    "tasks": ("tests/tasks",),
}
SKIPPED = ("VariableInserter", "VariableReplacer")  # Cosmic Ray's that need names of one's own
TALKING = {"message", "advice", "summary", "told", "note", "text"}  # assigned or given: words for a reader
LIMIT_S = 180  # of one mutant's tests
TALKERS = re.compile(r"_?(points|percent|in_words|.*told|.*_text)$")  # functions that only word what was decided
MAX_TESTS = 300  # of one mutant, where its line tells them
# Assertions are left as they are: pytest's rewriting would load our modules past the mutant.
PYTEST = (
    "-q",
    "-x",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "--hypothesis-seed=0",
    "--no-header",
)
KILLED, SURVIVED, SLOW, UNTESTED = "killed", "survived", "too slow", "no test runs it"


def sources():
    """Return the room and the file of everything that is mutated."""
    return [(room, path) for room in ROOMS for path in sorted((ROOT / "harness" / room).glob("*.py"))]


# -- the sample


def quiet_spans(source):
    """Return the (first, last) positions of what is left out: annotations, decorators, and words for a reader."""
    spans = []
    for node in ast.walk(ast.parse(source)):
        quiet = [getattr(node, name, None) for name in ("annotation", "returns")]
        quiet += getattr(node, "decorator_list", [])
        if isinstance(node, ast.keyword) and node.arg in TALKING:
            quiet.append(node.value)
        if isinstance(node, ast.JoinedStr | ast.Raise):
            quiet.append(node)
        if isinstance(node, ast.IfExp) and all(map(is_wording, (node.body, node.orelse))):
            quiet.append(node)
        if isinstance(node, ast.FunctionDef) and TALKERS.match(node.name):
            quiet += node.body
        if isinstance(node, ast.FunctionDef):
            spans += stars_of(node)
        if isinstance(node, ast.Assign) and all(getattr(t, "id", "") in TALKING for t in node.targets):
            quiet.append(node)
        if isinstance(node, ast.AugAssign) and getattr(node.target, "id", "") in TALKING:
            quiet.append(node)
        parts = (part for part in quiet if isinstance(part, ast.AST))
        # A decorator's own place is its "@", a column before the name.
        spans += [((q.lineno, max(0, q.col_offset - 1)), (q.end_lineno, q.end_col_offset)) for q in parts]
    return spans


def is_wording(node):
    """Tell whether an expression is a text for a reader: with a space in it, or with values put in."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and " " in node.value
    return isinstance(node, ast.JoinedStr) and any(
        isinstance(part, ast.Constant) and " " in part.value for part in node.values
    )


def stars_of(function):
    """Return the spans of a signature in which its star lies; Cosmic Ray takes it for a product."""
    if not function.args.kwonlyargs or function.args.vararg:
        return []
    first = function.args.kwonlyargs[0]
    before = [*function.args.posonlyargs, *function.args.args]
    begin = (before[-1].end_lineno, before[-1].end_col_offset) if before else (function.lineno, function.col_offset)
    return [(begin, (first.lineno, first.col_offset))]


def places_of(path):
    """Return (line, column) -> the (operator, occurrence) pairs that change a file there."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    source = path.read_text()
    spans = quiet_spans(source)
    nodes = list(ast_nodes(get_ast(source)))
    places = {}
    for name in sorted(plugins.operator_names()):
        if name.endswith(SKIPPED):
            continue
        operator = plugins.get_operator(name)()
        positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(positions):
            if not any(first <= start < last for first, last in spans):
                places.setdefault(start, []).append((name, occurrence))
    return places


def sampled(seed, n):
    """Return n mutants as (room, path, place, operator, occurrence)."""
    every = [(room, path, place, ways) for room, path in sources() for place, ways in sorted(places_of(path).items())]
    rng = random.Random(seed)
    rng.shuffle(every)
    chosen = [(room, path, place, *rng.choice(ways)) for room, path, place, ways in every]
    return chosen[:n], len(every)


def mutated(path, operator, occurrence):
    """Return the source of a mutant."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    return mutate_code(path.read_text(), plugins.get_operator(operator)(), occurrence)


# -- which tests run a line


class Contexts:
    """A pytest plugin: tells coverage which test runs, and keeps how long each one that passes took."""

    def __init__(self, measured):
        self.measured, self.seconds = measured, {}

    def pytest_runtest_setup(self, item):
        self.measured.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.seconds[report.nodeid] = report.duration


def tests_of_lines(room):
    """Return file -> line -> the tests that run it, the quickest first.

    Line 0: those that run any line of the file; file "": all tests.
    """
    import coverage
    import pytest

    measured = coverage.Coverage(data_file=None, source=[f"harness.{room}"], config_file=False)
    plugin = Contexts(measured)
    measured.start()
    status = pytest.main([*PYTEST[:1], *PYTEST[2:], *ROOMS[room]], plugins=[plugin])
    measured.stop()
    if status not in (0, 1):
        raise SystemExit(f"the tests of {room} do not run")
    if status:
        print(f"left out: the tests of {room} that fail without a mutant", file=sys.stderr)
    data = measured.get_data()
    known = plugin.seconds
    found = {"": {0: sorted(known, key=lambda name: known[name])}}
    for file in data.measured_files():
        stem = Path(file).stem.strip("_")
        lines = {int(line): sorted(filter(None, names)) for line, names in data.contexts_by_lineno(file).items()}
        lines[0] = sorted({name for names in lines.values() for name in names})
        found[file] = {
            line: sorted((n for n in names if n in known), key=lambda n: (stem not in n.partition("::")[0], known[n]))[
                :MAX_TESTS
            ]
            for line, names in lines.items()
        }
    return found


def lines_at_import(source):
    """Return the lines that run when a module is imported: all but the bodies of functions."""
    inside = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            inside.update(range(node.body[0].lineno, node.end_lineno + 1))
    return set(range(1, len(source.splitlines()) + 1)) - inside


def tests_of_mutant(of_file, of_room, line, *, at_import):
    """Return the tests that a mutant of a line meets; see the module's text."""
    if at_import:
        return list(dict.fromkeys([*of_file.get(0, []), *of_room]))
    return of_file.get(line) or of_file.get(0, [])


# -- one mutant


class Mutant(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source."""

    def __init__(self, name, path, source):
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        is_package = self.path.name == "__init__.py"
        return importlib.util.spec_from_file_location(
            name, self.path, loader=self, submodule_search_locations=[str(self.path.parent)] if is_package else None
        )

    def exec_module(self, module):
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def in_child(work):
    """Return the exit status of work done in a fork, None where it took too long."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            os._exit(int(work()))
        except BaseException:
            os._exit(70)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def fate_of(path, source, tests):
    """Return what the tests say of a mutant."""
    if not tests:
        return UNTESTED

    def work():
        import pytest

        sys.meta_path.insert(0, Mutant(module_name(path), path, source))
        return pytest.main([*PYTEST, *tests])

    status = in_child(work)
    return SLOW if status is None else SURVIVED if status == 0 else KILLED


def check_that_mutants_are_met(lines):
    """Raise where a module that cannot be imported turns no test red, or the module as it is turns one red."""
    path = next(Path(path) for path in lines if lines[path].get(0))
    for source, expected in (("raise ImportError('a mutant')", KILLED), (path.read_text(), SURVIVED)):
        found = fate_of(path, source, lines[str(path)][0])
        if found != expected:
            raise SystemExit(f"{path}: {found}, expected {expected}; its tests say nothing of mutants")


def preload():
    """Import what no mutant changes, once for all forks."""
    for name in ("numpy", "scipy.stats", "scipy.optimize", "pytest", "hypothesis", "msgspec", "pandas", "execnet"):
        importlib.import_module(name)


def contexts(folder, rooms):
    """Return the tests of every line of some rooms, and all of each room.

    Made once, in a child whose modules are not ours.
    """
    found, of_room = {}, {}
    for room in rooms:
        file = folder / f"mutants-{room}.json"
        if not file.exists():

            def work(room=room, file=file):
                file.write_text(json.dumps(tests_of_lines(room)))
                return 0

            if in_child_of_an_hour(work) != 0:
                raise SystemExit(f"the tests of {room} cannot be run under coverage")
        for path, lines in json.loads(file.read_text()).items():
            found[path] = {int(line): names for line, names in lines.items()}
        of_room[room] = found.pop("")[0]
    return found, of_room


def in_child_of_an_hour(work):
    child = os.fork()
    if child == 0:
        try:
            os._exit(int(work()))
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# -- all of them


def run(n, seed, results, *, until=None):
    """Return the fate of every mutant of a sample, taking those of an earlier call as they are."""
    chosen, n_places = sampled(seed, n)
    known = {}
    if results.exists():
        for line in results.read_text().splitlines():
            entry = json.loads(line)
            known[entry["path"], tuple(entry["place"]), entry["operator"], entry["occurrence"]] = entry
    preload()
    lines, of_room = contexts(results.resolve().parent, {room for room, *_ in chosen})
    check_that_mutants_are_met(lines)
    fates = []
    for number, (room, path, place, operator, occurrence) in enumerate(chosen, 1):
        name = str(path.relative_to(ROOT))
        entry = known.get((name, place, operator, occurrence))
        if entry is None:
            if until is not None and time.time() > until:
                break
            is_early = place[0] in lines_at_import(path.read_text())
            tests = tests_of_mutant(lines.get(str(path), {}), of_room[room], place[0], at_import=is_early)
            entry = {"room": room, "path": name, "place": place, "operator": operator, "occurrence": occurrence}
            entry["fate"] = fate_of(path, mutated(path, operator, occurrence), tests)
            with results.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            print(f"{number}/{n} {entry['fate']:10} {name}:{place[0]} {operator}", flush=True)
        fates.append(entry)
    return fates, n_places


def table(fates, n_places, seed):
    """Return the section of docs/reliability.md."""
    bad = (SURVIVED, UNTESTED)
    killed = sum(one["fate"] not in bad for one in fates)
    lines = [
        f"{len(fates)} mutants of {n_places:,} places (seed {seed}), {killed} killed: {killed / len(fates):.1%}. "
        f"{versions('cosmic-ray', 'pytest')}",
        "",
        "| room | mutants | killed | survived | no test runs it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for room in ROOMS:
        counts = Counter(one["fate"] for one in fates if one["room"] == room)
        n = sum(counts.values())
        lines.append(f"| {room} | {n} | {counts[KILLED] + counts[SLOW]} | {counts[SURVIVED]} | {counts[UNTESTED]} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="begin no mutant after so long")
    parser.add_argument("--results", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    until = None if asked.minutes is None else time.time() + 60 * asked.minutes
    os.chdir(ROOT)
    fates, n_places = run(asked.n, asked.seed, asked.results.absolute(), until=until)
    text = table(fates, n_places, asked.seed)
    print(text)
    for one in fates:
        if one["fate"] in (SURVIVED, UNTESTED):
            line = (ROOT / one["path"]).read_text().splitlines()[one["place"][0] - 1].strip()
            print(f"{one['fate']}: {one['path']}:{one['place'][0]} {one['operator']} #{one['occurrence']}: {line}")
    if asked.write:
        write_section("mutants", text)


if __name__ == "__main__":
    main()
