"""Options become cases; what cannot be met is one clear line."""

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from harness.backends import add_backend_dir
from harness.backends.trt.calibrator import LEGACY_CUTOFF, LEGACY_QUANTILE
from harness.errors import BackendUnavailable, ConfigError
from harness.options.commands import command_of
from harness.options.table import add_options, options_from_namespace
from harness.options.values import HarnessOptions, data_request
from harness.run.plan import plan_run, probe_backends
from harness.specs import Case, DatasetRequest, Precision, TimingPlan, TrtOptions, batches_of_engine

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
FAKES = (str(ROOT / "tests" / "fakes"),)


def planned(**changes):
    return plan_run(HarnessOptions(backend_dirs=FAKES, **changes), models_dir=MODELS, probe=False)


def test_every_bundled_classifier_in_three_precisions():
    plan = planned(backends=("fake-honest",))
    assert [case.id for case in plan.cases][:3] == [
        "lenet5-fake-honest-fp32",
        "lenet5-fake-honest-fp16",
        "lenet5-fake-honest-int8",
    ]
    assert len(plan.cases) == 4 * 3


def test_recipes_multiply_int8_only():
    plan = planned(backends=("fake-honest",), models=("mlp",), recipes=("qdq-minmax", "qdq-entropy"))
    assert [case.id for case in plan.cases] == [
        "mlp-fake-honest-fp32",
        "mlp-fake-honest-fp16",
        "mlp-fake-honest-int8",
        "mlp-fake-honest-int8-qdq-entropy",
    ]


@pytest.mark.parametrize(("option", "default"), [("--trt-quantile", LEGACY_QUANTILE), ("--trt-cutoff", LEGACY_CUTOFF)])
def test_the_help_states_the_defaults_of_the_legacy_calibrator(option, default):
    (action,) = (action for action in parser_of_options()._actions if option in action.option_strings)
    assert f"(default: {default}, sampleINT8's)" in action.help


def test_bf16_runs_when_it_is_asked_for():
    plan = planned(backends=("fake-honest",), models=("mlp",), precisions=(Precision.BF16,))
    assert [case.id for case in plan.cases] == ["mlp-fake-honest-bf16"]
    precisions = (Precision.FP16, Precision.BF16, Precision.INT8)
    plan = planned(backends=("fake-honest",), models=("mlp",), precisions=precisions, recipes=("runtime", "nncf"))
    assert [case.id for case in plan.cases] == [
        "mlp-fake-honest-fp16",
        "mlp-fake-honest-bf16-runtime",
        "mlp-fake-honest-int8-nncf",
    ]
    assert command_of(plan.cases[0], HarnessOptions()).endswith("--precision=fp16 --model=mlp")
    assert command_of(plan.cases[1], HarnessOptions()).endswith("--precision=bf16 --model=mlp --recipe=runtime")


def test_a_recipe_of_no_asked_precision_is_refused():
    with pytest.raises(ConfigError, match="--recipe=runtime: no FP32, FP16, INT8 recipe is called that"):
        planned(backends=("fake-honest",), recipes=("runtime",))
    with pytest.raises(ConfigError, match="no BF16 recipe is called that; did you mean runtime"):
        planned(backends=("fake-honest",), precisions=(Precision.BF16,), recipes=("run-time",))


def test_a_probe_that_kills_its_worker_costs_one_backend(tmp_path):
    (tmp_path / "killer.py").write_text(
        "import os\nclass Backend:\n    name, install_hint, required_modules = 'killer', '', ()\n"
        "    def probe(self):\n        os.abort()\nBACKEND = Backend()\n"
    )
    options = HarnessOptions(backends=("killer",), backend_dirs=(*FAKES, str(tmp_path)))
    with pytest.raises(BackendUnavailable, match=r"--backend=killer cannot run here: .*SIGABRT"):
        plan_run(options, models_dir=MODELS)


def test_a_probe_that_kills_its_worker_leaves_the_others(tmp_path):
    (tmp_path / "zz_killer.py").write_text(
        "import os\nclass Backend:\n    name, install_hint, required_modules = 'zz-killer', '', ()\n"
        "    def probe(self):\n        os.abort()\nBACKEND = Backend()\n"
    )
    options = HarnessOptions(backend_dirs=(*FAKES, str(tmp_path)))
    add_backend_dir(FAKES[0])
    add_backend_dir(str(tmp_path))
    found = probe_backends(("fake-honest", "fake-nan", "zz-killer"), options)
    assert [a.usable for a in found] == [True, True, False]


