"""A TensorRT backend that breaks."""

from harness.backends._broken import BrokenBackend, hang

BACKEND = BrokenBackend("trt-hang", spoil=hang)
