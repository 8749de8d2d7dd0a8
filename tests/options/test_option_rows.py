"""Every option comes from its row, and from nowhere else."""

import argparse
import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from option_words import EVERY, NOT_REPEATED, SELECTING, every_word, options_of, parser_of_options

from harness.backends._cuda.options import CudaOptions
from harness.backends.trt.calibrator import LEGACY_CUTOFF, LEGACY_QUANTILE
from harness.backends.trt.options import TrtOptions
from harness.errors import ConfigError
from harness.options.groups import BACKENDS, backend_groups
from harness.options.markdown import options_page
from harness.options.table import all_rows, default_of, is_changed, value_of
from harness.options.values import HarnessOptions, data_request
from harness.specs import DatasetRequest, InputsAsked, Precision, TimingPlan

ROOT = Path(__file__).parents[2]
HOMES = ("options/table.py", *(f"backends/{path.parent.name}/options.py" for path in BACKENDS.glob("*/options.py")))
# A name that is a whole literal although no option is defined there.
ELSEWHERE = {
    ("cli/runs.py", "--baseline-dir"),  # an option of `harness baseline`, which has no pytest
    ("cli/calibration.py", "--max-drift"),  # an option of `harness calibration drift`, which has no pytest
    ("worker/process.py", "--worker-timeout"),  # put into a message
    ("run/probing.py", "--backend-option"),  # begins one
    ("options/parsing.py", "--strict-verdicts"),  # pytest's own --strict sets it
}


def test_every_option_has_a_value_in_these_tests():
    assert set(EVERY) == {row.flag for row in all_rows()}
    assert {row.flag for row in all_rows() if row.role == "selects"} == SELECTING
    assert {row.flag for row in all_rows() if row.role == "run"} == NOT_REPEATED


def test_every_field_has_a_row_and_every_row_a_field():
    mine = [field.name for field in fields(HarnessOptions)]
    data = [f"data.{field.name}" for field in fields(DatasetRequest)]
    timing = [f"timing.{field.name}" for field in fields(TimingPlan)]
    inputs = [f"inputs.{field.name}" for field in fields(InputsAsked)]
    without = {"root", "data", "timing", "inputs", "settings", "set_in_file", "taken_flags", "named"} | {
        "inputs.is_for_one",
        "timing.round_ns",
        "timing.warmup_ns",
    }
    rows = [row.field for row in all_rows() if not row.group]
    assert len(set(rows)) == len(rows)
    assert set(rows) == {*mine, *data, *timing, *inputs} - without


def test_every_field_of_the_backends_has_a_row():
    rows = {(row.group, row.field) for row in all_rows() if row.group}
    assert {field for group, field in rows if group == "cuda"} == {field.name for field in fields(CudaOptions)}
    shared = {field.name for field in fields(CudaOptions)}
    for name, group in backend_groups().items():
        own = {field.name for field in fields(group.read({}))}
        assert {field for owner, field in rows if owner == name} == (own if name == "cuda" else own - shared), name
    assert {"cuda", "opencv", "trt"} <= set(backend_groups())


