"""Models of any graph, end to end: several named inputs, a state, free sizes; in the suites as a user runs them."""

import json

import numpy as np
import pytest
from graph_nets import write_net

from harness.records import Outcome, Status
from harness.store.runs import load_run

pytest.importorskip("onnxruntime")
FAST = ("--backend=ort", "--timing-rounds=6", "--score-images=12")


@pytest.fixture
def suites(pytester):
    root = pytest.importorskip("harness").__path__[0].rpartition("/")[0]
    for name in ("suites", "models"):
        (pytester.path / name).symlink_to(f"{root}/{name}", target_is_directory=True)
    pytester.makeconftest('pytest_plugins = ("harness.plugin",)')
    options = "-p no:cacheprovider --import-mode=importlib --baseline-dir=baselines --engine-cache=cache"
    pytester.makeini(f"[pytest]\naddopts = {options}")

    def run(*args):
        result = pytester.runpytest_inprocess("suites/", *FAST, *args)
        _, records = load_run(pytester.path / "reports" / "latest")
        return result, {record.case.id: record for record in records if not record.is_reference}

    return run


def test_a_text_model_is_timed_and_its_precisions_compared(suites, pytester):
    path = write_net(pytester.path, "text")
    result, records = suites(
        f"--model={path}", "--shapes=ids:1x7,mask:1x7", "--precision=fp32,fp16", "--batch-size=1,4"
    )
    assert result.ret == 0, result.stdout.str()
    assert set(records) == {"text-ort-fp32", "text-ort-fp16"}
    fp16 = records["text-ort-fp16"]
    assert [latency.batch_size for latency in fp16.latencies] == [1, 4]
    assert {check.name for check in fp16.invariance} == {"repeat", "batch_size", "slot", "neighbours", "padding"}
    assert [(drift.output, drift.against) for drift in fp16.tensor_drifts] == [("scores", "text-ort-fp32")]
    assert fp16.tensor_drifts[0].median < 1e-3
    assert fp16.samples.source == "seeded"
    assert fp16.samples.fingerprint == records["text-ort-fp32"].samples.fingerprint
    page = (pytester.path / "reports/latest/index.html").read_text()
    assert "Drift of outputs" in page
    result.stdout.fnmatch_lines(["text*ort*fp16*drift*"])


def test_a_state_is_fed_back_and_a_scalar_is_kept(suites, pytester):
    path = write_net(pytester.path, "stateful")
    result, records = suites(
        *(f"--model={path}", "--state=state=next", "--input-range=rate:2..2,frame:1..1", "--precision=fp32"),
        *("--throughput", "--concurrency=2"),
    )
    assert result.ret == 0, result.stdout.str()
    (found,) = records["stateful-ort-fp32"].throughput
    assert (found.batch_size, found.concurrency, found.how) == (1, 2, "threads over one session")
    result.stdout.fnmatch_lines(["throughput stateful-ort-fp32: batch 1 * samples/s (2 at once)"])
    assert " samples/s (" in (pytester.path / "reports/latest/index.html").read_text()
    (case,) = json.loads((pytester.path / "reports/latest/summary.json").read_text())["cases"]
    assert case["throughput"]["1"]["images_per_s"] > 0
    record = records["stateful-ort-fp32"]
    assert [latency.batch_size for latency in record.latencies] == [1]
    assert [check.name for check in record.invariance] == ["repeat"]


def test_an_output_whose_size_depends_on_values_is_compared(suites, pytester):
    path = write_net(pytester.path, "chosen")
    result, records = suites(f"--model={path}", "--precision=fp32", "--throughput", "--concurrency=2")
    assert result.ret == 0, result.stdout.str()
    assert [found.concurrency for found in records["chosen-ort-fp32"].throughput] == [2]
    assert records["chosen-ort-fp32"].samples.n_samples == 12


def test_a_data_set_gives_the_samples_and_a_card_their_meaning(suites, pytester):
    path = write_net(pytester.path, "text")
    generator = np.random.default_rng(0)
    np.savez(
        pytester.path / "rows.npz",
        ids=generator.integers(0, 5, (40, 7)),
        mask=np.ones((40, 7), np.int64),
        labels=generator.integers(0, 3, 40),
    )
    card = '[model]\nfile = "text.onnx"\n[graph]\nshapes = ["ids:1x7", "mask:1x7"]\n[output]\ntask = "classification"\n'
    path.with_suffix(".toml").write_text(card)
    result, records = suites(f"--model={path}", f"--dataset={pytester.path / 'rows.npz'}", "--precision=fp32,fp16")
    assert result.ret == 0, result.stdout.str()
    samples = records["text-ort-fp16"].samples
    assert samples.n_samples == 12
    assert samples.leading.name == "top-1"
    assert samples.source.endswith("rows.npz/all")
    assert {v.gate for v in records["text-ort-fp16"].verdicts} >= {"drift", "metric"}


