"""An array from a file without names goes into a model's only input, and into none where there are several."""

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import DataError
from harness.models.feeds import prepared_sample
from harness.protocols import ONLY, Sample
from harness.specs import ModelInput, ModelTensors

AUDIO = ModelInput(name="audio", dtype="float32", shape=(1, 4), batch_axis=0)
SAMPLE = Sample(id="7", inputs={ONLY: np.arange(4, dtype=np.float32)})


def test_it_goes_into_the_only_input(spec):
    prepared = prepared_sample(SAMPLE, spec, ModelTensors(inputs=(AUDIO,), outputs=("y",)))
    np.testing.assert_array_equal(prepared.inputs["audio"], SAMPLE.inputs[ONLY])


def test_it_is_refused_where_there_are_several(spec):
    tensors = ModelTensors(inputs=(AUDIO, replace(AUDIO, name="mask")), outputs=("y",))
    with pytest.raises(
        DataError, match=r"sample 7: an array without a name \(NPY\) .* audio float32 \[4\], mask float32 \[4\]"
    ):
        prepared_sample(SAMPLE, spec, tensors)
