"""Where a drill plants: a folder of its own with models, cache and baselines; nothing of the user's is touched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.errors import HarnessError, Unsupported
from harness.gates import Candidate, find_gate
from harness.options.values import HarnessOptions
from harness.records import Record
from harness.run.folders import models_folder
from harness.run.plan import Plan, plan_run
from harness.run.session import RunSession
from harness.specs import Case, DatasetRequest, ModelSpec, Precision, TimingPlan
from harness.store.baselines import BaselineStore

PLANTED = Path(__file__).parent / "planted"  # an extension folder
MODEL = "mobilenet_digits"  # small, and the one whose depth makes it feel what is planted
SOUND, FAULTY = "ort", "drill"  # backends
RECIPE = "qdq-outputs"  # the one whose INT8 really runs in 8 bits on ONNX Runtime
SCORES = ("chance", "floor", "fp32", "reference", "kernel", "baseline", "invariance", "precision")
N_SCORED, N_CALIBRATED = 2_000, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What is other than in the control."""

    cases: Sequence[Case]
    gates: Sequence[str] = SCORES
    models: Mapping[str, ModelSpec] | None = None
    left_out: Mapping[str, str] | None = None  # backend -> why
    fault: str = ""  # of the engine


class Bench:
    """The sound set-up, its accepted night, and nights with something planted in them."""

    def __init__(self, folder: Path) -> None:
        """`folder`: empty, and the drill's own."""
        self.folder = folder
        self.models = Path(shutil.copytree(models_folder(folder), folder / "models"))
        self.options = HarnessOptions(
            backends=(SOUND, FAULTY),
            precisions=(Precision.FP32, Precision.INT8),
            recipes=(RECIPE,),
            models=(MODEL,),
            extension_dirs=(str(PLANTED),),
            data=DatasetRequest(score_images=N_SCORED, calibration_images=N_CALIBRATED),
            timing=TimingPlan(batch_sizes=(4,), n_rounds=6, round_ns=1_000_000, warmup_ns=0),
            report_dir=str(folder / "reports"),
            engine_cache=str(folder / "cache"),
            baseline_dir=str(folder / "baselines"),
            max_drop=0.005,
            root=str(folder),
        )

    @cached_property
    def plan(self) -> Plan:
        """The plan of the sound night."""
        return plan_run(self.options, models_dir=self.models, probe=False)

    def case(self, backend: str, precision: Precision) -> Case:
        """Return one of its cases."""
        return next(c for c in self.plan.cases if (c.backend, c.precision) == (backend, precision))

    @property
    def control_cases(self) -> tuple[Case, ...]:
        """The cases that are accepted: FP32 of the reference, and both precisions of the backend that faults are in."""
        return (
            self.case(SOUND, Precision.FP32),
            self.case(FAULTY, Precision.FP32),
            self.case(FAULTY, Precision.INT8),
        )

    @cached_property
    def accepted(self) -> list[Record]:
        """The sound night that became the baselines."""
        records = self.night(Night(cases=self.control_cases, gates=(*SCORES, "latency")))
        BaselineStore(Path(self.options.baseline_dir)).accept(
            records, accepted_by="fire drill", accepted_at=records[0].recorded_at
        )
        return records

    @cached_property
    def control(self) -> list[Record]:
        """The same night again, with nothing planted, beside those baselines."""
        assert self.accepted
        return self.night(Night(cases=self.control_cases))

    def night(self, night: Night, **changes: object) -> list[Record]:
        """Measure and judge some cases as the suites do, and return their records. `changes`: of the options."""
        options = replace(self.options, **changes)  # type: ignore[arg-type]
        if night.fault:
            options = replace(options, backend_options=((FAULTY, "fault", night.fault),))
        plan = replace(
            self.plan,
            cases=tuple(night.cases),
            models=dict(night.models or self.plan.models),
            left_out=dict(night.left_out or {}),
        )
        session = RunSession(options, plan, command="fire drill", gates=night.gates)
        try:
            for case in plan.cases:
                self._ask(session, plan, case, night.gates)
                session.close_case(session.open_case(case))
            return session.records
        finally:
            session.abandon()

    def _ask(self, session: RunSession, plan: Plan, case: Case, gates: Sequence[str]) -> None:
        """Ask each gate that applies to a case, as a suite's test does: what it raises is the case's failure."""
        candidate = Candidate(case=case, writes=plan.writes(case))
        for name in gates:
            if not find_gate(name).applies(candidate):
                continue
            try:
                answer = session.answer(case, name)
            except Unsupported:
                continue
            except HarnessError as error:
                session.note_failure(case.id, str(error))
            else:
                if not answer.ok:
                    session.note_failure(case.id, answer.message)

    def copied(self, name: str, of: str) -> Path:
        """Return a copy of one of its folders, to plant in."""
        return Path(shutil.copytree(self.folder / of, self.folder / name))
