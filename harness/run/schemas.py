"""JSON Schemas of the files that programs read, from their types: `python -m harness.run.schemas docs/schemas`."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from harness.models.cards import Card
from harness.records import Record, Run
from harness.report.summary import Summary
from harness.store.baseline_files import PredictionsBaseline, SamplesBaseline, TimesBaseline

FILES: dict[str, tuple[type, str]] = {  # name of the schema -> its type, and what it is of
    "record": (Record, "a line of records.jsonl"),
    "run": (Run, "run.json, but for its digest"),
    "summary": (Summary, "summary.json"),
    "baseline-predictions": (PredictionsBaseline, "a file below predictions/ of the baselines"),
    "baseline-samples": (SamplesBaseline, "a file below samples/ of the baselines"),
    "baseline-times": (TimesBaseline, "a file below times/ of the baselines"),
    "card": (Card, "a model card; it is written as TOML"),
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"  # msgspec's


def schema_texts() -> dict[str, str]:
    """Return file name -> content. Every file but a card also has `digest`, the sha256 of everything else."""
    return {
        f"{name}.schema.json": json.dumps(
            {"$schema": DIALECT, "title": name, "description": text, **_dedented(msgspec.json.schema(kind))}, indent=1
        )
        + "\n"
        for name, (kind, text) in FILES.items()
    }


def _dedented(schema: Any) -> Any:
    """Return a schema whose descriptions are no longer indented as in the source; Python 3.13 dedents them itself."""
    if isinstance(schema, list):
        return [_dedented(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: inspect.cleandoc(part) if name == "description" and isinstance(part, str) else _dedented(part)
        for name, part in schema.items()
    }


if __name__ == "__main__":
    for name, content in schema_texts().items():
        (Path(sys.argv[1]) / name).write_text(content)
