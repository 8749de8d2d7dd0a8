"""A fake backend that fails at one stage in one way; see `_faults`."""

from harness.backends._faults import happen
from harness.backends._tensor_engine import FaultyGraphs

happen("import")
BACKEND = FaultyGraphs("fake-fault")
