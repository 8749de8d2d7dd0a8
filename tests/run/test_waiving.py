"""Waivers of a project reach the records of its run, and a bad one stops the run before anything is measured."""

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.options.values import HarnessOptions
from harness.run.plan import plan_run
from harness.run.session import RunSession
from harness.specs import Precision

ROOT = Path(__file__).parents[2]
ENTRY = """
[[waiver]]
case = "{case}"
gate = "{gate}"
reason = "known"
link = "https://tracker/1"
expires = 2026-12-31
"""


@pytest.fixture
def begin(tmp_path):
    """Return a function that begins a run in a folder with a waiver, and returns it."""

    def run(**entry):
        (tmp_path / "harness.toml").write_text(ENTRY.format(**entry))
        options = HarnessOptions(
            backends=("fake-honest",),
            precisions=(Precision.FP32,),
            models=("mlp",),
            extension_dirs=(str(ROOT / "tests" / "fakes"),),
            report_dir=str(tmp_path / "reports"),
            root=str(tmp_path),
        )
        return RunSession(options, plan_run(options, models_dir=ROOT / "models", probe=False), command="", gates=set())

    return run


@pytest.mark.parametrize(("case", "n_waivers"), [("mlp-*", 1), ("mlp-fake-honest-fp32", 1), ("lenet5-*", 0)])
def test_a_record_holds_the_waivers_of_its_case(case, n_waivers, begin):
    session = begin(case=case, gate="floor")
    session.open_case(session.plan.cases[0])
    (record,) = session.records
    session.abandon()
    assert len(record.waivers) == n_waivers


def test_a_bad_waiver_stops_the_run_before_it_begins(begin):
    with pytest.raises(ConfigError, match=r"harness.toml \[\[waiver\]\] 1: gate: unknown name 'flor'; did you mean"):
        begin(case="mlp-*", gate="flor")
