"""What many records of a run share, written once; and records of shards without what no verdict needs.

Labels and block digests are those of the scored images, not of a case: a run's folder holds them in `images.json`, by
content, and each record only the name. A merged run also writes predictions as their difference from the labels, and
no top-1 hits, which are where both agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from harness.errors import DataError
from harness.records import Accuracy, Latency, PackedArray, Record
from harness.stats import round_medians

SHARED = "shared"  # dtype of an array that stands in images.json; its data is its name there
FROM_LABELS = "from labels"  # dtype of uint8[N]: predictions less labels, modulo 256; of hits: where both agree
NAME_BYTES = 8
MARGIN_BITS = 0xFFE0  # of float16: sign, exponent and 5 bits of the fraction, 3 % of a margin
POWER_BITS = 0xFC00  # sign and exponent


class SharedArrays:
    """Arrays of a run by the name that records know them by: hex of a digest of their content."""

    def __init__(self, arrays: Mapping[str, PackedArray] | None = None) -> None:
        self.arrays = {name: _once(packed) for name, packed in (arrays or {}).items()}
        self._names: dict[PackedArray, bytes] = {}

    def add(self, records: Iterable[Record]) -> None:
        """Take in what records share."""
        for record in records:
            for scores in (record.accuracy, record.emulation):
                for packed in () if scores is None else (scores.labels, scores.block_digests):
                    if packed is not None:
                        self.arrays.setdefault(self._name(packed).hex(), packed)

    def taken_from(self, record: Record, *, with_predictions: bool = False) -> Record:
        """Return a record without the arrays that `add` took in; `with_predictions`: these less the labels too."""
        return replace(
            record,
            accuracy=self._scores_without(record.accuracy, with_predictions),
            emulation=self._scores_without(record.emulation, with_predictions),
        )

    def given_to(self, record: Record) -> Record:
        """Return a record whole again. Raises: DataError for a name that is not here."""
        return replace(record, accuracy=self._whole(record.accuracy), emulation=self._whole(record.emulation))

    def _name(self, packed: PackedArray) -> bytes:
        if packed not in self._names:
            text = repr((packed.dtype, packed.shape)).encode() + packed.data
            self._names[packed] = hashlib.blake2b(text, digest_size=NAME_BYTES).digest()
        return self._names[packed]

    def _stand_in(self, packed: PackedArray | None) -> PackedArray | None:
        return None if packed is None else PackedArray(dtype=SHARED, shape=packed.shape, data=self._name(packed))

    def _scores_without(self, scores: Accuracy | None, with_predictions: bool) -> Accuracy | None:
        if scores is None:
            return None
        labels = self._stand_in(scores.labels)
        predictions = _less_labels(scores) if with_predictions else scores.predictions
        hits = scores.top1_hits
        if with_predictions and hits == _hits_of(scores.predictions, scores.labels):
            hits = replace(hits, dtype=FROM_LABELS, data=b"")
        return replace(
            scores,
            labels=labels or scores.labels,
            predictions=predictions,
            top1_hits=hits,
            block_digests=self._stand_in(scores.block_digests),
        )

    def _whole(self, scores: Accuracy | None) -> Accuracy | None:
        if scores is None:
            return None
        labels, digests, hits = self._found(scores.labels), scores.block_digests, scores.top1_hits
        predictions = _plus_labels(scores.predictions, labels)
        return replace(
            scores,
            labels=labels,
            predictions=predictions,
            top1_hits=_hits_of(predictions, labels) if hits.dtype == FROM_LABELS else hits,
            block_digests=None if digests is None else self._found(digests),
        )

    def _found(self, packed: PackedArray) -> PackedArray:
        if packed.dtype != SHARED:
            return packed
        name = packed.data.hex()
        if name not in self.arrays:
            raise DataError(f"the array {name} of a record is not in images.json; the run's folder is damaged")
        return self.arrays[name]


@lru_cache(maxsize=64)
def _once(packed: PackedArray) -> PackedArray:
    """Return the first array of this content: thousands of shards hold the same labels, and memory one of them."""
    return packed


def _less_labels(scores: Accuracy) -> PackedArray:
    predictions, labels = scores.predictions, scores.labels
    if not predictions.dtype == labels.dtype == "|u1" or predictions.shape != labels.shape:
        return predictions
    less = predictions.array().astype(np.uint8) - labels.array().astype(np.uint8)
    return replace(PackedArray.of(less), dtype=FROM_LABELS)


def _plus_labels(packed: PackedArray, labels: PackedArray) -> PackedArray:
    if packed.dtype != FROM_LABELS:
        return packed
    _check_alike(packed, labels)
    return PackedArray.of(replace(packed, dtype="|u1").array().astype(np.uint8) + labels.array().astype(np.uint8))


def _check_alike(predictions: PackedArray, labels: PackedArray) -> None:
    if predictions.shape != labels.shape:
        raise DataError(
            f"an array of shape {list(predictions.shape)} is told from labels of shape {list(labels.shape)}"
        )


def _hits_of(predictions: PackedArray, labels: PackedArray) -> PackedArray:
    _check_alike(predictions, labels)
    return PackedArray.of(np.packbits(predictions.array() == labels.array()))


def slimmed(record: Record) -> Record:
    """Return a record as shards and merged runs keep it; every verdict on it is the same.

    Margins keep about two digits (float16 with fewer bits, where they fit), those of an emulation their power of two:
    nobody asks more of them than whether they are numbers. Of FP32's times, taken in turn with the case's own, the
    median of each round stays, which is all that is divided; FP32's own record has all of them.
    """
    return replace(
        record,
        accuracy=_with_short_margins(record.accuracy, MARGIN_BITS),
        emulation=_with_short_margins(record.emulation, POWER_BITS),
        latencies=tuple(_with_short_reference(latency) for latency in record.latencies),
    )


def _with_short_margins(scores: Accuracy | None, bits: int) -> Accuracy | None:
    """Return scores whose margins are float16 with some bits alone; the rest is noise that does not shrink."""
    if scores is None or (margins := scores.margins.array()).dtype != np.float32:
        return scores
    if not (np.abs(margins) < np.finfo(np.float16).max).all():  # too large, or no numbers
        return scores
    short = margins.astype("<f2").view("<u2") & np.uint16(bits)
    return replace(scores, margins=PackedArray.of(short.view("<f2")))


def _with_short_reference(latency: Latency) -> Latency:
    reference = latency.reference_rounds_ns
    if reference is None or len(reference.shape) != 2 or reference.shape[1] < 2 or not reference.shape[0]:
        return latency
    rounds = reference.array().astype(np.float64)
    if not (np.isfinite(rounds) & (rounds > 0)).all():
        return latency  # no times: whoever judges them shall say so
    return replace(latency, reference_rounds_ns=PackedArray.of(round_medians(rounds)[:, None]))
