"""One model timed on one backend, without a data set, a run or a report."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import ConfigError
from harness.options.values import HarnessOptions
from harness.records import Latency
from harness.run.choosing import choose_models, models_dir_of
from harness.run.plan import cases_of, check_recipes, device_of
from harness.run.probing import choose_backends
from harness.run.settings import cache_folder, worker_settings
from harness.run.timing import time_alone
from harness.specs import BuildOptions, Precision, TimingPlan
from harness.worker.requests import CaseRequest


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
) -> tuple[Latency, ...]:
    """Time a model on seeded noise in a worker process, and return the latency at each batch size.

    `model`: an ONNX file, a card, or a bundled model's name; `recipe`: "" is the precision's default; `device`: "" is
    the backend's first. `Latency.rounds_ns.array()` is float64[rounds, samples], ns per call; FP32's rounds, in turn
    with ours, are beside it.
    Raises: HarnessError: ConfigError for an unknown name, DataError for a file that cannot be taken,
    BackendUnavailable, Unsupported, BuildError, MeasurementError, WorkerDied.
    """
    options = HarnessOptions(
        backends=(backend,),
        precisions=(_precision(precision),),
        recipes=(recipe,) if recipe else (),
        models=(str(model),),
        device=device or HarnessOptions().device,
        timing=TimingPlan(batch_sizes=tuple(batch_sizes), n_rounds=n_rounds),
        num_threads=num_threads,
    )
    (found,), _ = choose_backends(options, probe=True)
    check_recipes(options)
    models = choose_models(options, models_dir_of(options))
    spec = replace(next(iter(models.values())), timing_only=True)  # nothing is scored: the inputs are noise
    (case,) = cases_of(options, {spec.name: spec}, {found.backend: device_of(options, found)})
    request = CaseRequest(
        case=case,
        model=spec,
        data=options.data,
        build=BuildOptions(num_threads=num_threads, cache_dir=cache_folder(options.engine_cache)),
        timing=options.timing,
    )
    return _timed(request, options)


def _precision(name: str) -> Precision:
    try:
        return Precision(name)
    except ValueError:
        raise ConfigError(f"precision {name!r}: choose from {', '.join(Precision)}") from None


def _timed(request: CaseRequest, options: HarnessOptions) -> tuple[Latency, ...]:
    with tempfile.TemporaryDirectory(prefix="harness-time-") as folder:
        return time_alone(request, worker_settings(options, Path(folder), lambda _: _silent))


def _silent(done: int, total: int) -> None:
    """Show no progress."""
