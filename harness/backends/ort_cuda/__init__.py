"""ONNX Runtime's CUDA provider: `BACKEND` is the adapter, the other modules are its parts."""

from harness.backends.ort_cuda.adapter import BACKEND

__all__ = ["BACKEND"]
