"""The page of a merged run: every model and device type, what is common to many cases, a page a shard."""

import re
from dataclasses import replace

import pytest
from comparison_records import latency_with
from fleet_records import TYPES, by_shard, night, plan_of, shard_run
from test_merge_command import merge, write_shards
from typer.testing import CliRunner

from harness.cli import app
from harness.fleet.header import merged_header
from harness.fleet.merging import merge_shards
from harness.fleet.page import fleet_page, render_fleet, write_shard_page
from harness.gates import JudgeOptions, judge_records, list_gates
from harness.records import Status
from harness.report.standing import Standing
from harness.store.baselines import BaselineStore

MODELS = tuple(f"model{number}" for number in range(6))


def page_of(records, tmp_path, *, shards=None, pages=()):
    groups = by_shard(records)
    plan = plan_of(groups)
    given = [shard_run(number, group) for number, group in enumerate(groups)]
    merged = merge_shards(plan, given if shards is None else [given[number] for number in shards], list_gates())
    run = merged_header(plan, merged, "night")
    judged = judge_records(merged.records, {}, JudgeOptions())
    return fleet_page(run, judged, BaselineStore(tmp_path), pages=pages), run, judged


def test_every_model_and_type_of_device_has_a_cell(tmp_path):
    page, run, _ = page_of(night(MODELS), tmp_path)
    assert page.columns == tuple(
        environment.device_type for environment in sorted(TYPES.values(), key=lambda e: e.device_type)
    )
    assert [line.model for line in page.lines] == list(MODELS)
    text = render_fleet(page, run)
    assert len(re.findall("<td", text)) == len(MODELS) * 2
    assert page.sentence == "No regression among 24 cases on 2 types of device"
    assert "<script>const" in text.replace("\n", "")


def test_bad_models_come_first_and_a_cell_says_how_many_need_a_look(tmp_path):
    records = night(MODELS, wrong=lambda model, device: range(400 * ((model, device) == ("model4", "large"))))
    page, run, _ = page_of(records, tmp_path, pages=[10])
    assert page.sentence == "1 of 24 cases on 2 types of device failed, broke or never came"
    assert page.tone == "bad"
    assert page.lines[0].model == "model4"
    assert page.lines[0].needs_a_look
    assert '<td class=b title="regressed, shard 10"><a href="shards/10.html">1/2</a>' in page.lines[0].cells
    (look,) = page.attention
    assert (look.standing, look.case_id, look.where) == (Standing.REGRESSED, "model4-ort-int8", "shard 10, node")
    assert look.device_type == TYPES["large"].device_type
    assert "400 lost, 0 gained" in look.finding
    assert look.link == "shards/10.html"
    assert look.link in render_fleet(page, run)


def test_shards_that_never_came_are_one_line_and_bad_cells(tmp_path):
    small = [number for number in range(12) if number >= 6]
    page, run, _ = page_of(night(MODELS), tmp_path, shards=small)
    assert page.sentence.startswith("12 of 24 cases")
    assert page.counts[0] == (Standing.ERROR, 12)
    (cause,) = page.causes
    assert cause.sentence == f"error on all 12 cases of device type {TYPES['small'].device_type}: 6 reasons"
    assert cause.sentence in render_fleet(page, run)


def test_names_from_outside_stay_text(tmp_path):
    hostile = "</td><script>alert(1)</script>"
    _, run, judged = page_of(night(("lenet5",)), tmp_path)
    broken = [
        replace(
            record,
            case=replace(record.case, model=hostile),
            environment=replace(record.environment, cpu_model=hostile),
            reason=hostile,
            status=Status.ERROR,
        )
        for record in judged
    ]
    text = render_fleet(fleet_page(run, broken, BaselineStore(tmp_path), pages=[0]), replace(run, notes=(hostile,)))
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)") > 6


def test_a_cause_says_what_changed_since_the_baselines(tmp_path):
    before = [replace(record, latencies=(latency_with(),)) for record in night(MODELS)]
    later = [
        replace(
            record,
            latencies=(latency_with(medians=[104.0] * 20),) if record.environment.n_cpus == 64 else record.latencies,
            environment=replace(record.environment, versions={**record.environment.versions, "onnxruntime": "1.32.0"}),
        )
        for record in before
    ]
    write_shards(tmp_path, later, stored=before)
    assert merge(tmp_path, tmp_path / "shards").exit_code == 0
    text = (tmp_path / "reports" / "night" / "index.html").read_text()
    on = TYPES["large"].device_type
    told = f"4.0% slower on all 12 cases of device type {on} since onnxruntime 1.31.1 -&gt; 1.32.0 (p = "
    assert told in text


def test_red_shards_get_their_page_and_any_other_when_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path, night(wrong=lambda model, device: range(400 * (model == "mlp"))))
    assert merge(tmp_path, tmp_path / "shards").exit_code == 1
    pages = tmp_path / "reports" / "night" / "shards"
    assert {path.name for path in pages.iterdir()} == {"1.html", "3.html"}
    assert "night, shard 1" in (pages / "1.html").read_text()

    def report(*words):
        return CliRunner().invoke(app, ["report", "night", *words])

    assert report("--shard=0").exit_code == 0
    assert "lenet5-ort-int8" in (pages / "0.html").read_text()
    (tmp_path / "reports" / "night" / "index.html").unlink()
    assert report().exit_code == 0
    assert "types of device failed" in (tmp_path / "reports" / "night" / "index.html").read_text()
    nothing = report("--shard=9")
    assert (nothing.exit_code, "has no record of it; the plan had 4 shards" in nothing.output) == (2, True)


def test_a_shard_s_page_tells_the_verdicts_of_the_whole_night(tmp_path):
    _, run, judged = page_of(night(wrong=lambda model, device: range(400)), tmp_path)
    text = write_shard_page(tmp_path, run, judged, 2).read_text()
    assert "lenet5-ort-int8" in text
    assert "mlp-ort-int8" not in text
    assert "regressed" in text


@pytest.mark.parametrize("n_models", [300])
def test_the_page_stays_small(tmp_path, n_models):
    models = [f"model{number:04}" for number in range(n_models)]
    page, run, _ = page_of(night(models), tmp_path)
    assert len(render_fleet(page, run)) < 40_000 + 2 * n_models * 100
