"""Small ONNX nets and calibration sets for tests, seeded; operator set 17, IR 8."""

import numpy as np
from onnx import helper

from harness.models.onnx_graph import model_digest
from harness.specs import ModelSpec
from harness.testing.nets import (  # noqa: F401 - the nets of the contract serve other tests too
    HW,
    IR,
    OPSET,
    artifact_of,
    identity_net,
    images,
    qdq_net,
    save_net,
    tiny_net,
    two_input_net,
)


def two_headed_net(path):
    """Write a net whose first output is an auxiliary head, and whose second one is what the card names."""
    generator = np.random.default_rng(7)
    weights = {name: generator.standard_normal((10, HW * HW)).astype(np.float32) for name in ("aux.w", "fc.w")}
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], name="/flatten/Flatten"),
        helper.make_node("Gemm", ["flat", "aux.w"], ["aux"], name="/aux/Gemm", transB=1),
        helper.make_node("Gemm", ["flat", "fc.w"], ["probabilities"], name="/fc/Gemm", transB=1),
    ]
    return save_net(path, nodes, weights, outputs=(("aux", ("N", 10)), ("probabilities", ("N", 10))))


def spec_of(path, **changes):
    """Return a card of a net of this file."""
    known = {
        "name": "tiny",
        "onnx_path": str(path),
        "sha256": model_digest(path),
        "input_name": "image",
        "input_shape": (1, HW, HW),
        "output_name": "probabilities",
        "num_classes": 10,
    }
    return ModelSpec(**{**known, **changes})


class ArraySet:
    """A calibration set of an array."""

    def __init__(self, array, fingerprint="array"):
        self.array, self.fingerprint, self.n_images = array, fingerprint, len(array)
        self.largest_batch = 0

    def batches(self, batch_size):
        self.largest_batch = max(self.largest_batch, batch_size)
        for first in range(0, len(self.array), batch_size):
            yield self.array[first : first + batch_size]
