"""A TensorRT backend that breaks."""

from harness.backends._broken import BrokenBackend, point_nowhere

BACKEND = BrokenBackend("trt-fault", spoil=point_nowhere)
