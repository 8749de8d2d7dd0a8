"""The suites as a user runs them: outcome, exit code, and the line that is seen."""

import importlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records import Outcome, Status
from harness.run.stored import load_judged_run
from harness.store.baseline_files import json_from_baseline
from harness.store.baselines import BaselineStore, write_file
from harness.store.runs import load_run

ROOT = Path(__file__).parents[1]
FAST = (
    "--model=mlp",
    "--score-images=300",
    "--batch-size=1,8",
    "--timing-rounds=6",
    "--precision=fp32",
    f"--extension-dir={ROOT / 'tests' / 'fakes'}",
)


@pytest.fixture
def suites(pytester):
    """Return a function that runs the suites in a folder of their own."""
    for name in ("suites", "models"):
        (pytester.path / name).symlink_to(ROOT / name, target_is_directory=True)
    pytester.makeconftest('pytest_plugins = ("harness.plugin",)')
    options = "-p no:cacheprovider --import-mode=importlib --baseline-dir=baselines --engine-cache=cache"
    pytester.makeini(f"[pytest]\naddopts = {options}")

    def run(*args, fast=True):
        return pytester.runpytest_inprocess("suites/", *(FAST if fast else ()), *args)

    return run


def latest(pytester):
    """The newest run's header and the records of its cases."""
    run, records = load_run(pytester.path / "reports" / "latest")
    return run, [record for record in records if not record.is_reference]


KNOWN = """
[[waiver]]
case = "mlp-fake-segfault-*"
gate = "error"
error = "crashed ({signal})"
reason = "a fault of the runtime"
link = "https://tracker/14"
expires = 2999-12-31
"""


def test_a_known_error_fails_nothing_and_is_no_success_by_itself(suites, pytester):
    (pytester.path / "harness.toml").write_text(KNOWN.format(signal="SIGSEGV"))
    result = suites("--backend=fake-segfault,fake-honest", "--floor=0", "-m", "accuracy", "-rs")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*waived until 2999-12-31: a fault of the runtime (https://tracker/14): *SIGSEGV*"])
    records = {record.case.backend: record for record in latest(pytester)[1]}
    assert records["fake-honest"].status is Status.PASSED
    assert records["fake-segfault"].known_error is not None
    assert "1 with a waived failure" in (pytester.path / "reports/latest/index.html").read_text()
    alone = suites("--backend=fake-segfault", "-m", "accuracy")
    assert alone.ret != 0
    alone.stdout.fnmatch_lines(["ERROR: no case ran to its end: every one ended in a known error*"])


def test_an_error_other_than_the_known_one_is_red(suites, pytester):
    (pytester.path / "harness.toml").write_text(KNOWN.format(signal="SIGABRT"))
    assert suites("--backend=fake-segfault", "-m", "accuracy").ret == 1
    (record,) = latest(pytester)[1]
    assert record.status is Status.ERROR
    assert record.reason.endswith("; not the error that is waived, which says 'crashed (SIGABRT)'")


def test_a_known_error_hides_no_damaged_baseline(suites, pytester):
    suites("--backend=fake-honest", "--update-baselines")
    (path,) = (pytester.path / "baselines" / "predictions").glob("*/*/*.json")
    path.with_name(path.name.replace("honest", "loses")).write_bytes(path.read_bytes()[:100])
    known = KNOWN.replace("segfault", "loses").replace("crashed ({signal})", "the clock is broken")
    (pytester.path / "harness.toml").write_text(known)
    assert suites("--backend=fake-loses", "--floor=0", "-k", "test_accuracy and not against or test_latency").ret == 1
    (record,) = latest(pytester)[1]
    assert record.status is Status.ERROR
    assert "the clock is broken" in record.error
    assert "harness baseline accept" in record.later_error


def test_throughput_is_measured_where_it_is_asked_for(suites, pytester):
    pytest.importorskip("onnxruntime")
    asked = ("-k", "throughput", "--throughput", "--concurrency=2", "--backend=ort,fake-honest")
    result = suites(*asked)
    result.assert_outcomes(passed=1, skipped=1)
    records = {record.case.backend: record for record in latest(pytester)[1]}
    assert records["fake-honest"].throughput == ()
    assert [(one.batch_size, one.concurrency) for one in records["ort"].throughput] == [(1, 2), (8, 2)]
    assert (
        "2 inferences at once (threads over one session)" in (pytester.path / "reports/latest/index.html").read_text()
    )
    result.stdout.fnmatch_lines(["throughput mlp-ort-fp32: batch 1 * images/s (2 at once)*"])


def test_a_run_leaves_records_a_summary_and_a_page(suites, pytester):
    result = suites("--backend=fake-honest", "--floor=0")
    result.assert_outcomes(passed=11)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["backends: fake-honest numpy *", "*mlp*fake-honest*fp32*inconclusive*"])
    run, (record,) = latest(pytester)
    assert record.status is Status.PASSED
    assert record.accuracy.n_images == 300
    assert {latency.batch_size for latency in record.latencies} == {1, 8}
    if sys.platform == "linux":
        assert 10 << 20 < record.engine.host_peak_bytes < 100 << 30
        assert "Peak host memory" in (pytester.path / "reports/latest/index.html").read_text()
    assert run.finished_at
    summary = json.loads((pytester.path / "reports/latest/summary.json").read_text())
    (case,) = summary["cases"]
    assert case["id"] == "mlp-fake-honest-fp32"
    assert case["accuracy"]["top1"] == record.accuracy.top1
    assert "mlp-fake-honest-fp32" in (pytester.path / "reports/latest/index.html").read_text()


