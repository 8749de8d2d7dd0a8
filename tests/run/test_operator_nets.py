"""The operators suite: what a wrong, lacking or crashing operator costs, how a change is told, that nets are sound."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.errors import DataError
from harness.options.values import HarnessOptions
from harness.records import OperatorOutcome
from harness.report.operators import operators_markdown
from harness.run.operators import OperatorCell, OperatorList, OperatorRun, complaints, run_cell
from harness.specs import Precision

onnx = pytest.importorskip("onnx", reason="nets are ONNX files")
pytest.importorskip("onnxruntime", reason="the fake backend runs ONNX Runtime")
from harness.models.operator_nets import operator_nets, usages  # noqa: E402
from harness.models.operator_reference import reference_outputs  # noqa: E402
from harness.worker.operators import difference  # noqa: E402

ROOT = Path(__file__).parents[2]
ODD = str(ROOT / "tests" / "odd_operators")
CELL = OperatorCell(backend="odd-operators", device="cpu", precision=Precision.INT8)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """What the fake backend makes of the INT8 nets: a few hundred ms a crash."""
    options = HarnessOptions(extension_dirs=(ODD,), engine_cache=str(tmp_path_factory.mktemp("cache")))
    return run_cell(CELL, options, {"odd": "1.0"})


def outcome(net, state="ok", error=0.0, reason=""):
    return OperatorOutcome(net=net, operator=net.partition("/")[0], state=state, error=error, reason=reason)


def listed(*outcomes):
    return OperatorList(cell="ort-fp32", versions={}, outcomes=outcomes)


def states(found, operator):
    return {one.state for one in found.outcomes if one.operator == operator}


def test_every_net_has_one_outcome_in_order(odd):
    assert [one.net for one in odd.outcomes] == [net.name for net in operator_nets(Precision.INT8)]


def test_the_wrong_operator_is_named_and_no_other(odd):
    assert states(odd, "Mul") == {"wrong"}
    assert {one.operator for one in odd.outcomes if one.state == "wrong"} == {"Mul"}
    assert all(one.error is not None and one.error > 0.05 for one in odd.outcomes if one.operator == "Mul")


def test_what_a_runtime_lacks_is_unsupported_with_its_reason(odd):
    assert states(odd, "MaxPool") == {"unsupported"}
    assert {one.reason for one in odd.outcomes if one.operator == "MaxPool"} == {"no MaxPool here"}


def test_a_crash_costs_its_net_alone(odd):
    crashed = {one.net for one in odd.outcomes if one.state == "error"}
    assert crashed == {"Resize/cubic@19", "Resize/cubic-sizes@19"}
    assert all("its worker ended" in one.reason for one in odd.outcomes if one.net in crashed)
    assert states(odd, "Resize") == {"ok", "error"}
    assert states(odd, "Conv") == {"ok"}


def test_complaints_name_each_bad_operator_once(odd):
    told = complaints(odd, None)
    assert [line.partition(":")[0] for line in told] == ["Mul", "Resize"]
    assert "Mul/same@" in told[0]
    assert "more wrong" in told[0]


def test_a_change_is_told_against_the_accepted_list():
    accepted = listed(
        outcome("Add/same@14"), outcome("Elu/rank4@6", "wrong", 0.2), outcome("Gelu/rank4@20", "unsupported")
    )
    same = replace(accepted)
    assert complaints(same, accepted) == []
    now = listed(
        outcome("Add/same@14", "wrong", 0.5, "differs by 0.5 of the largest value"),
        outcome("Elu/rank4@6"),
        outcome("Gelu/rank4@20", "error", None, "boom"),
    )
    assert complaints(now, accepted) == [
        "Add: Add/same@14 wrong, was ok: differs by 0.5 of the largest value",
        "Gelu: Gelu/rank4@20 error, was unsupported: boom",
    ]
    lost = listed(outcome("Add/same@14", "unsupported", None, "gone"))
    assert complaints(lost, accepted) == ["Add: Add/same@14 unsupported, was ok: gone"]
    assert complaints(lost, None) == []


def test_lists_are_accepted_when_asked_and_never_a_worse_one_by_update(tmp_path):
    cell = OperatorCell(backend="ort", device="cpu", precision=Precision.FP32)
    good, bad = listed(outcome("Add/same@14")), listed(outcome("Add/same@14", "wrong", 0.5, "off"))
    base = HarnessOptions(report_dir=str(tmp_path / "r"), baseline_dir=str(tmp_path / "b"))
    kept = tmp_path / "b" / "operators" / "ort-fp32.json"

    def night(found, **options):
        run = OperatorRun(options=replace(base, **options))
        worse = run.verdict(cell, found)
        lines = run.finish()
        assert lines[-1].startswith("lists: ")
        return worse

    assert night(good) == []
    assert not kept.exists()
    assert night(good, update_baselines=True) == []
    assert json.loads(kept.read_text())["outcomes"][0]["state"] == "ok"
    assert night(bad, update_baselines=True) == ["Add: Add/same@14 wrong, was ok: off"]
    assert json.loads(kept.read_text())["outcomes"][0]["state"] == "ok"
    assert night(bad, accept_regressions=True) == []
    assert json.loads(kept.read_text())["outcomes"][0]["state"] == "wrong"
    assert night(bad) == []
    kept.write_text("{}")
    with pytest.raises(DataError, match=r"ort-fp32\.json"):
        night(good)


def test_the_table_shows_what_is_not_sound_everywhere():
    table = operators_markdown(
        {
            "ort-fp32": (outcome("Add/same@14"), outcome("Elu/a@6"), outcome("Elu/b@6", "wrong", 0.25)),
            "openvino-fp32": (outcome("Add/same@14"), outcome("Elu/a@6", "unsupported", None)),
        }
    )
    assert "1 of 2 operators agree" in table
    assert "| Elu | wrong 1 of 2, error 0.25 | unsupported 1 of 1 |" in table
    assert "| Add" not in table


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_nets_are_valid_and_have_a_reference(precision):
    newest, names, lacking = onnx.defs.onnx_opset_version(), set(), []
    for net in operator_nets(precision):
        assert net.name not in names
        names.add(net.name)
        opset = net.model.opset_import[0].version
        assert 7 <= opset <= newest
        onnx.checker.check_model(net.model)
        products = [node.op_type for node in net.model.graph.node if "Linear" not in node.op_type]
        assert products == [net.operator]
        assert net.name.endswith(f"@{opset}")
        if len(names) % 3 == 0:
            outputs = reference_outputs(net)
            if not all(np.isfinite(a.astype(np.float64)).all() for a in outputs.values()):
                lacking.append(net.name)
    assert not lacking
    assert len(names) > (900 if precision is Precision.FP32 else 100)


def test_versions_follow_the_operators_own_history():
    relu = [net.name for net in operator_nets(Precision.FP32) if net.name.startswith("Relu/rank4@")]
    versions = {s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == "Relu" and not s.domain}
    assert relu == [f"Relu/rank4@{v}" for v in sorted({7, *(v for v in versions if v > 7)})]


def test_the_table_covers_what_nets_are_made_of():
    known = {usage.operator for usage in usages()}
    assert known >= {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "Resize",
        "Reshape",
        "Transpose",
        "Concat",
        "Split",
        "Pad",
    }
    assert known >= {
        "Slice",
        "Gather",
        "Softmax",
        "LogSoftmax",
        "LSTM",
        "GRU",
        "MaxPool",
        "AveragePool",
        "Cast",
        "TopK",
    }
    assert len(known) > 100


def test_differences_are_of_the_largest_value_and_exact_for_whole_numbers():
    assert difference(np.array([10.0, 0], np.float32), np.array([10.0, 1], np.float32)) == pytest.approx(0.1)
    assert difference(np.array([0.0, 0.1]), np.array([0.0, 0.2])) == pytest.approx(0.1)
    assert difference(np.array([1, 2]), np.array([1, 2])) == 0
    assert difference(np.array([1, 2]), np.array([1, 3])) == np.inf
    assert difference(np.array([np.nan, np.inf]), np.array([np.nan, np.inf])) == 0
    assert difference(np.array([np.nan, 1.0]), np.array([0.0, 1.0])) == np.inf
    assert difference(np.array([np.inf]), np.array([-np.inf])) == np.inf
    assert difference(np.zeros(0, np.float32), np.zeros(0, np.float32)) == 0
