"""A TensorRT backend that breaks."""

from harness.backends._broken import BrokenBackend, fill_memory

BACKEND = BrokenBackend("trt-out-of-memory", before=fill_memory)
