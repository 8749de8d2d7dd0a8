"""Nets of one operator each on every chosen backend and precision, and what changed since the accepted list."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from harness.errors import ConfigError, DataError, WorkerDied
from harness.options.values import HarnessOptions
from harness.records import Availability, OperatorOutcome
from harness.report.operators import operators_markdown
from harness.run.plan import device_of
from harness.run.settings import cache_folder
from harness.specs import BuildOptions, Precision, StageLimits
from harness.worker.process import Worker
from harness.worker.requests import OperatorsRequest

FOLDER = "operators"  # below the reports and the baselines
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
NET_LIMIT_S = 120.0  # of one net, before its worker counts as hung
RANKS = {"ok": 0, "unsupported": 1, "wrong": 2, "error": 2}  # a higher one is worse
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorList:
    """What a backend made of every net; the form of the files."""

    cell: str
    versions: dict[str, str]
    outcomes: tuple[OperatorOutcome, ...]


@dataclass(slots=True, kw_only=True)
class OperatorRun:
    """The lists of one run, written at its end."""

    options: HarnessOptions
    lists: dict[str, OperatorList] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)  # cells whose list is accepted at the end

    def accepted(self, cell: OperatorCell) -> OperatorList | None:
        """Return the accepted list of a cell, None where there is none. Raises: DataError for a damaged one."""
        path = Path(self.options.baseline_dir) / FOLDER / f"{cell.id}.json"
        if self.options.baseline == "ignore" or not path.is_file():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=OperatorList)
        except msgspec.MsgspecError as error:
            raise DataError(f"{path}: is no list of operators ({error}); accept one anew") from error

    def verdict(self, cell: OperatorCell, found: OperatorList) -> list[str]:
        """Keep a list and return its complaints; none where it is accepted by this run. Raises: DataError."""
        self.lists[cell.id] = found
        accepted = self.accepted(cell)
        worse = complaints(found, accepted)
        is_taken = self.options.accept_regressions or (accepted is None and self.options.update_baselines)
        if is_taken or (self.options.update_baselines and not worse):
            self.taken.add(cell.id)
        return [] if is_taken else worse

    def finish(self) -> list[str]:
        """Write the lists, and the accepted ones where that was asked; return lines for the terminal.

        Raises: ConfigError when a file cannot be written.
        """
        if not self.lists:
            return []
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        folder = Path(self.options.report_dir) / FOLDER / stamp
        table = operators_markdown({cell: found.outcomes for cell, found in self.lists.items()})
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for cell, found in self.lists.items():
                _write(folder / f"{cell}.json", found)
                if cell in self.taken:
                    _write(Path(self.options.baseline_dir) / FOLDER / f"{cell}.json", found)
            (folder / "operators.md").write_text(table, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written ({error.strerror}); choose another --report-dir") from error
        return [*table.rstrip().splitlines(), f"lists: {folder}"]


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


def complaints(found: OperatorList, accepted: OperatorList | None) -> list[str]:
    """Return a line for each operator that is worse than accepted; without an accepted list, for each that is bad."""
    before = {one.net: one for one in accepted.outcomes} if accepted else {}
    worse: dict[str, list[OperatorOutcome]] = {}
    for one in found.outcomes:
        known = before.get(one.net)
        rank = RANKS[known.state] if known else RANKS["unsupported"]
        if RANKS[one.state] > rank:
            worse.setdefault(one.operator, []).append(one)
    return [_line(operator, outcomes, before) for operator, outcomes in worse.items()]


def _line(operator: str, outcomes: Sequence[OperatorOutcome], before: dict[str, OperatorOutcome]) -> str:
    first = outcomes[0]
    more = f" and {len(outcomes) - 1} more" if len(outcomes) > 1 else ""
    was = f", was {before[first.net].state}" if first.net in before else ""
    return f"{operator}: {first.net}{more} {first.state}{was}: {first.reason}"


def _worker(cell: OperatorCell, options: HarnessOptions) -> Worker:
    return Worker(
        python=options.worker_python,
        extension_dirs=options.extension_dirs,
        label=f"operators on {cell.id}",
        limits=StageLimits(by_stage=(("build", NET_LIMIT_S),)),
    )


def _write(path: Path, found: OperatorList) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
