"""A calibration of times for a reader: one table in the terminal, one sentence everywhere."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.records import INJECTED, CaseSpread, Caught, TimingCalibration
from harness.report.format import MISSING
from harness.report.terminal import wrapped
from harness.stats.calibrated import caught_together, most_false_alarms

WIDE = 100  # characters from which builds and nights have columns too
DECIMALS = 2


def calibration_sentence(calibration: TimingCalibration, spreads: Sequence[CaseSpread]) -> str:
    """Return how often unchanged engines were called slower here, what that bounds, and what it rests on."""
    unchanged = caught_together(tuple(spreads))[0]
    most, n_pairs = most_false_alarms(unchanged), sum(spread.n_pairs for spread in spreads)
    nights = len(calibration.nights)
    rests = f"{n_pairs:,} pairs of processes, {nights} {'night' if nights == 1 else 'nights'}"
    accepted = f"at an accepted slowdown of {_percent(calibration.max_slowdown)} %"
    if most is None:
        return f"False alarms are not measured: fewer than 16 pairs of a case ({rests})."
    return (
        f"False alarms {accepted}: {unchanged.n_called:,} of {unchanged.n_tried:,} comparisons without a process in "
        f"common, so at most {_percent(most)} % (95 %); {unchanged.n_resampled_called:,} of "
        f"{unchanged.n_resampled:,} resampled from the same pairs ({rests})."
    )


def calibration_lines(
    calibration: TimingCalibration, spreads: Sequence[CaseSpread], *, width: int | None = None
) -> list[str]:
    """Return the table of a device type: spreads in %, false alarms and power of each case, and the sentence below.

    width: of the terminal [characters]; below 100 the columns of builds and nights are left out.
    """
    is_wide = width is None or width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    more = ("build", "night") if is_wide else ()
    table.add_column("Case", no_wrap=True)
    for name in ("b", "round", "process", *more, "pair", "from", *_columns()):
        table.add_column(name, justify="right", no_wrap=True)
    for spread in spreads:
        scatters = (spread.build_cv, spread.night_cv) if is_wide else ()
        cells = (
            str(spread.batch_size),
            *map(_percent, (spread.round_cv, spread.process_cv, *scatters, spread.paired_cv)),
            _percent(spread.smallest_slowdown),
            *map(_rate, spread.caught),
        )
        table.add_row(Text(spread.case_id), *map(Text, cells))
    text = io.StringIO()
    Console(file=text, width=width or 1_000, color_system=None).print(table)
    explained = (
        "round, process, build, night, pair: standard deviations of times, of the paired ratio [%]; from: smallest "
        "accepted slowdown that the case supports [%]; A/A, +1 % ...: called slower, resampled [%]"
    )
    return [
        calibration.device_type,
        *(line.rstrip() for line in text.getvalue().splitlines()),
        *wrapped(explained, width),
        *wrapped(calibration_sentence(calibration, spreads), width),
    ]


def _columns() -> tuple[str, ...]:
    return tuple("A/A" if slowdown == 0 else f"+{100 * slowdown:g}%" for slowdown in INJECTED)


def _percent(fraction: float | None) -> str:
    if fraction is None:
        return MISSING
    text = f"{100 * fraction:.{DECIMALS}f}"
    return text.rstrip("0").rstrip(".") if fraction >= 0.1 else text


def _rate(caught: Caught) -> str:
    return f"{100 * caught.n_resampled_called / caught.n_resampled:.1f}" if caught.n_resampled else MISSING
