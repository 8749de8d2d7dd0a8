"""The JSON Schemas in docs/schemas/ are those of today's types, and the files that a run writes keep them."""

import json
import sys
from pathlib import Path

import pytest
from render_records import make_run
from sample_records import class_scores, sample_record

from harness.report.files import summary_of_run
from harness.run.schemas import FILES, schema_texts
from harness.store.baseline_files import json_from_baseline, samples_from_record
from harness.store.baselines import BaselineStore
from harness.store.runs import RunStore

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "schemas"


def test_the_schemas_are_current():
    """Else: python -m harness.run.schemas docs/schemas."""
    assert {path.name: path.read_text() for path in SCHEMAS.iterdir()} == schema_texts()


@pytest.fixture
def files(tmp_path):
    """Return name of a schema -> values of the files of that kind."""
    run, records = make_run(6)
    store = RunStore(tmp_path / "reports", run)
    cases = [record for record in records if not record.is_reference]
    store.finish(run, records, summary=summary_of_run(run, cases))
    accepted = [record for record in cases if record.accuracy and record.status.value == "passed"]
    BaselineStore(tmp_path / "baselines").accept(
        accepted, case_ids=[record.case.id for record in accepted], accepted_by="me", accepted_at=run.started_at
    )
    metrics = samples_from_record(sample_record(class_scores(20)), accepted_by="me", accepted_at=run.started_at)
    lines = (store.folder / "records.jsonl").read_bytes().splitlines()
    return {
        "record": [json.loads(line) for line in lines],
        "run": [json.loads((store.folder / "run.json").read_bytes())],
        "summary": [json.loads((store.folder / "summary.json").read_bytes())],
        "baseline-predictions": _read(tmp_path.glob("baselines/predictions/*/*/*.json")),
        "baseline-times": _read(tmp_path.glob("baselines/times/*/*.json")),
        "baseline-samples": [json.loads(json_from_baseline(metrics))],
        "card": _cards(),
    }


def _read(paths):
    return [json.loads(path.read_bytes()) for path in paths]


def _cards():
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return [tomllib.loads(path.read_text()) for path in (ROOT / "models").glob("*.toml")]


@pytest.mark.parametrize("name", FILES)
def test_what_a_run_writes_keeps_its_schema_and_a_wrong_file_does_not(files, name):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert files[name]
    for content in files[name]:
        validator.validate(content)
        first = next(iter(content))
        assert not validator.is_valid({**content, first: [None]})


def test_descriptions_are_the_same_on_every_python():
    """From 3.13 on the compiler dedents docstrings; before, `msgspec` takes them as they stand in the source."""
    assert not any("\\n    " in line for text in schema_texts().values() for line in text.splitlines())
