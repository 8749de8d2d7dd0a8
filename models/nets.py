"""The bundled networks in PyTorch: shapes only; how they are trained is in train.py beside this file."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

N_CLASSES = 10


def lenet5() -> nn.Sequential:
    """Return Caffe's LeNet: conv 20@5x5, max pool, conv 50@5x5, max pool, 500, ReLU, 10. Logits.

    Source: BVLC Caffe, examples/mnist/lenet.prototxt; the network of TensorRT's sampleINT8.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, N_CLASSES),
    )


def mlp() -> nn.Sequential:
    """Return the perceptron 784-512-10 with one ReLU; takes images, flattens them itself. Logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, N_CLASSES))


def mobilenet_digits() -> nn.Sequential:
    """Return a small net of depthwise-separable convolutions with batch norm and ReLU6. Logits.

    Source: Howard et al., MobileNets, 2017, section 3.1; sizes are ours.
    """
    layers: list[nn.Module] = [*_convolution(1, 16, kernel=3, stride=2)]
    for channels_in, channels_out, stride in ((16, 32, 1), (32, 64, 2), (64, 64, 1), (64, 96, 2), (96, 96, 1)):
        layers += _convolution(channels_in, channels_in, kernel=3, stride=stride, groups=channels_in)
        layers += _convolution(channels_in, channels_out, kernel=1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, N_CLASSES))


def _convolution(
    channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU6()]


def rescale_lenet5(net: nn.Sequential, *, octaves: float, seed: int) -> nn.Sequential:
    """Return a lenet5 of the same function whose channels differ in size by up to 2**octaves.

    Each output channel of both convolutions is multiplied by 2**U(-octaves/2, octaves/2) and the next layer's weights
    divide it out again. Max pooling keeps a positive factor, and no ReLU or bias stands between; so FP32 is unchanged,
    while one INT8 scale per tensor has too few steps left for the small channels.
    """
    random = np.random.default_rng(seed)
    hard = lenet5()
    hard.load_state_dict(net.state_dict())
    first, second, dense = hard[0], hard[2], hard[5]
    with torch.no_grad():
        for layer, following in ((first, second), (second, dense)):
            exponents = random.uniform(-octaves / 2, octaves / 2, layer.weight.shape[0])
            factor = torch.tensor(2.0**exponents, dtype=torch.float32)
            layer.weight *= factor.reshape(-1, 1, 1, 1)
            layer.bias *= factor
            if following is dense:  # its inputs are the 50 channels' 4 x 4 pixels, channel by channel
                following.weight /= factor.repeat_interleave(following.weight.shape[1] // len(factor))
            else:
                following.weight /= factor.reshape(1, -1, 1, 1)
    return hard


NETS = {"lenet5": lenet5, "mlp": mlp, "mobilenet_digits": mobilenet_digits}
