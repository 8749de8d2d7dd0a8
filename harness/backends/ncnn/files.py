"""ncnn's two files: a text of layers and their weights in one piece. An INT8 model is written here.

The package has neither ncnn2table nor ncnn2int8. Source of the format: ncnn 20261020, docs/developer-guide/
param-and-model-file-structure.md, src/layer/convolution.cpp, convolutiondepthwise.cpp and innerproduct.cpp.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import Unsupported

TAG_FP32, TAG_INT8 = 0, 0x000D4B38  # before the weights of a layer
N_HEAD_LINES = 2  # magic number; counts
INT8_MAX = 127
CONVOLUTION, DEPTHWISE, PRODUCT = "Convolution", "ConvolutionDepthWise", "InnerProduct"
# Of a layer: which parameter holds the number of outputs, of weights, and whether there is a bias.
N_OUTPUTS, N_GROUPS, INT8_TERM = 0, 7, 8
N_WEIGHTS = {CONVOLUTION: 6, DEPTHWISE: 6, PRODUCT: 2}
HAS_BIAS = {CONVOLUTION: 5, DEPTHWISE: 5, PRODUCT: 1}
# Scales a channel or a group, and one of the input. Source: the layers' load_model.
INT8_OF = {CONVOLUTION: "2", DEPTHWISE: "1", PRODUCT: "2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NcnnLayer:
    """One line of the .param file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[int, str]

    @property
    def is_int8(self) -> bool:
        """Tell whether its weights are 8-bit numbers."""
        return self.kind in N_WEIGHTS and self.parameters.get(INT8_TERM, "0") != "0"

    @property
    def can_be_int8(self) -> bool:
        """Tell whether the writer below can quantize it: of grouped convolutions only depthwise ones."""
        groups, outputs = self.parameters.get(N_GROUPS, "1"), self.parameters.get(N_OUTPUTS)
        return self.kind in N_WEIGHTS and (self.kind != DEPTHWISE or groups == outputs)

    def line(self) -> str:
        """Return it as it is written."""
        counts = (str(len(self.inputs)), str(len(self.outputs)))
        parameters = (f"{key}={value}" for key, value in sorted(self.parameters.items()))
        return " ".join((self.kind, self.name, *counts, *self.inputs, *self.outputs, *parameters))


@dataclass(frozen=True, slots=True, kw_only=True)
class NcnnFiles:
    """Both files of a model."""

    param: str
    weights: bytes

    @property
    def layers(self) -> tuple[NcnnLayer, ...]:
        """Return the layers in the order in which their weights are stored."""
        lines = (line.split() for line in self.param.splitlines()[N_HEAD_LINES:])
        return tuple(_layer(words) for words in lines if words)

    def packed(self) -> bytes:
        """Return both files in one."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(zipfile.ZipInfo("param"), self.param)
            archive.writestr(zipfile.ZipInfo("bin"), self.weights)
        return buffer.getvalue()

    @classmethod
    def unpacked(cls, data: bytes) -> NcnnFiles:
        """Return what `packed` made one of."""
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return cls(param=archive.read("param").decode(), weights=archive.read("bin"))

    def quantized(self, largest: Mapping[str, float]) -> NcnnFiles:
        """Return the files with 8-bit products: symmetric, weights by channel.

        `largest`: input of each product -> the magnitude that becomes 127; a product that has none stays FP32.
        Raises: Unsupported for a layer whose weights this writer cannot follow.
        """
        reader, lines, pieces = _Weights(self.weights), list[str](), list[bytes]()
        for layer in self.layers:
            written = layer
            if layer.kind in N_WEIGHTS:
                weights, bias, raw = reader.of(layer)
                top = largest.get(layer.inputs[0], 0.0)
                if layer.can_be_int8 and top > 0:
                    written = replace(layer, parameters={**layer.parameters, INT8_TERM: INT8_OF[layer.kind]})
                    raw = b"".join(_int8_pieces(weights, bias, top))
                pieces.append(raw)
            lines.append(written.line())
        reader.check_all_read()
        head = self.param.splitlines()[:N_HEAD_LINES]
        return NcnnFiles(param="\n".join((*head, *lines)) + "\n", weights=b"".join(pieces))


class _Weights:
    """The .bin file, read layer after layer."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def of(self, layer: NcnnLayer) -> tuple[NDArray[np.float32], NDArray[np.float32], bytes]:
        """Return weights float32[outputs, inputs], bias float32[outputs or 0], and both as they are stored."""
        started = self._place
        tag = int.from_bytes(self._data[started : started + 4], "little")
        if tag != TAG_FP32:
            raise Unsupported(f"ncnn's weights of {layer.name} have the tag {tag:#x}; INT8 is written from FP32 only")
        self._place += 4
        n_outputs = int(layer.parameters[N_OUTPUTS])
        weights = self._floats(int(layer.parameters[N_WEIGHTS[layer.kind]]), layer).reshape(n_outputs, -1)
        has_bias = layer.parameters.get(HAS_BIAS[layer.kind], "0") == "1"
        bias = self._floats(n_outputs if has_bias else 0, layer)
        return weights, bias, self._data[started : self._place]

    def check_all_read(self) -> None:
        """Check that nothing is left. Raises: Unsupported: another kind of layer holds weights too."""
        if self._place != len(self._data):
            raise Unsupported(
                f"INT8 of ncnn is written for {', '.join(N_WEIGHTS)}; other layers of this model hold "
                f"{len(self._data) - self._place} bytes of weights"
            )

    def _floats(self, count: int, layer: NcnnLayer) -> NDArray[np.float32]:
        if self._place + 4 * count > len(self._data):
            raise Unsupported(
                f"INT8 of ncnn is written for {', '.join(N_WEIGHTS)}; the weights end before {layer.name}"
            )
        values = np.frombuffer(self._data, "<f4", count, self._place)
        self._place += 4 * count
        return values


def _int8_pieces(weights: NDArray[np.float32], bias: NDArray[np.float32], largest: float) -> Iterator[bytes]:
    """Yield tag, 8-bit weights (to whole words), bias, scale of each channel, scale of the input."""
    magnitudes = np.abs(weights).max(axis=1)
    scales = np.where(magnitudes > 0, INT8_MAX / np.maximum(magnitudes, np.finfo(np.float32).tiny), 1.0)
    numbers = np.clip(np.round(weights * scales[:, None]), -INT8_MAX, INT8_MAX).astype(np.int8)
    yield TAG_INT8.to_bytes(4, "little")
    yield numbers.tobytes() + b"\0" * (-numbers.size % 4)
    yield bias.astype("<f4").tobytes()
    yield scales.astype("<f4").tobytes()
    yield np.float32(INT8_MAX / largest).tobytes()


def _layer(words: list[str]) -> NcnnLayer:
    n_inputs, n_outputs = int(words[2]), int(words[3])
    blobs, parameters = words[4 : 4 + n_inputs + n_outputs], words[4 + n_inputs + n_outputs :]
    pairs = (parameter.partition("=") for parameter in parameters)
    return NcnnLayer(
        kind=words[0],
        name=words[1],
        inputs=tuple(blobs[:n_inputs]),
        outputs=tuple(blobs[n_inputs:]),
        parameters={int(key): value for key, _, value in pairs},
    )