def test_a_floor_that_is_missed_fails_and_says_so(suites, pytester):
    result = suites("--backend=fake-honest", "--floor=99.9%", "-k", "test_accuracy and not against")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*regressed (floor)*", "*is below the floor*"])
    assert latest(pytester)[1][0].status is Status.FAILED


def test_a_backend_asked_for_that_cannot_run_is_one_line(suites):
    result = suites("--backend=fake-absent")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if "ERROR" in line]
    assert "--backend=fake-absent cannot run here: there is no such device (buy one)" in line


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--backend=opnvino", "did you mean openvino"),
        ("--model=lenet", "lenet5"),
        ("--dataset=stroke", "strokes"),
        ("--recipe=qdq-minmx", "qdq-minmax"),
        ("--extension-dir=nowhere", "no such folder"),
        ("--trt-workspace=-5", "--trt-workspace=-5: expected 0 MiB or more"),
        ("--trt-plugin=nowhere.so", "--trt-plugin=nowhere.so: there is no such file"),
        ("--trt-ranges=nowhere.json", "--trt-ranges=nowhere.json: there is no such file"),
        ("--trt-profile=2:4:500", "lies in no --trt-profile"),
    ],
)
def test_a_wrong_option_is_one_line_with_the_remedy(suites, option, words):
    result = suites("--backend=fake-honest", "--precision=int8", option, "-m", "accuracy")
    assert result.ret != 0
    text = "\n".join([*result.outlines, *result.errlines])
    assert words in text
    assert "Traceback" not in text


def test_harness_toml_serves_as_the_command_line(suites, pytester):
    (pytester.path / "harness.toml").write_text('[run]\nbackend = "fake-honest"\nscore_batch = 50\nthreads = 2\n')
    assert suites("--floor=0", "--threads=1", "-k", "test_accuracy and not against").ret == 0
    run, (record,) = latest(pytester)
    assert {"--backend": "fake-honest", "--score-batch": "50"}.items() <= run.options.items()
    assert {"--score-batch=50", "--threads=1", "--floor=0.0"} <= set(record.command.split())


