"""Numbers to text, once for every report: units, signs and no digit that the data do not carry.

Inside there are ns, bytes and fractions; us, ms, MiB and % exist from here on. Nothing here computes a statistic.
"""

from __future__ import annotations

import datetime
import math

MISSING = "—"
MINUS = "\u2212"
NO_BREAK = "\u00a0"  # keeps a number and its unit on one line
PLAIN_DIGITS = 3  # significant digits of a number whose interval is not known
MIN_DIGITS = 2  # even a wide interval leaves two: "3 ms" for 2.6 to 3.4 would hide where in it the value lies
MAX_DIGITS = 6  # a narrow interval does not make a longer number readable
TIME_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
BYTE_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
HALF_A_TENTH = 0.05  # [per cent] below it one decimal rounds to 0
P_FLOOR = 1e-6  # smaller probabilities are printed as "< 0.000001"


def is_number(value: float | None) -> bool:
    """Tell whether there is a finite number to print."""
    return value is not None and math.isfinite(value)


def decimals_from_width(half_width: float, value: float) -> int:
    """Return how many decimals a value deserves: down to the first digit of its half-width.

    Negative decimals round to tens or hundreds; at least two and at most six significant digits remain.
    """
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    if not half_width > 0:
        return PLAIN_DIGITS - 1 - magnitude
    decimals = -math.floor(math.log10(half_width))
    return min(max(decimals, MIN_DIGITS - 1 - magnitude), MAX_DIGITS - 1 - magnitude)


def format_decimals(value: float, decimals: int, *, signed: bool = False) -> str:
    """Return a value with thousands separators and a true minus sign."""
    rounded = round(value, decimals)
    text = f"{abs(rounded):,.{max(decimals, 0)}f}"
    if rounded == 0:
        return text
    if rounded < 0:
        return MINUS + text
    return f"+{text}" if signed else text


def format_number(value: float | None, *, half_width: float = 0.0, signed: bool = False) -> str:
    """Return a plain number with the digits its interval allows, three significant ones without an interval."""
    if value is None or not math.isfinite(value):
        return _not_finite(value)
    return format_decimals(value, decimals_from_width(half_width, value), signed=signed)


def format_time(
    value_ns: float | None, *, low_ns: float | None = None, high_ns: float | None = None, resolution_ns: float = 0.0
) -> str:
    """Return a duration in ns, µs, ms or s; an interval around it and the clock's resolution set the digits."""
    if value_ns is None or not math.isfinite(value_ns):
        return _not_finite(value_ns)
    if 0 < value_ns < resolution_ns:
        return f"below {format_time(resolution_ns)}"
    divisor, unit = _time_unit(value_ns)
    decimals = _time_decimals(value_ns, low_ns, high_ns, resolution_ns)
    return format_decimals(value_ns / divisor, decimals) + NO_BREAK + unit


def format_time_interval(
    value_ns: float | None, low_ns: float | None, high_ns: float | None, *, resolution_ns: float = 0.0
) -> str:
    """Return an interval of a duration in the unit of its value: "20.1 to 20.6 µs"."""
    if value_ns is None or low_ns is None or high_ns is None or not math.isfinite(value_ns + low_ns + high_ns):
        return MISSING
    divisor, unit = _time_unit(value_ns)
    decimals = _time_decimals(value_ns, low_ns, high_ns, resolution_ns)
    low, high = (format_decimals(end / divisor, decimals) for end in (low_ns, high_ns))
    return f"{low} to {high}{NO_BREAK}{unit}"


def format_quantile(
    value_ns: float | None, low_ns: float | None, high_ns: float | None, *, resolution_ns: float = 0.0
) -> str:
    """Return a quantile of times with its interval, "61.2 µs (58.0–70.1)"; without an interval there is no quantile."""
    interval = format_time_interval(value_ns, low_ns, high_ns, resolution_ns=resolution_ns)
    if interval == MISSING:
        return MISSING
    value = format_time(value_ns, low_ns=low_ns, high_ns=high_ns, resolution_ns=resolution_ns)
    return f"{value} ({interval.rpartition(NO_BREAK)[0].replace(' to ', '–')})"


def _time_decimals(value_ns: float, low_ns: float | None, high_ns: float | None, resolution_ns: float) -> int:
    """Return the decimals of a time in its unit: of its interval, and none below what the clock resolves."""
    divisor = _time_unit(value_ns)[0]
    decimals = decimals_from_width(_half_width(low_ns, high_ns) / divisor, value_ns / divisor)
    if not resolution_ns > 0:
        return decimals
    return min(decimals, math.floor(-math.log10(resolution_ns / divisor)))


def format_fraction(value: float | None, *, n: int | None = None) -> str:
    """Return a fraction as per cent; of n images, one image is the last visible digit."""
    if value is None or not math.isfinite(value):
        return _not_finite(value)
    return format_decimals(100 * value, _percent_decimals(n)) + NO_BREAK + "%"


def format_fraction_interval(
    low: float | None, high: float | None, *, n: int | None = None, short: bool = False
) -> str:
    """Return an interval of a fraction: "98.49 to 98.93 %", or in short "98.49–98.93"."""
    if low is None or high is None or not math.isfinite(low + high):
        return MISSING
    decimals = _percent_decimals(n)
    ends = [format_decimals(100 * end, decimals) for end in (low, high)]
    return "–".join(ends) if short else " to ".join(ends) + NO_BREAK + "%"


