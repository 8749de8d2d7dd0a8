"""A fleet's file becomes shards; what it cannot mean is one line."""

from dataclasses import replace
from pathlib import Path

import pytest
from comparison_records import ENVIRONMENT, accuracy_with, latency_with, record_with

from harness.errors import ConfigError, DataError
from harness.fleet.plan_command import plan_lines
from harness.fleet.planning import plan_fleet
from harness.records import RecordKey
from harness.specs import Precision
from harness.store.baselines import BaselineStore
from harness.store.shard_plans import check_plan, is_same_commit, read_plan, write_plan
from tests.fleet.fleet_records import by_shard, night, plan_of

ROOT = Path(__file__).parents[2]
FLEET = """
[run]
model = ["mlp", "lenet5"]
precision = ["fp32", "int8"]
score_images = 200

[[device]]
name = "cpu"
type = "AMD EPYC, avx512_vnni, 2 CPUs"
run = { backend = ["ort", "openvino"] }

[[device]]
name = "h100"
type = "NVIDIA H100 80GB HBM3"
run = { backend = ["trt"], device = "cuda:0", precision = ["int8"], recipe = ["qdq-entropy"], trt_workspace = 256 }
"""


def planned(tmp_path, text=FLEET):
    (tmp_path / "fleet.toml").write_text(text)
    return plan_fleet(tmp_path / "fleet.toml", root=tmp_path, models_dir=ROOT / "models")


def test_a_shard_holds_all_cases_of_one_model_on_one_device_type(tmp_path):
    plan = planned(tmp_path)
    assert [(s.number, s.device, s.model, len(s.cases)) for s in plan.shards] == [
        (0, "cpu", "mlp", 4),
        (1, "cpu", "lenet5", 4),
        (2, "h100", "mlp", 1),
        (3, "h100", "lenet5", 1),
    ]
    assert [case.id for case in plan.shards[2].cases] == ["mlp-trt-int8-qdq-entropy"]
    assert plan.shards[0].run == {
        "model": ["mlp"],
        "precision": ["fp32", "int8"],
        "score_images": 200,
        "backend": ["ort", "openvino"],
    }
    assert plan.shards[3].run["trt_workspace"] == 256
    assert RecordKey("NVIDIA H100 80GB HBM3", "mlp-trt-int8-qdq-entropy") in plan.places
    assert {len(shard.fingerprint) for shard in plan.shards} == {64}
    assert plan.shards[0].model_sha256 == plan.shards[2].model_sha256 != plan.shards[1].model_sha256
    assert plan_lines(plan)[:2] == [
        "cpu: shards 0-1, 8 cases on AMD EPYC, avx512_vnni, 2 CPUs",
        "h100: shards 2-3, 2 cases on NVIDIA H100 80GB HBM3",
    ]


def test_the_same_fleet_gives_the_same_plan_and_it_is_read_as_it_was_written(tmp_path):
    plan = planned(tmp_path)
    write_plan(plan, tmp_path / "a.json")
    write_plan(planned(tmp_path), tmp_path / "b.json")
    one, other = read_plan(tmp_path / "a.json"), read_plan(tmp_path / "b.json")
    assert one == plan
    assert one.digest == other.digest
    changed = planned(tmp_path, FLEET.replace("200", "201"))
    write_plan(changed, tmp_path / "b.json")
    assert read_plan(tmp_path / "b.json").digest != one.digest
    assert changed.shards[0].fingerprint != plan.shards[0].fingerprint


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"mlp"', '"mpl"', "did you mean mlp"),
        ("[[device]]", "[[devise]]", "devise"),
        ('type = "NVIDIA', 'kind = "NVIDIA', "kind"),
        ('name = "h100"', 'name = "cpu"', "the name cpu"),
        ('name = "h100"\n', "", "needs a name"),
        ("NVIDIA H100 80GB HBM3", "AMD EPYC, avx512_vnni, 2 CPUs", "is there twice"),
        ('backend = ["trt"], ', "", "name its backends"),
        ('["trt"]', '["tvt"]', "--backend=tvt: unknown backend"),
        ("qdq-entropy", "qdq-entropie", "--recipe=qdq-entropie"),
        ("trt_workspace = 256", 'trt_workspace = "much"', "device]] h100: trt_workspace = "),
        ("trt_workspace = 256", "score_images = 300", "images, strict verdicts and baselines are the whole fleet's"),
        ("trt_workspace = 256", "shard = 3", "shard"),
        ('name = "h100"', 'name = "h100"\nminutes = 0', "h100: minutes = 0; expected the device minutes"),
        ('name = "h100"', 'name = "h100"\nminutes = "2 h"', "h100: minutes = '2 h'"),
        (FLEET, "[run]\n", "no [[device]]"),
        ("[run]", "[run", "is not TOML"),
    ],
)
def test_a_fleet_that_cannot_be_meant_is_one_line(tmp_path, old, new, says):
    with pytest.raises(ConfigError) as caught:
        planned(tmp_path, FLEET.replace(old, new))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fleet_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="--fleet="):
        plan_fleet(tmp_path / "fleet.toml", root=tmp_path, models_dir=ROOT / "models")