def test_a_wrong_harness_toml_is_one_line(suites, pytester):
    (pytester.path / "harness.toml").write_text("[run]\nscore_bach = 50\n")
    result = suites("--backend=fake-honest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if "ERROR" in line]
    assert "harness.toml [run]: unknown name 'score_bach'; did you mean 'score_batch'?" in line


TAKERS = """
def pytest_addoption(parser):
    parser.addoption("--device", help="a phone")
    group = parser.getgroup("phones")
    group.addoption("--strict-verdicts", action="store_true", help="a judge")
    group.addoption("--no-rebuild", action="store_true", help="a house")
"""


@pytest.mark.parametrize("loaded_as", ["-pphones", "-pharness.plugin", "conftest"])
def test_a_name_that_another_plugin_holds_costs_one_line_that_names_both(suites, pytester, loaded_as):
    """Whichever comes first, the installed plugin or ours."""
    if loaded_as == "conftest":
        (pytester.path / "conftest.py").write_text('pytest_plugins = ("harness.plugin",)\n' + TAKERS)
        holder = str(pytester.path / "conftest.py")
    else:
        pytester.makepyfile(phones=TAKERS)
        pytester.syspathinsert()
        holder = "phones"
    order = {"-pphones": ["-pphones", "-pharness.plugin"], "-pharness.plugin": ["-pharness.plugin", "-pphones"]}
    options = ("--backend=fake-honest", "--floor=0", "-k", "test_accuracy and not against")
    mine = ("--harness-device=cpu", "--no-harness-rebuild", "--device=Nokia", "--threads=2")
    result = suites(*order.get(loaded_as, ()), *options, *mine)
    assert result.ret == 0, result.stderr.str()
    told = [line for line in result.outlines if "is an option of" in line]
    assert told == [
        f"--device is an option of {holder} here; ours is --harness-device. "
        f"What was typed as --device went to {holder}",
        f"--strict-verdicts is an option of {holder} here; ours is --harness-strict-verdicts",
        f"--rebuild is an option of {holder} here; ours is --harness-rebuild",
    ]
    (record,) = latest(pytester)[1]
    words = record.command.split()
    assert "--threads=2" in words
    assert not [word for word in words if word.startswith("--device")]
    assert suites(*order.get(loaded_as, ()), *words[2:], "--harness-device=cpu", "--floor=0", fast=False).ret == 0


def test_the_command_that_repeats_a_case_uses_names_that_are_ours(suites, pytester):
    (pytester.path / "conftest.py").write_text(
        'pytest_plugins = ("harness.plugin",)\n'
        "def pytest_addoption(parser):\n    parser.addoption('--backend')\n    parser.addoption('--score-batch')\n"
    )
    assert suites("--harness-backend=fake-honest", "--harness-score-batch=50", "--floor=0", "-m", "accuracy").ret == 0
    (record,) = latest(pytester)[1]
    assert {"--harness-backend=fake-honest", "--harness-score-batch=50"} <= set(record.command.split())
    assert suites(*record.command.split()[2:], "-m", "accuracy", fast=False).ret == 0


def test_the_second_names_are_there_when_nobody_holds_the_first(suites, pytester):
    assert suites("--harness-backend=fake-honest", "--harness-floor=0", "-k", "test_accuracy and not against").ret == 0
    assert latest(pytester)[1][0].case.backend == "fake-honest"
    assert "--harness-device" not in suites("--help").stdout.str()


def test_another_plugin_with_our_name_for_a_value_changes_nothing(suites, pytester):
    pytester.makepyfile(
        phones="def pytest_addoption(parser):\n    parser.addoption('--phone', dest='device', default='Nokia')\n"
    )
    pytester.syspathinsert()
    assert suites("--backend=fake-honest", "--floor=0", "-k", "test_accuracy and not against", "-p", "phones").ret == 0


def test_calibration_may_not_meet_the_scored_images(suites):
    result = suites("--backend=fake-honest", "--split=train", "--calibration-from=100")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*200 calibration images would also be scored*--calibration-from*"])


def test_images_that_were_trained_on_are_flagged(suites, pytester):
    suites("--backend=fake-honest", "--split=train", "--floor=0", "-m", "accuracy")
    (record,) = latest(pytester)[1]
    assert record.accuracy.n_trained_on == 300
    assert "scored_on_training_images" in record.flags


def test_a_crash_costs_one_case(suites, pytester):
    result = suites("--backend=fake-segfault,fake-honest", "--floor=0", "-m", "accuracy")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["case 1 of 2  mlp-fake-segfault-fp32 *error: *SIGSEGV*", "case 2 of 2  mlp-fake-h*"])
    assert re.search(r"crashed \(SIGSEGV\) during score.*stack: infer \(_numpy_engine.py:", result.stdout.str())
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1, "one fault, one failure"
    assert not any(line.startswith("suites/test_") for line in result.outlines), "no names of files in between"
    status = {record.case.backend: record.status for record in latest(pytester)[1]}
    assert status == {"fake-segfault": Status.ERROR, "fake-honest": Status.PASSED}


