"""One report, many printers: each shows the same words and numbers of a case, and none computes any."""

import ast
import csv
import html
import json
import re
from pathlib import Path

import pytest
from render_records import make_baseline, make_run

from harness import report as package
from harness.report.html import render_html
from harness.report.junit import junit_properties
from harness.report.markdown import render_markdown
from harness.report.model import build_report
from harness.report.standing import Standing
from harness.report.summary import summary_bytes
from harness.report.tables import write_csv
from harness.report.terminal import summary_lines

PRINTERS = ("html", "junit", "markdown", "summary", "tables", "terminal")


@pytest.fixture(scope="module")
def report():
    return build_report(*make_run(27, n_images=1_000), previous=make_baseline(27, n_images=1_000))


def plain(text):
    return re.sub(r"\s+", " ", text.replace("\u00a0", " "))


def page_rows(page):
    """Return the cells of every row of the page's table, by the anchor that its row links to."""
    matrix = page[page.index('<table class="matrix">') :]
    found = {}
    for row in matrix[: matrix.index("</table>")].split("<tr")[2:]:
        found[re.search('href="#([^"]+)"', row)[1]] = plain(html.unescape(re.sub(r"<[^>]+>", " ", row)))
    return found


def test_every_printer_uses_the_same_word(report, tmp_path):
    page = page_rows(render_html(report))
    markdown = render_markdown(report)
    table = [line for line in markdown[markdown.index("<details>") :].splitlines() if line.startswith("|")][2:]
    terminal = summary_lines(report)
    summary = {case["id"]: case for case in json.loads(summary_bytes(report.run, report.rows))["cases"]}
    write_csv(report.rows, tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        csv_rows = {entry["case"]: entry for entry in csv.DictReader(file)}
    assert len(page) == len(table) == len(summary) == len(csv_rows) == len(report.rows)
    for place, row in enumerate(report.rows):
        case, word = row.record.case, row.word
        word_on_page = f"{row.standing.word} {row.gate}" if row.gate else row.standing.word
        assert word_on_page in page[row.anchor]
        assert table[place].split(" | ")[0].removeprefix("| ").split(" ", 1)[1] == word
        assert terminal[1 + place].endswith(word)
        assert terminal[1 + place].startswith(case.model)
        assert (summary[case.id]["outcome"], summary[case.id]["gate"]) == (row.standing.value, row.gate)
        assert (csv_rows[case.id]["verdict"], csv_rows[case.id]["gate"]) == (row.standing.word, row.gate)
        properties = dict(junit_properties(row))
        assert (properties["verdict"], properties.get("gate", "")) == (row.standing.word, row.gate)
    assert {row.standing for row in report.rows} > {Standing.REGRESSED, Standing.ERROR, Standing.INCONCLUSIVE}


def test_every_printer_shows_the_same_numbers(report, tmp_path):
    row = next(row for row in report.rows if row.standing is Standing.REGRESSED)
    change, timing = row.against_fp32, row.timing(1)
    page = page_rows(render_html(report))[row.anchor]
    line = next(line for line in render_markdown(report).splitlines() if line.startswith("| ▼"))
    terminal = plain(summary_lines(report)[1])
    (case,) = [x for x in json.loads(summary_bytes(report.run, report.rows))["cases"] if x["id"] == row.record.case.id]
    properties = dict(junit_properties(row))
    assert (change.n_lost, change.n_gained) == (14, 0)
    assert "14 lost, 0 gained" in page
    assert "14 lost, 0 gained" in line
    assert " 14/0 " in terminal
    assert (properties["lost_fp32"], properties["gained_fp32"]) == ("14", "0")
    top1 = f"{100 * row.top1:.1f}"
    assert f"{top1} %" in page
    assert f"{top1} %" in plain(line)
    assert f" {top1} " in terminal
    assert case["accuracy"]["top1"] == float(properties["top1"]) == row.top1
    assert case["latency"]["1"]["p50_ns"] == float(properties["p50_ns_b1"]) == timing.summary.p50
    p50 = re.search(r"([\d.,]+ µs)", page)[1]
    assert p50 in plain(line)
    assert p50 in terminal


def test_the_headline_is_the_same_everywhere(report):
    assert html.escape(report.sentence, quote=False) in render_html(report)
    assert summary_lines(report)[-1] == report.sentence
    assert render_markdown(report).startswith("## " + report.sentence.replace("_", "\\_"))


def test_bad_rows_come_first_and_the_others_stay_in_order(report):
    looked = [row for row in report.rows if row.standing.needs_a_look]
    assert list(report.rows[: len(looked)]) == looked
    assert [row.standing.rank for row in looked] == sorted(row.standing.rank for row in looked)
    rest = [row.record for row in report.rows[len(looked) :]]
    order = make_run(27, n_images=1_000)[1]
    assert [record.case.id for record in rest] == [
        record.case.id for record in order if record.case.id in {other.case.id for other in rest}
    ]


@pytest.mark.parametrize("name", PRINTERS)
def test_a_printer_computes_nothing(name):
    tree = ast.parse((Path(package.__file__).parent / f"{name}.py").read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [module for module in names if module.startswith(("harness.stats", "harness.gates", "numpy", "scipy"))]