def flags_in(path, flags):
    """Yield the flags that are a literal of their own, alone or before `=`; a text with a space is a message."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        else:
            continue
        if " " not in text and text.split("=")[0] in flags:
            yield text.split("=")[0]


def test_no_option_is_written_anywhere_but_in_its_row():
    flags = {row.flag for row in all_rows()}
    found = {
        (str(path.relative_to(ROOT / "harness")), flag)
        for path in sorted((ROOT / "harness").rglob("*.py"))
        for flag in flags_in(path, flags)
    }
    assert {(path, flag) for path, flag in found if path not in HOMES} <= ELSEWHERE


def test_a_flag_written_elsewhere_would_be_seen(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        'add("--threads")\nraise E("--threads must be greater")\nraise E(f"--threads={n}: expected more")\n'
        'words = [f"--device={device}"]\n'
    )
    assert sorted(flags_in(path, {"--threads", "--device"})) == ["--device", "--threads"]


def test_argparse_names_cannot_meet_those_of_other_plugins():
    actions = [action for action in parser_of_options()._actions if action.dest != "help"]
    assert len(actions) == 2 * len(all_rows())  # each has a second name
    assert all(action.dest.startswith("harness_") for action in actions)
    assert all(action.default is None for action in actions)


def test_the_help_states_unit_and_default():
    shown = (action for action in parser_of_options()._actions if action.help != argparse.SUPPRESS)
    text = {action.option_strings[0]: action.help for action in shown}
    assert text["--batch-size"] == "batch sizes to time [images]; comma list (default: 1,100)"
    assert text["--worker-timeout"].endswith("[s] (default: 600, and 1800 while it builds)")
    assert text["--trt-profile"].endswith("[images]; repeatable (default: one a batch size, tuned for it)")
    assert text["--rebuild"].endswith("(default: no)")
    assert all("(default: " in help_text for flag, help_text in text.items() if flag != "-h")


@pytest.mark.parametrize(("flag", "default"), [("--trt-quantile", LEGACY_QUANTILE), ("--trt-cutoff", LEGACY_CUTOFF)])
def test_the_help_states_the_defaults_of_the_legacy_calibrator(flag, default):
    (action,) = (action for action in parser_of_options()._actions if flag in action.option_strings)
    assert f"(default: {default}, sampleINT8's)" in action.help


def test_help_can_be_printed():
    assert "0.5%" in parser_of_options().format_help()


def test_no_option_means_the_defaults(tmp_path):
    options = options_of(root=tmp_path)
    assert options == HarnessOptions(
        report_dir=str(tmp_path / "reports"), baseline_dir=str(tmp_path / "suites/baselines"), root=str(tmp_path)
    )
    assert not [row.flag for row in all_rows() if is_changed(row, options)]
    assert HarnessOptions().build_settings == {}


def test_every_option_reaches_its_field(tmp_path):
    options = options_of(*every_word(), "--baseline=auto", root=tmp_path)
    unchanged = [row.flag for row in all_rows() if value_of(row, options) == default_of(row, str(tmp_path))]
    assert unchanged == ["--baseline"]
    assert options.backends == ("ort", "trt", "openvino")
    assert options.precisions == (Precision.BF16, Precision.INT8)  # in the order of Precision
    assert options.timing.batch_sizes == (8, 1, 32)
    assert options.data.score_first == 7
    assert options.backend_options == (("my-engine", "streams", "4"), ("my-engine", "mode", "a=b, c"))
    assert options.settings["trt"]["profiles"] == ((1, 4, 8), (9, 16, 64))
    assert options.settings["trt"]["workspace_bytes"] == 256 * 2**20
    assert options.build_settings["my-engine"] == {"streams": "4", "mode": "a=b, c"}
    assert TrtOptions.of(options.build_settings).tf32
    assert CudaOptions.of(options.build_settings).tf32


def test_a_value_that_is_the_default_is_no_setting(tmp_path):
    assert options_of("--no-cuda-tf32", root=tmp_path).settings == {}


def test_paths_mean_the_same_from_the_root_and_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--data-dir=digits", "--model=mlp,nets/own.onnx", "--extension-dir=mine", "--report-dir=out")
    here = options_of(*words, root=tmp_path)
    assert (here.data.data_dir, here.models) == ("digits", ("mlp", "nets/own.onnx"))
    assert (here.extension_dirs, here.report_dir) == ((str(tmp_path / "mine"),), str(tmp_path / "out"))
    (tmp_path / "suites").mkdir()
    monkeypatch.chdir(tmp_path / "suites")
    below = options_of(*words, root=tmp_path)
    assert below.data.data_dir == str(tmp_path / "suites" / "digits")
    assert below.models == ("mlp", str(tmp_path / "suites" / "nets/own.onnx"))
    assert below.report_dir == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--trt-profile=4:2:8"], r"1 <= MIN <= OPT <= MAX"),
        (["--trt-profile=1:2"], "--trt-profile=1:2: expected MIN:OPT:MAX"),
        (["--trt-profile=1:x:8:32"], "expected MIN:OPT:MAX"),
        (["--trt-profile=0:1:8"], "--trt-profile=0:1:8: expected 1 <= MIN"),
        (["--trt-profile=1:1:4294967296"], "--trt-profile=1:1:4294967296: expected"),
        (["--backend=auto", "--backend=ort"], "name it alone"),
        (["--backend="], "--backend=: expected a name, found none"),
        (["--batch-size=0"], "at least 1"),
        (["--batch-size=1,one"], "--batch-size=one: expected a whole number"),
        (["--precision=fp8"], "--precision=fp8: choose from fp32, fp16, bf16, int8"),
        (["--split=validation"], "--split=validation: choose from train, test"),
        (["--threads=two"], "--threads=two: expected a whole number"),
        (["--input-scale=nan"], "--input-scale=nan: expected a number"),
        (["--score-images=0"], "at least 1"),
        (["--calibration-images=0"], "at least 1"),
        (["--worker-timeout=0"], "greater than 0"),
        (["--max-drop=lots"], "--max-drop=lots: max_drop: 'lots' is neither a fraction"),
        (["--max-drop=0.5"], "--max-drop=0.5: max_drop = 0.5 means 50 %; did you mean '0.5%'"),
        (["--alpha=2"], "did you mean '2%'"),
        (["--trt-workspace=-5"], "--trt-workspace=-5: expected 0 MiB or more"),
        ([f"--trt-workspace={2**43}"], "--trt-workspace=8796093022208: expected"),
        (["--trt-optimization-level=7"], "--trt-optimization-level=7: expected 0 to 5"),
        (["--trt-optimization-level=-1"], "--trt-optimization-level=-1: expected 0 to 5"),
        (["--trt-quantile=2"], "--trt-quantile=2.0: expected a fraction above 0"),
        (["--trt-quantile=0"], "--trt-quantile=0.0: expected a fraction above 0"),
        (["--trt-quantile=nan"], "--trt-quantile=nan: expected a fraction above 0"),
        (["--trt-quantile=much"], "--trt-quantile=much: 'much' is neither a fraction"),
        (["--calibration-batch=0"], "--calibration-batch=0: expected 1 to"),
        (["--trt-cutoff=-1"], "--trt-cutoff=-1.0: expected a fraction"),
        (["--backend-option=streams=4"], "--backend-option=streams=4: expected NAME.KEY=VALUE"),
        (["--backend-option=trt.tf32=1"], "--backend-option=trt.tf32=1: use an option of its own: --trt-workspace"),
    ],
)
def test_contradictions_are_refused(words, says, tmp_path):
    with pytest.raises(ConfigError, match=says) as error:
        options_of(*words, root=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"trtx": {}}, "settings: unknown name 'trtx'; did you mean 'trt'"),
        ({"trt": {"profile": ()}}, "settings of cuda and trt: unknown name 'profile'; did you mean 'profiles'"),
        ({"trt": {"workspace_bytes": "much"}}, "settings of cuda and trt: Expected `int | null`, got `str`"),
        ({"cuda": {"tf32": True, "profiles": ()}}, "settings of cuda: unknown name 'profiles'"),
    ],
)
def test_settings_made_in_python_are_checked_too(settings, says):
    with pytest.raises(ConfigError) as error:
        HarnessOptions(settings=settings)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ({"split": "test", "score_first": 0, "score_images": 10_000}, 0),  # other split: no overlap
        ({"split": "train", "score_first": 50_000, "score_images": 10_000}, 0),  # the hold-out
        ({"split": "train", "score_first": 10_000, "score_images": 40_000}, 0),  # sampleINT8's protocol
        ({"split": "train", "score_first": 0, "score_images": 500}, 500),  # moved behind the scored ones
    ],
)
def test_calibration_images_are_chosen_beside_the_scored_ones(asked, first):
    request = data_request(name="mnist", calibration_images=1_000, **asked)
    assert request.calibration_first == first
    assert request.calibration_split == "train"


def test_an_overlap_is_refused():
    with pytest.raises(ConfigError, match="would also be scored"):
        DatasetRequest(split="train", score_first=0, calibration_split="train", calibration_first=9_999)


def test_the_options_are_read_without_a_runtime_or_an_adapter():
    code = (
        "import sys\nfrom harness.options.table import all_rows\nassert all_rows()\n"
        "heavy = {'onnx', 'onnxruntime', 'openvino', 'tensorrt', 'pycuda', 'cuda', 'scipy', 'pandas', 'pytest'}\n"
        "print(sorted(heavy & set(sys.modules)), 'harness.backends.trt.adapter' in sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert child.stdout.strip() == "[] False"


def test_the_page_of_options_is_made_from_the_rows():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert page == options_page(), "run: python -m harness.options.markdown > docs/options.md"
