"""NPZ, NPY and folders of them: samples by the names of a model's inputs, and images for a classifier."""

import io
import zipfile

import numpy as np
import pytest
from picture_files import strokes

from harness.datasets import _arrays as arrays
from harness.datasets import open_dataset, open_samples
from harness.errors import DataError
from harness.protocols import ONLY


def one_error(call, *says):
    with pytest.raises(DataError) as error:
        call()
    told = str(error.value)
    assert "\n" not in told
    assert not [word for word in says if word not in told], told


def numbers(*shape, dtype=np.float32):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


# -- one file


def test_arrays_are_inputs_by_name_and_samples_lie_along_the_first_axis(tmp_path):
    ids, mask, labels = numbers(3, 4, dtype=np.int64), numbers(3, 4, dtype=np.int32), np.array([2, 0, 1])
    np.savez(tmp_path / "a.npz", input_ids=ids, mask=mask, labels=labels)
    samples = open_samples(str(tmp_path / "a.npz"), split="test")
    assert (samples.n_samples, samples.split) == (3, "all")
    one = samples.sample(2)
    assert (one.id, one.target, set(one.inputs)) == ("2", 1, {"input_ids", "mask"})
    np.testing.assert_array_equal(one.inputs["input_ids"], ids[2])
    assert one.inputs["mask"].dtype == np.int32
    one_error(lambda: samples.sample(3), "asked image 3", "which has 3")


def test_targets_may_be_arrays_or_texts_and_samples_have_names(tmp_path):
    np.savez(tmp_path / "a.npz", x=numbers(2, 3), targets=np.array(["one", "two"]), sample_ids=np.array(["p", "q"]))
    one = open_samples(str(tmp_path / "a.npz"), split="test").sample(1)
    assert (one.id, one.target) == ("q", "two")
    np.savez(tmp_path / "b.npz", x=numbers(2, 3), y=numbers(2, 2))
    np.testing.assert_array_equal(open_samples(str(tmp_path / "b.npz"), split="test").sample(1).target, [2, 3])


def test_an_array_of_uint8_images_is_for_the_card_to_prepare(tmp_path):
    pixels, labels = strokes(0, 5)
    np.savez(tmp_path / "a.npz", images=pixels, labels=labels)
    one = open_samples(str(tmp_path / "a.npz"), split="test").sample(3)
    np.testing.assert_array_equal(one.inputs["image"][:, :, 0], pixels[3])
    assert one.target == labels[3]


def test_the_arrays_of_a_split_are_those_marked_with_it(tmp_path):
    pixels, labels = strokes(0, 9)
    np.savez(tmp_path / "a.npz", x_train=pixels[:6], y_train=labels[:6], x_test=pixels[6:], y_test=labels[6:])
    for split, part in (("train", slice(0, 6)), ("test", slice(6, 9))):
        data = open_dataset(str(tmp_path / "a.npz"), split=split)
        assert data.split == split
        np.testing.assert_array_equal(data.read(0, data.n_images)[0], pixels[part])
        np.testing.assert_array_equal(data.read(0, data.n_images)[1], labels[part])
    one_error(lambda: open_dataset(str(tmp_path / "a.npz"), split="none"), "no inputs")


def test_an_npy_file_is_a_models_only_input(tmp_path):
    np.save(tmp_path / "audio.npy", numbers(4, 5))
    samples = open_samples(str(tmp_path / "audio.npy"), split="test")
    one = samples.sample(1)
    assert (samples.n_samples, set(one.inputs), one.target) == (4, {ONLY}, None)
    np.testing.assert_array_equal(one.inputs[ONLY], numbers(4, 5)[1])


def test_fortran_order_and_empty_arrays_are_read(tmp_path):
    array = np.asfortranarray(numbers(4, 5))
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", a=array)
    np.save(tmp_path / "none.npy", np.empty((0, 3), np.float32))
    np.testing.assert_array_equal(arrays.read_npy(tmp_path / "a.npy"), array)
    np.testing.assert_array_equal(arrays.read_npz(tmp_path / "a.npz")["a"], array)
    assert arrays.read_npy(tmp_path / "none.npy").shape == (0, 3)


# -- a classifier's images


