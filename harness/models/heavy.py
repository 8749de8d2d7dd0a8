"""The heavy model: ResNet-101 at 112 x 112 with random weights, made when asked for; it is timed, never scored.

Its weights are drawn from a bit generator's raw words, so that two machines time the same file. Imports onnx in the
function that writes it: call that in a worker.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs
from numpy.typing import NDArray

from harness.errors import DataError
from harness.specs import ModelSpec
from harness.store.cache import MAKER, sha256_of_file

if TYPE_CHECKING:
    import onnx

HEAVY_MODEL = "resnet101_112"
INPUT_SHAPE = (3, 112, 112)
N_CLASSES = 1000
SEED = 101
STAGES = ((64, 3), (128, 4), (256, 23), (512, 3))  # width, blocks. Source: He et al., 2015, table 1
EXPANSION = 4
# Each block adds its branch to the shortcut. At full He scale 33 of them would grow past fp16's 65504.
BRANCH_GAIN = 0.2
OPSET, IR_VERSION = 17, 8  # every runtime in use reads these; newer defaults are not


def heavy_model_path() -> Path:
    """Return where the heavy model's file belongs in the user's cache."""
    return Path(platformdirs.user_cache_dir(MAKER)) / "models" / f"{HEAVY_MODEL}.onnx"


def resnet101_112(cache_dir: str | Path) -> ModelSpec:
    """Return the heavy model, writing its file (178 MB) into `cache_dir` when it is not there whole.

    Raises: DataError when the folder cannot be written.
    """
    path = Path(cache_dir) / f"{HEAVY_MODEL}.onnx"
    note = path.with_suffix(".sha256")
    sha256 = note.read_text().strip() if path.is_file() and note.is_file() else ""
    if not sha256 or sha256_of_file(path) != sha256:
        sha256 = _write(path, note)
    return ModelSpec(
        name=HEAVY_MODEL,
        onnx_path=str(path.resolve()),
        sha256=sha256,
        input_name="image",
        input_shape=INPUT_SHAPE,
        output_name="logits",
        num_classes=N_CLASSES,
        output_kind="logits",
        timing_only=True,
        description="ResNet-101 with random weights at 3 x 112 x 112; batch norm folded",
    )


def _write(path: Path, note: Path) -> str:
    content = _Graph().model().SerializeToString(deterministic=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        sha256 = sha256_of_file(fresh)
        os.replace(fresh, path)
        note.write_text(sha256 + "\n")
    except OSError as error:
        if fresh.is_file():
            fresh.unlink()
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder that can"
        ) from error
    return sha256


class _Graph:
    """Nodes and weights of a ResNet, batch norm folded into its convolutions."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._random = np.random.Philox(key=SEED)

    def model(self) -> onnx.ModelProto:
        """Return the whole network."""
        from onnx import TensorProto, helper

        value = self._convolution("image", "stem", channels_in=3, channels=64, kernel=7, stride=2)
        value = self._node("MaxPool", [value], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        channels = 64
        for stage, (width, n_blocks) in enumerate(STAGES):
            for block in range(n_blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                value = self._block(value, f"stage{stage}_{block}", channels, width, stride)
                channels = width * EXPANSION
        value = self._node("GlobalAveragePool", [value], "average")
        value = self._node("Flatten", [value], "flat")
        weight = self._weight("classes_weight", (N_CLASSES, channels), fan_in=channels)
        bias = self._zeros("classes_bias", N_CLASSES)
        self._nodes.append(helper.make_node("Gemm", [value, weight, bias], ["logits"], "classes", transB=1))
        graph = helper.make_graph(
            self._nodes,
            HEAVY_MODEL,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *INPUT_SHAPE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", N_CLASSES])],
            self._weights,
        )
        return helper.make_model(
            graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)], producer_name=MAKER
        )

    def _block(self, value: str, name: str, channels_in: int, width: int, stride: int) -> str:
        """Add a bottleneck: 1x1, 3x3 (with the stride), 1x1, and the shortcut. Source: He et al., 2015, figure 5."""
        wide = width * EXPANSION
        branch = self._convolution(value, f"{name}_a", channels_in=channels_in, channels=width)
        branch = self._convolution(branch, f"{name}_b", channels_in=width, channels=width, kernel=3, stride=stride)
        branch = self._convolution(
            branch, f"{name}_c", channels_in=width, channels=wide, gain=BRANCH_GAIN, with_relu=False
        )
        if channels_in != wide or stride != 1:
            value = self._convolution(
                value, f"{name}_shortcut", channels_in=channels_in, channels=wide, stride=stride, with_relu=False
            )
        total = self._node("Add", [branch, value], f"{name}_add")
        return self._node("Relu", [total], f"{name}_out")

    def _convolution(
        self,
        value: str,
        name: str,
        *,
        channels_in: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        gain: float = 1.0,
        with_relu: bool = True,
    ) -> str:
        shape = (channels, channels_in, kernel, kernel)
        weight = self._weight(f"{name}_weight", shape, fan_in=channels_in * kernel * kernel, gain=gain)
        value = self._node(
            "Conv",
            [value, weight, self._zeros(f"{name}_bias", channels)],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )
        return self._node("Relu", [value], f"{name}_relu") if with_relu else value

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: list[int]) -> str:
        from onnx import helper

        node = helper.make_node(kind, inputs, [name], name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return name

    def _weight(self, name: str, shape: tuple[int, ...], *, fan_in: int, gain: float = 1.0) -> str:
        """Add uniform weights on +-gain * sqrt(6 / fan_in). Source: He et al., Delving deep into rectifiers, 2015."""
        n_values = math.prod(shape)
        words = self._random.random_raw((n_values + 1) // 2).astype("<u8").view("<u4")[:n_values]
        # 24 random bits are exact in float32; one multiplication then rounds alike everywhere.
        steps = (words >> 8).astype(np.float32) - np.float32(1 << 23)
        bound = np.float32(gain * math.sqrt(6 / fan_in) / (1 << 23))
        return self._constant(name, (steps * bound).reshape(shape))

    def _zeros(self, name: str, n_values: int) -> str:
        return self._constant(name, np.zeros(n_values, np.float32))

    def _constant(self, name: str, values: NDArray[np.float32]) -> str:
        from onnx import numpy_helper

        self._weights.append(numpy_helper.from_array(values, name))
        return name
