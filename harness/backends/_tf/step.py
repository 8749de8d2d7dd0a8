"""One ONNX node on its way to TensorFlow, and the order of an image's axes: NHWC within, NCHW at the border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import Unsupported
from harness.models.onnx_graph import node_id

if TYPE_CHECKING:
    from onnx import NodeProto

Array = NDArray[np.generic]
TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node with what it is computed from."""

    tf: Any
    node: NodeProto
    attributes: Mapping[str, Any]
    values: list[Any]  # its inputs: TensorFlow's, or NumPy's for weights; None for one left out
    is_last_of_images: bool  # a Flatten whose consumers take its H, W, C order: their weights are permuted

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def refuse(self, why: str) -> Unsupported:
        """Return the error that refuses this node."""
        return Unsupported(f"{node_id(self.node)}: {why}")

    def constant(self, place: int, name: str) -> Array | None:
        """Return a setting: an input that is a weight, or an attribute of older operator sets; None for neither.

        Raises: Unsupported where it is computed.
        """
        value = self.values[place] if len(self.values) > place else self.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, np.ndarray | int | float | list):
            raise self.refuse(f"{self.node.op_type} whose {name} is computed")
        return np.asarray(value)


def rank_of(value: Any) -> int:
    """Return how many axes a tensor has."""
    return len(value.shape)


def to_nhwc(tf: Any, value: Any) -> Any:
    """Return a tensor in ONNX's order of axes as it is kept here."""
    return tf.transpose(value, TO_NHWC) if rank_of(value) == 4 else value


def to_nchw(tf: Any, value: Any) -> Any:
    """Return a tensor of here in ONNX's order of axes."""
    return tf.transpose(value, TO_NCHW) if rank_of(value) == 4 else value