@pytest.mark.parametrize("layout", ["hw", "chw", "hwc"])
def test_channels_come_first_or_last(tmp_path, layout):
    images = np.random.default_rng(1).integers(0, 256, (6, 3, 8, 8), np.uint8)
    stored = {"hw": images[:, 0], "chw": images, "hwc": images.transpose(0, 2, 3, 1)}[layout]
    np.savez(tmp_path / "a.npz", images=stored, labels=np.arange(6))
    pixels, labels = open_dataset(str(tmp_path / "a.npz"), split="test").read(1, 5)
    np.testing.assert_array_equal(pixels, images[1:5, 0] if layout == "hw" else images[1:5])
    assert (labels.tolist(), pixels.flags.c_contiguous) == ([1, 2, 3, 4], True)


def test_float_images_are_taken_as_scaled(tmp_path):
    np.savez(tmp_path / "a.npz", x=numbers(4, 1, 2, 2), y=np.arange(4))
    pixels, _ = open_dataset(str(tmp_path / "a.npz"), split="test").read(0, 4)
    assert pixels.dtype == np.float32
    bad = numbers(4, 1, 2, 2)
    bad[2, 0, 1, 1] = np.nan
    np.savez(tmp_path / "b.npz", x=bad, y=np.arange(4))
    data = open_dataset(str(tmp_path / "b.npz"), split="test")
    data.read(0, 2)
    one_error(lambda: data.read(1, 4), "b.npz: image 2 holds NaN")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"images": np.zeros((3, 4, 4), np.uint8)}, "no `labels`"),
        ({"images": np.zeros((3, 4, 4), np.uint8), "labels": np.arange(2)}, "unlike numbers of samples"),
        ({"images": np.zeros((3, 4, 4), np.uint8), "labels": np.float32(1)}, "a scalar"),
        ({"images": np.zeros((3, 4, 4), np.uint8), "labels": np.array([0, -1, 1])}, "label of 0"),
        ({"images": np.zeros((3, 5, 4, 4), np.uint8), "labels": np.arange(3)}, "1 or 3 channels"),
        ({"pixels": np.zeros((3, 4, 4), np.uint8), "labels": np.arange(3)}, "has pixels, labels"),
        ({"labels": np.arange(3)}, "no inputs"),
        ({"images": np.zeros((0, 4, 4), np.uint8), "labels": np.zeros(0, np.int64)}, "expected images"),
    ],
)
def test_what_is_no_set_of_labelled_images_is_refused(tmp_path, content, says):
    np.savez(tmp_path / "a.npz", **content)
    one_error(lambda: open_dataset(str(tmp_path / "a.npz"), split="test"), "a.npz", says)


# -- files that lie


def header(shape, dtype="<f4"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (header((1 << 40, 1 << 20)) + bytes(16), "its header says"),
        (header((4,)) + bytes(15), "its header says"),
        (header((4,)) + bytes(17), "its header says"),
        (header((-4,)) + bytes(16), "shape (-4,)"),
        (header((4,), "|O") + bytes(32), "Python objects"),
        (header((4,), "<c8") + bytes(32), "expected numbers or text"),
        (header((4,)).replace(b"shape", b"shope") + bytes(16), "not a whole NPY file"),
        (b"\x93NUMPY\x01\x00\xff\xff", "not a whole NPY file"),
        (b"\x93NUMPY\x09\x00" + bytes(40), "NPY format (9, 0)"),
        (b"", "not a whole NPY file"),
    ],
)
def test_a_header_is_held_against_the_file_before_anything_is_allocated(tmp_path, data, says):
    (tmp_path / "a.npy").write_bytes(data)
    one_error(lambda: open_samples(str(tmp_path / "a.npy"), split="test"), "a.npy", says)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", data)
    one_error(lambda: open_samples(str(tmp_path / "a.npz"), split="test"), "a.npz: x.npy", says)


def test_pickles_are_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}, []], dtype=object))
    one_error(lambda: open_samples(str(tmp_path / "a.npz"), split="test"), "a.npz: x.npy", "Python objects")


def test_a_zip_bomb_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_SMALL_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1 << 18, 4), np.float32))
    one_error(lambda: open_samples(str(tmp_path / "a.npz"), split="test"), "a.npz", "inflate to", "100 times")
    np.savez_compressed(tmp_path / "b.npz", x=np.random.default_rng(0).random((1 << 18, 1), np.float32))
    assert open_samples(str(tmp_path / "b.npz"), split="test").n_samples == 1 << 18


