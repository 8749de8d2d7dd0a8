"""TensorRT's batch files: written, read back, and refused when damaged."""

import struct
import tracemalloc

import numpy as np
import pytest

from harness.datasets import fingerprint_range, open_dataset
from harness.datasets.trt_batches import TrtBatches, write_batches
from harness.errors import DataError


@pytest.fixture
def content():
    random = np.random.default_rng(1)
    return random.random((60, 1, 4, 5), dtype=np.float32) - np.float32(0.5), random.integers(0, 10, 60)


@pytest.fixture
def folder(tmp_path, content):
    write_batches(tmp_path / "batches", *content, 5)
    return tmp_path / "batches"


def test_round_trip(folder, content):
    data = open_dataset(str(folder), split="test")
    assert (data.split, data.n_images, data.image_shape, data.num_classes) == ("all", 60, (1, 4, 5), 10)
    images, labels = data.read(0, 60)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(images, content[0])
    np.testing.assert_array_equal(labels, content[1])
    assert fingerprint_range(data, 3, 44) == fingerprint_range(TrtBatches(folder), 3, 44)


def test_ranges_cross_files_and_batch10_follows_batch9(folder, content):
    data = open_dataset("trt-batches", split="train", data_dir=folder)
    assert (folder / "batch11").exists()
    for first, stop in ((4, 6), (0, 1), (12, 58), (49, 51), (60, 60)):
        images, labels = data.read(first, stop)
        np.testing.assert_array_equal(images, content[0][first:stop])
        np.testing.assert_array_equal(labels, content[1][first:stop])


def test_bytes_are_tensorrt_s(tmp_path):
    images = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    (path,) = write_batches(tmp_path, images, np.array([3, 7]), 2)
    assert path.name == "batch0"
    assert path.read_bytes() == struct.pack("<4i8f2f", 2, 1, 2, 2, *range(8), 3, 7)


def test_a_range_past_the_end(folder):
    with pytest.raises(DataError, match="has 60: at most 2"):
        TrtBatches(folder).read(58, 62)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2**31 - 1, 2**15, 2**15, 2**15), "but it has"),
        ((-5, 1, 4, 5), "expected positive sizes"),
        ((5, 0, 4, 5), "expected positive sizes"),
        ((5, 1, 4, 2**30), "expected positive sizes of images"),
        ((5, 1, 4, 6), "write the batches again"),
        ((4, 1, 4, 5), "but it has"),
    ],
)
def test_lying_headers_allocate_nothing(folder, sizes, message):
    path = folder / "batch3"
    path.write_bytes(struct.pack("<4i", *sizes) + path.read_bytes()[16:])
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message) as error:
            TrtBatches(folder)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "batch3" in str(error.value)
    assert peak_bytes < 1 << 20


def test_short_files(folder):
    path = folder / "batch0"
    whole = path.read_bytes()
    for size in (0, 15, 16, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="batch0"):
            TrtBatches(folder)


def test_a_gap_in_the_numbers(folder):
    (folder / "batch7").unlink()
    with pytest.raises(DataError, match="batch7 is missing, batch11 is there"):
        TrtBatches(folder)


def test_no_batches(tmp_path):
    with pytest.raises(DataError, match="no batch files"):
        TrtBatches(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        TrtBatches(tmp_path / "absent")


def test_shapes_must_agree(folder):
    images = np.zeros((5, 1, 5, 4), np.float32)
    other = folder.with_name("other")
    (path,) = write_batches(other, images, np.zeros(5, np.int64), 5)
    path.rename(folder / "batch12")
    with pytest.raises(DataError, match=r"batch12: images of shape \(1, 5, 4\) among others of \(1, 4, 5\)"):
        TrtBatches(folder)


@pytest.mark.parametrize("label", [-1.0, 2.5, float("nan"), float("inf"), 1e9])
def test_labels_must_be_whole(folder, label):
    path = folder / "batch0"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", label))
    with pytest.raises(DataError, match="label 4 is"):
        TrtBatches(folder)


def test_images_must_be_finite(folder):
    path = folder / "batch1"
    data = bytearray(path.read_bytes())
    data[16 + 4 * 20 : 20 + 4 * 20] = struct.pack("<f", float("nan"))
    path.write_bytes(data)
    source = TrtBatches(folder)
    source.read(0, 5)
    with pytest.raises(DataError, match="batch1: image 1 holds NaN"):
        source.read(4, 10)


@pytest.mark.parametrize(
    ("images", "labels", "batch_size", "message"),
    [
        (np.zeros((4, 2, 2), np.float32), np.zeros(4), 2, "expected float32"),
        (np.zeros((4, 1, 2, 2), np.uint8), np.zeros(4), 2, "expected float32"),
        (np.zeros((0, 1, 2, 2), np.float32), np.zeros(0), 2, "expected float32"),
        (np.zeros((4, 1, 2, 2), np.float32), np.zeros(3), 2, "one label an image"),
        (np.zeros((4, 1, 2, 2), np.float32), np.zeros(4), 3, "choose a divisor"),
        (np.zeros((4, 1, 2, 2), np.float32), np.zeros(4), 0, "choose a divisor"),
    ],
)
def test_what_is_not_written(tmp_path, images, labels, batch_size, message):
    with pytest.raises(DataError, match=message):
        write_batches(tmp_path / "new", images, labels, batch_size)
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(folder, content):
    with pytest.raises(DataError, match="holds batch files already"):
        write_batches(folder, *content, 5)
