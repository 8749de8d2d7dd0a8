"""A backend whose engine notes something when it runs and finds a damaged plan when it is built."""

from harness.backends._numpy_engine import NumpyBackend

BACKEND = NumpyBackend("fake-tells", fault="tells")
