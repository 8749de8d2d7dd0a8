"""Options become cases; what cannot be met is one clear line."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import BackendUnavailable, ConfigError
from harness.models import find_model
from harness.options.commands import command_of
from harness.options.discovery import add_extension_dir
from harness.options.values import HarnessOptions
from harness.run.plan import Plan, plan_run
from harness.run.probing import probe_backends
from harness.specs import Precision, TimingPlan, batches_of_engine

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
FAKES = (str(ROOT / "tests" / "fakes"),)


def planned(**changes):
    return plan_run(HarnessOptions(extension_dirs=FAKES, **changes), models_dir=MODELS, probe=False)


def test_every_bundled_classifier_in_three_precisions():
    plan = planned(backends=("fake-honest",))
    assert [case.id for case in plan.cases][:3] == [
        "lenet5-fake-honest-fp32",
        "lenet5-fake-honest-fp16",
        "lenet5-fake-honest-int8",
    ]
    assert len(plan.cases) == 4 * 3


def test_backends_that_are_not_installed_share_a_line():
    left_out = {
        "mnn": "MNN is not installed (pip install mnn)",
        "trt": "no NVIDIA driver",
        "ncnn": "pnnx is not installed",
    }
    plan = Plan(cases=(), models={}, backends=(), left_out=left_out)
    assert plan.lines_left_out() == (
        "  left out: trt: no NVIDIA driver",
        "  not installed: mnn, ncnn (harness doctor says how)",
    )
    assert Plan(cases=(), models={}, backends=(), left_out={}).lines_left_out() == ()


def test_recipes_multiply_int8_only():
    plan = planned(backends=("fake-honest",), models=("mlp",), recipes=("qdq-minmax", "qdq-entropy"))
    assert [case.id for case in plan.cases] == [
        "mlp-fake-honest-fp32",
        "mlp-fake-honest-fp16",
        "mlp-fake-honest-int8",
        "mlp-fake-honest-int8-qdq-entropy",
    ]


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


def test_a_model_that_was_quantized_before_runs_once_as_given(monkeypatch):
    spec = replace(find_model("mlp", MODELS), is_quantized=True)
    monkeypatch.setattr("harness.run.choosing.find_model", lambda name, models_dir: spec)
    plan = planned(backends=("fake-honest",), models=("mlp",), recipes=("qdq-entropy",))
    assert [case.id for case in plan.cases] == ["mlp-fake-honest-int8-given"]
    assert plan.cases[0].is_source
    with pytest.raises(ConfigError, match="mlp is quantized already and runs as INT8, as given; add int8"):
        planned(backends=("fake-honest",), models=("mlp",), precisions=(Precision.FP32,))


def test_a_recipe_of_no_asked_precision_is_refused():
    with pytest.raises(ConfigError, match="--recipe=runtime: unknown FP32, FP16, INT8 recipe"):
        planned(backends=("fake-honest",), recipes=("runtime",))
    with pytest.raises(ConfigError, match="unknown BF16 recipe; did you mean runtime"):
        planned(backends=("fake-honest",), precisions=(Precision.BF16,), recipes=("run-time",))
    with pytest.raises(ConfigError) as far:
        planned(backends=("fake-honest",), precisions=tuple(Precision), recipes=("zzz",))
    named = str(far.value).partition("there are: ")[2].split(", ")
    assert {"given", "cast", "none"} <= set(named)
    assert len(named) == len(set(named)), "a name that several precisions have is named once"
    with pytest.raises(ConfigError, match=r"did you mean cast\?"):
        planned(backends=("fake-honest",), precisions=tuple(Precision), recipes=("casts",))


def test_a_probe_that_kills_its_worker_costs_one_backend(tmp_path):
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "killer.py").write_text(
        "import os\nclass Backend:\n    name, install_hint, required_modules = 'killer', '', ()\n"
        "    def probe(self):\n        os.abort()\nBACKEND = Backend()\n"
    )
    options = HarnessOptions(backends=("killer",), extension_dirs=(*FAKES, str(tmp_path)))
    with pytest.raises(BackendUnavailable, match=r"--backend=killer cannot run here: .*SIGABRT"):
        plan_run(options, models_dir=MODELS)


def test_a_probe_that_kills_its_worker_leaves_the_others(tmp_path):
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "zz_killer.py").write_text(
        "import os\nclass Backend:\n    name, install_hint, required_modules = 'zz-killer', '', ()\n"
        "    def probe(self):\n        os.abort()\nBACKEND = Backend()\n"
    )
    options = HarnessOptions(extension_dirs=(*FAKES, str(tmp_path)))
    add_extension_dir(FAKES[0])
    add_extension_dir(str(tmp_path))
    found = probe_backends(("fake-honest", "fake-nan", "zz-killer"), options)
    assert [a.usable for a in found] == [True, True, False]


def test_a_probe_that_hangs_is_told_with_the_option_that_applies(tmp_path):
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "hanger.py").write_text(
        "import threading\nclass Backend:\n    name, install_hint, required_modules = 'hanger', '', ()\n"
        "    def probe(self):\n        threading.Event().wait()\nBACKEND = Backend()\n"
    )
    options = HarnessOptions(
        backends=("hanger",), extension_dirs=(*FAKES, str(tmp_path)), stage_timeouts=(("probe", 0.3),)
    )
    told = (
        r"--backend=hanger .*no sign of life for 0.3 s during probe; killed it; stack: probe .*--stage-timeout=probe="
    )
    with pytest.raises(BackendUnavailable, match=told) as caught:
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
        planned(backends=("fake-honest",), models=("mlp",), timing=timing, settings={"trt": changes})


def test_profiles_that_take_every_batch_are_planned(bundled):
    profiles = {"trt": {"profiles": ((1, 1, 8), (9, 100, 100))}}
    assert planned(backends=("fake-honest",), models=("mlp",), settings=profiles).cases
    fixed = replace(bundled("mlp"), max_batch=16)
    assert batches_of_engine(fixed, TimingPlan(batch_sizes=(1, 8)), 100) == (16,)
    timed = replace(bundled("mlp"), timing_only=True)
    assert batches_of_engine(timed, TimingPlan(batch_sizes=(8, 1)), 100) == (1, 8)
    assert batches_of_engine(bundled("mlp"), TimingPlan(batch_sizes=(8, 1)), 100) == (1, 8, 100)


def test_an_unknown_device_lists_those_there_are():
    with pytest.raises(ConfigError, match="fake-honest supports only cpu here"):
        planned(backends=("fake-honest",), device="cuda:7")


PICKY = """class Backend:
    name, install_hint, required_modules, option_names = "picky", "", (), ("streams",)
