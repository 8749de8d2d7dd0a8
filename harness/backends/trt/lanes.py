"""The execution contexts of one engine: one a profile for single batches and timing, further ones to overlap."""

from __future__ import annotations

import functools
from typing import Any

from harness.backends._cuda.ring import Slot
from harness.backends.trt.context import BatchLane, lane_limits, pick_lane
from harness.backends.trt.loaded import LoadedPlan
from harness.records import TensorSpec

# Overlapping pays for engines that leave most of the GPU idle; a larger plan is not loaded several times [bytes].
LARGEST_COPY = 256 << 20


class Lanes:
    """All contexts of one engine.

    Scoring overlaps inferences, and each needs a context of its own: further ones on the same profile where TensorRT
    allows that (10 and later), else on copies of the engine, loaded from the same plan.
    """

    def __init__(self, loaded: LoadedPlan) -> None:
        self._loaded = loaded
        self.main: list[BatchLane] = []
        self._copies: dict[int, Any] = {}  # slot -> a copy of the engine
        self._spare: dict[tuple[int, int], BatchLane] = {}  # (profile, slot) -> its context
        self._shares_profiles = loaded.plan.options.get("profile_sharing") == "on"
        self.overlaps = len(loaded.plan.data) <= LARGEST_COPY or self._shares_profiles
        self.n_contexts, self.n_engines = 0, 0  # most alive at a time

    def open(self, source: TensorSpec, stream: Any) -> None:
        """Make one context a profile. Raises: BuildError."""
        self.main = [
            BatchLane(self._loaded.new_context, index=index, limits=limits, lines=self._loaded.lines)
            for index, limits in enumerate(lane_limits(self._loaded.engine, source))
        ]
        for lane in self.main:
            lane.open(stream)
        self.n_contexts, self.n_engines = len(self.main), 1

    @property
    def largest_batch(self) -> int:
        """Return the largest batch that a profile takes [images]."""
        return max(lane.high for lane in self.main)

    def pick(self, n_images: int) -> BatchLane:
        """Return the context that runs a batch alone. Raises: MeasurementError when no profile takes it."""
        return pick_lane(self.main, n_images)

    def of_slot(self, slot: Slot) -> BatchLane:
        """Return the context that runs a slot's batch: one of its own, so that inferences of slots may overlap.

        Raises: BuildError when there is no memory for it, for example; `take_turns` is the answer.
        """
        lane = self.pick(slot.n_images)
        if slot.index == 0 or not self.overlaps:
            return lane
        key = (lane.index, slot.index)
        if key not in self._spare:
            make = functools.partial(self._context_of_slot, slot.index)
            spare = BatchLane(make, index=lane.index, limits=(lane.low, lane.best, lane.high), lines=self._loaded.lines)
            spare.open(slot.compute)
            self._spare[key] = spare
            self.n_contexts = max(self.n_contexts, len(self.main) + len(self._spare))
            self.n_engines = max(self.n_engines, 1 + len(self._copies))
        return self._spare[key]

    def take_turns(self) -> None:
        """Let all slots run in one context from now on, one after the other."""
        self.overlaps = False
        self._close_spare()

    def close(self) -> None:
        """Drop all contexts, and copies of the engine."""
        self._close_spare()
        for lane in self.main:
            lane.close()
        self.main = []

    def _context_of_slot(self, index: int) -> Any:
        """Return a further context: on the same profile where that is allowed, else on the slot's copy."""
        if self._shares_profiles:
            return self._loaded.new_context()
        if index not in self._copies:
            self._copies[index] = self._loaded.deserialized()
        return self._copies[index].create_execution_context()

    def _close_spare(self) -> None:
        for spare in self._spare.values():
            spare.close()
        self._spare, self._copies = {}, {}