def test_an_error_after_a_loss_hides_neither(suites, pytester):
    result = suites("--backend=fake-loses", "--floor=0")
    assert result.ret == 1
    record = latest(pytester)[1][0]
    assert "top-1" in record.reason
    assert "then an error: " in record.reason
    assert "the clock is broken" in record.reason
    assert record.status is Status.FAILED
    (reference,) = [verdict for verdict in record.verdicts if verdict.gate == "reference"]
    assert reference.outcome is Outcome.REGRESSED
    told = " ".join(result.stdout.str().split())
    assert re.search(
        r"mlp-fake-loses-fp32 regressed: top-1 [\d.]+ -> [\d.]+ % \(.*; 68 lost, 0 gained of 300\); then an", told
    )
    assert "then an error: the clock is broken." in told


def test_a_hang_ends_with_a_reason(suites, pytester):
    result = suites("--backend=fake-hang", "--floor=0", "--worker-timeout=2", "-k", "test_accuracy")
    assert result.ret == 1
    assert "no sign of life for 2 s" in latest(pytester)[1][0].reason


def test_nan_outputs_never_pass(suites, pytester):
    result = suites("--backend=fake-nan", "--floor=0", "-m", "accuracy")
    assert result.ret == 1
    assert "gives nan as an output" in latest(pytester)[1][0].reason


def test_a_slot_leak_fails_invariance(suites):
    result = suites("--backend=fake-slot-leak", "--floor=0", "-m", "invariance")
    assert result.ret == 1
    told = " ".join(result.stdout.str().split())
    assert "depends on the rest of its batch; batch 1 agrees with FP32 on ort, batch 2, " in told
    assert "<harness" not in told


def test_what_a_device_cannot_do_is_skipped_with_its_reason(suites, pytester):
    result = suites("--backend=fake-refuses", "--precision=fp32,fp16", "--floor=0", "-m", "accuracy or build", "-rs")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*this device has no 16-bit arithmetic*"])
    assert [record.status for record in latest(pytester)[1]] == [Status.PASSED, Status.UNSUPPORTED]


def test_a_run_in_which_no_case_ran_is_an_error(suites):
    result = suites("--backend=fake-refuses", "--precision=fp16", "-k", "fp16 and test_accuracy")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["ERROR: no case ran*"])


