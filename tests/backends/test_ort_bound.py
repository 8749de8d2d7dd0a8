"""ONNX Runtime's bound runs: what it refuses is told in words."""

import numpy as np
import pytest
from graph_nets import write_net

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


def test_an_output_of_another_rank_than_the_file_names_is_told(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    from harness.backends.ort.opened import OpenSession

    path = str(write_net(tmp_path, "lying", LYING))
    artifact = Artifact(
        model="lying", precision=Precision.FP32, recipe="none", onnx_path=path, sha256="d" * 64, source_sha256=""
    )
    opened = OpenSession(artifact, label="lying-ort-fp32", num_threads=1, config={}, libraries=())
    feeds = {"x": np.zeros((1, 2, 3), np.float32)}
    outputs = opened.run(feeds)
    assert outputs["y"].shape == (2, 3)
    with pytest.raises(MeasurementError, match=r"lying-ort-fp32: a bound run failed: .*rank for output: y"):
        opened.bound(feeds, outputs, copies=False)
