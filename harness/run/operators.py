"""Nets of one operator each on every chosen backend and precision."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from harness.errors import WorkerDied
from harness.options.values import HarnessOptions
from harness.records import Availability, OperatorOutcome
from harness.run.plan import device_of
from harness.run.settings import cache_folder
from harness.specs import BuildOptions, Precision, StageLimits
from harness.store.operator_lists import OperatorList
from harness.worker.process import Worker
from harness.worker.requests import OperatorsRequest

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
NET_LIMIT_S = 120.0  # of one net, before its worker counts as hung
LOST = "its worker ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCell:
    """One backend, device and precision."""

    backend: str
    device: str
    precision: Precision

    @property
    def id(self) -> str:
        """Return its name, of a test and of its accepted list."""
        device = "" if self.device in ("cpu", "cuda:0") else "".join(filter(str.isalnum, self.device))
        return "-".join(part for part in (self.backend, self.precision.value, device) if part)


def cells_of(options: HarnessOptions, backends: Sequence[Availability]) -> tuple[OperatorCell, ...]:
    """Return the cells of a run, of those precisions that nets can be made in."""
    return tuple(
        OperatorCell(backend=one.backend, device=device_of(options, one), precision=precision)
        for one in backends
        for precision in PRECISIONS
        if precision in options.precisions
    )


def run_cell(cell: OperatorCell, options: HarnessOptions, versions: dict[str, str]) -> OperatorList:
    """Run all nets of a cell; one that ends its worker costs that net, and the others go on in another worker.

    Raises: ConfigError for an unknown backend; WorkerDied where not even the names of the nets are found.
    """
    build = BuildOptions(
        num_threads=options.num_threads,
        cache_dir=cache_folder(options.engine_cache),
        settings=options.build_settings,
    )
    request = OperatorsRequest(backend=cell.backend, device=cell.device, precision=cell.precision, build=build)
    worker = _worker(cell, options)
    try:
        names = list(worker.call("operator_names", request, tuple[str, ...]))
    finally:
        worker.close()
    found: dict[str, OperatorOutcome] = {}
    chunks = [names]
    while chunks:
        asked = chunks.pop()
        request = OperatorsRequest(
            backend=cell.backend, device=cell.device, precision=cell.precision, build=build, nets=tuple(asked)
        )
        reached = [0]

        def note(done: int, total: int, reached: list[int] = reached) -> None:
            reached[0] = done

        with closing(_worker(cell, options)) as one:
            try:
                outcomes = one.call("run_operators", request, tuple[OperatorOutcome, ...], progress=note)
                found |= {outcome.net: outcome for outcome in outcomes}
            except WorkerDied as error:
                # What came before the culprit went with its worker.
                culprit, place = asked[reached[0]], reached[0]
                operator = culprit.partition("/")[0]
                found[culprit] = OperatorOutcome(
                    net=culprit, operator=operator, state="error", reason=f"{LOST}: {error}"[:300]
                )
                chunks += [part for part in (asked[place + 1 :], asked[:place]) if part]
    return OperatorList(cell=cell.id, versions=versions, outcomes=tuple(found[name] for name in names if name in found))


def _worker(cell: OperatorCell, options: HarnessOptions) -> Worker:
    return Worker(
        python=options.worker_python,
        extension_dirs=options.extension_dirs,
        label=f"operators on {cell.id}",
        limits=StageLimits(by_stage=(("build", NET_LIMIT_S),)),
    )
