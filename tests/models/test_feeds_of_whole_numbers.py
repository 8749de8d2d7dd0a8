"""Pixels become what an input of whole numbers holds, or an error: never truncated."""

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import DataError
from harness.models.feeds import prepared_sample
from harness.protocols import IMAGE, Sample
from harness.specs import ModelInput, ModelTensors

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4
TENSORS = ModelTensors(inputs=(ModelInput(name="x", dtype="uint8", shape=(1, 1, 8, 8), batch_axis=0),), outputs=("y",))


def test_pixels_scaled_to_fractions_are_refused(spec):
    sample = Sample(id="0", inputs={IMAGE: PIXELS})
    with pytest.raises(DataError, match="uint8 does not hold; a card of an input of uint8 usually has scale = 1"):
        prepared_sample(sample, replace(spec, input_name="x", scale=1 / 255), TENSORS)


def test_pixels_of_scale_one_stay_as_they_are(spec):
    sample = Sample(id="0", inputs={IMAGE: PIXELS})
    prepared = prepared_sample(sample, replace(spec, input_name="x", scale=1.0), TENSORS)
    np.testing.assert_array_equal(prepared.inputs["x"], PIXELS.transpose(2, 0, 1))
