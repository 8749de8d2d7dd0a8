"""What only all cases together show: the grid of models, agreement between backends, figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from markupsafe import Markup

from harness.report.plots import pareto_plot, speed_up_plot
from harness.report.rows import Row, unpacked
from harness.report.standing import Standing
from harness.specs import Precision

MAX_AGREEMENTS = 100
MAX_OVERVIEW_MODELS = 24
PRECISION_ORDER = [precision.value for precision in Precision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often two backends predict the same class on the same images."""

    model: str
    precision: str
    backends: tuple[str, str]
    n_images: int
    n_different: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Models against backends and precisions; models without a fault give way to others."""

    columns: tuple[tuple[str, str], ...]  # (backend, precision and what else tells cases apart)
    backends: tuple[tuple[str, int], ...]  # (backend, number of its columns)
    lines: tuple[tuple[str, tuple[Row | None, ...]], ...]  # (model, its worst case in each column)
    n_models_left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """Figures over all cases at the smallest and the largest batch, and how far backends agree."""

    paretos: tuple[tuple[int, Markup], ...]  # (batch size, figure)
    speed_ups: tuple[tuple[int, Markup, int], ...]  # (batch size, figure, cases left out)
    agreements: tuple[Agreement, ...]  # that differ, least agreement first
    n_differing: int
    n_agreed: int


def agreements_from_rows(rows: Sequence[Row]) -> list[Agreement]:
    """Return, for every model and precision, how often each two backends agree; least agreement first."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.record.accuracy is not None:
            case = row.record.case
            groups.setdefault((case.model, case.precision.value, case.recipe), []).append(row)
    found = []
    for (model, precision, _), members in groups.items():
        for one, other in combinations(members, 2):
            ours, theirs = one.record.accuracy, other.record.accuracy
            if ours is None or theirs is None or ours.fingerprint != theirs.fingerprint:
                continue
            found.append(
                Agreement(
                    model=model,
                    precision=precision,
                    backends=(one.record.case.backend, other.record.case.backend),
                    n_images=ours.n_images,
                    n_different=int(np.count_nonzero(unpacked(ours.predictions) != unpacked(theirs.predictions))),
                )
            )
    return sorted(found, key=lambda pair: -pair.n_different / pair.n_images)


def overview_from_rows(rows: Sequence[Row]) -> Overview:
    """Return the grid of a run.

    Of a precision that a backend ran by one recipe, the recipes that it ran for no model, another runtime's mostly, are
    left out.
    """
    ran = {_column(row) for row in rows if row.standing is not Standing.UNSUPPORTED}
    some = {column[:2] for column in ran}
    known = {_column(row) for row in rows}
    columns = sorted(
        (one for one in known if one in ran or one[:2] not in some),
        key=lambda one: (one[0], PRECISION_ORDER.index(one[1]), one[2]),
    )
    models: dict[str, dict[tuple[str, str, str], Row]] = {}
    for row in rows:
        cells = models.setdefault(row.record.case.model, {})
        other = cells.get(_column(row))
        if other is None or row.standing.rank < other.standing.rank:
            cells[_column(row)] = row
    worst_first = sorted(models, key=lambda model: min(row.standing.rank for row in models[model].values()))
    shown = set(worst_first[:MAX_OVERVIEW_MODELS])
    return Overview(
        columns=tuple((backend, " ".join(filter(None, rest))) for backend, *rest in columns),
        backends=tuple(Counter(column[0] for column in columns).items()),
        lines=tuple(
            (model, tuple(cells.get(column) for column in columns)) for model, cells in models.items() if model in shown
        ),
        n_models_left_out=len(models) - len(shown),
    )


def across_from_rows(rows: Sequence[Row], sizes: Sequence[int]) -> Across:
    """Return figures and agreements; `sizes`: every timed batch size, ascending [images]."""
    ends = list(dict.fromkeys([*sizes[:1], *sizes[-1:]]))
    agreements = agreements_from_rows(rows)
    bars = [(size, *speed_up_plot(rows, size)) for size in ends]
    return Across(
        paretos=tuple((size, plot) for size in ends if (plot := pareto_plot(rows, size))),
        speed_ups=tuple(bar for bar in bars if bar[1]),
        agreements=tuple(pair for pair in agreements if pair.n_different)[:MAX_AGREEMENTS],
        n_differing=sum(pair.n_different > 0 for pair in agreements),
        n_agreed=sum(pair.n_different == 0 for pair in agreements),
    )


def _column(row: Row) -> tuple[str, str, str]:
    case = row.record.case
    return case.backend, case.precision.value, case.variant
