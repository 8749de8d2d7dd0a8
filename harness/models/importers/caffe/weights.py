"""A caffemodel's weights: protobuf's wire format, of both of Caffe's layer formats; the rest of the file is skipped.

Field numbers. Source: BVLC/caffe, src/caffe/proto/caffe.proto (NetParameter, LayerParameter, V1LayerParameter,
BlobProto). Imports protobuf, which onnx brings, when it is used.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

Blob = NDArray[np.float32]
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# message -> fields: number, name, type; "*" = repeated
FIELDS = {
    "BlobShape": ((1, "dim", "*int64"),),
    "BlobProto": (
        (1, "num", "int64"),
        (2, "channels", "int64"),
        (3, "height", "int64"),
        (4, "width", "int64"),
        (5, "data", "*float"),
        (7, "shape", "BlobShape"),
        (8, "double_data", "*double"),
    ),
    "LayerParameter": ((1, "name", "string"), (7, "blobs", "*BlobProto")),
    "V1LayerParameter": ((4, "name", "string"), (6, "blobs", "*BlobProto"), (1, "layer", "V0LayerParameter")),
    "V0LayerParameter": ((1, "name", "string"), (50, "blobs", "*BlobProto")),
    "NetParameter": ((1, "name", "string"), (2, "layers", "*V1LayerParameter"), (100, "layer", "*LayerParameter")),
}


def read_weights(path: Path) -> dict[str, tuple[Blob, ...]]:
    """Return layer -> its blobs, float32 in their stored shapes, of the layers that have any.

    Raises: DataError for a file that is missing, damaged, of another kind, or holds no weights.
    """
    net = _read(path, "NetParameter")
    found: dict[str, tuple[Blob, ...]] = {}
    for layer in (*net.layer, *net.layers):
        whole = layer
        if layer.DESCRIPTOR.name == "V1LayerParameter" and layer.HasField("layer"):
            whole = layer.layer  # Caffe of 2013 wrapped each layer
        if whole.blobs:
            found[whole.name] = tuple(_array(blob, f"{path}: layer {whole.name}") for blob in whole.blobs)
    if not found:
        raise DataError(f"{path}: holds no layer with weights; expected a caffemodel that Caffe has trained")
    return found


def read_mean(path: Path) -> Blob:
    """Return the mean image of a .binaryproto file, float32[C, H, W]. Raises: DataError."""
    array = _array(_read(path, "BlobProto"), str(path))
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or not array.size:
        raise DataError(f"{path}: holds values of shape {array.shape}; expected one mean image, C x H x W")
    return array


def _read(path: Path, message: str) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if data.startswith(HDF5_MAGIC):
        raise DataError(f"{path}: is a snapshot in HDF5; save it with Caffe's snapshot_format: BINARYPROTO")
    try:
        return _messages()[message].FromString(data)
    except DecodeError as error:
        raise DataError(
            f"{path}: is no file of Caffe's, or a truncated one ({len(data)} bytes); copy it again"
        ) from error


def _array(blob: Any, where: str) -> Blob:
    values = np.array(blob.data or blob.double_data, np.float32)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else ()
    if not blob.HasField("shape") and values.size != 1:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    if any(size < 0 for size in shape) or math.prod(shape) != values.size:
        raise DataError(f"{where}: a blob of shape {shape} holds {values.size} values; the file is damaged")
    if not np.isfinite(values).all():
        raise DataError(f"{where}: a weight is NaN or infinite; the training of this snapshot had failed")
    return values.reshape(shape)


@cache
def _messages() -> dict[str, Any]:
    from google.protobuf import (  # type: ignore[import-untyped]
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="harness_caffe.proto", package="harness.caffe", syntax="proto2")
    for message, rows in FIELDS.items():
        described = file.message_type.add(name=message)
        for number, name, kind in rows:
            bare = kind.lstrip("*")
            label = kinds.LABEL_REPEATED if kind != bare else kinds.LABEL_OPTIONAL
            field = described.field.add(number=number, name=name, label=label)
            if bare in FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".harness.caffe.{bare}"
            else:
                field.type = getattr(kinds, f"TYPE_{bare.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"harness.caffe.{name}")) for name in FIELDS
    }
