"""The legacy calibrator's two numbers by a grid search on the engines themselves: an engine is built for every pair.

Each is calibrated on the first four fifths of the calibration images and judged on the last fifth, which nothing is
scored on, by how its outputs differ from those of a TensorRT engine in FP32. Every build reads the images anew:
TensorRT's Python bindings take no histogram cache back (docs/tensorrt.md).

Every engine is kept in the content cache until the search has ended, so that one that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

from harness.backends._cuda.device import Gpu
from harness.backends.trt.api import LEGACY_RECIPE, SEARCH_RECIPE
from harness.backends.trt.build import Plan
from harness.backends.trt.builder import Builder
from harness.backends.trt.steps import KIND, Steps
from harness.errors import BuildError
from harness.precision.grid import Judged, best_in_words, best_of, grid_text, held_apart, judged
from harness.protocols import CalibrationSet, TellsProgress
from harness.specs import Precision

QUANTILES = (0.99, 0.999, 0.9999, 0.99999, 0.999999)
CUTOFFS = (0.5, 0.75, 1.0)
GRID = tuple(product(QUANTILES, CUTOFFS))


class Search:
    """The search of one artifact's recipe; of any other recipe there is nothing to search."""

    def __init__(
        self, builder: Builder, calibration: CalibrationSet | None, gpu: Gpu, another: Callable[[], Gpu]
    ) -> None:
        """`another` opens the GPU once more, for engines that close theirs."""
        self._builder, self._calibration, self._gpu = builder, calibration, gpu
        self._steps = Steps(builder.caches.of(KIND), gpu, another)

    def made_plan(self) -> Plan:
        """Return the plan of the artifact: built, or the best of many; `build_ns` is then that of all builds.

        Raises: BuildError.
        """
        builder = self._builder
        if builder.artifact.recipe != SEARCH_RECIPE:
            return builder.build(self._calibration, self._gpu)
        if builder.trt.quantile is not None or builder.trt.cutoff is not None:
            raise BuildError(
                f"{builder.label}: recipe {SEARCH_RECIPE} chooses quantile and cutoff itself; {LEGACY_RECIPE} takes "
                "them"
            )
        measured, held_out = held_apart(self._calibration, f"{builder.label}: recipe {SEARCH_RECIPE}")
        self._tell(0)
        chosen, fp32 = self._steps.take(builder.like(Precision.FP32, "none"), None, held_out)
        grid: list[Judged] = []
        build_ns = 0
        for quantile, cutoff in GRID:
            self._tell(len(grid) + 1)
            legacy = builder.like(Precision.INT8, LEGACY_RECIPE, quantile=quantile, cutoff=cutoff)
            plan, outputs = self._steps.take(legacy, measured, held_out)
            build_ns += plan.build_ns
            grid.append(judged(quantile, cutoff, outputs, fp32))
            chosen = plan if best_of(grid) is grid[-1] else chosen
        self._tell(len(GRID) + 1)
        words = best_in_words(best_of(grid), len(GRID), held_out.n_images)
        return replace(
            chosen,
            build_ns=build_ns,
            calibration_method=f"legacy search: {words}",
            notes=(*chosen.notes, f"built {len(GRID)} times in search of a quantile and a cutoff: {grid_text(grid)}"),
            warnings=(*chosen.warnings, *self._steps.warnings),
        )

    def forget(self) -> None:
        """Take the engines of the search out of the cache: the chosen one is kept elsewhere by now."""
        self._steps.forget()

    def _tell(self, n_done: int) -> None:
        """Say how many engines are done: a sign of life, and the limit of the stage is for one engine."""
        if isinstance(self._calibration, TellsProgress):
            self._calibration.tell(n_done, len(GRID) + 1)
