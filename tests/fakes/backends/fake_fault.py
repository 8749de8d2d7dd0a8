"""A fake backend that fails at one stage in one way; see `_faults`."""

from harness.backends._faults import happen
from harness.backends._numpy_engine import FaultyBackend

happen("import")
BACKEND = FaultyBackend("fake-fault")
