"""The page of a merged run: models against types of device, what many cases have in common, a page a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from harness.errors import ConfigError
from harness.fleet.causes import Cause, joint_causes
from harness.fleet.since import with_since
from harness.records import Record, RecordKey, Run
from harness.report.html import render_html
from harness.report.model import build_report
from harness.report.standing import BAD, NEEDS_A_LOOK, Standing, finding, standing_of
from harness.store.baselines import BaselineStore
from harness.store.runs import BASELINES_FOLDER, write_atomically

SHARDS_FOLDER = "shards"  # of a merged run: pages of shards
MAX_ATTENTION = 40
MAX_SHARD_PAGES = 50  # written with the run; the others when they are asked for
Standings = Mapping[RecordKey, Standing]
TONES = {"bad": "b", "warn": "w", "good": "g", "quiet": "q"}  # classes of cells, of which there are thousands


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One model of the matrix."""

    model: str
    needs_a_look: bool
    cells: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One case to look at."""

    standing: Standing
    case_id: str
    device_type: str
    where: str  # shard and host
    finding: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPage:
    """What the page shows."""

    sentence: str
    tone: str
    counts: tuple[tuple[Standing, int], ...]
    causes: tuple[Cause, ...]
    attention: tuple[Attention, ...]
    n_attention: int
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    facts: tuple[tuple[str, str], ...]


def write_fleet_pages(folder: Path, run: Run, records: Sequence[Record]) -> list[str]:
    """Write a merged run's page and those of the shards that most need a look; say where they are.

    Raises: ConfigError for a file that cannot be written.
    """
    cases = [record for record in records if not record.is_reference]
    worst = _worst_shards(cases)[:MAX_SHARD_PAGES]
    try:
        for number in worst:
            write_shard_page(folder, run, records, number)
        text = render_fleet(fleet_page(run, records, BaselineStore(folder / BASELINES_FOLDER), pages=worst), run)
        write_atomically(folder / "index.html", text.encode())
    except OSError as error:
        raise ConfigError(f"{folder}: the report cannot be written ({error.strerror})") from error
    return [f"report: {folder / 'index.html'}"]


def write_report(folder: Path, run: Run, records: Sequence[Record], shard: int | None) -> list[str]:
    """Write a merged run's pages again, or that of one of its shards alone, and say where they are.

    Raises: ConfigError for a shard that brought nothing, or a file that cannot be written.
    """
    if shard is None:
        return write_fleet_pages(folder, run, records)
    try:
        return [f"report: {write_shard_page(folder, run, records, shard)}"]
    except OSError as error:
        raise ConfigError(f"{folder}: the report cannot be written ({error.strerror})") from error


def write_shard_page(folder: Path, run: Run, records: Sequence[Record], number: int) -> Path:
    """Write the page of one shard of a merged run, with the verdicts of the whole night, and return it.

    Raises: ConfigError for a shard that brought nothing; OSError.
    """
    mine = [record for record in records if record.shard is not None and record.shard.number == number]
    if not mine:
        raise ConfigError(f"--shard={number}: run {run.id} has no record of it; the plan had {run.n_shards} shards")
    path = folder / SHARDS_FOLDER / f"{number}.html"
    path.parent.mkdir(exist_ok=True)
    header = replace(run, id=f"{run.id}, shard {number}", environment=mine[0].environment, notes=())
    write_atomically(path, render_html(build_report(header, mine)).encode())
    return path


def fleet_page(
    run: Run, records: Sequence[Record], baselines: BaselineStore, *, pages: Iterable[int] = ()
) -> FleetPage:
    """Return what the page of a merged run shows. `pages`: shards that have a page of their own."""
    cases = [record for record in records if not record.is_reference]
    standings = {record.key: standing_of(record) for record in cases}
    linked = {number: f"{SHARDS_FOLDER}/{number}.html" for number in pages}
    bad = sorted(
        (record for record in cases if standings[record.key] in BAD),
        key=lambda record: (standings[record.key].rank, record.key),
    )
    counts = Counter(standings.values())
    columns = tuple(dict.fromkeys(record.environment.device_type for record in cases))
    return FleetPage(
        sentence=_sentence(len(bad), cases, len(columns)),
        tone=_tone(counts),
        counts=tuple((standing, counts[standing]) for standing in Standing if counts[standing]),
        causes=tuple(with_since(cause, baselines) for cause in joint_causes(cases)),
        attention=tuple(_attention(record, standings, linked) for record in bad[:MAX_ATTENTION]),
        n_attention=len(bad),
        columns=columns,
        lines=_lines(cases, standings, columns, linked),
        facts=tuple(sorted((name, text) for name, text in run.environment.versions.items())),
    )


def render_fleet(page: FleetPage, run: Run) -> str:
    """Return the page as one HTML file; nothing is loaded from anywhere."""
    environment = _environment()
    css = jinja2.PackageLoader("harness.report").get_source(environment, "page.css")[0]
    text = environment.get_template("fleet.html.j2").render(page=page, run=run, css=Markup(css))
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("harness.fleet"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _sentence(n_bad: int, cases: Sequence[Record], n_types: int) -> str:
    on = f"{len(cases):,} cases on {n_types} {'type' if n_types == 1 else 'types'} of device"
    if n_bad:
        return f"{n_bad:,} of {on} failed, broke or never came"
    return f"No regression among {on}" if cases else "No case was planned"


def _tone(counts: Mapping[Standing, int]) -> str:
    if not counts or any(counts.get(standing) for standing in BAD):
        return "bad"
    if any(counts.get(standing) for standing in (Standing.NOT_JUDGED, Standing.INCONCLUSIVE)):
        return "warn"
    return "good" if counts.get(Standing.PASSED) or counts.get(Standing.IMPROVED) else "warn"


def _worst_shards(cases: Iterable[Record]) -> list[int]:
    """Return the shards with a bad case, worst first."""
    ranks: dict[int, int] = {}
    for record in cases:
        standing = standing_of(record)
        if record.shard is not None and standing in BAD:
            number = record.shard.number
            ranks[number] = min(ranks.get(number, len(Standing)), standing.rank)
    return sorted(ranks, key=lambda number: (ranks[number], number))


def _attention(record: Record, standings: Standings, linked: Mapping[int, str]) -> Attention:
    origin = record.shard
    cards = "" if origin is None else origin.device_uuids.get(record.case.device, "")
    where = [] if origin is None else [f"shard {origin.number}", origin.host, f"card {cards}" if cards else ""]
    return Attention(
        standing=standings[record.key],
        case_id=record.case.id,
        device_type=record.environment.device_type,
        where=", ".join(part for part in where if part),
        finding=finding(record),
        link="" if origin is None else linked.get(origin.number, ""),
    )


def _lines(
    cases: Sequence[Record], standings: Standings, columns: Sequence[str], linked: Mapping[int, str]
) -> tuple[Line, ...]:
    models: dict[str, dict[str, list[Record]]] = {}
    for record in cases:
        models.setdefault(record.case.model, {}).setdefault(record.environment.device_type, []).append(record)
    ranks = {
        model: min(standings[record.key].rank for group in cells.values() for record in group)
        for model, cells in models.items()
    }
    return tuple(
        Line(
            model=model,
            needs_a_look=list(Standing)[ranks[model]] in NEEDS_A_LOOK,
            cells=Markup("").join(_cell(models[model].get(column, ()), standings, linked) for column in columns),
        )
        for model in sorted(models, key=lambda model: (ranks[model], model))
    )


def _cell(group: Sequence[Record], standings: Standings, linked: Mapping[int, str]) -> Markup:
    """Return one cell: the worst standing as its class, and how many need a look of how many."""
    if not group:
        return Markup("<td>")
    worst = min((standings[record.key] for record in group), key=lambda standing: standing.rank)
    n_look = sum(standings[record.key] in NEEDS_A_LOOK for record in group)
    number = next((record.shard.number for record in group if record.shard is not None), None)
    text = f"{n_look}/{len(group)}" if n_look else str(len(group))
    told = f' title="{worst.word}, shard {number}"' if number is not None else f' title="{worst.word}"'
    link = linked.get(number, "") if number is not None else ""
    inner = Markup('<a href="{}">{}</a>').format(link, text) if link else escape(text)
    return Markup("<td class={}{}>{}").format(TONES[worst.tone], Markup(told), inner)
