"""Readers of files, a sound file for each, and ways to damage it: for tests/store/test_fuzz.py and benchmarks/fuzz.py.

A reader may refuse a file with one of our errors, in one line. Anything else is a fault of the reader.
"""

import gzip
import io
import json
import struct
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet
from comparison_records import accuracy_with, latency_with, record_with
from fuzz_more_readers import more_readers, read_picture
from fuzz_reader import Reader
from PIL import Image
from render_records import make_run

from harness.datasets import open_samples
from harness.datasets._idx_format import IdxFile
from harness.datasets.trt_batches import TrtBatches, write_batches
from harness.errors import HarnessError
from harness.gates import JudgeOptions, judge_records
from harness.models import load_card
from harness.options.file import read_settings
from harness.options.tolerances import load_tolerances
from harness.records import PackedArray
from harness.report.rows import rows_from_records
from harness.report.summary import summary_bytes
from harness.store.baseline_files import (
    json_from_baseline,
    predictions_from_json,
    predictions_from_record,
    subject_from_files,
    times_from_json,
    times_from_record,
)
from harness.store.cache import ContentCache
from harness.store.history import load_history
from harness.store.runs import RunStore, load_run
from harness.store.sealed import sealed

ROOT = Path(__file__).parents[1]
TOML = b'[run]\nthreads = 2\n[tolerance]\nmax_drop = "1%"\n[model.mlp.tolerance]\nmax_drop = 0.01\n'
KEY = {"model": "ab"}
TOKENS = (
    b"",
    b"\0",
    b"\xff\xfe",
    b'"',
    b"}",
    b"[" * 2_000,
    b"-1",
    b"9" * 400,
    b"1e309",
    b"NaN",
    b"null",
    b"../../",
    b"\xed\xa0\x80",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff\x7f\xff\xff\xff",
)
HOSTILE = (
    None,
    -1,
    0,
    1 << 40,
    (1 << 63) - 1,
    1e308,
    -0.5,
    "",
    "../../../x",
    "\0",
    "x" * 5_000,
    [],
    {},
    [[]],
    True,
    "NaN",
)
MAX_LINES = 1  # of a refusal


def readers(folder):
    """Return name -> Reader; sound files are made in a folder."""
    run, records = make_run(5, n_images=40)
    store = RunStore(folder, run)
    for record in records:
        store.append(record)
    store.finish(run, records, summary=summary_bytes(run, rows_from_records(records)))
    header, lines, images, summary = (
        (store.folder / name).read_bytes() for name in ("run.json", "records.jsonl", "images.json", "summary.json")
    )
    unfinished = {name: value for name, value in json.loads(header).items() if name not in ("digest", "n_records")}
    lone = sealed(json.dumps(unfinished).encode())
    passed = record_with(accuracy_with(n=40), latencies=(latency_with(),))
    accepted = {"accepted_by": "me", "accepted_at": "2026-01-01T00:00:00+00:00"}
    predictions = json_from_baseline(predictions_from_record(passed, **accepted))
    times = json_from_baseline(times_from_record(passed, **accepted))
    ContentCache(folder / "cache", "plans").put(KEY, b"plan", name="p", meta={"a": "b"})
    (entry,) = (folder / "cache" / "plans").glob("*/entry.json")
    note = f"plans/{entry.parent.name}/entry.json"
    write_batches(folder / "batches", np.zeros((4, 1, 3, 3), np.float32), np.arange(4), 4)
    idx = struct.pack(">HBBIII", 0, 8, 3, 5, 4, 4) + bytes(80)
    packed = PackedArray.of(np.arange(12.0).reshape(3, 4))
    case_id = passed.case.id

    def read_entry(path):
        return ContentCache(path.parents[2], "plans").lookup(KEY).reason

    def read_packed(path):
        data = path.read_bytes()
        shape = struct.unpack("<2q", data[:16].ljust(16, b"\0"))
        return PackedArray(dtype=packed.dtype, shape=shape, data=data[16:]).array()

    def read_baseline(path):
        found = predictions_from_json(path.read_bytes(), where="f", case_id=case_id)
        return subject_from_files([found])

    return {
        "run.json": Reader(
            header,
            lambda p: load_run(p.parent),
            "run.json",
            {"records.jsonl": lines, "images.json": images},
            is_json=True,
        ),
        "records.jsonl": Reader(
            lines, lambda p: load_run(p.parent), "records.jsonl", {"run.json": header, "images.json": images}
        ),
        "record": Reader(
            lines.splitlines()[0],
            read_records,
            "records.jsonl",
            {"run.json": lone, "images.json": images},
            is_json=True,
        ),
        "summary.json": Reader(summary, read_summary, "night/summary.json", {}, is_json=True),
        "predictions": Reader(predictions, read_baseline, f"{case_id}.json", {}, is_json=True),
        "times": Reader(
            times,
            lambda p: subject_from_files([times_from_json(p.read_bytes(), where="f", case_id=case_id)]),
            f"{case_id}.json",
            {},
            is_json=True,
        ),
        "cache note": Reader(entry.read_bytes(), read_entry, note, {"p": b"plan"}, is_json=True),
        "card": Reader((ROOT / "models" / "mlp.toml").read_bytes(), load_card, "mlp.toml", {}),
        "harness.toml": Reader(
            b'[run]\nthreads = 2\n[tolerance]\nmax_drop = "1%"\n[model.mlp.tolerance]\nmax_drop = 0.01\n',
            read_toml,
            "harness.toml",
            {},
        ),
        "idx": Reader(idx, read_idx, "images", {}),
        "idx.gz": Reader(gzip.compress(idx, mtime=0), read_idx, "images.gz", {}),
        "batches": Reader((folder / "batches" / "batch0").read_bytes(), read_batches, "set/batch0", {}),
        "packed array": Reader(struct.pack("<2q", 3, 4) + packed.data, read_packed, "packed", {}),
        **data_readers(),
        **more_readers(folder),
    }


