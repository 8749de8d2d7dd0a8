"""A TensorRT backend that breaks."""

from harness.backends._broken import BrokenBackend, die

BACKEND = BrokenBackend("trt-crash", spoil=die)
