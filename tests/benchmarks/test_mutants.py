"""The mutation script: what it leaves out, which module a file is, and that a mutant really is met by its tests."""

import ast
import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mutants():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "benchmarks" / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / "benchmarks"))
    return module


SOURCE = """\
@cache(size=7)
def judge(loss: float | None, margin: int = 0) -> bool | None:
    if loss > margin:
        message = "a" + "b"
        raise ValueError(1 + 1)
    return Verdict(code=1 + 2, message=f"{loss + 1}")


def weigh(loss, *, share=2):
    noun = "1 image" if loss == 1 else f"{loss} images"
    code = "kept" if loss == 3 else "lost"
    return noun, code, loss * share


def points(loss):
    return loss * 100
"""


def test_annotations_and_words_are_left_out_and_decisions_are_not(mutants):
    spans = mutants.quiet_spans(SOURCE)

    def is_quiet(text):
        offset = SOURCE.index(text)
        line = SOURCE.count("\n", 0, offset) + 1
        place = (line, offset - (SOURCE.rfind("\n", 0, offset) + 1))
        return any(first <= place < last for first, last in spans)

    assert [
        is_quiet(text)
        for text in (
            "@cache",
            "7)",
            "float | None",
            "bool | None",
            '"a" + "b"',
            "1 + 1",
            "loss + 1",
            "*, share",
            "loss == 1",
            "loss * 100",
        )
    ] == [True] * 10
    assert [is_quiet(text) for text in ("0)", "loss > margin", "1 + 2", "loss == 3", "2):", "loss * share")] == (
        [False] * 6
    )


def test_a_larger_sample_begins_with_a_smaller_one(mutants, monkeypatch):
    pytest.importorskip("cosmic_ray", reason="Cosmic Ray is not installed")
    sources = mutants.sources()[:2]
    monkeypatch.setattr(mutants, "sources", lambda: sources)
    few, n_places = mutants.sampled(0, 5)
    assert mutants.sampled(0, 9) == ([*few, *mutants.sampled(0, 9)[0][5:]], n_places)
    assert mutants.sampled(1, 5)[0] != few


def test_a_file_is_its_module(mutants):
    assert mutants.module_name(ROOT / "harness/gates/__init__.py") == "harness.gates"
    assert mutants.module_name(ROOT / "harness/stats/paired.py") == "harness.stats.paired"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(("value", "fate"), [("2", "killed"), ("1", "survived")])
def test_a_mutant_is_met_by_the_tests_of_its_line(mutants, value, fate, tmp_path, monkeypatch):
    (tmp_path / "thing.py").write_text("X = 1\n")
    (tmp_path / "test_thing.py").write_text("import thing\n\n\ndef test_x():\n    assert thing.X == 1\n")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mutants, "PYTEST", ("-q", "--assert=plain", "-p", "no:cacheprovider", "--rootdir=."))
    tests = ["test_thing.py::test_x"]
    assert mutants.fate_of(tmp_path / "thing.py", f"X = {value}\n", tests) == fate
    assert mutants.fate_of(tmp_path / "thing.py", "X = 1\n", []) == mutants.UNTESTED


def test_every_room_and_every_folder_of_tests_is_there(mutants):
    assert {room for room, _ in mutants.sources()} == set(mutants.ROOMS)
    assert all((ROOT / place).exists() for places in mutants.ROOMS.values() for place in places)
    assert all(ast.parse(path.read_text()) for _, path in mutants.sources())


def test_the_table_counts_what_survived(mutants, monkeypatch):
    monkeypatch.setattr(mutants, "versions", lambda *names: "Made today.")
    words = ("killed", "killed", "too slow", "survived", "no test runs it")
    fates = [{"room": "gates", "fate": fate} for fate in words]
    text = mutants.table(fates, 1234, 0)
    assert text.startswith("5 mutants of 1,234 places (seed 0), 3 killed: 60.0%.")
    assert "| gates | 5 | 3 | 1 | 1 |" in text


def test_lines_that_run_at_import_meet_all_tests_of_the_room(mutants):
    source = """LIMIT = 3


def judge(loss, margin=LIMIT):
    return (
        loss > margin
    )


GATE = Gate(
    order=80)
"""
    assert mutants.lines_at_import(source) == {1, 2, 3, 4, 8, 9, 10, 11}
    of_file, of_room = {0: ["b", "a"], 1: ["b"], 6: ["a"]}, ["c", "a", "b"]
    assert mutants.tests_of_mutant(of_file, of_room, 1, at_import=True) == ["b", "a", "c"]
    assert mutants.tests_of_mutant(of_file, of_room, 6, at_import=False) == ["a"]
    assert mutants.tests_of_mutant(of_file, of_room, 5, at_import=False) == ["b", "a"]