def format_points(change: float | None, *, n: int | None = None, signed: bool = True) -> str:
    """Return a difference of two fractions in percentage points: "−0.14 points"."""
    if change is None or not math.isfinite(change):
        return _not_finite(change)
    return format_decimals(100 * change, _percent_decimals(n), signed=signed) + NO_BREAK + "points"


def format_images(n_lost: int | None, n_gained: int | None) -> str:
    """Return what changed hands, in words: "14 images lost, none gained"."""
    if n_lost is None or n_gained is None:
        return MISSING
    if n_lost == n_gained == 0:
        return "no image lost or gained"
    noun = "image" if (n_lost or n_gained) == 1 else "images"
    if n_lost == 0:
        return f"no image lost, {n_gained:,} gained"
    return f"{n_lost:,} {noun} lost, {n_gained:,} gained" if n_gained else f"{n_lost:,} {noun} lost, none gained"


def format_lost_gained(n_lost: int | None, n_gained: int | None) -> str:
    """Return what changed hands as in a table: "14/3"."""
    return MISSING if n_lost is None or n_gained is None else f"{n_lost:,}/{n_gained:,}"


def format_ratio(value: float | None, *, low: float | None = None, high: float | None = None) -> str:
    """Return a ratio such as a speed-up: "1.74×"."""
    if value is None or not math.isfinite(value):
        return _not_finite(value)
    return format_number(value, half_width=_half_width(low, high)) + "×"


def format_ratio_interval(value: float | None, low: float | None, high: float | None, *, short: bool = False) -> str:
    """Return an interval of a ratio with the digits of its value: "1.72 to 1.77×", or in short "1.72–1.77"."""
    if value is None or low is None or high is None or not math.isfinite(value + low + high):
        return MISSING
    decimals = decimals_from_width(_half_width(low, high), value)
    ends = [format_decimals(end, decimals) for end in (low, high)]
    return "–".join(ends) if short else " to ".join(ends) + "×"


def format_change(ratio: float | None) -> str:
    """Return a ratio as a change in per cent: 1.034 becomes "+3.4 %"."""
    if ratio is None or not math.isfinite(ratio):
        return _not_finite(ratio)
    change = 100 * (ratio - 1)
    decimals = 1 if abs(change) < 100 else 0
    if 0 < abs(change) < HALF_A_TENTH:  # it would read as no change at all
        decimals = decimals_from_width(0.0, change) - 1
    return format_decimals(change, decimals, signed=True) + NO_BREAK + "%"


def format_bytes(n_bytes: float | None) -> str:
    """Return a size in bytes, KiB, MiB or GiB."""
    if n_bytes is None or not math.isfinite(n_bytes):
        return _not_finite(n_bytes)
    for divisor, unit in BYTE_UNITS:
        if abs(n_bytes) >= divisor:
            return format_number(n_bytes / divisor) + NO_BREAK + unit
    return f"{n_bytes:,.0f}{NO_BREAK}bytes"


def format_length(seconds: float | None) -> str:
    """Return the length of a run: "41 s", "4 min 41 s" or "2 h 05 min"."""
    if seconds is None or not math.isfinite(seconds):
        return _not_finite(seconds)
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours}{NO_BREAK}h {minutes:02d}{NO_BREAK}min"
    if minutes:
        return f"{minutes}{NO_BREAK}min {whole % 60:02d}{NO_BREAK}s"
    return f"{whole}{NO_BREAK}s"


def format_p(p_value: float | None) -> str:
    """Return a p-value as "p = 0.0001", with one significant digit below 0.01 and two above."""
    if p_value is None or not math.isfinite(p_value):
        return MISSING
    if p_value < P_FLOOR:
        return f"p < {P_FLOOR:f}"
    if p_value >= 0.01:
        return f"p = {p_value:.2f}"
    return f"p = {p_value:.{-math.floor(math.log10(p_value))}f}"


def format_count(n: int | None) -> str:
    """Return a count with thousands separators."""
    return MISSING if n is None else f"{n:,}"


def format_when(iso: str) -> str:
    """Return an ISO 8601 moment as "2026-11-20 02:14 UTC"; text that is none comes back unchanged."""
    moment = moment_from_iso(iso)
    return iso or MISSING if moment is None else moment.strftime("%Y-%m-%d %H:%M UTC")


def moment_from_iso(iso: str) -> datetime.datetime | None:
    """Return an ISO 8601 text as a moment in UTC, None when it is none."""
    try:
        # Python 3.10 does not read the "Z" of ISO 8601.
        moment = datetime.datetime.fromisoformat(iso[:-1] + "+00:00" if iso.endswith("Z") else iso)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).astimezone(datetime.timezone.utc)


def plural(n: int, noun: str, many: str = "") -> str:
    """Return a count with its noun: "1 case", "27 cases"."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def _time_unit(value_ns: float) -> tuple[float, str]:
    return next((unit for unit in TIME_UNITS if abs(value_ns) >= unit[0]), TIME_UNITS[-1])


def _half_width(low: float | None, high: float | None) -> float:
    if low is None or high is None or not math.isfinite(high - low):
        return 0.0
    return (high - low) / 2


def _percent_decimals(n: int | None) -> int:
    return 2 if n is None else min(max(math.ceil(math.log10(max(n, 1))) - 2, 0), 4)


def _not_finite(value: float | None) -> str:
    if value is None:
        return MISSING
    if math.isnan(value):
        return "not a number"
    return "infinite" if value > 0 else f"{MINUS}infinite"
