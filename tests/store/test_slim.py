"""What records share is written once; what a fleet's night leaves out changes no verdict."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import accuracy_from, accuracy_with, latency_with, record_with
from hypothesis import given, settings
from hypothesis import strategies as st
from render_records import make_run

from harness.errors import DataError
from harness.gates import JudgeOptions, judge_records, subject_from_record
from harness.records import PackedArray
from harness.specs import Precision
from harness.stats import ratio_of_rounds
from harness.store.runs import RunStore, json_from, load_run
from harness.store.slim import SHARED, SharedArrays, slimmed


def digests(n):
    return PackedArray.of(np.arange(n, dtype=np.uint64))


def int8_of(n=10_000, seed=0, **changes):
    """A case of this many images with incompressible margins and times, as measured ones are."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10, n)
    predictions = np.where(generator.random(n) < 0.01, (labels + 1) % 10, labels)
    margins = PackedArray.of((1 - generator.beta(0.1, 8, n)).astype(np.float32))
    scores = replace(accuracy_from(predictions, labels), margins=margins, block_digests=digests(100))
    rounds = np.rint(generator.normal(56_000, 800, (20, 200)))
    reference = np.rint(generator.normal(99_000, 800, (20, 200)))
    latency = replace(latency_with(), rounds_ns=PackedArray.of(rounds), reference_rounds_ns=PackedArray.of(reference))
    record = record_with(scores, precision=Precision.INT8, latencies=(latency,), emulation=scores, weight_bits=8)
    return replace(record, **changes)


@given(
    classes=st.integers(2, 300),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int64]),
    n=st.integers(1, 50),
    seed=st.integers(0, 99),
    with_predictions=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_what_is_taken_from_a_record_is_given_back(classes, dtype, n, seed, with_predictions):
    generator = np.random.default_rng(seed)
    labels, predictions = (generator.integers(0, min(classes, np.iinfo(dtype).max), n).astype(dtype) for _ in range(2))
    scores = replace(
        accuracy_with(n=n),
        labels=PackedArray.of(labels),
        predictions=PackedArray.of(predictions),
        block_digests=digests(3) if seed % 2 else None,
    )
    record = record_with(scores, emulation=scores if seed % 3 else None)
    shared = SharedArrays()
    shared.add([record])
    taken = shared.taken_from(record, with_predictions=with_predictions)
    assert taken.accuracy.labels.dtype == SHARED
    assert SharedArrays(shared.arrays).given_to(taken) == record


def test_hits_are_written_where_predictions_do_not_tell_them():
    record = int8_of()
    shared = SharedArrays()
    shared.add([record])
    assert shared.taken_from(record).accuracy.top1_hits == record.accuracy.top1_hits
    taken = shared.taken_from(record, with_predictions=True)
    assert taken.accuracy.top1_hits.data == b""
    assert SharedArrays(shared.arrays).given_to(taken) == record
    hits = PackedArray.of(~record.accuracy.top1_hits.array())
    contradicting = replace(record, accuracy=replace(record.accuracy, top1_hits=hits))
    taken = shared.taken_from(contradicting, with_predictions=True)
    assert taken.accuracy.top1_hits == hits
    assert SharedArrays(shared.arrays).given_to(taken) == contradicting


@pytest.mark.parametrize("part", ["predictions", "top1_hits"])
def test_what_other_labels_would_complete_is_damaged(part):
    record = int8_of()
    shared = SharedArrays()
    shared.add([record])
    taken = shared.taken_from(record, with_predictions=True)
    (name,) = [name for name, packed in shared.arrays.items() if packed == record.accuracy.labels]
    shared.arrays[name] = PackedArray.of(np.zeros(9_999, np.uint8))
    if part == "top1_hits":
        taken = replace(taken, accuracy=replace(taken.accuracy, predictions=record.accuracy.predictions))
    with pytest.raises(DataError, match=r"10000\] is told from labels of shape \[9999\]"):
        SharedArrays(shared.arrays).given_to(taken)