def test_a_probe_that_hangs_is_told_without_an_option_that_does_not_apply(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.run.plan.PROBE_LIMIT_S", 0.3)
    (tmp_path / "hanger.py").write_text(
        "import threading\nclass Backend:\n    name, install_hint, required_modules = 'hanger', '', ()\n"
        "    def probe(self):\n        threading.Event().wait()\nBACKEND = Backend()\n"
    )
    options = HarnessOptions(backends=("hanger",), backend_dirs=(*FAKES, str(tmp_path)))
    with pytest.raises(BackendUnavailable, match=r"--backend=hanger .*no sign of life for .*killed it$") as caught:
        plan_run(options, models_dir=MODELS)
    assert "--worker-timeout" not in str(caught.value)


def test_two_models_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("mlp.onnx", "mlp.toml"):
            (tmp_path / folder / name).symlink_to(MODELS / name)
    with pytest.raises(ConfigError, match="both called mlp"):
        planned(backends=("fake-honest",), models=(f"{tmp_path}/a/mlp.toml", f"{tmp_path}/b/mlp.toml"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profiles": ((1, 2, 8),)}, r"batch 100 of mlp lies in no --trt-profile \(1:2:8\).*--score-batch"),
        ({"profiles": ((2, 2, 4), (8, 100, 128))}, r"batch 1 of mlp .*\(2:2:4, 8:100:128\).*--batch-size"),
        ({"plugins": (__file__, "/nowhere/lib.so")}, "--trt-plugin=/nowhere/lib.so: there is no such file"),
        ({"plugins": (str(ROOT),)}, "there is no such file"),
        ({"ranges_file": "/nowhere/r.json"}, "--trt-ranges=/nowhere/r.json: there is no such file"),
    ],
)
def test_what_no_engine_could_be_built_with_is_known_before_the_run(changes, words):
    timing = TimingPlan(batch_sizes=(1, 8))
    with pytest.raises(ConfigError, match=words):
        planned(backends=("fake-honest",), models=("mlp",), timing=timing, trt=TrtOptions(**changes))


def test_profiles_that_take_every_batch_are_planned(bundled):
    profiles = TrtOptions(profiles=((1, 1, 8), (9, 100, 100)))
    assert planned(backends=("fake-honest",), models=("mlp",), trt=profiles).cases
    fixed = replace(bundled("mlp"), max_batch=16)
    assert batches_of_engine(fixed, TimingPlan(batch_sizes=(1, 8)), 100) == (16,)
    timed = replace(bundled("mlp"), timing_only=True)
    assert batches_of_engine(timed, TimingPlan(batch_sizes=(8, 1)), 100) == (1, 8)
    assert batches_of_engine(bundled("mlp"), TimingPlan(batch_sizes=(8, 1)), 100) == (1, 8, 100)


TRT_WORDS = {
    "--trt-tf32": [],
    "--trt-workspace": ["256"],
    "--trt-optimization-level": ["0"],
    "--trt-tactic-sources": ["EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS"],
    "--trt-version-compatible": [],
    "--trt-hardware-compatible": [],
    "--trt-profile": ["1:4:8", "9:16:32"],
    "--trt-plugin": ["libone.so", "a folder/libtwo.so"],
    "--trt-ranges": ["ranges.json"],
    "--trt-quantile": ["0.9999"],
    "--trt-cutoff": ["0"],
}


def parser_of_options():
    parser = argparse.ArgumentParser()
    add_options(parser.add_argument)
    return parser


def test_every_option_of_tensorrt_is_repeated_in_a_test():
    flags = [flag for action in parser_of_options()._actions for flag in action.option_strings]
    assert set(TRT_WORDS) == {flag for flag in flags if flag.startswith("--trt-")}


@pytest.mark.parametrize("flag", TRT_WORDS)
def test_the_command_that_repeats_a_case_has_every_option_of_tensorrt(flag, tmp_path):
    words = [f"{flag}={value}" for value in TRT_WORDS[flag]] or [flag]
    options = options_from_namespace(parser_of_options().parse_args(words), root=tmp_path)
    assert options.trt != TrtOptions()
    case = Case(model="mlp", backend="trt", precision=Precision.INT8, recipe="trt-legacy", device="cuda:0")
    command = shlex.split(command_of(case, options))
    assert command[:2] == ["pytest", "suites/"]
    again = options_from_namespace(parser_of_options().parse_args(command[2:]), root=tmp_path)
    assert again.trt == options.trt


def test_an_unknown_device_lists_those_there_are():
    with pytest.raises(ConfigError, match="fake-honest has cpu here"):
        planned(backends=("fake-honest",), device="cuda:7")


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
    request = data_request(
        name="mnist", data_dir=None, calibration_images=1_000, calibration_first=None, calibration_split=None, **asked
    )
    assert request.calibration_first == first
    assert request.calibration_split == "train"


def test_an_overlap_is_refused():
    with pytest.raises(ConfigError, match="would also be scored"):
        DatasetRequest(split="train", score_first=0, calibration_split="train", calibration_first=9_999)


class Namespace:
    """Collects defaults as argparse would."""

    def __init__(self, **given):
        def add(flag, *, dest=None, default=None, action=None, **_):
            name = dest or flag.removeprefix("--").replace("-", "_")
            setattr(self, name, given.get(name, False if action == "store_true" else default))

        add_options(add)


def test_no_option_means_the_defaults(tmp_path):
    options = options_from_namespace(Namespace(), root=tmp_path)
    assert options == HarnessOptions(
        report_dir=str(tmp_path / "reports"), baseline_dir=str(tmp_path / "suites/baselines"), root=str(tmp_path)
    )


def test_options_reach_their_fields(tmp_path):
    namespace = Namespace(
        backend=["ort,openvino", "trt"],
        precision=["int8"],
        batch_size="1,8",
        max_drop="0.3%",
        trt_profile=["1:4:8"],
        trt_workspace=256,
        score_from=7,
    )
    options = options_from_namespace(namespace, root=tmp_path)
    assert options.backends == ("ort", "openvino", "trt")
    assert options.precisions == (Precision.INT8,)
    assert options.timing.batch_sizes == (1, 8)
    assert options.max_drop == pytest.approx(0.003)
    assert options.trt.profiles == ((1, 4, 8),)
    assert options.trt.workspace_bytes == 256 * 2**20
    assert options.data.score_first == 7


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trt_profile": ["4:2:8"]}, "1 <= MIN <= OPT <= MAX"),
        ({"trt_profile": ["1:2"]}, "expected MIN:OPT:MAX"),
        ({"trt_profile": ["1:x:8:32"]}, "expected MIN:OPT:MAX"),
        ({"backend": ["auto", "ort"]}, "name it alone"),
        ({"batch_size": "0"}, "at least 1"),
        ({"batch_size": "one"}, "whole numbers"),
        ({"precision": ["fp8"]}, "choose from fp32, fp16, bf16, int8"),
        ({"score_images": 0}, "at least 1"),
        ({"calibration_images": 0}, "at least 1"),
        ({"worker_timeout": 0}, "greater than 0"),
        ({"max_drop": "lots"}, "neither a fraction"),
        ({"alpha": "2"}, "whichever is meant"),
        ({"trt_profile": ["0:1:8"]}, "--trt-profile=0:1:8: expected 1 <= MIN"),
        ({"trt_profile": ["1:1:4294967296"]}, "--trt-profile=1:1:4294967296: expected"),
        ({"trt_workspace": -5}, "--trt-workspace=-5: expected 0 MiB or more"),
        ({"trt_workspace": 2**43}, "--trt-workspace=8796093022208: expected"),
        ({"trt_optimization_level": 7}, "--trt-optimization-level=7: expected 0 to 5"),
        ({"trt_optimization_level": -1}, "--trt-optimization-level=-1: expected 0 to 5"),
        ({"trt_quantile": "2"}, "--trt-quantile=2.0: expected a fraction above 0"),
        ({"trt_quantile": "0"}, "--trt-quantile=0.0: expected a fraction above 0"),
        ({"trt_quantile": "nan"}, "--trt-quantile=nan: expected a fraction above 0"),
        ({"trt_quantile": "much"}, "--trt-quantile: 'much' is neither a fraction"),
        ({"trt_cutoff": "-1"}, "--trt-cutoff=-1.0: expected a fraction"),
    ],
)
def test_contradictions_are_refused(given, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        options_from_namespace(Namespace(**given), root=tmp_path)
