"""The command line on stored runs: what it prints, writes and returns."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from render_records import make_run
from typer.testing import CliRunner

from harness.cli import app
from harness.records import INJECTED, CalibrationNight, CaseSamples, PackedArray, Status, TimingCalibration
from harness.store.baselines import BaselineStore
from harness.store.runs import RunStore
from harness.store.timing_calibrations import load_calibration


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """Two equal runs, the newer called latest, in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    run, records = make_run(6)
    for name in ("first", "second"):
        store = RunStore(tmp_path / "reports", replace(run, id=name))
        for record in records:
            store.append(record)
        store.finish(replace(run, id=name), records, summary=b"{}")
    return records


def all_right(accuracy):
    """The same images, every one of them right."""
    n, labels = accuracy.n_images, accuracy.labels
    hits = PackedArray.of(np.packbits(np.ones(n, bool)))
    return replace(accuracy, predictions=labels, top1_hits=hits, top5_hits=hits)


def call(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_a_report_is_remade_byte_for_byte(reports, tmp_path):
    assert call("report", "latest", "-o", tmp_path / "a.html").exit_code == 0
    assert call("report", "latest", "-o", tmp_path / "b.html").exit_code == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_records_become_a_table(reports, tmp_path):
    result = call("report", "latest", "--tables", tmp_path / "all.csv")
    assert result.exit_code == 0, result.output
    assert reports[0].case.id in (tmp_path / "all.csv").read_text()


def test_a_run_is_the_same_as_itself(reports):
    result = call("compare", "first", "second")
    assert result.exit_code == 0, result.output
    assert "regressed" not in result.output


def test_comparing_takes_the_tolerances_of_the_records_unless_told(reports):
    result = call("compare", "first", "second", "--max-drop=7%")
    assert result.exit_code == 0, result.output
    result = call("compare", "first", "second", "--max-drop=7")
    assert result.exit_code == 2
    assert "max_drop" in result.output


def test_a_case_that_the_later_run_lost_fails_the_comparison(reports, tmp_path):
    run = replace(make_run(6)[0], id="third")
    RunStore(tmp_path / "reports", run).finish(run, reports[1:], summary=b"{}")
    result = call("compare", "first", "third")
    assert result.exit_code == 1
    assert "has no such case" in result.output


def test_a_run_that_is_not_there_is_one_line(reports):
    result = call("compare", "first", "third")
    assert result.exit_code == 2
    assert re.search(r"ERROR: .*third holds no run", result.output)


def test_baselines_are_accepted_shown_and_compared(reports, tmp_path):
    passed = next(r for r in reports if r.status.value == "passed" and r.accuracy)
    accepted = call("baseline", "accept", "latest", "--case", passed.case.id, "--by", "someone")
    assert accepted.exit_code == 0, accepted.output
    paths = [*(tmp_path / "suites/baselines").glob("**/*.json")]
    assert {path.stem for path in paths} == {passed.case.id}
    assert {path.relative_to(tmp_path / "suites/baselines").parts[0] for path in paths} == {"predictions", "times"}
    shown = call("baseline", "show")
    assert "someone" in shown.output
    assert passed.case.id in shown.output
    assert call("baseline", "diff", "latest").exit_code == 0


def test_a_diff_or_comparison_that_compares_nothing_is_no_success(reports):
    nothing = call("baseline", "diff", "latest")
    assert (nothing.exit_code, "nothing could be compared" in nothing.output) == (2, True)


def test_a_diff_with_a_regression_exits_with_1(reports, tmp_path):
    worse = next(r for r in reports if r.status.value == "failed" and r.accuracy)
    better = replace(worse, status=Status.PASSED, reason="", verdicts=(), accuracy=all_right(worse.accuracy))
    BaselineStore(tmp_path / "suites" / "baselines").accept(
        [better], case_ids=[better.case.id], accepted_by="someone", accepted_at="2026-11-20T00:00:00+00:00"
    )
    assert call("baseline", "diff", "latest").exit_code == 1


def test_a_damaged_baseline_is_an_error_with_its_mend(reports, tmp_path):
    passed = next(r for r in reports if r.status.value == "passed" and r.accuracy)
    call("baseline", "accept", "latest", "--case", passed.case.id)
    (path,) = (tmp_path / "suites/baselines/predictions").glob("*/*/*.json")
    path.write_text("{")
    result = call("baseline", "show")
    assert result.exit_code == 2
    assert "harness baseline accept" in result.output


def test_pruning_names_what_is_given_up(reports, tmp_path):
    passed = next(r for r in reports if r.status.value == "passed" and r.accuracy)
    call("baseline", "accept", "latest", "--case", passed.case.id)
    result = call("baseline", "prune")
    assert (result.exit_code, "name what is given up" in result.output) == (2, True)
    result = call("baseline", "prune", "--case", passed.case.id)
    assert (result.exit_code, f"{passed.case.id}.json" in result.output) == (0, True)
    assert not list((tmp_path / "suites/baselines").glob("*/*/*.json"))


def test_help_names_every_command():
    text = call("--help").output
    for command in ("doctor", "report", "compare", "plan", "fleet", "merge", "history", "tidy", "bisect", "baseline"):
        assert command in text


def test_a_calibration_is_told_and_stored_and_the_next_night_joins_it(tmp_path, monkeypatch):
    dates = iter(("2026-11-26", "2026-11-27"))

    def measured(options, plan, asked, *, folder, echo):
        echo("pair 1 of 8: mlp-ort-fp32")
        samples = CaseSamples(
            case_id="mlp-ort-fp32",
            batch_size=1,
            builds=(0, 0) * asked.n_pairs,
            medians_ns=(1e5, 1.01e5) * asked.n_pairs,
            round_cvs=(0.01, 0.01) * asked.n_pairs,
            log_ratios=((0.001, -0.001) * (asked.n_pairs // 2),) * len(INJECTED),
        )
        night = CalibrationNight(measured_at=f"{next(dates)}T01:00:00+00:00", driver="", versions={}, cases=(samples,))
        assert options.timing.batch_sizes == (1,)
        return (TimingCalibration(device_type="a CPU", max_slowdown=0.03, alpha=asked.alpha, nights=(night,)),)

    monkeypatch.setattr("harness.cli.calibrating.plan_run", lambda *given, **named: SimpleNamespace(cases=(1,)))
    monkeypatch.setattr("harness.cli.calibrating.calibrate", measured)
    for n_nights in (1, 2):
        result = call("calibrate", "--batch-size", 1, "--pairs", 8, "--baseline-dir", tmp_path)
        assert result.exit_code == 0, result.output
        is_measured = n_nights == 2  # 8 pairs are no comparison
        assert ("False alarms are not measured" in result.output) is not is_measured
        assert ("0 of 1 comparisons" in " ".join(result.output.split())) is is_measured
        stored = load_calibration(tmp_path, "a CPU")
        assert len(stored.nights) == n_nights
        assert str(tmp_path / "calibrations" / "a-cpu.json") in result.output.replace("\n", "")


@pytest.mark.parametrize("word", ["--precision=fp7", "--max-slowdown=x"])
def test_a_calibration_refuses_what_it_does_not_know(word):
    result = call("calibrate", word)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
