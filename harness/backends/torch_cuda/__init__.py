"""PyTorch on a GPU: `BACKEND` is the adapter, the other modules are its parts."""

from harness.backends.torch_cuda.adapter import BACKEND

__all__ = ["BACKEND"]
