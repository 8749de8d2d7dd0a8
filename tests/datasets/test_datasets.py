"""Opening data sets by name or path, and fingerprints of ranges."""

import subprocess
import sys

import numpy as np
import pytest

from harness.datasets import (
    RangeFingerprint,
    check_range,
    dataset_names,
    fingerprint_range,
    lasting_name,
    open_dataset,
)
from harness.errors import DataError
from harness.protocols import Dataset


def test_names():
    assert dataset_names() == (
        "mnist", "fashion-mnist", "kmnist", "qmnist", "emnist-digits", "strokes", "trt-batches"
    )  # fmt: skip


def test_strokes_is_a_dataset():
    data = open_dataset("strokes", split="train")
    assert isinstance(data, Dataset)
    assert (data.name, data.split, data.num_classes, data.image_shape) == ("strokes", "train", 10, (28, 28))


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("stroke", "did you mean strokes"),
        ("MNIST", "there are: mnist, "),
        ("fashon-mnist", "did you mean fashion-mnist"),
        ("imagenet", "there are|did you mean"),
        ("no/such/file", "no such file or folder"),
        ("file.idx", "no such file or folder"),
        ("trt-batches", "needs --data-dir"),
    ],
)
def test_an_unknown_name_gets_a_hint(name, answer):
    with pytest.raises(DataError, match=answer) as error:
        open_dataset(name, split="test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "split"), [("mnist", "validation"), ("strokes", "all")])
def test_an_unknown_split_names_the_splits(name, split):
    with pytest.raises(DataError, match="train, test"):
        open_dataset(name, split=split)


def test_opening_strokes_imports_nothing_of_downloads_or_runtimes():
    code = (
        "import sys; from harness.datasets import open_dataset; open_dataset('strokes', split='test').read(0, 2); "
        "bad = {'pooch', 'requests', 'onnx', 'torch', 'matplotlib', 'scipy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Rows:
    """A data set that notes what was read of it."""

    name, split, n_images, num_classes, image_shape = "rows", "test", 5000, 10, (2, 2)

    def __init__(self):
        self.largest = 0

    def read(self, first, stop):
        self.largest = max(self.largest, stop - first)
        ids = np.arange(first, stop)
        return (ids[:, None, None] % 251 + np.zeros((1, 2, 2))).astype(np.uint8), ids % 10


def test_fingerprint_streams():
    rows = Rows()
    fingerprint_range(rows, 0, 5000)
    assert rows.largest == 1000


def test_fingerprint_does_not_depend_on_chunks():
    whole = RangeFingerprint()
    whole.update(7, *Rows().read(7, 107))
    parts = RangeFingerprint()
    for first, stop in ((7, 8), (8, 60), (60, 107)):
        parts.update(first, *Rows().read(first, stop))
    assert whole.hexdigest() == parts.hexdigest() == fingerprint_range(Rows(), 7, 107)


def changed(*, first=0, pixels=None, labels=None):
    given = Rows().read(0, 100)
    fingerprint = RangeFingerprint()
    fingerprint.update(first, given[0] if pixels is None else pixels, given[1] if labels is None else labels)
    return fingerprint.hexdigest()


def test_fingerprint_sees_ids_labels_pixels_shape_and_dtype():
    pixels, labels = Rows().read(0, 100)
    one_pixel, one_label = pixels.copy(), labels.copy()
    one_pixel[99, 1, 1] ^= 1
    one_label[0] += 1
    variants = [
        changed(),
        changed(first=1),
        changed(pixels=one_pixel),
        changed(labels=one_label),
        changed(pixels=pixels.reshape(100, 4, 1)),
        changed(pixels=pixels.astype(np.float32)),
        changed(pixels=pixels[::-1]),
    ]
    assert len(set(variants)) == len(variants)


def test_fingerprint_does_not_depend_on_memory_layout():
    pixels, labels = Rows().read(0, 100)
    assert changed(pixels=np.asfortranarray(pixels)) == changed()
    assert changed(pixels=pixels.astype(">f4")) == changed(pixels=pixels.astype("<f4"))
    assert changed(labels=labels.astype(np.int32)) == changed()


def test_fingerprint_refuses_what_does_not_match():
    fingerprint = RangeFingerprint()
    with pytest.raises(DataError, match="3 images came with 2 labels"):
        fingerprint.update(0, np.zeros((3, 2, 2), np.uint8), np.zeros(2, np.int64))
    fingerprint.update(0, np.zeros((3, 2, 2), np.uint8), np.zeros(3, np.int64))
    with pytest.raises(DataError, match="those before were"):
        fingerprint.update(3, np.zeros((3, 2, 3), np.uint8), np.zeros(3, np.int64))


def test_fingerprint_of_a_range_past_the_end():
    with pytest.raises(DataError, match="at most 100 from there"):
        fingerprint_range(Rows(), 4900, 5100)


@pytest.mark.parametrize(("first", "stop"), [(0, 0), (0, 10), (9, 10), (10, 10)])
def test_ranges_inside_are_fine(first, stop):
    check_range(first, stop, name="n", split="s", n_images=10)


def fingerprint_of(pixels, *, first=0, chunk=64):
    fingerprint = RangeFingerprint()
    for start in range(0, len(pixels), chunk):
        part = pixels[start : start + chunk]
        fingerprint.update(first + start, part, np.zeros(len(part), np.int64))
    return fingerprint


def test_blocks_may_be_digested_in_any_order():
    ordered, shuffled = RangeFingerprint(), RangeFingerprint()
    parts = [(first, *Rows().read(first, min(first + 130, 730))) for first in range(70, 730, 130)]
    for part in parts:
        ordered.update(*part)
    for cut in reversed([shuffled.cut(*part) for part in parts]):
        shuffled.digest(cut)
    assert shuffled.hexdigest() == ordered.hexdigest()
    assert shuffled.block_digests().tolist() == ordered.block_digests().tolist()
    assert ordered.block_digests().size == 6, "100..699: the first and the last images are in no whole block"


def test_ranges_that_overlap_share_the_digests_of_whole_blocks():
    pixels, _ = Rows().read(0, 1000)
    here, there = fingerprint_of(pixels[30:800], first=30), fingerprint_of(pixels[200:], first=200, chunk=1000)
    assert here.block_digests()[1:].tolist() == there.block_digests()[:6].tolist()
    pixels[650] ^= 1
    changed = fingerprint_of(pixels[200:], first=200)
    assert np.flatnonzero(changed.block_digests() != there.block_digests()).tolist() == [4]


def test_images_that_do_not_follow_are_refused():
    fingerprint = RangeFingerprint()
    fingerprint.update(0, *Rows().read(0, 10))
    with pytest.raises(DataError, match="from 20 on came where image 10 should follow"):
        fingerprint.update(20, *Rows().read(20, 30))


@pytest.mark.parametrize("shape", [(3,), (8,), (2, 5), (28, 28)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_repeats_are_found_by_their_pixels(shape, dtype):
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 255, (300, *shape), np.uint8).astype(dtype)
    pixels[[50, 120, 299]] = pixels[7]
    firsts = {}
    expected = [
        (place, first)
        for place, image in enumerate(pixels)
        if (first := firsts.setdefault(image.tobytes(), place)) != place
    ]
    assert {(50, 7), (120, 7), (299, 7)} <= set(expected)
    found = fingerprint_of(pixels).repeats(lambda place: pixels[place])
    assert found.tolist() == [list(pair) for pair in expected]


def test_images_that_only_look_alike_are_no_repeats(monkeypatch):
    pixels, _ = Rows().read(0, 300)  # 0..250, then 0..48 again
    monkeypatch.setattr("harness.datasets._ranges._looks", lambda images: np.zeros(len(images), np.uint64))
    found = fingerprint_of(pixels).repeats(lambda place: pixels[place])
    assert found.tolist() == [[place, place - 251] for place in range(251, 300)]


def test_images_of_one_pixel_less_look_unlike():
    pixels = np.random.default_rng(5).integers(0, 256, (3000, 28, 28), np.uint8)
    pixels[1500:] = pixels[:1500]
    pixels[1500:, 14, 13] ^= 1
    asked = []
    assert not fingerprint_of(pixels).repeats(lambda place: asked.append(place) or pixels[place]).size
    assert not asked, "none had to be read again"


@pytest.mark.parametrize(
    ("name", "lasting"),
    [
        ("mnist", "mnist"),
        ("rows.npz", "rows.npz"),
        ("/home/me/rows.npz", "rows.npz"),
        ("./photos/", "photos"),
        ("/data/photos/val", "photos/val"),
        ("/data/photos/data/images/labels.csv", "photos/data/images/labels.csv"),
        ("/own.py:faces", "own.py:faces"),
    ],
)
def test_a_set_is_called_the_same_wherever_it_lies(name, lasting):
    assert lasting_name(name) == lasting