def test_labels_are_written_once_for_all_records_of_the_same_images():
    records = [int8_of(seed=1), replace(int8_of(seed=1), case=replace(int8_of().case, backend="openvino"))]
    shared = SharedArrays()
    shared.add(records)
    assert len(shared.arrays) == 2, "labels and digests"
    shared.add([int8_of(seed=2)])
    assert len(shared.arrays) == 3, "other images have other labels"
    with pytest.raises(DataError, match=r"not in images.json; the run's folder is damaged"):
        SharedArrays().given_to(shared.taken_from(records[0]))


@pytest.mark.parametrize("n_shards", [0, 4])
def test_a_run_is_read_as_it_was_written(tmp_path, n_shards):
    run, records = make_run(5)
    run = replace(run, n_shards=n_shards)
    store = RunStore(tmp_path, run)
    store.append(records[0])
    store.finish(run, records, summary=b"{}")
    assert load_run(store.folder) == (run, records)
    assert {path.name for path in store.folder.glob("records*")} == {
        "records.jsonl.gz" if n_shards else "records.jsonl"
    }


@pytest.mark.parametrize(("name", "data"), [("records.jsonl.gz", b"no gzip"), ("images.json", b"{")])
def test_a_damaged_file_of_a_merged_run_is_named(tmp_path, name, data):
    run, records = make_run(3)
    store = RunStore(tmp_path, replace(run, n_shards=2))
    store.finish(replace(run, n_shards=2), records, summary=b"{}")
    (store.folder / name).write_bytes(data)
    with pytest.raises(DataError, match=name):
        load_run(store.folder)


def test_a_fleet_keeps_an_int8_case_of_10_000_images_in_30_kb(tmp_path):
    run, _ = make_run(1)
    run = replace(run, n_shards=2)
    records = [slimmed(int8_of(seed=seed)) for seed in range(10)]
    before = sum(len(json_from(int8_of(seed=seed))) for seed in range(10))
    store = RunStore(tmp_path, run)
    store.finish(run, records, summary=b"{}")
    size = (store.folder / "records.jsonl.gz").stat().st_size
    assert size <= 10 * 30_000
    assert size < before / 4


@pytest.mark.parametrize("lost", [0, 40, 400])
def test_a_slim_record_is_judged_as_the_whole_one(lost):
    fp32 = record_with(accuracy_with(), latencies=(latency_with(),))
    int8 = replace(
        int8_of(), accuracy=accuracy_with(wrong=range(lost)), emulation=accuracy_with(wrong=range(lost // 2))
    )
    stored = {int8.key: subject_from_record(replace(int8, accuracy=accuracy_with()), "the baseline")}
    whole = judge_records([fp32, int8], stored, JudgeOptions())
    slim = judge_records([slimmed(fp32), slimmed(int8)], stored, JudgeOptions())
    for one, other in zip(whole, slim, strict=True):
        assert (one.verdicts, one.status, one.reason, one.loss_split) == (
            other.verdicts,
            other.status,
            other.reason,
            other.loss_split,
        )
    (a,), (b,) = whole[1].latencies, slim[1].latencies
    assert ratio_of_rounds(a.reference_rounds_ns.array(), a.rounds_ns.array()) == ratio_of_rounds(
        b.reference_rounds_ns.array(), b.rounds_ns.array()
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_margins_that_do_not_fit_are_kept_as_they_are(value):
    record = record_with(replace(accuracy_with(n=3), margins=PackedArray.of(np.array([0, 1, value], np.float32))))
    assert slimmed(record) == record


def test_times_that_are_none_are_kept_for_whoever_judges_them():
    broken = replace(latency_with(), reference_rounds_ns=PackedArray.of(np.array([[1.0, np.nan], [1.0, 2.0]])))
    assert slimmed(record_with(latencies=(broken,))).latencies == (broken,)
