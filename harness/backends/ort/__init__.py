"""ONNX Runtime on the CPU: `BACKEND` is the adapter, the other modules are its parts."""

from harness.backends.ort.adapter import BACKEND, OrtBackend

__all__ = ["BACKEND", "OrtBackend"]
