"""A fake backend for tests."""

from harness.backends._numpy_engine import NumpyBackend

BACKEND = NumpyBackend("fake-loses", "loses")
