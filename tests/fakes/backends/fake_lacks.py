"""A backend that finds out while it builds that it has no kernel for a model."""

from harness.backends._numpy_engine import NumpyBackend

BACKEND = NumpyBackend("fake-lacks", fault="lacks")
