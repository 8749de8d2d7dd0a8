"""Benchmarking and accuracy-regression harness for neural-network inference engines."""

__version__ = "0.1.0"
