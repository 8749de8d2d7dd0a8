"""How a case was quantized: the range of every tensor, recipe beside recipe, and where the signal falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from harness.precision.tables import CalibrationTable, drift
from harness.precision.view import divergence_at
from harness.records import Calibration, Record, TensorCalibration
from harness.report.charts import RangeMark, magnitudes_chart
from harness.report.format import MISSING, format_number, plural

FALL_DB = 20.0  # noise of a tenth of the signal's root mean square
MAX_RANGES, MAX_RATIOS = 16, 40  # lines shown
MAX_RECIPES = 5  # columns


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeCell:
    """What one recipe chose for one tensor."""

    threshold: str
    saturated: str
    divergence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeLine:
    """One tensor: its magnitudes, and what each recipe chose."""

    tensor: str
    largest: str
    chart: Markup
    cells: tuple[RangeCell | None, ...]  # a recipe each


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioLine:
    """One tensor's signal-to-noise ratio with each recipe."""

    tensor: str
    ratios: tuple[str, ...]
    is_fall: bool  # the first of this case


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationView:
    """Calibration of one case; the first recipe is its own, the others ran beside it on the same model."""

    recipes: tuple[str, ...]
    fall: str  # where the signal falls, in a sentence; "" where no ratio was measured
    is_fallen: bool
    scales: str  # what became of the previous run's scales; "" where there are none
    ranges: tuple[RangeLine, ...]
    ratios: tuple[RatioLine, ...]
    n_ranges_left_out: int
    n_ratios_left_out: int

    @property
    def is_drawn(self) -> bool:
        """Tell whether there is a chart of magnitudes."""
        return any(line.chart for line in self.ranges)


def calibration_of(record: Record) -> Calibration | None:
    """Return how a case was calibrated: by its engine, or before."""
    engine, artifact = record.engine, record.artifact
    return (engine.calibration if engine else None) or (artifact.calibration if artifact else None)


def recipes_of_models(records: Sequence[Record]) -> dict[str, dict[str, Calibration]]:
    """Return model -> recipe -> calibration; of a recipe that ran on several backends the first one's."""
    found: dict[str, dict[str, Calibration]] = {}
    for record in records:
        calibration = calibration_of(record)
        if calibration and (calibration.tensors or calibration.noise):
            found.setdefault(record.case.model, {}).setdefault(record.case.recipe, calibration)
    return found


def quantization_view(
    record: Record, previous: Record | None, recipes: Mapping[str, Calibration]
) -> QuantizationView | None:
    """Return the calibration of a case beside that of the model's other recipes; None where nothing is known."""
    mine = calibration_of(record)
    if mine is None or not (mine.tensors or mine.noise):
        return None
    others = [(name, one) for name, one in recipes.items() if name != record.case.recipe]
    shown = [(record.case.recipe, mine), *others[: MAX_RECIPES - 1]]
    fall = first_fall(mine)
    ratios = _ratios([one for _, one in shown], fall)
    return QuantizationView(
        recipes=tuple(name for name, _ in shown),
        fall=fall_text(mine),
        is_fallen=fall is not None,
        scales=_scales_text(mine, record, previous),
        ranges=tuple(_range_line(one.tensor, shown) for one in mine.tensors[:MAX_RANGES]),
        ratios=ratios,
        n_ranges_left_out=max(len(mine.tensors) - MAX_RANGES, 0),
        n_ratios_left_out=len(mine.noise) - len(ratios),
    )


def first_fall(calibration: Calibration) -> int | None:
    """Return the place of the first tensor, in the graph's order, whose ratio lies below FALL_DB."""
    below = (k for k, one in enumerate(calibration.noise) if one.snr_db is not None and one.snr_db < FALL_DB)
    return next(below, None)


def fall_text(calibration: Calibration) -> str:
    """Return where the signal falls, or its lowest ratio, in a sentence; "" where no ratio was measured."""
    noise = calibration.noise
    if not noise:
        return ""
    images = plural(calibration.n_noise_images, "calibration image")
    begin = f"Signal-to-noise ratio, FP32 against the float emulation on {images}"
    known = [one for one in noise if one.snr_db is not None]
    if not known:
        return f"{begin}: no tensor differs."
    place = first_fall(calibration)
    if place is None:
        lowest = min(known, key=lambda one: one.snr_db or 0.0)
        return f"{begin}: nowhere below {FALL_DB:g} dB; lowest in {lowest.tensor}, {_decibels(lowest.snr_db)}."
    before = [one.snr_db for one in noise[:place] if one.snr_db is not None]
    ahead = f"{_decibels(min(before))} at least before it" if before else "nothing differs before it"
    fallen = noise[place]
    return f"{begin}, falls below {FALL_DB:g} dB first in {fallen.tensor}: {_decibels(fallen.snr_db)}, {ahead}."