@pytest.mark.parametrize("cut", [0, 30, 200, -1, -40])
def test_a_damaged_archive_is_refused(tmp_path, cut):
    np.savez_compressed(tmp_path / "a.npz", x=numbers(40, 40))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    if cut == 200:
        data[200] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(data if cut == 200 else data[:cut])
    one_error(lambda: open_samples(str(tmp_path / "a.npz"), split="test"), "a.npz")


def test_inputs_that_no_model_takes_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([[1, np.inf]], np.float32))
    samples = open_samples(str(tmp_path / "a.npz"), split="test")
    one_error(lambda: samples.sample(0), "a.npz: sample 0: x", "Inf")
    np.savez(tmp_path / "b.npz", x=np.array(["a", "b"]))
    samples = open_samples(str(tmp_path / "b.npz"), split="test")
    one_error(lambda: samples.sample(0), "b.npz: sample 0: x", "expected numbers")


# -- folders


def test_each_file_is_one_sample_in_natural_order(tmp_path):
    for name in ("s10", "s9"):
        np.savez(tmp_path / f"{name}.npz", sample_ids=np.array(7), x=numbers(2, 3), target=np.array(int(name[1:])))
    samples = open_samples(str(tmp_path), split="test")
    assert [(samples.sample(i).id, samples.sample(i).target) for i in range(2)] == [("s9", 9), ("s10", 10)]
    assert samples.sample(0).inputs["x"].shape == (2, 3)


def test_files_called_batch_hold_several(tmp_path):
    for number, n_samples in ((0, 3), (1, 2)):
        np.savez(tmp_path / f"batch{number}.npz", x=numbers(n_samples, 2) + 10 * number, labels=np.arange(n_samples))
    samples = open_samples(str(tmp_path), split="test")
    assert samples.n_samples == 5
    assert [samples.sample(i).id for i in (2, 3)] == ["batch0[2]", "batch1[0]"]
    np.testing.assert_array_equal(samples.sample(4).inputs["x"], [12, 13])
    assert samples.sample(4).target == 1


def test_npy_files_lie_in_a_folder_for_each_input(tmp_path):
    for name, offset in (("ids", 0), ("mask", 100)):
        (tmp_path / "d" / name).mkdir(parents=True)
        for index in (1, 2, 10):
            np.save(tmp_path / "d" / name / f"{index}.npy", numbers(3) + index + offset)
    (tmp_path / "d" / "labels").mkdir()
    for index in (1, 2, 10):
        np.save(tmp_path / "d" / "labels" / f"{index}.npy", np.int64(index))
    (tmp_path / "d" / "ids").rename(tmp_path / "d" / "tokens")
    samples = open_samples(str(tmp_path / "d"), split="test")
    one = samples.sample(2)
    assert (samples.n_samples, one.id, one.target, set(one.inputs)) == (3, "10", 10, {"tokens", "mask"})
    np.testing.assert_array_equal(one.inputs["mask"], [110, 111, 112])
    (tmp_path / "d" / "mask" / "2.npy").unlink()
    one_error(lambda: open_samples(str(tmp_path / "d"), split="test"), "mask: 2.npy is missing")


def test_flat_npy_files_are_a_models_only_input(tmp_path):
    (tmp_path / "audio").mkdir()
    np.save(tmp_path / "audio" / "a.npy", numbers(5))
    assert set(open_samples(str(tmp_path / "audio"), split="test").sample(0).inputs) == {ONLY}


def test_a_folder_may_have_splits(tmp_path):
    for split, value in (("train", 1), ("test", 2)):
        (tmp_path / split).mkdir()
        np.savez(tmp_path / split / "a.npz", x=np.full(3, value, np.float32))
    assert open_samples(str(tmp_path), split="test").sample(0).inputs["x"][0] == 2
    assert open_samples(str(tmp_path), split="train").sample(0).inputs["x"][0] == 1


def test_a_damaged_file_of_a_folder_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=numbers(3))
    (tmp_path / "b.npz").write_bytes(b"PK")
    samples = open_samples(str(tmp_path), split="test")
    samples.sample(0)
    one_error(lambda: samples.sample(1), "b.npz")


# -- the other doors


def test_images_of_any_data_set_can_be_opened_as_samples():
    samples = open_samples("strokes", split="test")
    pixels, labels = strokes(5, 6)
    one = samples.sample(5)
    assert (one.id, one.target, samples.n_samples) == ("5", labels[0], 10_000_000)
    np.testing.assert_array_equal(one.inputs["image"][:, :, 0], pixels[0])
