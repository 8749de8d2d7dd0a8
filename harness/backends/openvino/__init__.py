"""OpenVINO on the CPU: `BACKEND` is the adapter, the other modules are its parts."""

from harness.backends.openvino.adapter import BACKEND

__all__ = ["BACKEND"]