def calibration_lines(record: Record) -> list[str]:
    """Return the same for a terminal: every tensor's range, then its ratio; [] where no range is known."""
    calibration = calibration_of(record)
    if calibration is None or not calibration.tensors:
        return []
    width = max(len(name) for name in _names(calibration))
    lines = [
        f"{record.case.id}: {calibration.method}, {calibration.images.n_images} images",
        f"  {'':<{width}}       largest     threshold  saturated    divergence  (of the largest)",
        *(f"  {_line(row, width)}" for row in calibration.tensors),
    ]
    lines += [f"  {fall_text(calibration)}"] if calibration.noise else []
    return lines + [f"  {one.tensor:<{width}}  {_decibels(one.snr_db):>12}" for one in calibration.noise]


def _names(calibration: Calibration) -> list[str]:
    return [*(row.tensor for row in calibration.tensors), *(one.tensor for one in calibration.noise)]


def _line(row: TensorCalibration, width: int) -> str:
    lost = divergence_at(row)
    largest = MISSING if row.largest is None else f"{row.largest:.6g}"
    saturated = MISSING if row.saturated_share is None else f"{row.saturated_share:.3%}"
    divergences = "" if lost is None else f"  {lost:12.4g}  ({row.divergences[-1]:.4g})"
    return f"{row.tensor:<{width}}  {largest:>12}  {row.threshold:12.6g}  {saturated:>9}{divergences}"


def _scales_text(mine: Calibration, record: Record, previous: Record | None) -> str:
    before = calibration_of(previous) if previous else None
    if before is None or not (before.tensors and mine.tensors):
        return ""
    rows = drift(_table(before), _table(mine))
    changed = [row for row in rows if row.change]
    lacking = sum(row.change is None for row in rows)
    begin = f"Scales against the previous run{_versions_text(record, previous)}"
    reason = "" if before.fingerprint == mine.fingerprint else ", of other calibration images"
    named = f"; {plural(lacking, 'tensor')} in one run only" if lacking else ""
    if not changed or changed[0].change is None:
        return f"{begin}{reason}: {'unchanged' if len(rows) > lacking else 'none in common'}{named}."
    most = f"by {changed[0].change:+.2%} in {changed[0].tensor} at most"
    return f"{begin}{reason}: {len(changed)} of {plural(len(rows), 'tensor')} changed, {most}{named}."


def _table(calibration: Calibration) -> CalibrationTable:
    return CalibrationTable(ranges={one.tensor: one.threshold for one in calibration.tensors})


def _versions_text(record: Record, previous: Record | None) -> str:
    """Return which converters or runtimes changed in between, in parentheses."""

    def versions(one: Record | None) -> dict[str, str]:
        artifact, engine = (one.artifact, one.engine) if one else (None, None)
        return {**(engine.versions if engine else {}), **(artifact.tools if artifact else {})}

    before, after = versions(previous), versions(record)
    changed = [
        f"{name} {before[name]} → {after[name]}" for name in after if before.get(name, after[name]) != after[name]
    ]
    return f" ({', '.join(changed)})" if changed else ""


def _range_line(tensor: str, shown: Sequence[tuple[str, Calibration]]) -> RangeLine:
    rows = [next((row for row in one.tensors if row.tensor == tensor), None) for _, one in shown]
    told = [row for row in rows if row is not None]
    drawn = next((row for row in told if row.counts), None)
    largest = next((row.largest for row in told if row.largest is not None), None)
    marks = [RangeMark(place=index, threshold=row.threshold) for index, row in enumerate(rows) if row is not None]
    return RangeLine(
        tensor=tensor,
        largest=MISSING if largest is None else format_number(largest),
        chart=magnitudes_chart(drawn, marks) if drawn else Markup(),
        cells=tuple(_cell(row, drawn) for row in rows),
    )


def _cell(row: TensorCalibration | None, drawn: TensorCalibration | None) -> RangeCell | None:
    """Return what a recipe chose; without a histogram of its own the divergence is that of another's candidates."""
    if row is None:
        return None
    is_shared = drawn is not None and not row.candidates and row.largest == drawn.largest
    lost = divergence_at(replace(drawn, threshold=row.threshold) if drawn and is_shared else row)
    return RangeCell(
        threshold=format_number(row.threshold),
        saturated=MISSING if row.saturated_share is None else f"{row.saturated_share:.3%}",
        divergence=MISSING if lost is None else format_number(lost),
    )


def _ratios(shown: Sequence[Calibration], fall: int | None) -> tuple[RatioLine, ...]:
    """Return every tensor of the first recipe; of many the first fall and the lowest, in the graph's order."""
    mine = shown[0].noise
    by_ratio = sorted(range(len(mine)), key=lambda k: (k != fall, mine[k].snr_db is None, mine[k].snr_db or 0.0))
    tables = [{one.tensor: _decibels(one.snr_db) for one in calibration.noise} for calibration in shown]
    return tuple(
        RatioLine(
            tensor=mine[k].tensor,
            ratios=tuple(table.get(mine[k].tensor, MISSING) for table in tables),
            is_fall=k == fall,
        )
        for k in sorted(by_ratio[:MAX_RATIOS])
    )


def _decibels(ratio: float | None) -> str:
    return "equal" if ratio is None else f"{ratio:.1f} dB"
