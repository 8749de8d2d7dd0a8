"""What a gate is, what it is asked about, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from harness.errors import ConfigError, MeasurementError
from harness.gates._subjects import Subject
from harness.options.names import check_name
from harness.records import Record, Status, Verdict
from harness.specs import NAME_PATTERN, Case, ModelSpec, Tolerance

VOID = "void"  # of a verdict on a time that is none of this engine, or of wrong results

# What a gate may need: measurements of the case itself, then what others it is compared with.
MEASUREMENTS = (
    *("engine", "accuracy", "samples", "invariance", "latency"),
    *("fp32", "reference", "emulation", "samples_fp32", "samples_reference", "samples_emulation", "layers"),
)
TOLERANCES = tuple(field.name for field in fields(Tolerance))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is known of a case before it is measured."""

    case: Case
    writes: str  # what its recipe writes into the file: qdq, cast or nothing
    timing_only: bool = False
    runs_samples: bool = False  # of a model of any graph: its outputs are compared on samples
    has_metrics: bool = False  # samples of it are scored by the metrics of its task
    is_onnx: bool = True  # a file of another format is read by one backend alone: there is no reference

    @classmethod
    def of_model(cls, case: Case, model: ModelSpec, *, writes: str, has_metrics: bool) -> Candidate:
        """Return what is known of a case of a model; `writes`: what its recipe writes into the file."""
        return cls(
            case=case,
            writes=writes,
            timing_only=model.timing_only,
            runs_samples=model.tensors is not None,
            has_metrics=has_metrics,
            is_onnx=model.is_onnx,
        )

    @property
    def is_source(self) -> bool:
        """Tell whether the case runs the model's own file: FP32, or INT8 as given."""
        return self.case.is_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a gate may look at: one case, and what it is compared with."""

    record: Record
    fp32: Record | None = None  # FP32 of the same model, backend and device
    reference: Record | None = None  # FP32 of the same model on the reference backend
    stored: Subject | None = None  # the baseline, or the same case of another run
    stored_in: str = ""  # where a baseline would lie, for messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What a gate keeps of one case to judge it among all others."""

    place: int  # of the case among all
    note: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """A verdict on several cases at once."""

    verdict: Verdict
    places: tuple[int, ...]  # of the cases that bear it
    smallest_p: float  # that the test could have given
    alpha: float  # false-alarm rate that its cases ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One question asked of every case that it applies to; a file in harness/gates/ offers one as GATE.

    `judge` is pure. It returns no verdict when what the gate `needs` was not measured, as may be in an earlier run or
    in one of a selection. It may raise MeasurementError for numbers that are none.
    """

    name: str
    summary: str  # one sentence, for docs and --help
    needs: tuple[str, ...]  # of MEASUREMENTS
    applies: Callable[[Candidate], bool]
    judge: Callable[[Evidence], tuple[Verdict, ...]]
    order: int = 100  # its place among the gates, small first: the first that fails is named as the reason
    in_family: bool = False  # its verdicts on all cases of a run share one false-alarm rate, and so wait for the last
    family: str = ""  # whose false-alarm rate it shares; "" = its own
    note: Callable[[Evidence], Any] | None = None  # of a case, for `judge_together`: small, and None of one that is out
    judge_together: Callable[[Sequence[Noted]], tuple[Together, ...]] | None = None  # all cases of a run at once
    is_exact: bool = False  # judged by the exact test, whose p-value has a smallest possible value
    reads_baseline: bool = False  # --baseline decides whether it is asked, and whether a missing baseline fails
    judges_absent: bool = False  # it judges cases that did not run, or cannot on this device; no other gate does
    judges_outputs: bool = False  # REGRESSED by it, no time of the case counts
    judges_times: bool = False  # it judges times, and has nothing to say where none counts
    tolerance: str = ""  # the field of Tolerance that switches it on; "" = it is always on
    judges_alone: bool = False  # of one that reads a baseline: it is asked under --baseline=ignore too

    def __post_init__(self) -> None:
        if not NAME_PATTERN.match(self.name):
            raise ConfigError(f"gate name {self.name!r}: use letters, digits, '_' and '.' only")
        unknown = [name for name in self.needs if name not in MEASUREMENTS]
        if unknown:
            raise ConfigError(f"gate {self.name} needs {unknown[0]!r}; expected some of {', '.join(MEASUREMENTS)}")
        check_name(self.tolerance or "alpha", TOLERANCES, where=f"gate {self.name}, tolerance")

    def is_on(self, tolerance: Tolerance) -> bool:
        """Tell whether a case's tolerance asks for it."""
        return not self.tolerance or getattr(tolerance, self.tolerance) is not None

    def is_due(self, candidate: Candidate, tolerance: Tolerance, options: JudgeOptions) -> bool:
        """Tell whether a case is to be judged by it."""
        return self.is_on(tolerance) and options.asks(self) and self.applies(candidate)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """What of a run's options decides verdicts; tolerances lie in the records."""

    gates: frozenset[str] | None = None  # those asked; None = all there are
    strict: bool = False  # an inconclusive verdict fails
    baseline: str = "auto"  # auto, require or ignore: see --baseline
    stored_in: str = ""  # the folder of baselines, for messages

    def asks(self, gate: Gate) -> bool:
        """Tell whether a gate is asked at all."""
        is_idle = gate.reads_baseline and not gate.judges_alone and self.baseline == "ignore"
        return (self.gates is None or gate.name in self.gates) and not is_idle


@dataclass(frozen=True, slots=True, kw_only=True)
class GateAnswer:
    """All verdicts of one gate on one case, as a suite asserts them."""

    ok: bool
    message: str
    verdicts: tuple[Verdict, ...]
    no_times: str = ""  # why there was no time to judge: what the case scored failed another gate


def answer_of(record: Record, gate: str) -> GateAnswer:
    """Return what a gate says of a judged record. Raises: MeasurementError when it gave no verdict."""
    given = tuple(verdict for verdict in record.verdicts if verdict.gate == gate)
    if not given:
        why = f": {record.reason}" if record.status is Status.ERROR else ""
        raise MeasurementError(f"{record.case.id}: gate {gate} gave no verdict{why}")
    told = [verdict for verdict in given if not verdict.ok] or given
    return GateAnswer(
        ok=all(verdict.ok for verdict in given),
        message=" | ".join(dict.fromkeys(v.message for v in told)),
        verdicts=given,
        no_times=given[0].message if all(v.code == VOID and v.ok for v in given) else "",
    )