def test_a_free_axis_costs_one_line_that_says_what_to_give(suites, pytester):
    path = write_net(pytester.path, "sized")
    result = pytester.runpytest_inprocess("suites/", *FAST, f"--model={path}")
    told = "has sizes that the file leaves open; say them, for example --shapes=x:1x1x224x224"
    result.stderr.fnmatch_lines([f"*x (n x 1 x h x w) {told}*"])
    assert result.ret == 4


ROWS = {"ids": np.zeros((40, 7), np.int64), "mask": np.ones((40, 7), np.int64), "labels": np.zeros(40, np.int64)}


CARD = '[model]\nfile = "text.onnx"\n[graph]\nshapes = ["ids:1x7", "mask:1x7"]\n[output]\ntask = "classification"\n'


@pytest.mark.parametrize(
    ("task", "changes", "told"),
    [
        ('output = "logits"', {}, "text: [[]task] output = 'logits': the model has no such output; it has: scores"),
        ("", {"labels": None}, "rows.npz: sample 0: it has no target, which task classification scores by"),
        ("", {"mask": None}, "rows.npz: sample 0: holds no mask, which text takes (int64 [[]?])"),
    ],
)
def test_what_a_data_set_does_not_fit_is_told_before_anything_is_built(pytester, suites, task, changes, told):
    path = write_net(pytester.path, "text")
    np.savez(pytester.path / "rows.npz", **{k: array for k, array in {**ROWS, **changes}.items() if array is not None})
    path.with_suffix(".toml").write_text(f"{CARD}[task]\n{task}\n")
    args = (*FAST, f"--model={path}", "--dataset=rows.npz", "--precision=fp32")
    result = pytester.runpytest_inprocess("suites/", *args)
    result.stderr.fnmatch_lines([f"*{told}*"])
    assert result.ret == 4


def test_samples_that_calibrate_are_looked_at_too(pytester, suites):
    path = write_net(pytester.path, "text")
    np.savez(pytester.path / "rows.npz", **ROWS)
    np.savez(pytester.path / "others.npz", ids=ROWS["ids"])
    path.with_suffix(".toml").write_text(CARD)
    data = ("--dataset=rows.npz", "--calibration-dataset=others.npz")
    result = pytester.runpytest_inprocess("suites/", *FAST, f"--model={path}", *data)
    result.stderr.fnmatch_lines(["*others.npz: sample 0: holds no mask*"])
    assert result.ret == 4


def test_a_drifting_engine_is_red(suites, pytester, monkeypatch):
    """The limit is met by the median error of FP16 alone: an accepted drift of nothing is beyond it."""
    path = write_net(pytester.path, "sized")
    (pytester.path / "harness.toml").write_text("[tolerance.fp16]\nmax_drift = 0\n")
    result, records = suites(f"--model={path}", "--shapes=x:1x1x9x9", "--precision=fp32,fp16")
    assert result.ret == 1
    record = records["sized-ort-fp16"]
    assert record.status is Status.FAILED
    assert [v.outcome for v in record.verdicts if v.gate == "drift"] == [Outcome.REGRESSED]
    assert record.times_void  # an engine whose outputs are wrong has no time
    assert result.parseoutcomes()["failed"] == 1, "one loss fails one test"
    result.stdout.no_fnmatch_line("FAILED*test_latency*")


def test_a_baseline_holds_where_the_same_data_lie_in_another_folder(suites, pytester):
    path = write_net(pytester.path, "text")
    path.with_suffix(".toml").write_text(CARD)
    for place in ("here/data", "there/deep/data"):
        folder = pytester.path / place
        folder.mkdir(parents=True)
        labels = np.arange(40) % 3
        np.savez(folder / "rows.npz", **{**ROWS, "ids": np.arange(280).reshape(40, 7) % 5, "labels": labels})
    args = (f"--model={path}", "--precision=fp32")
    result, _ = suites(*args, f"--dataset={pytester.path / 'here/data/rows.npz'}", "--update-baselines")
    assert result.ret == 0, result.stdout.str()
    result, records = suites(*args, "--dataset=./there/deep/data/rows.npz", "--baseline=require")
    assert result.ret == 0, result.stdout.str()
    found = {v.gate: v.code for v in records["text-ort-fp32"].verdicts}
    assert found["metric_baseline"] == "identical"
    accepted = [
        file for file in (pytester.path / "baselines").rglob("*.json") if str(pytester.path) in file.read_text()
    ]
    assert not accepted, "a baseline goes into git: it names no folder of one machine"


def test_int8_is_held_against_the_float_emulation_of_its_file(suites, pytester):
    path = write_net(pytester.path, "sized")
    result, records = suites(f"--model={path}", "--shapes=x:1x1x9x9", "--precision=fp32,int8", "-m", "drift")
    assert result.ret == 0, result.stdout.str()
    int8 = records["sized-ort-int8"]
    (drift,) = int8.kernel_drifts
    assert (drift.output, drift.against) == ("y", "sized-ort-emulation-int8")
    assert drift.median < int8.tensor_drifts[0].median
    assert not records["sized-ort-fp32"].kernel_drifts
    assert "sized-ort-emulation-int8" in (pytester.path / "reports/latest/index.html").read_text()
