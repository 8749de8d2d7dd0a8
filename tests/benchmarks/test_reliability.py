"""The scripts behind docs/reliability.md: what they find wrong is in their tables, and their tables are in the page."""

import sys
from pathlib import Path

import numpy as np
import pytest
from fault_runs import FAULTS, STAGES, WRONG, Fate

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in ("fault_table", "soak", "kills", "fuzz", "reliability"):
        sys.modules.pop(name, None)


def test_a_section_is_replaced_and_a_missing_one_is_an_error(tmp_path):
    from reliability import write_section

    page = tmp_path / "page.md"
    page.write_text("# T\n<!-- soak -->\nold\n<!-- /soak -->\nend\n")
    write_section("soak", "new \\1", page)
    write_section("soak", "newer \\1", page)
    assert page.read_text() == "# T\n<!-- soak -->\nnewer \\1\n<!-- /soak -->\nend\n"
    with pytest.raises(LookupError, match="has no section faults"):
        write_section("faults", "x", page)


@pytest.mark.parametrize("name", ["faults", "kills", "fuzz", "soak"])
def test_the_page_has_a_section_for_each_script(name):
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert page.count(f"<!-- {name} -->") == page.count(f"<!-- /{name} -->") == 1


GOOD = {"status": "error", "reason": "during score", "neighbour": "passed", "processes": (), "files": ()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "holds"),
        ({"status": "passed"}, "case passed, expected error"),
        ({"reason": "it broke"}, "reason: it broke"),
        ({"reason": "during score\nmore"}, "reason of several lines"),
        ({"neighbour": "error"}, "neighbour error"),
        ({"processes": ("sleep 600",)}, "processes left: ('sleep 600',)"),
        ({"files": ("x",)}, "files left: ('x',)"),
    ],
)
def test_a_pair_that_does_not_hold_says_what(changes, words):
    from fault_table import verdict_of

    assert verdict_of(Fate(**{**GOOD, **changes}), ("during score",), "error") == words


def test_a_pair_that_does_not_hold_is_bold_in_the_table():
    from fault_table import TABLES, as_markdown

    assert sorted(stage for stages in TABLES.values() for stage in stages) == sorted(STAGES)
    for stages in TABLES.values():
        table = {(stage, fault): "holds" for stage in stages for fault in FAULTS}
        table |= {pair: "holds" for pair in WRONG if pair[0] in stages}
        assert "**no**" not in as_markdown(table, stages)
        table[stages[1], "segfault"] = "case passed, expected error"
        text = as_markdown(table, stages)
        assert f"{len(table)} pairs, {len(table) - 1} hold." in text
        (row,) = [line for line in text.splitlines() if "**no**" in line]
        assert row.split("|")[1 + 1 + 1].strip() == "**no**"


@pytest.mark.parametrize(
    ("growth", "handles", "flat"), [(0.0, 0, True), (0.2, 0, False), (0.0, 1, False)], ids=["flat", "memory", "handles"]
)
def test_what_grows_in_a_soak_is_not_flat(growth, handles, flat):
    from soak import as_markdown

    cases = np.arange(100)
    readings = np.stack([50 + growth * cases, 7 + handles * (cases > 50), 0 * cases + 2, 0 * cases + 1], axis=1)
    text, is_flat = as_markdown(readings, 10)
    assert is_flat is flat
    assert "100 cases, 10 of which crashed." in text
