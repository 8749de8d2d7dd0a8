"""The report as Markdown: for a pull request or the step summary of a CI job, where HTML pages cannot be shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.records import Run
from harness.report.drill import drill_text
from harness.report.format import (
    MISSING,
    format_bytes,
    format_count,
    format_fraction,
    format_fraction_interval,
    format_length,
    format_points,
    format_quantile,
    format_ratio,
    format_ratio_interval,
    format_time,
    format_when,
    plural,
)
from harness.report.model import Report
from harness.report.plots import format_metric, metric_name
from harness.report.rows import Change, Row, timing_modes
from harness.report.samples import MetricChange
from harness.report.standing import BAD, NEEDS_A_LOOK, Standing
from harness.report.trends import Trends

# GitHub cuts a step summary at 1 MiB and a comment at 65,536 characters; the worst cases come first.
MAX_ROWS = 150
MAX_FOUND = 20
MAX_STEPS = 10
SYMBOLS = {  # text symbols, so that a standing never rests on colour
    Standing.REGRESSED: "▼",
    Standing.FAILED: "✖",
    Standing.ERROR: "✖",
    Standing.DID_NOT_RUN: "∅",
    Standing.NOT_JUDGED: "◌",
    Standing.INCONCLUSIVE: "◇",
    Standing.WAIVED: "◐",
    Standing.EXPECTED_LOSS: "▽",
    Standing.IMPROVED: "▲",
    Standing.PASSED: "●",
    Standing.UNSUPPORTED: "–",
}
SPECIAL = re.compile(r"([\\`*_\[\]#|<>~&@$])")  # the others mean something only at the start of a line
AUTOLINK = re.compile(r"(?i)://|www\.")
CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")


def render_markdown(report: Report) -> str:
    """Return a report as GitHub-flavoured Markdown; every text from a run is escaped."""
    run, rows = report.run, report.rows
    lines = [f"## {escape_markdown(report.sentence)}", "", _counts(report), ""]
    if link := _link(run):
        lines += [f"[The whole report]({link})", ""]
    lines += _upgrade(report)
    looked = [row for row in rows if row.standing in NEEDS_A_LOOK]
    lines += _found(rows)
    lines += _table(report, looked)
    lines += _versions(report)
    told = [*_timing_modes(rows), *_warnings(rows), *_steps(report.trends)]
    length = "did not finish" if report.length_s is None else f"took {format_length(report.length_s)}"
    against = f", beside run {escape_markdown(report.previous.id)}" if report.previous else ""
    machine = escape_markdown(run.environment.machine)
    lines += _folded(
        f"All {plural(len(rows), 'case')}" if len(rows) > 1 else "The case", [*_table(report, rows), *told]
    )
    drill = escape_markdown(drill_text(run))
    lines += [f"Run {escape_markdown(run.id)} of {format_when(run.started_at)}, {length}, on {machine}{against}."]
    lines += ["", f"Fire drill: {drill}."]
    return "\n".join(lines) + "\n"


def _link(run: Run) -> str:
    """Return the address of the page, where one was given and it is one; "" else."""
    return run.url if re.fullmatch(r"https?://[^\s()<>\[\]\"']+", run.url) else ""


def _folded(head: str, lines: Sequence[str]) -> list[str]:
    """Return lines behind a headline that opens them; Markdown inside needs the empty lines around it."""
    return ["<details>", f"<summary>{head}</summary>", "", *lines, "</details>", ""] if lines else []


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line: no markup, link, mention, image or table cell in it."""
    plain = SPECIAL.sub(r"\\\1", CONTROL.sub(" ", text))
    plain = AUTOLINK.sub(lambda found: found[0].replace("/", r"\/").replace(".", r"\."), plain)
    # A backslash before these is not enough everywhere: GitHub reads raw HTML and @mentions before Markdown.
    return plain.replace(r"\&", "&amp;").replace(r"\<", "&lt;").replace(r"\>", "&gt;").replace(r"\@", "&#64;")


