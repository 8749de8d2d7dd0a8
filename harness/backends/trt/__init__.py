"""TensorRT 8.6, 10.x and 11.x: `BACKEND` is the adapter, the other modules are its parts."""

from harness.backends.trt.adapter import BACKEND

__all__ = ["BACKEND"]
