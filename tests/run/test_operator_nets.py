"""The operators suite: what a wrong, lacking or crashing operator costs, how a change is told, that nets are sound."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError
from harness.options.values import HarnessOptions
from harness.records import OperatorOutcome
from harness.report.operators import comparison_of_operators, complaints, operators_markdown, operators_view
from harness.report.operators_page import render_operators
from harness.run.operator_lists import OperatorRun
from harness.run.operators import OperatorCell, run_cell
from harness.specs import Precision
from harness.store.operator_lists import OperatorList, write_list

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
        assert Path(lines[-2].removeprefix("report: ")).read_text().startswith("<!doctype html>")
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
    lists = {
        "ort-fp32": listed(outcome("Add/same@14"), outcome("Elu/a@6"), outcome("Elu/b@6", "wrong", 0.25)),
        "openvino-fp32": listed(outcome("Add/same@14"), outcome("Elu/a@6", "unsupported", None)),
    }
    table = operators_markdown(operators_view(lists, {}, against="the accepted lists"))
    assert "1 of 2 operators agree" in table
    assert "| Elu | wrong 1 of 2, error 0.25 | unsupported 1 of 1 |" in table
    assert "| Add" not in table


BEFORE = {
    "ort-fp32": replace(
        listed(outcome("Add/same@14"), outcome("Elu/a@6", "wrong", 0.3, "off"), outcome("Tan/a@7"), outcome("Tan/b@7")),
        versions={"onnxruntime": "1.31.0"},
    ),
    "ort-int8": listed(outcome("Conv/a@13")),
}
NOW = {
    "ort-fp32": replace(
        listed(
            outcome("Add/same@14", "wrong", 0.5, "differs by <0.5>"),
            outcome("Elu/a@6"),
            outcome("Tan/a@7"),
            *(outcome(f"New/{i}@7", "unsupported", None, "no New") for i in range(20)),
        ),
        versions={"onnxruntime": "1.32.0"},
    ),
    "openvino-fp32": listed(outcome("Add/same@14")),
}


def test_two_runs_are_compared_operator_by_operator():
    view = operators_view(NOW, BEFORE, against="run A")
    assert comparison_of_operators(view) == [
        "ort-fp32: onnxruntime 1.31.0 -> 1.32.0",
        "worse: ort-fp32: Add: Add/same@14 wrong, was ok: differs by <0.5>",
        "better: ort-fp32: Elu: Elu/a@6 ok, was wrong",
        "gone: ort-int8: no list; it had 1 net",
        "gone: ort-fp32: 1 net did not run: Tan/b@7",
        "not compared: openvino-fp32: it is not in run A",
        "1 operator is worse than run A: Add.",
    ]
    same = operators_view(BEFORE, BEFORE, against="run A")
    assert comparison_of_operators(same) == ["ort-fp32: onnxruntime 1.31.0", "No operator is worse than run A."]
    assert (view.tone, same.tone, operators_view(NOW, {}, against="it").tone) == ("bad", "good", "bad")


def test_what_nothing_is_known_of_is_worse_than_nothing():
    view = operators_view(NOW, {}, against="the accepted lists")
    assert view.sentence == "1 operator is wrong or in error: Add"
    assert "worse than" not in render_operators(view, title="run B")
    sound = operators_view({"ort-int8": BEFORE["ort-int8"]}, {}, against="the accepted lists")
    assert sound.sentence == "No operator is wrong or in error; nothing of it is in the accepted lists"
    assert (view.tone, sound.tone) == ("bad", "warn")


def test_what_is_missing_is_never_good_news():
    view = operators_view({"ort-int8": BEFORE["ort-int8"]}, BEFORE, against="run A")
    assert (view.tone, view.worse) == ("bad", ())
    assert view.sentence == "Something is missing that is in run A; no operator that ran is worse"


def test_the_page_has_what_changed_the_table_and_the_nets_behind_it():
    page = render_operators(operators_view(NOW, BEFORE, against="run A"), title="run B")
    assert "<title>1 operator is worse than run A: Add</title>" in page
    for told in (
        "Add: Add/same@14 wrong, was ok: differs by &lt;0.5&gt;",
        "Elu: Elu/a@6 ok, was wrong",
        "1 net did not run: Tan/b@7",
        "wrong 1 of 1, error 0.5",
        "unsupported 20 of 20",
        "<code>New/11@7</code> no New",
        "ort-fp32: 8 more nets",
        "onnxruntime 1.31.0 -&gt; 1.32.0",
        "not in run A",
    ):
        assert told in page
    assert "New/12@7" not in page
    assert "<script" not in page


def test_the_command_compares_two_runs_of_the_suite(tmp_path):
    def night(name, lists):
        folder = tmp_path / name
        folder.mkdir()
        for cell, found in lists.items():
            write_list(folder / f"{cell}.json", replace(found, cell=cell))
        (folder / "operators.md").write_text("a table")
        return str(folder)

    a, b, other = night("A", BEFORE), night("B", NOW), night("C", {"openvino-fp32": NOW["openvino-fp32"]})
    page = tmp_path / "page.html"
    found = CliRunner().invoke(app, ["compare", a, b, "-o", str(page)])
    assert found.exit_code == 1
    assert "worse: ort-fp32: Add: Add/same@14 wrong, was ok" in found.output
    assert "worse than run A: Add" in page.read_text()
    assert CliRunner().invoke(app, ["compare", a, a]).exit_code == 0
    assert CliRunner().invoke(app, ["compare", other, night("D", {"ort-fp32": NOW["ort-fp32"]})]).exit_code == 2
    mixed = CliRunner().invoke(app, ["compare", a, str(tmp_path)])
    assert mixed.exit_code == 2
    assert "holds no lists of operators, as a folder below reports/operators does" in mixed.output


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
