"""Models timed on their own: without a data set, a run folder or a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import ConfigError, HarnessError, Unsupported
from harness.options.values import HarnessOptions
from harness.records import Latency
from harness.report.alone import TimedCase
from harness.run.plan import Plan, plan_run
from harness.run.settings import case_request, quiet_settings
from harness.run.timing import Alone, time_alone
from harness.specs import Case, InputsAsked, Precision, TimingPlan

NAMED_BATCHES = frozenset({"timing.batch_sizes"})


def time_model(
    model: str | Path,
    backend: str = "ort",
    *,
    precision: str = "fp32",
    recipe: str = "",
    device: str = "",
    batch_sizes: Sequence[int] = (1,),
    n_rounds: int = 20,
    num_threads: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Latency, ...]:
    """Time a model on seeded inputs in a worker process, and return the latency at each batch size.

    `model`: an ONNX file of any graph, a card, or a bundled model's name; `recipe`: "" is the precision's default;
    `device`: "" is the backend's first; `shapes`: input -> its shape in one run, where the file leaves it open.
    `Latency.rounds_ns.array()` is float64[rounds, samples], ns per call; FP32's rounds, in turn with ours, are beside
    it.
    Raises: HarnessError: ConfigError for an unknown name, DataError for a file that cannot be taken or an input without
    a size, BackendUnavailable, Unsupported, BuildError, MeasurementError, WorkerDied.
    """
    options = HarnessOptions(
        backends=(backend,),
        precisions=(_precision(precision),),
        recipes=(recipe,) if recipe else (),
        models=(str(model),),
        inputs=InputsAsked(shapes=tuple((name, tuple(shape)) for name, shape in (shapes or {}).items())),
        device=device or HarnessOptions().device,
        timing=TimingPlan(batch_sizes=tuple(batch_sizes), n_rounds=n_rounds),
        named=NAMED_BATCHES,
        num_threads=num_threads,
    )
    plan = plan_alone(options)
    (case,) = plan.cases
    with tempfile.TemporaryDirectory(prefix="harness-time-") as folder:
        return _alone(case, plan, options, Path(folder)).latencies


def plan_alone(options: HarnessOptions) -> Plan:
    """Return the cases of models of which nothing is scored; a data set gives the inputs. Raises: as `plan_run`."""
    return plan_run(options, is_scored=False)


def time_cases(plan: Plan, options: HarnessOptions, told: Callable[[str], None]) -> tuple[TimedCase, ...]:
    """Time the cases of a plan one after the other; an error costs its case alone. `told`: of each before it begins."""
    found = []
    with tempfile.TemporaryDirectory(prefix="harness-time-") as folder:
        for case in plan.cases:
            told(case.id)
            try:
                alone = _alone(case, plan, options, Path(folder), with_layers=True)
            except Unsupported as error:
                found.append(TimedCase(case=case, unsupported=_without_name(error, case)))
            except HarnessError as error:
                found.append(TimedCase(case=case, error=_without_name(error, case)))
            else:
                ran = alone.layers.effective_precision if alone.layers else None
                found.append(TimedCase(case=case, latencies=alone.latencies, effective_precision=ran))
    return tuple(found)


def _alone(case: Case, plan: Plan, options: HarnessOptions, folder: Path, *, with_layers: bool = False) -> Alone:
    request = case_request(case, plan.models[case.model], options)
    return time_alone(request, quiet_settings(options, folder), with_layers=with_layers)


def _without_name(error: HarnessError, case: Case) -> str:
    return str(error).removeprefix(f"{case.id}: ")


def _precision(name: str) -> Precision:
    try:
        return Precision(name)
    except ValueError:
        raise ConfigError(f"precision {name!r}: choose from {', '.join(Precision)}") from None
