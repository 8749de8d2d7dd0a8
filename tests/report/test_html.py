"""The page: what it says, that nothing in it can run or be fetched, and that the same input gives the same bytes."""

import base64
import dataclasses
import html
import json
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from render_records import HOSTILE, hostile_record, make_baseline, make_run, write_history

from harness.records import PackedArray, Record, Run, Status
from harness.report import plots
from harness.report.across import agreements_from_rows
from harness.report.details import details_from_rows
from harness.report.html import render_html
from harness.report.model import build_report
from harness.report.rows import rows_from_records
from harness.specs import Precision
from harness.store.history import load_history

VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


class Tree(HTMLParser):
    """Collects tags, attributes and unbalanced ends of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.open, self.unbalanced, self.links = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src", "action", "data") if name in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append((tag, self.getpos()))


@pytest.fixture(scope="module")
def night():
    return make_run(27, n_images=1_000)


@pytest.fixture(scope="module")
def page(night):
    return render_html(build_report(*night, previous=make_baseline(27, n_images=1_000)))


def text_of(page):
    without = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", without)))


def stored_sections(page):
    packed = re.search(r'<script type="text/plain" id="stored">([^<]*)</script>', page)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_it_opens_with_the_verdict(page, night):
    text = text_of(page)
    sentence = (
        "lenet5-openvino-int8 regressed: 14 lost, 0 gained of 1,000; 12 lost by quantization, 2 by kernels. "
        "Of 27 cases: 1 ended in an error,"
    )
    assert re.search(r"<title>(.*?)</title>", page)[1].startswith(html.escape(sentence, quote=False))
    assert sentence in text
    assert (
        text.index(sentence) < text.index("What to look at") < text.index("At a glance") < text.rindex("Across cases")
    )
    assert "took 4 min 41 s" in text
    for word in ("1 regressed", "1 error", "1 inconclusive", "1 improved", "3 unsupported"):
        assert word in text
    assert night[0].environment.machine in text


def test_the_matrix_holds_every_number_without_scripts(page, night):
    matrix = page[page.index('<table class="matrix">') : page.index("</table>", page.index('<table class="matrix">'))]
    assert matrix.count("<tr") == 1 + 27
    row = next(part for part in matrix.split("<tr") if "regressed" in part)
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", row)).replace("\u00a0", " "))
    for expected in (
        "lenet5",
        "openvino",
        "int8",
        "ran int8 88 %",
        "14 lost, 0 gained",
        "−1.4 points",
        "×",
        "µs",
        "KiB",
    ):
        assert expected in text
    assert "ran fp32" in matrix  # FP16 asked, FP32 ran: said in the table


def test_versions_that_changed_are_shown(page):
    changed = text_of(page[page.index("What changed") : page.index("<section id=")])
    for words in ("openvino 2026.2.0 2026.3.0", "nncf 3.2.0 gone", "tensorrt absent 10.9.0"):
        assert words in changed


def test_a_case_shows_pictures_confusion_layers_build_and_command(page):
    section = page[page.index('id="case-lenet5-openvino-int8"') :]
    section = section[: section.index("</details>")]
    assert section.count("data:image/png;base64,") == 14
    for words in ("Lost by quantization", "Lost by the kernels", "Output drift", "conv2", "/conv2/Conv, /conv2/Relu"):
        assert words in section
    assert section.count('<svg class="rounds"') == 2
    assert "pytest suites/ -k &#39;lenet5-openvino-int8&#39;" in section
    assert '<table class="confusion">' in section


def test_the_document_is_well_formed_with_unique_ids(page):
    tree = Tree(page)
    assert tree.unbalanced == []
    assert len(tree.ids) == len(set(tree.ids))
    anchors = {link[1:] for link in tree.links if link.startswith("#")}
    assert anchors <= set(tree.ids)


def test_nothing_is_fetched(page):
    tree = Tree(page)
    assert [link for link in tree.links if not link.startswith(("#", "data:image/"))] == []
    assert not {tag for tag, _ in tree.tags} & {"link", "iframe", "object", "embed", "base"}
    policy = next(found["content"] for tag, found in tree.tags if tag == "meta" and "http-equiv" in found)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:")
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_memory_of_contexts_is_told_with_their_number(night):
    records = night[1]
    facts = dataclasses.replace(records[0].engine, device_memory_bytes=4096, n_contexts=4, n_engines=4)
    shown = []
    for changes in ({}, {"n_contexts": 1, "n_engines": 1}, {"n_contexts": None}, {"device_memory_bytes": None}):
        record = dataclasses.replace(records[0], engine=dataclasses.replace(facts, **changes))
        (detail,) = details_from_rows(rows_from_records([record]))
        shown.append(dict(detail.build).get("Device memory"))
    assert shown == [
        "4.00\u00a0KiB in each of 4 contexts, of 4 copies of the engine; weights and buffers apart",
        "4.00\u00a0KiB in each of 1 context; weights and buffers apart",
        "4.00\u00a0KiB",
        None,
    ]


def test_cold_costs_are_told_each_beside_the_previous_runs_and_a_cached_build_says_so(night):
    record = night[1][0]
    facts = dataclasses.replace(
        record.engine, build_ns=38_000_000, import_ns=120_000_000, first_inference_ns=640_000, host_peak_bytes=200 << 20
    )
    now = dataclasses.replace(facts, cache="hit", load_ns=7_000_000, first_inference_ns=700_000)
    row = rows_from_records([dataclasses.replace(record, engine=now)])[0]
    before = dataclasses.replace(record, engine=facts)
    (detail,) = details_from_rows([dataclasses.replace(row, previous=before)])
    told = {name: value.replace("\u00a0", " ") for name, value in detail.build}
    assert told["Runtime import"] == "120 ms"
    assert told["Build time"] == "38.0 ms (when it was built: this one came from the cache)"
    assert told["Load of the built engine"] == "7.00 ms"
    assert told["First inference"] == "700 µs (previous run 640 µs)"
    (detail,) = details_from_rows(rows_from_records([before]))
    assert "Load of the built engine" not in dict(detail.build), "a cost that there is not is no 0"


def test_what_the_user_should_hear_of_is_a_warning(night):
    run, records = night
    facts = dataclasses.replace(records[0].engine, warnings=("the cached plan was damaged",))
    page = render_html(build_report(run, [dataclasses.replace(records[0], engine=facts)]))
    assert page.count("the cached plan was damaged") == 1


def test_hostile_texts_stay_texts(night):
    run, records = night
    hostile = [hostile_record(record) for record in records]
    run = dataclasses.replace(
        run,
        id=HOSTILE,
        command=HOSTILE,
        notes=(HOSTILE,),
        skipped={HOSTILE: HOSTILE},
        options={HOSTILE: HOSTILE},
        environment=dataclasses.replace(run.environment, machine=HOSTILE, versions={HOSTILE: HOSTILE}),
    )
    page = render_html(build_report(run, hostile, previous=(run, hostile)))
    tree = Tree(page)
    assert tree.unbalanced == []
    assert sum(tag == "script" for tag, _ in tree.tags) == 1
    assert not [found for _, found in tree.tags if any(name.startswith("on") for name in found)]
    assert "<script>alert" not in page
    assert "onerror=alert(2)&gt;" in page
    short = render_html(build_report(run, hostile, full_cases=0))
    for section in stored_sections(short).values():
        inner = Tree(section)
        assert inner.unbalanced == []
        assert not {tag for tag, _ in inner.tags} & {"script", "img"}


def test_a_lone_surrogate_does_not_stop_the_page(night):
    run, records = night
    page = render_html(
        build_report(run, [dataclasses.replace(records[0], reason="bad \udcff name", status=Status.ERROR)])
    )
    assert r"bad \udcff name" in page
    page.encode("utf-8")


def test_the_same_input_gives_the_same_bytes(tmp_path):
    """In two processes with other hash seeds: nothing may hang on memory addresses or set order."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "import hashlib, pathlib, render_records as r\n"
        "from harness.store.history import load_history\n"
        "from harness.report.html import render_html\n"
        "from harness.report.model import build_report\n"
        "history = load_history(pathlib.Path(sys.argv[3]))\n"
        "night, baseline = r.make_run(12, n_images=300), r.make_baseline(12, n_images=300)\n"
        "page = render_html(build_report(*night, previous=baseline, history=history))\n"
        "print(hashlib.sha256(page.encode()).hexdigest())"
    )
    write_history(tmp_path, n_runs=12, n_cases=3)
    root = Path(__file__).parents[2]
    digests = [
        subprocess.run(
            [sys.executable, "-c", script, str(root), str(root / "tests"), str(tmp_path)],
            env={"PYTHONHASHSEED": seed, "HOME": str(tmp_path), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1]


def test_missing_pieces_everywhere():
    run, records = make_run(9, n_images=300)
    record = records[5]
    bare = [
        dataclasses.replace(record, **{name: empty})
        for name, empty in (
            ("artifact", None),
            ("engine", None),
            ("effective_precision", None),
            ("layers", ()),
            ("accuracy", None),
            ("drift", None),
            ("flips", ()),
            ("loss_split", None),
            ("latencies", ()),
            ("verdicts", ()),
            ("command", ""),
        )
    ]
    latency = record.latencies[0]
    odd = [
        dataclasses.replace(latency, started_ns=None, reference_rounds_ns=None, reference_case="", images_per_s=None),
        dataclasses.replace(latency, rounds_ns=PackedArray.of(np.full((3, 2), 5e4)), reference_rounds_ns=None),
        dataclasses.replace(latency, rounds_ns=PackedArray.of(np.full((3, 2), 0.0))),
        dataclasses.replace(latency, rounds_ns=PackedArray.of(np.full((3, 2), np.nan))),
    ]
    bare += [dataclasses.replace(record, latencies=(one,)) for one in odd]
    bare.append(dataclasses.replace(record, flips=tuple(dataclasses.replace(x, image=None) for x in record.flips)))
    page = render_html(build_report(dataclasses.replace(run, finished_at=""), bare))
    tree = Tree(page)
    assert tree.unbalanced == []
    assert len(tree.ids) == len(set(tree.ids))  # one case many times: every section has its own anchor
    assert "The run did not finish" in page
    assert "the clock is broken" in page
    assert "NaN or infinite" in page
    assert "nan" not in re.sub(r"<style.*?</style>|<script.*?</script>", "", page, flags=re.S).lower().replace(
        "nan or infinite", ""
    )


def test_a_run_without_cases_is_said_to_be_one():
    run, _ = make_run(1)
    page = render_html(build_report(run, []))
    assert "No case ran: nothing was checked." in page
    assert 'class="top bad"' in page


def test_many_cases_keep_their_sections_out_of_the_tree():
    run, records = make_run(30, n_images=200)
    page = render_html(build_report(run, records, full_cases=20))
    tree = Tree(page)
    assert tree.unbalanced == []
    waiting = [found["id"] for tag, found in tree.tags if tag == "div" and "data-stored" in found]
    assert sorted(waiting) == sorted(stored_sections(page))
    assert len(waiting) == 30 - 12
    assert "case-lenet5-openvino-int8" not in waiting  # the worst are readable without scripts
    assert "shown in short" in page
    assert 'id="stored"' not in render_html(build_report(run, records[:9]))


def test_history_is_drawn_with_its_changes(tmp_path, night):
    planted = write_history(tmp_path, n_runs=40, n_cases=6)
    page = render_html(build_report(*night, history=load_history(tmp_path)))
    text = text_of(page[page.index('id="history"') : page.index('id="details"')])
    assert "40 runs since" in text
    assert f"night-{planted['top1']:03d}" in text
    assert "openvino 2026.2.0 → 2026.3.0" in text
    assert "worse top-1 99.12 % 99.00 % −0.12 points" in text
    assert page.count('<svg class="spark"') == 2 * 4
    few = tmp_path / "few"
    few.mkdir()
    write_history(few, n_runs=3, n_cases=2)
    assert "3 runs so far; a lasting change can be told from 6 runs on" in render_html(
        build_report(*night, history=load_history(few))
    )


def test_plots_take_the_colours_and_fonts_of_the_page(page):
    plots = re.findall(r'<svg class="plot".*?</svg>', page, flags=re.S)
    assert len(plots) == 4
    for plot in plots:
        assert "var(--ink)" in plot
        assert "<text" in plot
        assert "DejaVu" not in plot
        assert re.findall(r"#0[1-9]0[1-9]0[1-9]", plot) == []
        assert 'role="img" aria-label="' in plot
    assert "<metadata" not in page


def test_every_precision_has_a_colour_of_its_own():
    css = (Path(plots.__file__).parent / "templates" / "page.css").read_text()
    assert set(plots.SERIES) == set(Precision)
    assert len(set(plots.SERIES.values()) - {plots.ACCENT, plots.BAD}) == len(Precision)
    for precision, colour in plots.SERIES.items():
        assert plots.VARIABLES[colour] == f"var(--{precision})"
        assert re.fullmatch("#0[1-9]0[1-9]0[1-9]", colour)
        # Light, dark and printed pages: as often as the oldest of them.
        assert css.count(f"--{precision}: #") == css.count("--fp32: #") > 2


def test_backends_that_differ_are_listed_first():
    _, records = make_run(9, n_images=1_000)
    found = agreements_from_rows(rows_from_records(records))
    assert {(pair.model, pair.precision) for pair in found} == {("lenet5", name) for name in ("fp32", "fp16", "int8")}
    assert found[0].precision == "int8"
    ours, theirs = (
        next(record for record in records if record.case.id == f"lenet5-{name}-int8") for name in found[0].backends
    )
    different = (ours.accuracy.predictions.array() != theirs.accuracy.predictions.array()).sum()
    assert found[0].n_different == different > 0
    assert isinstance(ours, Record)
    assert isinstance(make_run(1)[0], Run)


def test_recipes_of_one_precision_can_be_told_apart():
    run, records = make_run(27)
    int8 = next(record for record in records if record.case.precision is Precision.INT8)
    other = dataclasses.replace(int8, case=dataclasses.replace(int8.case, recipe="trt-entropy2"))
    page = render_html(build_report(run, [*records, other]))
    matrix = page[page.index('<table class="matrix">') :]
    assert "int8 trt-entropy2" in matrix[: matrix.index("</table>")]
    assert "int8 trt-entropy2" in page[page.index("times faster than FP32") - 20_000 :]  # beside its bar


def test_other_options_are_among_what_changed_where_they_shape_results():
    run, records = make_run(3)
    asked = {"--timing-rounds": "40", "--report-dir": "elsewhere"}
    before = dataclasses.replace(run, options={"--timing-rounds": "20", "--batch-size": "1,8"})
    report = build_report(dataclasses.replace(run, options=asked), records, previous=(before, records))
    changed = {name: (was, now) for name, now, was in report.versions if was}
    assert changed == {"--timing-rounds": ("20", "40"), "--batch-size": ("1,8", "by default")}
    assert "Nothing: the same machine" not in render_html(report)


def test_cases_of_one_reason_stand_together_in_what_to_look_at():
    run, records = make_run(12)
    gone = [
        dataclasses.replace(found, status=Status.ERROR, reason=f"{found.case.id}: the card is full", verdicts=())
        for found in records
        if not found.is_reference
    ]
    report = build_report(run, gone)
    (group,) = report.attention
    assert len(group) == len(gone)
    section = render_html(report).split('class="attention"')[1].split("</section>")[0]
    assert section.count("<li ") == 1
    assert section.count('<a href="#') == 8
    assert f"and {len(gone) - 8} more" in section


def test_a_changed_model_file_is_among_what_changed():
    run, records = make_run(3)
    renewed = [
        dataclasses.replace(found, artifact=dataclasses.replace(found.artifact, source_sha256="a026" + "0" * 60))
        if found.artifact
        else found
        for found in records
    ]
    report = build_report(run, renewed, previous=(run, records))
    changed = [(name, now, before) for name, now, before in report.versions if before]
    models = {found.case.model for found in records if found.artifact}
    assert {name for name, _, _ in changed} == {f"model {name}" for name in models}
    assert {now for _, now, _ in changed} == {"a0260000"}
    assert "Nothing: the same machine" not in render_html(report)
    assert "Nothing: the same machine, models" in render_html(build_report(run, records, previous=(run, records)))
