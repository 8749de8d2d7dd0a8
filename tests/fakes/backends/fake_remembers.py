"""A backend whose times depend on what its process has built or run before."""

from harness.backends._numpy_engine import NumpyBackend

BACKEND = NumpyBackend("fake-remembers", fault="remembers")
BACKEND.is_timed_afresh = True