def test_parallel_runs_are_refused(suites):
    result = suites("--backend=fake-honest", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = [line for line in (*result.outlines, *result.errlines) if "Run them without -n" in line]
    assert len(told) == 1
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_a_report_dir_that_cannot_be_written_is_named(suites, pytester):
    (pytester.path / "taken").write_text("a file")
    result = suites("--backend=fake-honest", "--report-dir=taken", "-m", "accuracy")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --report-dir*taken*cannot be written*"])


def test_samples_reach_pytest_benchmark(suites, pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # pytest-benchmark measures nothing below pytest-xdist
    suites("--backend=fake-honest", "--benchmark-json=bench.json", "-m", "latency")
    benchmarks = json.loads((pytester.path / "bench.json").read_text())["benchmarks"]
    (record,) = latest(pytester)[1]
    assert len(benchmarks) == 2
    for entry, latency in zip(benchmarks, record.latencies, strict=True):
        assert entry["params"] == {"case_run": record.case.id, "batch_size": latency.batch_size}
        assert entry["extra_info"] == {
            "case": record.case.id,
            "model": "mlp",
            "backend": "fake-honest",
            "precision": "fp32",
            "recipe": "none",
            "device": "cpu",
            "batch_size": latency.batch_size,
            "clock": latency.clock,
            "window": latency.window,
        }
        samples = latency.rounds_ns.array().ravel()[:1000]
        assert entry["stats"]["rounds"] == len(samples)
        assert entry["stats"]["min"] == pytest.approx(samples.min() * 1e-9, rel=1e-9)
        assert entry["stats"]["mean"] == pytest.approx(samples.mean() * 1e-9, rel=1e-9)


def test_baselines_are_missing_then_written_then_held(suites, pytester):
    options = ("--backend=fake-honest",)
    judged = (*options, "-k", "accuracy_against_baseline")
    assert suites(*judged, "--baseline=require").ret == 1
    suites(*judged, "--update-baselines").stdout.fnmatch_lines(["baselines: 1 not written: not scored, timed*"])
    first = suites(*options, "--update-baselines")
    first.stdout.fnmatch_lines(["baselines: wrote those of 1 cases"])
    assert suites(*judged, "--baseline=require").ret == 0
    (record,) = latest(pytester)[1]
    assert [v.code for v in record.verdicts if v.gate == "baseline"] == ["identical"]


def test_a_batch_without_stored_times_fails_when_a_baseline_is_required(suites):
    suites("--backend=fake-honest", "--update-baselines")
    options = ("--backend=fake-honest", "-m", "latency", "--baseline=require", "--max-slowdown=10000%")
    assert suites(*options).ret == 0
    result = suites(*options, "--batch-size=3")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*batch 3: the baseline of * holds no times of it*"])


COSTS = ("--backend=fake-honest", "-k", "test_build_time or test_engine_size or test_memory")


def test_gates_of_costs_are_in_the_run_where_their_tolerance_is_set(suites, pytester):
    assert suites(*COSTS).ret == pytest.ExitCode.NO_TESTS_COLLECTED
    suites(*COSTS, "--max-engine-growth=5%").assert_outcomes(passed=1)
    (pytester.path / "harness.toml").write_text('[tolerance.int8]\nmax_memory_growth = "10%"\n')
    assert suites(*COSTS).ret == pytest.ExitCode.NO_TESTS_COLLECTED
    (pytester.path / "harness.toml").write_text('[tolerance]\nmax_memory_growth = "10%"\n')
    suites(*COSTS).assert_outcomes(passed=1)
    assert suites(*COSTS, "--baseline=require").ret == 1, "there is no baseline: nothing says that it holds"


def test_an_engine_that_grew_since_it_was_accepted_fails_with_both_numbers(suites, pytester):
    asked = (*COSTS, "--max-engine-growth=5%", "--max-build-slowdown=50%", "--baseline=require")
    suites("--backend=fake-honest", "--update-baselines")
    suites(*asked).assert_outcomes(passed=2)
    store = BaselineStore(pytester.path / "baselines")
    (path,) = (path for path in store.paths() if "times" in path.parts)
    accepted = store.read(path)
    write_file(path, json_from_baseline(replace(accepted, costs=replace(accepted.costs, engine_bytes=900))))
    result = suites(*asked)
    result.assert_outcomes(passed=1, failed=1)
    told = "engine: 1,000 bytes, 11.11 % more than 900 bytes of the baseline of *; accepted: 5.00 % more; *"
    result.stdout.fnmatch_lines([told])
    (record,) = latest(pytester)[1]
    assert {v.gate: v.code for v in record.verdicts} == {"buildtime": "build_time_kept", "enginesize": "larger_engine"}
    page = (pytester.path / "reports/latest/index.html").read_text()
    assert "engine: 1,000 bytes, 11.11 % more than 900 bytes of the baseline of" in page
    write_file(path, json_from_baseline(replace(accepted, costs=None)))
    result = suites(*asked)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*not gated: the baseline of * has no engine size*"])


def test_judging_that_breaks_passes_nothing(suites, pytester, monkeypatch):
    def broken(*_, **__):
        raise OSError("no space left")

    # By module, not by dotted name: pytester forgets modules between runs and leaves the package's attribute stale.
    monkeypatch.setattr(importlib.import_module("harness.run.comparing"), "drift_between", broken)
    result = suites("--backend=fake-honest", "--precision=fp32,fp16", "-k", "against_fp32 or against_reference")
    outcomes = result.parseoutcomes()
    assert "passed" not in outcomes
    assert result.ret == 1


def test_an_interrupted_run_says_what_was_not_judged(suites, pytester):
    (pytester.path / "test_stop.py").write_text("")
    result = suites("--backend=fake-honest,fake-refuses", "--floor=99.9%", "-x")
    assert result.ret == 1
    assert all(record.status is not Status.PASSED for record in latest(pytester)[1])


def test_a_strict_run_fails_on_an_inconclusive_floor(suites):
    options = ("--backend=fake-honest", "--floor=97%", "-k", "test_accuracy and not against")
    assert suites(*options).ret == 0
    assert suites(*options, "--strict-verdicts").ret == 1


def test_a_damaged_baseline_is_an_error_with_its_command(suites, pytester):
    options = ("--backend=fake-honest",)
    suites(*options, "--update-baselines")
    (path,) = (pytester.path / "baselines" / "predictions").glob("*/*/*.json")
    path.write_bytes(path.read_bytes()[:100])
    result = suites(*options)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*harness baseline accept*"])


def test_junit_xml_tells_the_numbers_once_a_case_and_the_verdict_of_all_its_tests(suites, pytester):
    suites("--backend=fake-honest,fake-refuses", "--floor=0", "--junit-xml=junit.xml", "-m", "not build")
    text = (pytester.path / "junit.xml").read_text()
    for record in latest(pytester)[1]:
        assert text.count(f'<property name="case" value="{record.case.id}" />') == 1
    assert text.count('<property name="top1" value="0.97') == 2
    assert text.count('<property name="verdict" value="passed" />') + text.count('value="inconclusive" />') == 2
    assert text.count("<properties>") == 2


def test_only_collecting_measures_nothing(suites, pytester):
    result = suites("--backend=fake-honest", "--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_accuracy.py::test_accuracy[[]mlp-fake-honest-fp32[]]"])
    assert not (pytester.path / "reports").exists()


def test_help_shows_our_options_under_one_group(suites):
    result = suites("--help")
    text = "\n".join(result.outlines)
    group = text[text.index("inference engines: accuracy and latency") :]
    for option in ("--backend", "--score-images", "--batch-size", "--engine-cache", "--trt-profile", "--strict"):
        assert option in group


def test_judging_a_stored_run_again_gives_the_verdicts_of_its_night(suites, pytester):
    suites("--backend=fake-honest,fake-refuses", "--update-baselines")
    suites("--backend=fake-honest,fake-refuses", "--precision=fp32,fp16,int8", "--floor=99.9%")
    _, stored = load_run(pytester.path / "reports" / "latest")
    _, judged = load_judged_run(pytester.path / "reports" / "latest")
    assert {verdict.gate for record in stored for verdict in record.verdicts} >= {
        "floor",
        "fp32",
        "reference",
        "baseline",
    }
    assert any(record.is_reference for record in stored)
    assert judged == stored


def test_the_baselines_of_a_later_day_do_not_change_what_a_stored_run_was_told(suites, pytester):
    suites("--backend=fake-honest", "--update-baselines")
    _, judged = load_judged_run(pytester.path / "reports" / "latest")
    assert {v.outcome for record in judged for v in record.verdicts if v.gate == "baseline"} == {Outcome.NO_BASELINE}


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ('@pytest.mark.gate("flor")', "no gate is called 'flor'; there are: presence, chance, floor, "),
        ('@pytest.mark.gate("floor", "fp32")', 'is marked @pytest.mark.gate("name") once'),
        ("", 'is marked @pytest.mark.gate("name") once'),
    ],
)
def test_a_wrong_gate_is_a_usage_error_before_anything_is_measured(suites, pytester, mark, says):
    pytester.makepyfile(test_mine=f"import pytest\n\n{mark}\ndef test_mine(verdict):\n    assert verdict.ok\n")
    result = pytester.runpytest_inprocess("test_mine.py", *FAST, "--backend=fake-honest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in "\n".join(result.errlines)
    assert not (pytester.path / "reports").exists()


def test_the_suite_in_readme_runs(suites, pytester):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    pytester.makepyfile(test_mine=code)
    result = pytester.runpytest_inprocess("test_mine.py", *FAST, "--backend=fake-honest", "--precision=fp32,fp16")
    result.assert_outcomes(passed=3)  # FP32 is not judged against itself


def test_the_short_summary_names_what_failed(suites, pytester):
    pytester.makepyfile(test_mine="def test_mine(verdict):\n    assert verdict.ok\ndef test_own(): assert False")
    result = suites("--backend=fake-honest", "--floor=99.9%", "-rf", "-k", "test_accuracy and not against")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAILED suites/*"])


def test_other_tests_keep_pytest_s_own_lines_beside_ours(suites, pytester):
    pytester.makepyfile(test_mine="def test_own(): pass")
    result = pytester.runpytest_inprocess("test_mine.py", "suites/test_build.py", *FAST, "--backend=fake-honest")
    result.stdout.fnmatch_lines(["test_mine.py .*", "case 1 of 1  mlp-fake-honest-fp32 *"])
    verbose = suites("--backend=fake-honest", "-v", "-m", "build")
    verbose.stdout.fnmatch_lines(["*test_build.py::test_build[[]mlp-fake-honest-fp32[]] PASSED*"])


def test_the_exit_codes_are_those_of_the_table(suites, pytester):
    page = (ROOT / "docs" / "adopting.md").read_text()
    meanings = dict(re.findall(r"^\| (\d) \| ([^|]+) \|", page, re.MULTILINE))
    assert {int(code) for code in meanings} == set(range(6)) <= {int(code) for code in pytest.ExitCode}
    options = ("--backend=fake-honest", "-k", "test_accuracy and not against")
    assert (suites(*options, "--floor=0").ret, meanings["0"]) == (0, "nothing regressed, broke or is missing")
    assert suites(*options, "--floor=99.9%").ret == 1
    assert suites("--backend=fake-segfault", "--floor=0", "-m", "accuracy").ret == 1
    assert suites("--backend=fake-refuses", "--precision=fp16", "-k", "fp16 and test_build").ret == 1
    assert "failed, ended in an error or never ran" in meanings["1"]
    pytester.makepyfile(test_broken="import nothing_of_this_name")
    assert (suites("test_broken.py", *options).ret, "cannot be imported" in meanings["2"]) == (2, True)
    for wrong in ("--backend=opnvino", "--model=absent.onnx", "--no-such-option"):
        assert suites("--backend=fake-honest", wrong, fast=False).ret == 4
    assert (suites("--backend=fake-honest", "-k", "nothing").ret, meanings["5"]) == (5, "no test was selected")


def test_operators_are_run_only_where_their_marker_asks(suites, pytester):
    pytest.importorskip("onnxruntime")
    backend = (f"--extension-dir={ROOT / 'tests' / 'odd_operators'}", "--backend=odd-operators", "--precision=int8")
    without = suites("--collect-only", "--model=mlp", *backend, fast=False)
    without.stdout.no_fnmatch_line("*test_operators.py*")
    result = suites("-m", "operators", "--model=mlp", *backend, fast=False)
    assert (result.ret, result.parseoutcomes()["failed"]) == (1, 1)
    result.stdout.fnmatch_lines(["| Mul | wrong 10 of 10*", "*Mul: Mul/same@13 and 9 more wrong: differs by *"])
    (found,) = (pytester.path / "reports" / "operators").glob("*/odd-operators-int8.json")
    states = {one["operator"]: one["state"] for one in json.loads(found.read_text())["outcomes"]}
    assert (states["Mul"], states["MaxPool"], states["Conv"]) == ("wrong", "unsupported", "ok")
    accepted = suites("-m", "operators", "--model=mlp", *backend, "--update-baselines", fast=False)
    assert (accepted.ret, accepted.parseoutcomes()["passed"]) == (0, 1)
    assert (pytester.path / "baselines" / "operators" / "odd-operators-int8.json").is_file()