def data_readers():
    """Return the readers of data sets."""
    png, npz, npy, parquet = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(png, "PNG")
    np.savez_compressed(npz, x=np.zeros((3, 4), np.float32), labels=np.arange(3))
    np.save(npy, np.zeros((3, 4), np.float32))
    columns = {"image": [{"bytes": png.getvalue(), "path": None}] * 2, "label": [1, 0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), parquet)
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 4}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}],
        "categories": [{"id": 2, "name": "cat"}],
    }
    beside = {"a.png": png.getvalue()}
    return {
        "image": Reader(png.getvalue(), read_picture, "a.png", {}),
        "npz": Reader(npz.getvalue(), read_samples, "a.npz", {}),
        "npy": Reader(npy.getvalue(), read_samples, "a.npy", {}),
        "labels.csv": Reader(b"file,label\na.png,3\n", read_samples, "labels.csv", beside),
        "labels.json": Reader(b'{"a.png": 3}', read_samples, "labels.json", beside),
        "pixels.csv": Reader(b"label,pixel0,pixel1,pixel2,pixel3\n1,2,3,4,5\n", read_samples, "pixels.csv", {}),
        "coco": Reader(json.dumps(coco).encode(), read_samples, "coco.json", beside),
        "parquet": Reader(parquet.getvalue(), read_samples, "a.parquet", {}),
    }


def read_records(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b" ") + b"\n")
    _, records = load_run(path.parent)
    judge_records(records, {}, JudgeOptions(gates=frozenset({"floor"})))
    return records


def read_summary(path):
    return "; ".join(load_history(path.parents[1]).notes)


def read_toml(path):
    read_settings(path.parent)
    return load_tolerances(path.parent, backends=("ort",))


def read_idx(path):
    file = IdxFile(path, cache_dir=path.parent / "inflated")
    return file.rows(0, min(2, file.shape[0]))


def read_samples(path):
    samples = open_samples(str(path), split="test")
    return [samples.sample(index) for index in range(min(2, samples.n_samples))]


def read_batches(path):
    found = TrtBatches(path.parent)
    return found.read(0, min(2, found.n_images))


def damaged(reader, edits):
    """Return a file after some edits: (what, where as a fraction, which).

    what: 0 flips a bit, 1 cuts the file, 2 removes a part, 3 puts a token in, 4 repeats a part, 5 changes a JSON value
    and makes the digest anew, as somebody who means harm would.
    """
    data = bytearray(reader.sound)
    for what, where, which in edits:
        at = int(where * len(data))
        if what == 0 and at < len(data):
            data[at] ^= 1 << which % 8
        elif what == 1:
            del data[at:]
        elif what == 2:
            del data[at : at + 1 + which % 64]
        elif what == 3:
            data[at:at] = TOKENS[which % len(TOKENS)]
        elif what == 4:
            data[at:at] = data[at : at + which % 64]
        elif what == 5 and reader.is_json:
            data = bytearray(_changed(bytes(data), where, which))
    return bytes(data)


def _changed(data, where, which):
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(values, dict):
        return data
    values.pop("digest", None)
    places = list(_places(values))
    if places:
        holder, key = places[int(where * len(places))]
        holder[key] = HOSTILE[which % len(HOSTILE)]
    try:
        return sealed(json.dumps(values).encode())
    except msgspec.DecodeError:  # of half a surrogate pair
        return data


def _places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _make(path, content, *, below):
    """Write a file that is its owner's alone, in folders that are, as a cache wants it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for place in (below, *path.parents[: len(path.relative_to(below).parts) - 1]):
        place.chmod(0o700)
    path.write_bytes(content)
    path.chmod(0o600)


def try_reader(reader, data, folder):
    """Read a file; return its refusal, "" when it was read. Raises: what the reader should not."""
    path = folder / reader.name
    for name, content in {**reader.beside, path.name: None}.items():
        if not (path.parent / name).exists():  # a cache removes what is damaged
            _make(path.parent / name, content or b"", below=folder)
    path.write_bytes(data)
    try:
        found = reader.read(path)
    except HarnessError as error:
        text = str(error)
        if len(text.splitlines()) > MAX_LINES or not text:
            raise AssertionError(f"refused in {len(text.splitlines())} lines: {text[:500]!r}") from error
        return text
    return found if isinstance(found, str) else ""
