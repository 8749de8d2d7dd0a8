"""What a run decides over its cases, with baselines and records under control."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import render_records

from harness.gates.family import apply_rules, holm
from harness.records import Outcome, Verdict
from harness.run.session import RunSession
from harness.specs import Case, Precision

LOST = Verdict(
    gate="baseline", outcome=Outcome.REGRESSED, code="lost_images", message="630 lost", is_failure=True, p_value=1e-9
)


class Baselines:
    """One stored record, and a verdict against it."""

    def __init__(self, cpu_isa):
        self._environment = render_records.make_environment(cpu_isa=cpu_isa)

    def load(self, case, environment):
        return SimpleNamespace(environment=self._environment)

    def judge(self, record, *, tolerance):
        return (LOST, replace(LOST, gate="latency", code="slower"))


@pytest.fixture
def judge():
    def outcome(*, expects_loss, precision, stored_isa, alpha=0.001):
        session = RunSession.__new__(RunSession)
        session.options, session.baselines = SimpleNamespace(baseline="check"), Baselines(stored_isa)
        session._gates = {"baseline", "latency"}
        session._record_of = lambda run: SimpleNamespace(environment=render_records.make_environment(cpu_isa="amx"))
        run = SimpleNamespace(
            model=SimpleNamespace(expects_int8_loss=expects_loss),
            case=Case(model="m", backend="ort", precision=precision, recipe="any"),
            tolerance=None,
        )
        verdicts = session._judge_against_baseline(run)
        judged = apply_rules(holm(list(verdicts), alpha=alpha), strict=False, require_baseline=False)
        return {verdict.gate: verdict for verdict in judged}

    return outcome


def test_a_planted_victim_s_baseline_of_another_cpu_is_told_and_not_failed(judge):
    found = judge(expects_loss=True, precision=Precision.INT8, stored_isa="avx512_vnni")
    assert (found["baseline"].code, found["baseline"].is_failure) == ("expected_loss", False)
    assert "expected of this model: 630 lost" in found["baseline"].message
    assert found["latency"].is_failure


@pytest.mark.parametrize(
    ("expects_loss", "precision", "stored_isa"),
    [(True, Precision.INT8, "amx"), (True, Precision.FP16, "avx512_vnni"), (False, Precision.INT8, "avx512_vnni")],
)
def test_every_other_loss_against_a_baseline_fails(judge, expects_loss, precision, stored_isa):
    found = judge(expects_loss=expects_loss, precision=precision, stored_isa=stored_isa)
    assert found["baseline"].is_failure
    assert found["baseline"].code == "lost_images"
