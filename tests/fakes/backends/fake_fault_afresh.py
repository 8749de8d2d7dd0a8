"""As fake-fault, its engines timed in processes of their own."""

from harness.backends._tensor_engine import FaultyAfresh

BACKEND = FaultyAfresh("fake-fault-afresh")
