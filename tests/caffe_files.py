"""Caffe's files for tests: caffemodels in both layer formats, written byte by byte, and Caffe's layers in NumPy.

The layers follow the loops of BVLC/caffe, src/caffe/layers/*.cpp, and share nothing with the importer.
"""

import numpy as np

V1_NUMBER = {"Convolution": 4, "InnerProduct": 14}
LENET = """
name: "LeNet"
layer { name: "data" type: "Input" top: "data" input_param { shape: { dim: 64 dim: 1 dim: 28 dim: 28 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 20 kernel_size: 5 stride: 1 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 50 kernel_size: 5 } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1" inner_product_param { num_output: 500 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 10 } }
layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }
"""


def varint(number):
    out = b""
    while True:
        number, low = number >> 7, number & 127
        if not number:
            return out + bytes([low])
        out += bytes([low | 128])


def field(number, data):
    """Return a length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def blob(array, *, legacy=False, double=False):
    array = np.asarray(array)
    if legacy:
        sizes = [1] * (4 - array.ndim) + list(array.shape)
        shape = b"".join(varint(number << 3) + varint(size) for number, size in zip((1, 2, 3, 4), sizes, strict=True))
    else:
        shape = field(7, field(1, b"".join(map(varint, array.shape))))
    values = field(8, array.astype("<f8").tobytes()) if double else field(5, array.astype("<f4").tobytes())
    return shape + values


def caffemodel(layers, *, v1=False, double=False):
    """Return a file of layer name -> its arrays; `v1`: in the old layer format."""
    out = field(1, b"net")
    for name, arrays in layers.items():
        if v1:
            body = field(4, name.encode()) + b"".join(field(6, blob(a, legacy=True)) for a in arrays)
            out += field(2, body + varint(5 << 3) + varint(4))
        else:
            body = field(1, name.encode()) + field(2, b"Any")
            out += field(100, body + b"".join(field(7, blob(a, double=double)) for a in arrays))
    return out


# -- Caffe's layers: float64, loops over every window


def convolve(x, w, b, *, stride=(1, 1), pad=(0, 0), dilation=(1, 1), group=1):
    n, _, *size = x.shape
    n_out, per_group, *kernel = w.shape
    out = [(size[i] + 2 * pad[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2))
    y = np.zeros((n, n_out, *out))
    for o in range(n_out):
        first = o // (n_out // group) * per_group
        for i, j in np.ndindex(*out):
            rows = i * stride[0] + dilation[0] * np.arange(kernel[0])
            columns = j * stride[1] + dilation[1] * np.arange(kernel[1])
            window = padded[:, first : first + per_group][:, :, rows][:, :, :, columns]
            y[:, o, i, j] = (window * w[o]).sum((1, 2, 3)) + b[o]
    return y


def deconvolve(x, w, b, *, stride, pad, group=1):
    n, n_in, *size = x.shape
    _, per_group, *kernel = w.shape
    full = [stride[i] * (size[i] - 1) + kernel[i] for i in (0, 1)]
    y = np.zeros((n, per_group * group, *full))
    for c in range(n_in):
        first = c // (n_in // group) * per_group
        for i, j in np.ndindex(*size):
            part = y[:, first : first + per_group, i * stride[0] :, j * stride[1] :][:, :, : kernel[0], : kernel[1]]
            part += x[:, c, i, j, None, None, None] * w[c]
    y = y[:, :, pad[0] : full[0] - pad[0], pad[1] : full[1] - pad[1]]
    return y + np.asarray(b).reshape(1, -1, 1, 1)


def pool(x, *, kernel, stride, pad=(0, 0), method="MAX"):
    n, channels, *size = x.shape
    out = [int(np.ceil((size[i] + 2 * pad[i] - kernel[i]) / stride[i])) + 1 for i in (0, 1)]
    for i in (0, 1):
        if pad[i] and (out[i] - 1) * stride[i] >= size[i] + pad[i]:
            out[i] -= 1
    y = np.zeros((n, channels, *out))
    for i, j in np.ndindex(*out):
        first = [i * stride[0] - pad[0], j * stride[1] - pad[1]]
        last = [min(first[k] + kernel[k], size[k] + pad[k]) for k in (0, 1)]
        cells = (last[0] - first[0]) * (last[1] - first[1])
        window = x[:, :, max(first[0], 0) : min(last[0], size[0]), max(first[1], 0) : min(last[1], size[1])]
        y[:, :, i, j] = window.max((2, 3)) if method == "MAX" else window.sum((2, 3)) / cells
    return y


def lrn(x, *, size, alpha, beta, k):
    y = np.zeros(x.shape)
    for c in range(x.shape[1]):
        near = x[:, max(c - size // 2, 0) : c + size // 2 + 1].astype(np.float64)
        y[:, c] = x[:, c] / (k + alpha / size * (near**2).sum(1)) ** beta
    return y


def softmax(x, axis=1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)