def test_a_case_in_two_shards_is_refused(tmp_path):
    groups = by_shard(night())
    with pytest.raises(DataError, match=r"lenet5-ort-fp32 on .* is in the shards 0 and 4"):
        check_plan(plan_of([*groups, groups[0]]))
    with pytest.raises(DataError, match="shard 0 of the plan is numbered 1"):
        check_plan(plan_of(groups, shards=plan_of(groups).shards[1:]))


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "not a plan"), ('{"schema": 9}', "schema 9"), ("[]", "not a plan"), ('{"schema": 2}', "not a plan")],
)
def test_a_plan_that_is_none_is_refused(tmp_path, text, says):
    (tmp_path / "shards.json").write_text(text)
    with pytest.raises(DataError, match=says):
        read_plan(tmp_path / "shards.json")


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("a60ce33", "a60ce33", True),
        ("a60ce33", "a60ce3356", True),
        ("a60ce33+", "a60ce33", False),
        ("a60ce33", "b60ce33", False),
        ("", "", True),
        ("a60ce33", "", False),
        ("", "+", False),
    ],
)
def test_commits_are_compared_as_far_as_both_are_told(one, other, alike):
    assert is_same_commit(one, other) is is_same_commit(other, one) is alike


def test_the_doctor_says_the_type_that_the_fleet_s_file_wants(monkeypatch):
    from harness.machine.environment import collect_environment
    from harness.options.values import HarnessOptions
    from harness.run.doctor import doctor_lines

    monkeypatch.setattr("harness.run.doctor.probe_backends", lambda names, options: [])
    lines = doctor_lines(HarnessOptions(root=str(ROOT)))
    assert any(
        f"type of device in records and fleet.toml: {collect_environment().device_type};" in line for line in lines
    )
    read = lines[lines.index("data by path") :]
    assert any("a folder of image files by class" in line and line.endswith("usable") for line in read)


# -- what the fleet should have and no shard runs

FOLDER_FLEET = FLEET.replace('model = ["mlp", "lenet5"]\n', "")


def accepted(tmp_path, model, *, device_type, is_of_models_folder=True, backend="ort"):
    """Accept times of a model in FP32 on a type of device."""
    record = record_with(
        accuracy_with(n=200),
        latencies=(latency_with(),),
        environment=replace(ENVIRONMENT, device_name="", cpu_model="AMD EPYC", cpu_isa="avx512_vnni", n_cpus=2),
        precision=Precision.FP32,
        is_of_models_folder=is_of_models_folder,
    )
    record = replace(record, case=replace(record.case, model=model, backend=backend))
    if device_type is not None:
        record = replace(record, environment=replace(record.environment, cpu_model=device_type))
    BaselineStore(tmp_path / "suites" / "baselines").accept(
        [record], accepted_by="t", accepted_at="2026-11-20T00:00:00"
    )
    return record.case.id


def test_a_case_with_accepted_times_that_no_shard_runs_is_named(tmp_path):
    gone = accepted(tmp_path, "resnet9", device_type=None)
    accepted(tmp_path, "resnet9", device_type="another CPU")
    accepted(tmp_path, "by-path", device_type=None, is_of_models_folder=False)
    accepted(tmp_path, "mlp", device_type=None)
    accepted(tmp_path, "mlp", device_type=None, backend="mnn")
    plan = planned(tmp_path, FOLDER_FLEET)
    (one,) = plan.unplanned
    assert (one.case.id, one.device_type) == (gone, "AMD EPYC, avx512_vnni, 2 CPUs")
    assert one.reason == "model resnet9 is not among the models any more"
    assert [line for line in plan_lines(plan) if gone in line] == [
        f"{gone} on AMD EPYC, avx512_vnni, 2 CPUs: its times are accepted, {one.reason}: it will be red; give it up: "
        f"harness baseline prune --case {gone}"
    ]
    write_plan(plan, tmp_path / "shards.json")
    assert read_plan(tmp_path / "shards.json") == plan


@pytest.mark.parametrize("run", ['model = ["mlp"]', 'baseline = "ignore"', 'precision = ["int8"]'])
def test_what_the_fleet_does_not_ask_for_is_not_expected(tmp_path, run):
    accepted(tmp_path, "resnet9", device_type=None)
    text = FOLDER_FLEET.replace('precision = ["fp32", "int8"]\n', "") if "precision" in run else FOLDER_FLEET
    assert not planned(tmp_path, text.replace("[run]\n", f"[run]\n{run}\n")).unplanned


def test_a_damaged_baseline_of_an_unplanned_case_is_no_way_out(tmp_path):
    case_id = accepted(tmp_path, "resnet9", device_type=None)
    for path in (tmp_path / "suites" / "baselines").rglob(f"{case_id}.json"):
        path.write_text("{")
    with pytest.raises(ConfigError, match=rf"{case_id}.json.*no shard runs its case"):
        planned(tmp_path, FOLDER_FLEET)
