"""Files of earlier nights that were changed: named, never believed, and no cost to tonight's page."""

import json
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from comparison_records import accuracy_with, latency_with, record_with
from render_records import make_run

from harness.errors import BaselineError, DataError
from harness.records import PackedArray
from harness.report.files import report_of_run, write_reports
from harness.report.rows import rows_from_records
from harness.report.summary import summary_bytes
from harness.store.baselines import BaselineStore
from harness.store.runs import RunStore, load_run
from harness.store.sealed import sealed

ACCEPTED = {"accepted_by": "me", "accepted_at": "2026-01-01T00:00:00+00:00"}
FILES = ("run.json", "records.jsonl", "summary.json")
LITTLE = 32 << 20  # bytes


@pytest.fixture
def nights(tmp_path):
    """Two stored nights: their folders."""
    run, records = make_run(6, n_images=60)
    folders = []
    for number in (1, 2):
        night = replace(run, id=f"night-{number}", started_at=f"2026-01-0{number}T00:00:00+00:00")
        store = RunStore(tmp_path, night)
        store.finish(night, records, summary=summary_bytes(night, rows_from_records(records)))
        folders.append(store.folder)
    return folders


def flipped(path, at, bit=0):
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1 << bit
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("at", [0.03, 0.21, 0.5, 0.77, 0.98])
def test_a_flipped_bit_is_named(nights, name, at):
    flipped(nights[0] / name, at)
    with pytest.raises(DataError, match=rf"{name}.* (is damaged|suite again|upgrade the harness|torn)"):
        load_run(nights[0])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "binary", "deep", "folder"])
def test_a_damaged_old_run_costs_tonights_page_nothing_and_is_named_there(nights, name, harm):
    path = nights[0] / name
    if harm == "folder":
        path.unlink()
        path.mkdir()
    else:
        content = path.read_bytes()
        changed = {"cut": content[:99], "empty": b"", "binary": b"\xff\xfe\x00" * 99, "deep": b"[" * 100_000}
        path.write_bytes(changed.get(harm, content))
        if harm == "flip":
            flipped(path, 0.4)
    run, records = load_run(nights[1])
    write_reports(nights[1], report_of_run(nights[1], run, records))
    page = (nights[1] / "index.html").read_text()
    assert f"night-1/{name}" in page or (harm in ("empty", "folder") and "night-1" in page)


def test_a_clock_that_was_set_back_costs_no_page_and_no_order(nights):
    run, records = load_run(nights[1])
    early = replace(run, id="night-0", started_at="2025-01-01T00:00:00+00:00", finished_at="2024-12-31T23:00:00+00:00")
    store = RunStore(nights[1].parent, early)
    store.finish(early, records, summary=summary_bytes(early, rows_from_records(records)))
    write_reports(store.folder, report_of_run(store.folder, early, records))
    assert (store.folder / "index.html").exists()
    assert (nights[1].parent / "latest").resolve() == store.folder, "what ended last, whatever its clock said"
    assert report_of_run(store.folder, early, records).previous is None, "the others are not before it"
    assert report_of_run(nights[1], run, records).previous.id == "night-1"


def test_a_changed_digest_is_as_bad_as_a_changed_value(nights):
    values = json.loads((nights[0] / "run.json").read_bytes())
    for changed in ({**values, "digest": "0" * 64}, {k: v for k, v in values.items() if k != "digest"}):
        (nights[0] / "run.json").write_text(json.dumps(changed))
        with pytest.raises(DataError, match=r"run.json: not a Run \(it"):
            load_run(nights[0])


def test_other_spaces_and_line_ends_are_no_damage(nights):
    values = json.loads((nights[0] / "run.json").read_bytes())
    (nights[0] / "run.json").write_bytes(json.dumps(values, indent=3).replace("\n", "\r\n").encode())
    assert load_run(nights[0])[0].id == "night-1"


@pytest.mark.parametrize("model", ["../../../escaped", "/etc/escaped", "a/b", "a\\b", "a\0b"])
def test_a_case_whose_name_leads_elsewhere_becomes_no_baseline(tmp_path, model):
    record = record_with(accuracy_with(n=40), latencies=(latency_with(),))
    harmful = replace(record, case=replace(record.case, model=model))
    store = BaselineStore(tmp_path / "a" / "b" / "c" / "baselines")
    with pytest.raises(BaselineError, match="has no file name for its id"):
        store.accept([harmful], **ACCEPTED)
    with pytest.raises(BaselineError, match="has no file name for its id"):
        store.load(harmful)
    assert not list(tmp_path.rglob("*.json"))


def grown(measure):
    """The most memory that a call took [bytes], and the error that it raised."""
    tracemalloc.start()
    try:
        with pytest.raises((DataError, BaselineError)) as caught:
            measure()
        return tracemalloc.get_traced_memory()[1], caught.value
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stop", [1 << 40, 5_200_000_000, 41])
def test_a_baseline_of_more_images_than_it_has_takes_no_memory(tmp_path, stop):
    record = record_with(accuracy_with(n=40), latencies=(latency_with(),))
    store = BaselineStore(tmp_path)
    (path,) = [path for path in store.accept([record], **ACCEPTED) if "predictions" in path.parts]
    values = json.loads(path.read_bytes())
    del values["digest"]
    values["scores"]["images"]["stop"] = stop
    path.write_bytes(sealed(json.dumps(values).encode()))
    n_bytes, error = grown(lambda: store.load(record))
    assert n_bytes < LITTLE
    assert "is damaged" in str(error)


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("<f8", (1 << 40,), zlib.compress(b"x")),
        ("|u1", (40,), zlib.compress(bytes(1 << 30), 9)),  # a bomb of 1 GiB in 1 MB
        ("|u1", (1 << 29,), zlib.compress(bytes(1 << 29), 9)),  # what it says, but more than is ever needed
        ("|u1", (-1, -40), zlib.compress(bytes(40))),
        ("|u1", (40,), zlib.compress(bytes(41))),
        ("|u1", (40,), zlib.compress(bytes(40))[:-2]),
        ("shuffled <f8", (1 << 40,), zlib.compress(b"x")),
        ("shuffled <f8", (5,), zlib.compress(bytes(41))),
        ("|O", (1,), zlib.compress(bytes(8))),
        ("9" * 99 + "u1", (1,), zlib.compress(bytes(8))),
        ("no type", (1,), zlib.compress(bytes(8))),
    ],
    ids=[
        "shape",
        "bomb",
        "large",
        "negative",
        "longer",
        "cut",
        "shuffled shape",
        "shuffled longer",
        "objects",
        "huge type",
        "no type",
    ],
)
def test_a_packed_array_takes_no_more_memory_than_it_may(dtype, shape, data):
    n_bytes, error = grown(PackedArray(dtype=dtype, shape=shape, data=data).array)
    assert n_bytes < LITTLE
    assert len(str(error).splitlines()) == 1
