"""ONNX Runtime's bound runs: outputs of another rank than their file names, and what is refused."""

import numpy as np
import pytest
from graph_nets import write_net

from harness.backends._inputs import kept_outputs
from harness.errors import MeasurementError
from harness.records import Artifact
from harness.specs import Precision

# Squeeze hides the rank from the file, which names another one than there is.
LYING = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[a, b, c] x) => (float[n] y)
{
  s = Squeeze (x)
  y = Sigmoid (s)
}
"""


def opened(tmp_path, text):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    from harness.backends.ort.opened import OpenSession

    path = str(write_net(tmp_path, "lying", text))
    artifact = Artifact(
        model="lying", precision=Precision.FP32, recipe="none", onnx_path=path, sha256="d" * 64, source_sha256=""
    )
    return OpenSession(artifact, label="lying-ort-fp32", num_threads=1, config={}, libraries=())


@pytest.mark.parametrize("copies", [False, True])
def test_an_output_of_another_rank_than_the_file_names_is_run_all_the_same(tmp_path, copies):
    session = opened(tmp_path, LYING)
    feeds = {"x": np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 2, 3)}
    expected = session.run(feeds)
    assert expected["y"].shape == (2, 3)
    call, buffers = session.bound(feeds, expected, copies=copies)
    outputs = kept_outputs(buffers)
    for _ in range(3):
        call()
    np.testing.assert_allclose(outputs()["y"], expected["y"], rtol=1e-6)
    assert np.isnan(outputs()["y"]).all(), "what was read is spoiled: a call that did not run shows"
    call()
    np.testing.assert_allclose(outputs()["y"], expected["y"], rtol=1e-6)
    if copies:
        np.testing.assert_allclose(call()[0], expected["y"], rtol=1e-6)


def test_a_bound_run_that_fails_is_told_in_words(tmp_path):
    session = opened(tmp_path, LYING)
    feeds = {"x": np.zeros((1, 2, 3), np.float32)}
    expected = {"y": np.zeros(6, np.float32)}  # of the rank that the file names, and not what comes
    with pytest.raises(MeasurementError, match=r"lying-ort-fp32: a bound run failed: .*(output 'y'|OrtValue shape)"):
        session.bound(feeds, expected, copies=False)
