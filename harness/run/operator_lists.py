"""The lists of the operators suite: written at the end of a run, and held against accepted ones or another run's."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import ConfigError
from harness.options.values import HarnessOptions
from harness.report.operators import OperatorsView, complaints, operators_markdown, operators_view
from harness.report.operators_page import render_operators
from harness.run.operators import OperatorCell
from harness.store.operator_lists import OperatorList, read_list, read_lists, write_list
from harness.store.runs import write_atomically

FOLDER = "operators"  # below the reports and the baselines
TABLE, PAGE = "operators.md", "index.html"
ACCEPTED = "the accepted lists"


@dataclass(slots=True, kw_only=True)
class OperatorRun:
    """The lists of one run, written at its end."""

    options: HarnessOptions
    lists: dict[str, OperatorList] = field(default_factory=dict)
    before: dict[str, OperatorList] = field(default_factory=dict)  # accepted ones
    taken: set[str] = field(default_factory=set)  # cells whose list is accepted at the end

    def accepted(self, cell: OperatorCell) -> OperatorList | None:
        """Return the accepted list of a cell, None where there is none. Raises: DataError for a damaged one."""
        path = Path(self.options.baseline_dir) / FOLDER / f"{cell.id}.json"
        if self.options.baseline == "ignore" or not path.is_file():
            return None
        return read_list(path)

    def verdict(self, cell: OperatorCell, found: OperatorList) -> list[str]:
        """Keep a list and return its complaints; none where it is accepted by this run. Raises: DataError."""
        self.lists[cell.id] = found
        accepted = self.accepted(cell)
        if accepted is not None:
            self.before[cell.id] = accepted
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
        view = operators_view(self.lists, self.before, against=ACCEPTED)
        table = operators_markdown(view)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for cell, found in self.lists.items():
                write_list(folder / f"{cell}.json", found)
                if cell in self.taken:
                    write_list(Path(self.options.baseline_dir) / FOLDER / f"{cell}.json", found)
            write_atomically(folder / PAGE, render_operators(view, title=f"run {stamp}").encode())
            (folder / TABLE).write_text(table, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written ({error.strerror}); choose another --report-dir") from error
        return [*table.rstrip().splitlines(), f"report: {folder / PAGE}", f"lists: {folder}"]


def holds_lists(folder: Path) -> bool:
    """Tell whether a folder is a run of the operators suite's."""
    return (folder / TABLE).is_file()


def compared_lists(folder_a: Path, folder_b: Path) -> OperatorsView:
    """Hold one run's lists against an earlier one's. Raises: ConfigError for a folder without lists; DataError."""
    for folder in (folder_a, folder_b):
        if not holds_lists(folder):
            raise ConfigError(f"{folder}: holds no lists of operators, as a folder below reports/{FOLDER} does")
    return operators_view(read_lists(folder_b), read_lists(folder_a), against=f"run {folder_a.resolve().name}")


def write_comparison(view: OperatorsView, folder: Path, page: Path) -> str:
    """Write a comparison's page, and say where. Raises: ConfigError when it cannot be written."""
    try:
        write_atomically(page, render_operators(view, title=f"run {folder.resolve().name}").encode())
    except OSError as error:
        raise ConfigError(f"{page}: the page cannot be written ({error.strerror})") from error
    return f"report: {page}"
