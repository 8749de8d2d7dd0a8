"""Pixels to a model's input: scale, mean, layout."""

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import DataError
from harness.models.preprocess import images_from_pixels


@pytest.fixture
def pixels():
    return np.random.default_rng(5).integers(0, 256, (6, 4, 4), np.uint8)


@pytest.fixture
def colour():
    return np.random.default_rng(6).integers(0, 256, (6, 3, 4, 5), np.uint8)


def test_grey_images_gain_a_channel_and_are_scaled(pixels, spec):
    images = images_from_pixels(pixels, spec)
    assert images.dtype == np.float32
    assert images.shape == (6, 1, 4, 4)
    np.testing.assert_array_equal(images[:, 0], pixels.astype(np.float32) * np.float32(1 / 255))


def test_mean_and_std_are_applied_per_channel(colour, spec):
    spec = replace(spec, input_shape=(3, 4, 5), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    images = images_from_pixels(colour, spec)
    expected = (colour / 255 - np.reshape(spec.mean, (3, 1, 1))) / np.reshape(spec.std, (3, 1, 1))
    np.testing.assert_allclose(images, expected, atol=2e-6)
    assert images.dtype == np.float32


def test_one_mean_stands_for_all_channels(colour, spec):
    spec = replace(spec, input_shape=(3, 4, 5), scale=1.0, mean=(128.0,), std=(2.0,))
    np.testing.assert_array_equal(images_from_pixels(colour, spec), (colour.astype(np.float32) - 128) / 2)


def test_channels_last(colour, spec):
    spec = replace(spec, input_shape=(4, 5, 3), layout="NHWC", scale=1.0)
    images = images_from_pixels(colour, spec)
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images, colour.transpose(0, 2, 3, 1))


def test_flat(pixels, spec):
    spec = replace(spec, input_shape=(16,), layout="flat", scale=1.0)
    np.testing.assert_array_equal(images_from_pixels(pixels, spec), pixels.reshape(6, 16))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_model_without_a_channel_axis_takes_grey_images(pixels, colour, spec, layout):
    spec = replace(spec, input_shape=(4, 4), layout=layout, scale=1.0)
    np.testing.assert_array_equal(images_from_pixels(pixels, spec), pixels)
    np.testing.assert_array_equal(images_from_pixels(pixels[:, None], spec), pixels)
    with pytest.raises(DataError, match="do not fit"):
        images_from_pixels(colour, spec)


def test_float_images_are_taken_as_they_are(spec):
    images = np.random.default_rng(7).random((6, 1, 4, 4), dtype=np.float32)
    np.testing.assert_array_equal(images_from_pixels(images, replace(spec, mean=(9.0,))), images)


def test_batches_and_single_images_agree(pixels, spec):
    spec = replace(spec, mean=(0.1307,), std=(0.3081,))
    together = images_from_pixels(pixels, spec)
    for index in range(len(pixels)):
        np.testing.assert_array_equal(images_from_pixels(pixels[index : index + 1], spec)[0], together[index])


def test_the_stored_images_stay_as_they_are(pixels, spec):
    before = pixels.copy()
    pixels.flags.writeable = False
    images_from_pixels(pixels, spec)[:] = 0
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 4), (8, 8)])
def test_another_size_is_refused(shape, spec):
    with pytest.raises(DataError, match=r"do not fit model tiny, which takes \(1, 4, 4\)"):
        images_from_pixels(np.zeros((2, *shape), np.uint8), spec)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint16])
def test_another_dtype_is_refused(dtype, spec):
    with pytest.raises(DataError, match="expected uint8"):
        images_from_pixels(np.zeros((2, 4, 4), dtype), spec)


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (3, 4, 5)), ("NHWC", (4, 5, 3)), ("flat", (60,))])
@pytest.mark.parametrize("mean", [(0.0,), (0.4, 0.5, 0.6)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_images_are_written_where_they_are_wanted(colour, spec, layout, shape, mean, kind):
    spec = replace(spec, input_shape=shape, layout=layout, mean=mean)
    pixels = colour.astype(kind)
    memory = np.full((8, *shape), np.nan, np.float32)
    images = images_from_pixels(pixels, spec, out=memory[:6])
    assert np.shares_memory(images, memory)
    np.testing.assert_array_equal(memory[:6], images_from_pixels(pixels, spec))
    assert np.isnan(memory[6:]).all()
