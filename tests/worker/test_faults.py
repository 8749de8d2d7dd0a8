"""Each stage fails once and each fault happens once; the whole table is made by benchmarks/fault_table.py."""

import pytest
from fault_runs import FAULTS, STAGES, WRONG, fate_of, told_of

from harness.worker.measuring import MEASUREMENTS
from harness.worker.process import stage_of
from harness.worker.service import Service

# Every stage and every fault, none twice where it can be helped.
PAIRS = [(STAGES[index % len(STAGES)], fault) for index, fault in enumerate(FAULTS)]
PAIRS += [("import", "exit"), ("probe", "base_exception")]  # nobody else's answer may go with them


def test_each_stage_and_each_fault_is_in_the_table():
    assert {stage for stage, _ in PAIRS} == set(STAGES)
    assert {fault for _, fault in PAIRS} == set(FAULTS)


def test_each_call_of_a_worker_has_a_stage_and_so_a_limit():
    calls = {name for name in vars(Service) if not name.startswith("_")} - {"measure"} | set(MEASUREMENTS)
    assert {name for name in calls if not stage_of(name)} == {"facts"}  # asked after each of the others


@pytest.mark.parametrize(("stage", "fault"), PAIRS)
def test_a_fault_costs_its_case_and_leaves_nothing(stage, fault, tmp_path):
    fate = fate_of(stage, fault, tmp_path, backends=("fake-fault",))
    told = told_of(stage, fault)
    assert fate.status == ("passed" if told == ("",) else "error"), fate
    assert all(part in fate.reason for part in told), fate.reason
    assert "\n" not in fate.reason
    assert not fate.processes
    assert not fate.files


@pytest.mark.parametrize(("stage", "fault"), WRONG)
def test_a_wrong_answer_is_red_and_says_why(stage, fault, tmp_path):
    told, status = WRONG[stage, fault]
    fate = fate_of(stage, fault, tmp_path, backends=("fake-fault",))
    assert fate.status == status, fate
    assert told in fate.reason


@pytest.mark.parametrize(("stage", "fault"), [("probe", "abort"), ("score", "child")])
def test_a_fault_is_none_of_its_neighbour(stage, fault, tmp_path):
    fate = fate_of(stage, fault, tmp_path)
    assert (fate.status, fate.neighbour) == ("error", "passed")
