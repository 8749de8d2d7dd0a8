"""`harness calibrate`: how far times scatter on this machine, how often the rule cries wolf, and what it catches.

Pairs of fresh processes of one and the same engine, and in the same processes with slowdowns planted inside the timed
region. Pairs of all cases take turns, so that every case sees the machine over the whole time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.errors import HarnessError, MeasurementError
from harness.options.values import HarnessOptions
from harness.protocols import no_progress
from harness.records import CPU, INJECTED, CalibrationNight, CaseSamples, TimingCalibration
from harness.run.cases import utc_now
from harness.run.pairing import Arm, PairTimes, time_slowed_pair
from harness.run.plan import Plan
from harness.run.settings import Environments, case_request, worker_settings
from harness.specs import Case
from harness.stats.pairs import log_ratio

ACCEPTED_ON_CPU, ACCEPTED_ON_ACCELERATOR = 0.02, 0.005  # slowdowns that rates are stated for, unless told otherwise
DIGITS = 7  # of a logarithm: 0.00001 %, finer than any clock


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationPlan:
    """How much is measured of every case."""

    n_pairs: int = 16  # as many as one comparison may take
    n_builds: int = 2
    max_slowdown: float | None = None  # None: by the kind of device
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if min(self.n_pairs, self.n_builds) < 1:
            raise MeasurementError("a calibration needs pairs and builds of at least 1")


class _Gathered:
    """What the pairs of one case have given so far."""

    def __init__(self) -> None:
        self.builds: list[int] = []
        self.medians: dict[int, list[float]] = {}  # by batch size
        self.round_cvs: dict[int, list[float]] = {}
        self.log_ratios: dict[int, list[list[float]]] = {}

    def add(self, found: tuple[tuple[PairTimes, ...], ...], build: int) -> None:
        """Take in one pair: as it is, and with each slowdown."""
        self.builds += [build, build]
        for times in found[0]:
            for rounds_ns in (times.candidate_ns, times.control_ns):
                medians = np.median(rounds_ns, axis=1)
                self.medians.setdefault(times.batch_size, []).append(round(float(np.median(medians)), 2))
                scatter = float(np.log(medians).std(ddof=1)) if medians.size > 1 else 0.0
                self.round_cvs.setdefault(times.batch_size, []).append(round(scatter, DIGITS))
        for index, condition in enumerate(found):
            for times in condition:
                ratios = self.log_ratios.setdefault(times.batch_size, [[] for _ in INJECTED])
                ratios[index].append(round(log_ratio(times.candidate_ns, times.control_ns), DIGITS))

    def samples(self, case_id: str) -> list[CaseSamples]:
        """Return them as they are stored, one of each batch size."""
        return [
            CaseSamples(
                case_id=case_id,
                batch_size=size,
                builds=tuple(self.builds),
                medians_ns=tuple(self.medians[size]),
                round_cvs=tuple(self.round_cvs[size]),
                log_ratios=tuple(map(tuple, self.log_ratios[size])),
            )
            for size in self.medians
        ]


def calibrate(
    options: HarnessOptions, plan: Plan, asked: CalibrationPlan, *, folder: Path, echo: Callable[[str], None]
) -> tuple[TimingCalibration, ...]:
    """Measure the planned cases and return tonight's calibration of each type of device.

    `folder`: for the workers' logs and for engines that are built anew. A case that cannot be timed is told and left
    out. Raises: MeasurementError when none could be.
    """
    gathered: dict[Case, _Gathered] = {case: _Gathered() for case in plan.cases}
    for index in range(asked.n_pairs):
        for case in tuple(gathered):
            echo(f"pair {index + 1} of {asked.n_pairs}: {case.id}")
            try:
                pair = _Pair(
                    case=case,
                    build=index % asked.n_builds,
                    is_candidate_first=index // asked.n_builds % 2 == 0,  # alternates within each build
                    folder=folder,
                )
                gathered[case].add(_timed(pair, plan, options), pair.build)
            except HarnessError as error:
                echo(f"left out: {case.id}: {error}")
                del gathered[case]
    if not gathered:
        raise MeasurementError("no case could be timed; the lines above say why")
    return _calibrations(gathered, asked, Environments(plan, Path(options.root)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    case: Case
    build: int
    is_candidate_first: bool
    folder: Path


def _timed(pair: _Pair, plan: Plan, options: HarnessOptions) -> tuple[tuple[PairTimes, ...], ...]:
    case, settings = pair.case, worker_settings(options, pair.folder, _silent)
    request = case_request(case, plan.models[case.model], options)
    if pair.build:
        cache = str(pair.folder.absolute() / f"build-{pair.build}")
        request = replace(request, build=replace(request.build, cache_dir=cache))
    candidate, control = (
        Arm(request=request, settings=settings, name=f"{case.id}-{name}") for name in ("candidate", "control")
    )
    return time_slowed_pair(
        candidate, control, INJECTED[1:], n_rounds=options.timing.n_rounds, candidate_first=pair.is_candidate_first
    )


def _silent(what: str) -> Callable[[int, int], None]:
    return no_progress


def _calibrations(
    gathered: dict[Case, _Gathered], asked: CalibrationPlan, environments: Environments
) -> tuple[TimingCalibration, ...]:
    found: dict[str, TimingCalibration] = {}
    measured_at = utc_now()
    for case, of_case in gathered.items():
        environment = environments.of(case.backend, case.device)
        kind = environment.device_type
        usual = ACCEPTED_ON_CPU if case.device == CPU else ACCEPTED_ON_ACCELERATOR
        if kind not in found:
            found[kind] = TimingCalibration(
                device_type=kind,
                max_slowdown=usual if asked.max_slowdown is None else asked.max_slowdown,
                alpha=asked.alpha,
                nights=(CalibrationNight(measured_at=measured_at, driver=environment.driver, versions={}, cases=()),),
            )
        (night,) = found[kind].nights
        night = replace(
            night,
            versions={**night.versions, **environment.versions},
            cases=(*night.cases, *of_case.samples(case.id)),
        )
        found[kind] = replace(found[kind], nights=(night,))
    return tuple(found.values())
