"""What bears on whether a time can be believed, and what the engine costs beside time: lines under a latency."""

from __future__ import annotations

from harness.records import CardConditions, ClockAudit, Conditions, Energy, Latency
from harness.report.format import (
    NO_BREAK,
    format_fraction,
    format_number,
    format_ratio,
    format_ratio_interval,
    format_time,
    plural,
)

NS = 1.0  # no clock here tells less


def trust_lines(latency: Latency) -> tuple[str, ...]:
    """Return a line each of CPU time, energy, clock, machine and card, as far as they are known."""
    lines = (
        _cpu_line(latency),
        _energy_line(latency.energy, latency.energy_mj_per_image),
        _clock_line(latency.audit, latency.clock) if latency.audit else "",
        _machine_line(latency.conditions) if latency.conditions else "",
        _card_line(latency.conditions.card) if latency.conditions and latency.conditions.card else "",
        _discarded_line(latency.n_discarded_rounds),
    )
    return tuple(line for line in lines if line)


def _cpu_line(latency: Latency) -> str:
    if latency.cpu_ns is None or latency.cores_used is None:
        return ""
    return f"CPU time {format_time(latency.cpu_ns)} a call, {format_number(latency.cores_used)} cores"


def _energy_line(energy: Energy | None, median: float | None) -> str:
    if energy is None:
        return ""
    low, high = min(energy.mj_per_image), max(energy.mj_per_image)
    width = (high - low) / 2
    ends = " to ".join(format_number(end, half_width=width) for end in (low, high))
    value = f"{format_number(median, half_width=width)}{NO_BREAK}mJ"
    line = (
        f"energy {value} an image ({ends} in {plural(len(energy.mj_per_image), 'loop')}, by the card's {energy.source})"
    )
    if energy.saving is None:
        return line
    saving, least, most = energy.saving
    interval = format_ratio_interval(saving, least, most)
    return f"{line}; FP32 takes {format_ratio(saving, low=least, high=most)} as much ({interval})"


def _clock_line(audit: ClockAudit, clock: str) -> str:
    step, empty = (format_time(found, resolution_ns=NS) for found in (audit.quantum_ns, audit.empty_ns))
    line = f"{clock} clock: step {step}, an empty measurement {empty}"
    if audit.drift is None:
        return line
    return f"{line}, rate against {audit.against} {audit.drift * 1e6:+.0f} ppm".replace("-", "\u2212")


def _machine_line(seen: Conditions) -> str:
    parts = [f"{seen.n_cpus_allowed} of {plural(seen.n_cpus, 'CPU')}"]
    if seen.others is not None:
        parts.append(f"{format_fraction(seen.others, n=100)} of their time taken by other processes")
    if seen.stolen is not None:
        parts.append(f"{format_fraction(seen.stolen, n=1000)} stolen")
    if seen.load is not None:
        parts.append(f"load {seen.load:.1f}")
    return ", ".join([*parts, *seen.spinning])


def _card_line(card: CardConditions) -> str:
    parts = [card.uuid]
    if card.sm_clock_mhz is not None:
        low = f" (lowest {card.sm_clock_low_mhz:,.0f})" if card.sm_clock_low_mhz is not None else ""
        parts.append(f"SM clock {card.sm_clock_mhz:,.0f}{NO_BREAK}MHz{low}")
    if card.temperature_c is not None:
        parts.append(f"{card.temperature_c:.0f}{NO_BREAK}°C")
    if card.power_w is not None:
        parts.append(f"{card.power_w:.0f}{NO_BREAK}W")
    if card.throttle_reasons:
        parts.append(f"clocks held down by {', '.join(card.throttle_reasons)}")
    if card.n_other_processes:
        parts.append(plural(card.n_other_processes, "other process", "other processes"))
    return ", ".join(parts)


def _discarded_line(n_rounds: int) -> str:
    return f"{plural(n_rounds, 'round')} on a throttled card left out, of both engines" if n_rounds else ""