def code_span(text: str) -> str:
    """Return a text as inline code, fenced by more backticks than it holds."""
    plain = CONTROL.sub(" ", text)
    fence = "`" * (max((len(found) for found in re.findall("`+", plain)), default=0) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _counts(report: Report) -> str:
    counts = report.counts
    return ", ".join(
        f"{SYMBOLS[standing]} {counts[standing]:,} {standing.word}" for standing in Standing if counts.get(standing)
    )


def _upgrade(report: Report) -> list[str]:
    """Return a line a case of an upgrade, bad ones first, as many as a summary has room for."""
    lines = [
        f"- {SYMBOLS[line.standing]} {escape_markdown(line.case_id)}: {escape_markdown(line.text)}"
        for line in report.upgrade[:MAX_ROWS]
    ]
    return [*lines, ""] if lines else []


def _found(rows: Sequence[Row]) -> list[str]:
    bad = [row for row in rows if row.standing in BAD]
    lines = []
    for row in bad[:MAX_FOUND]:
        advice = f". {escape_markdown(row.advice)}" if row.advice else ""
        lines.append(
            f"- {SYMBOLS[row.standing]} **{escape_markdown(row.record.case.id)}** {row.word}: "
            f"{escape_markdown(row.finding.rstrip('.'))}{advice}"
        )
        if row.record.command:
            lines.append(f"  - repeat: {code_span(row.record.command)}")
    if len(bad) > MAX_FOUND:
        lines.append(f"- and {len(bad) - MAX_FOUND:,} more")
    return [*lines, ""] if lines else []


def _table(report: Report, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    sizes = list(dict.fromkeys([*report.sizes[:1], *report.sizes[-1:]]))
    has_baseline = any(row.has_baseline for row in rows)
    metric = "metric" if any(row.samples for row in rows) else "top-1"
    heads = ["verdict", "model", "backend", "asked", "ran as", metric, "against FP32"]
    heads += ["against baseline"] if has_baseline else []
    for size in sizes:
        heads += [f"p50 b{size}", f"p99 b{size}", f"speed-up b{size}"]
    heads.append("size")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * 5 + "---:|" * (len(heads) - 5)]
    lines += ["| " + " | ".join(_cells(row, sizes, has_baseline)) + " |" for row in rows[:MAX_ROWS]]
    if len(rows) > MAX_ROWS:
        lines += ["", f"The first {MAX_ROWS} of {plural(len(rows), 'case')}; the HTML page has all."]
    return [*lines, ""]


def _timing_modes(rows: Sequence[Row]) -> list[str]:
    """Say by what clock and how the times of the table were taken; the same batch is never timed in two ways."""
    modes = timing_modes(rows)
    if len(modes) < 2:
        return [f"Times by {escape_markdown(mode)}." for mode, _ in modes] + [""] * len(modes)
    told = "; ".join(f"{escape_markdown(mode)} ({plural(n, 'case')})" for mode, n in modes)
    return [f"Times by {told}.", ""]


def _warnings(rows: Sequence[Row]) -> list[str]:
    """Say what the engines' adapters want heard, of passed cases too: a damaged plan that was built anew, ..."""
    said = [(row.record.case.id, text) for row in rows for text in row.warnings]
    lines = [f"- {escape_markdown(case_id)}: {escape_markdown(text)}" for case_id, text in said[:MAX_FOUND]]
    if len(said) > MAX_FOUND:
        lines.append(f"- and {len(said) - MAX_FOUND:,} more")
    return ["Noted while engines were built:", "", *lines, ""] if lines else []


def _cells(row: Row, sizes: Sequence[int], has_baseline: bool) -> list[str]:
    case, accuracy, engine = row.record.case, row.record.accuracy, row.record.engine
    top1, against_fp32, against_baseline = MISSING, _change(row.against_fp32), _change(row.against_baseline)
    if row.samples is not None:
        leading = row.samples.leading
        top1 = escape_markdown(f"{leading.name} {leading.text} ({leading.interval})")
        against_fp32, against_baseline = map(_metric_change, (leading.against_fp32, row.samples.against_baseline))
    elif row.drift:
        against_fp32 = row.drift
    if accuracy is not None and row.top1 is not None:
        interval = format_fraction_interval(row.top1_low, row.top1_high, n=accuracy.n_images, short=True)
        top1 = f"{format_fraction(row.top1, n=accuracy.n_images)} ({interval})"
    ran = escape_markdown(row.ran_as) or MISSING
    cells = [
        f"{SYMBOLS[row.standing]} {row.word}",
        escape_markdown(case.model),
        escape_markdown(case.backend),
        escape_markdown(case.asked),
        ran if row.is_as_asked else f"**{ran}**",
        top1,
        against_fp32,
    ]
    cells += [against_baseline] if has_baseline else []
    for size in sizes:
        cells += _timing_cells(row, size)
    return [*cells, format_bytes(engine.engine_bytes if engine else None)]


def _timing_cells(row: Row, size: int) -> list[str]:
    timing = row.timing(size)
    if timing is None or timing.summary is None:
        return [MISSING] * 3
    times, ratio = timing.summary, timing.speed_up
    speed_up = MISSING
    if ratio is not None:
        speed_up = format_ratio(ratio.value, low=ratio.low, high=ratio.high)
        if ratio.has_interval:
            speed_up += f" ({format_ratio_interval(ratio.value, ratio.low, ratio.high, short=True)})"
    step = timing.latency.resolution_ns
    p50 = format_time(times.p50, low_ns=times.p50_low, high_ns=times.p50_high, resolution_ns=step)
    return [p50, format_quantile(times.p99, times.p99_low, times.p99_high, resolution_ns=step), speed_up]


def _metric_change(change: MetricChange | None) -> str:
    if change is None:
        return MISSING
    if change.change is None:
        return "not comparable"
    return escape_markdown(f"{change.text} ({change.counts})" if change.counts else change.text)


def _change(change: Change | None) -> str:
    if change is None:
        return MISSING
    if change.n_lost is None or change.n_gained is None:
        return "not comparable"
    points = format_points(change.change, n=change.n_images)
    return f"{points} ({format_count(change.n_lost)} lost, {format_count(change.n_gained)} gained)"


def _steps(trends: Trends | None) -> list[str]:
    if trends is None or not trends.steps:
        return []
    history = trends.history
    newest = len(history.runs) - 1
    lines = [f"Lasting changes in the last {plural(len(history.runs), 'run')}, newest first:", ""]
    for step in trends.steps[:MAX_STEPS]:
        when = format_when(history.runs[step.run_index].started_at)
        versions = ", ".join(f"{name} {old or 'absent'} → {new or 'gone'}" for name, (old, new) in step.changed.items())
        levels = f"{format_metric(step.metric, step.before)} → {format_metric(step.metric, step.after)}"
        lines.append(
            f"- {escape_markdown(step.case_id)}, {metric_name(step.metric)}: {levels} since {when}"
            f" ({plural(newest - step.run_index + 1, 'run')}){'; ' + escape_markdown(versions) if versions else ''}"
        )
    return [*lines, ""]


def _versions(report: Report) -> list[str]:
    changed = [fact for fact in report.versions if fact[2]]
    if not changed:
        return []
    text = ", ".join(
        f"{escape_markdown(name)} {escape_markdown(old)} → {escape_markdown(new)}" for name, new, old in changed
    )
    return [f"Changed since the previous run: {text}.", ""]