BACKEND = Backend()
"""


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("pickyy", "streams", "4"), "pickyy.streams=4: no backend is called pickyy; did you mean picky"),
        (("picky", "steams", "4"), "picky has no option steams; did you mean streams"),
        (("fake-honest", "streams", "4"), "--backend-option=fake-honest.streams=4: fake-honest takes no options"),
    ],
)
def test_an_option_that_its_backend_would_not_read_is_refused(tmp_path, option, words):
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "picky.py").write_text(PICKY)
    folders = (*FAKES, str(tmp_path))

    def plan(*options):
        asked = HarnessOptions(backends=("picky",), models=("mlp",), extension_dirs=folders, backend_options=options)
        return plan_run(asked, models_dir=MODELS, probe=False)

    assert plan(("picky", "streams", "4")).cases
    with pytest.raises(ConfigError, match=words):
        plan(option)


TELLS_WHERE = """import os, pathlib
(pathlib.Path(__file__).parent / f"imported-{os.getpid()}").touch()
class Backend:
    name, install_hint, required_modules = "tells-where", "", ()
    def probe(self):
        from harness.records import Availability
        return Availability(backend=self.name, usable=True, devices=("cpu",))
BACKEND = Backend()
"""


def test_a_probe_that_answers_for_another_backend_costs_its_own_alone(tmp_path):
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "tells_where.py").write_text(TELLS_WHERE.replace("backend=self.name", 'backend="ort"'))
    options = HarnessOptions(backends=("tells-where",), models=("mlp",), extension_dirs=(str(tmp_path),))
    with pytest.raises(BackendUnavailable, match="tells-where cannot run here: its probe answers for ort"):
        plan_run(options, models_dir=MODELS)


@pytest.mark.parametrize("probe", [False, True])
def test_the_backend_of_a_user_is_imported_in_workers_only(tmp_path, probe):
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "tells_where.py").write_text(TELLS_WHERE)
    options = HarnessOptions(backends=("tells-where",), models=("mlp",), extension_dirs=(str(tmp_path),))
    assert plan_run(options, models_dir=MODELS, probe=probe).cases
    marks = {path.name for path in (tmp_path / "backends").glob("imported-*")}
    assert marks
    assert f"imported-{os.getpid()}" not in marks


@pytest.mark.parametrize("probe", [False, True])
def test_a_backend_file_that_cannot_be_imported_is_named(tmp_path, probe):
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "broken.py").write_text("raise SystemExit('from inside\\na file')\n")
    options = HarnessOptions(backends=("broken", "fake-honest"), extension_dirs=(*FAKES, str(tmp_path)))
    told = r"^--backend=broken cannot run here: [^\n]*SystemExit: from inside a file"
    with pytest.raises(BackendUnavailable, match=told):
        plan_run(options, models_dir=MODELS, probe=probe)
