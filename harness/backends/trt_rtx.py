"""TensorRT for RTX through the TensorRT adapter: it builds without a GPU, and runs on RTX GPUs only."""

from __future__ import annotations

from harness.backends.trt.adapter import TrtBackend

BACKEND = TrtBackend("trt-rtx", "tensorrt_rtx", "pip install 'nn-engine-harness[trt-rtx]'")
