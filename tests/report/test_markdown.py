"""Markdown and junit properties: the same findings, and no text that a reader's renderer would obey."""

import dataclasses
import re
import xml.etree.ElementTree as ET

import pytest
from render_records import HOSTILE, hostile_record, make_baseline, make_run, write_history

from harness.records import Status
from harness.report.junit import junit_properties
from harness.report.markdown import code_span, escape_markdown, render_markdown
from harness.report.model import build_report
from harness.report.rows import rows_from_records
from harness.store.history import load_history


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("lenet5-openvino-int8", "lenet5-openvino-int8"),
        ("a_b*c", r"a\_b\*c"),
        ("a|b\nc", r"a\|b c"),
        ("<script>", "&lt;script&gt;"),
        ("AT&T @team #12", r"AT&amp;T &#64;team \#12"),
        ("[x](javascript:1)", r"\[x\](javascript:1)"),
        ("`rm`", r"\`rm\`"),
        ("see https://evil.example", r"see https:\/\/evil.example"),
        ("www.evil.example", r"www\.evil.example"),
        ("$x$ ~~y~~", r"\$x\$ \~\~y\~\~"),
        ("a\u2028b\x00c", "a b c"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_escapes(text, escaped):
    assert escape_markdown(text) == escaped


@pytest.mark.parametrize(
    ("text", "span"), [("a b", "`a b`"), ("a `b`", "`` a `b` ``"), ("``x", "``` ``x ```"), ("a\nb", "`a b`")]
)
def test_code_spans_close_where_they_should(text, span):
    assert code_span(text) == span


def test_it_says_what_the_page_says():
    text = render_markdown(build_report(*make_run(14, n_images=1_000), previous=make_baseline(14, n_images=1_000)))
    lines = text.splitlines()
    assert lines[0].startswith(
        "## lenet5-openvino-int8 regressed: 14 lost, 0 gained of 1,000; 12 lost by quantization, 2 by kernels."
    )
    assert "  - repeat: `pytest suites/ -k 'lenet5-openvino-int8' --score-images 1000`" in lines
    table = [line for line in text[text.index("<details>") :].splitlines() if line.startswith("|")]
    assert len(table) == 2 + 14
    assert len({line.count(" | ") for line in table[:1] + table[2:]}) == 1
    assert "openvino 2026.2.0 → 2026.3.0" in text
    assert "| ▼ regressed (fp32) | lenet5 | openvino | int8 | int8 |" in text
    assert "**fp32**" in text  # asked for FP16, ran FP32


def timed_as(record, **mode):
    return dataclasses.replace(
        record, latencies=tuple(dataclasses.replace(latency, **mode) for latency in record.latencies)
    )


def test_how_times_were_taken_is_said():
    run, records = make_run(3, n_images=300)
    gated = {"clock": "cuda_event", "launch": "graph", "gated": True, "window": "compute"}
    same = render_markdown(build_report(run, [timed_as(record, **gated) for record in records]))
    assert "Times by cuda\\_event clock, graph launch, gated, compute window." in same
    mixed = render_markdown(
        build_report(run, [timed_as(records[0], **{**gated, "gated": False}), timed_as(records[1], **gated)])
    )
    assert "Times by cuda\\_event clock, graph launch, compute window (1 case); " in mixed
    assert "; cuda\\_event clock, graph launch, gated, compute window (1 case)." in mixed
    assert "Times by" not in render_markdown(
        build_report(run, [dataclasses.replace(record, latencies=()) for record in records])
    )


def test_what_the_user_should_hear_of_is_said():
    run, records = make_run(30, n_images=300)
    told = [
        dataclasses.replace(record, engine=dataclasses.replace(record.engine, warnings=("the plan was <damaged>",)))
        for record in records
        if record.engine
    ]
    text = render_markdown(build_report(run, told))
    assert f"- {told[0].case.id}: the plan was &lt;damaged&gt;".replace("_", r"\_") in text
    assert text.count("the plan was") == 20
    assert f"- and {len(told) - 20} more" in text


def test_hostile_texts_stay_texts():
    run, records = make_run(9, n_images=300)
    run = dataclasses.replace(run, id=HOSTILE, environment=dataclasses.replace(run.environment, machine=HOSTILE))
    text = render_markdown(build_report(run, [hostile_record(record) for record in records], previous=(run, records)))
    outside = re.sub(r"(`+) ?.*?\1", "", text)
    assert "<script" not in outside
    assert "<img" not in outside
    assert not re.search(r"(?<!\\)\[x", outside)
    table = [line for line in text[text.index("<details>") :].splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1  # no cell breaks out of its row


def test_long_runs_show_the_worst_first():
    run, records = make_run(200, n_images=100)
    text = render_markdown(build_report(run, records))
    assert "The first 150 of 200 cases; the HTML page has all." in text
    first = next(line for line in text.splitlines() if line.startswith("| ▼"))
    assert "lenet5 | openvino | int8" in first
    assert len(text.encode()) < 65_536


def test_what_needs_a_look_comes_first_and_the_rest_is_folded():
    text = render_markdown(build_report(*make_run(27, n_images=1_000)))
    before, folded = text.split("<details>\n<summary>All 27 cases</summary>\n\n")
    shown = [line for line in before.splitlines() if line.startswith("| ")][1:]
    assert shown
    assert all(line.split(" | ")[0].strip("| ")[0] in "▼✖∅◇◌" for line in shown)
    assert folded.split("</details>")[0].count("\n| ") >= 27
    clean = render_markdown(build_report(*make_run(1, n_images=1_000)))
    assert clean.index("<details>") < clean.index("| verdict")


@pytest.mark.parametrize(
    ("address", "linked"),
    [
        ("https://ci.example/runs/7/index.html", True),
        ("", False),
        ("javascript:alert(1)", False),
        ("https://ci.example/a) [x](http://evil", False),
    ],
)
def test_the_page_is_linked_where_its_address_was_given(address, linked):
    run, records = make_run(3, n_images=100)
    run = dataclasses.replace(run, url=address)
    text = render_markdown(build_report(run, records))
    assert (f"[The whole report]({address})" in text) is linked
    assert "evil" not in text


def test_history_is_listed(tmp_path):
    write_history(tmp_path, n_runs=40, n_cases=3)
    text = render_markdown(build_report(*make_run(3, n_images=100), history=load_history(tmp_path)))
    assert "Lasting changes in the last 40 runs, newest first:" in text
    assert "- lenet5-ort-fp32, top-1: 99.12\u00a0% → 99.00\u00a0% since" in text


def test_junit_properties_are_numbers_with_units():
    _, records = make_run(9, n_images=1_000)
    record = next(record for record in records if record.status is Status.FAILED)
    found = dict(junit_properties(*rows_from_records([record])))
    assert found["case"] == "lenet5-openvino-int8"
    assert (found["verdict"], found["gate"]) == ("regressed", "fp32")
    assert float(found["top1"]) == record.accuracy.top1
    assert found["lost_fp32"] == "14"
    assert float(found["p50_ns_b1"]) > 0
    assert "p99_ns_b100" not in found  # too few samples
    assert float(found["speed_up_low_b1"]) < float(found["speed_up_b1"]) < float(found["speed_up_high_b1"])
    unsupported = next(record for record in records if record.status is Status.UNSUPPORTED)
    assert set(dict(junit_properties(*rows_from_records([unsupported])))) == {
        "case",
        "model",
        "backend",
        "precision_asked",
        "status",
        "verdict",
        "finding",
        "command",
    }


def test_junit_properties_are_legal_xml():
    _, records = make_run(3, n_images=100)
    record = dataclasses.replace(hostile_record(records[0]), reason="\x00\x1b[31m\ufffe", status=Status.ERROR)
    root = ET.Element("properties")
    for name, value in junit_properties(*rows_from_records([record])):
        ET.SubElement(root, "property", name=name, value=value)
    ET.fromstring(ET.tostring(root))
