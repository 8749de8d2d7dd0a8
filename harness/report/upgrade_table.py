"""An upgrade in the terminal: a table with both versions in every row, and the whole finding where one is to look."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from harness.report.format import MISSING
from harness.report.model import Report
from harness.report.standing import NEEDS_A_LOOK, Standing
from harness.report.terminal import GAP, STYLES, UNBOUNDED_WIDTH, rendered, wrapped
from harness.report.upgrade import UpgradeLine, UpgradeTime

TOLD_BELOW = (*NEEDS_A_LOOK, Standing.IMPROVED, Standing.EXPECTED_LOSS)

Cells = list[tuple[str, ...]]  # a row: of each column its texts, one below the other where a line is too short


def upgrade_table(report: Report, *, color: bool = False, width: int | None = None) -> list[str]:
    """Return the table, a row a case, bad ones first; what it shows; a line for what to look at; and the headline.

    width: of the terminal [characters]; where a case has no room in one line, it has two. None: no bound.
    """
    lines, bound = report.upgrade, width or UNBOUNDED_WIDTH
    sizes = sorted({time.batch_size for line in lines for time in line.times})
    head, rows = _head(sizes), [_cells(line, sizes) for line in lines]
    if _width_in_one_line([head, *rows]) <= bound:
        head, rows = _in_one_line(head), [_in_one_line(cells) for cells in rows]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for texts in head:
        table.add_column("\n".join(texts), overflow="fold")
    for line, cells in zip(lines, rows, strict=True):
        first, *others = map("\n".join, cells)
        # Text, not markup: a model may be called "[red]".
        table.add_row(Text(first, style=STYLES[line.standing.tone]), *map(Text, others))
    below = [*_explanations(lines), *_to_look_at(lines), report.sentence]
    return [*rendered(table, color=color, width=bound), *(one for text in below for one in wrapped(text, width))]


def _head(sizes: Sequence[int]) -> Cells:
    return [("verdict", "images"), ("case", "versions"), *((f"batch {size}", "") for size in sizes)]


def _cells(line: UpgradeLine, sizes: Sequence[int]) -> Cells:
    times = (_texts_of_time(line.time(size)) for size in sizes)
    return [(line.standing.word, line.n_changed), (line.case_id, line.upgrade), *times]


def _texts_of_time(time: UpgradeTime | None) -> tuple[str, str]:
    if time is None:
        return MISSING, ""
    return time.change, f"sees {time.sees}" if time.sees else ""


def _in_one_line(cells: Cells) -> Cells:
    (word, images), (case, versions), *times = cells
    return [(word,), (case,), (versions,), (images,), *((", ".join(text for text in time if text),) for time in times)]


def _width_in_one_line(rows: Sequence[Cells]) -> int:
    flat = [_in_one_line(cells) for cells in rows]
    return sum(max(cell_len(cells[place][0]) for cells in flat) + GAP for place in range(len(flat[0]))) - GAP


def _explanations(lines: Sequence[UpgradeLine]) -> list[str]:
    told = ["images: identical predictions, or images lost/gained on side B"]
    if any(line.times for line in lines):
        told.append(
            "batch N: side B's time against side A's, the interval that decided, above 0 is slower; "
            "sees: the slowdown that would have been seen, or looked into"
        )
    ungated = [line.case_id for line in lines if any("not gated" in time.text for time in line.times)]
    if ungated:
        told.append(
            f"not gated: times of {len(ungated)} of {len(lines)} cases: set --max-slowdown, or run harness calibrate"
        )
    return told


def _to_look_at(lines: Sequence[UpgradeLine]) -> list[str]:
    return [f"{line.standing.word}: {line.case_id}: {line.text}" for line in lines if line.standing in TOLD_BELOW]
