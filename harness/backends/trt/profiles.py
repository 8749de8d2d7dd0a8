"""Optimization profiles: by batch for images, by named shapes for models of any graph. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.errors import BuildError
from harness.specs import ModelTensors

Profiles = tuple[tuple[int, int, int], ...]
Shapes = Mapping[str, tuple[int, ...]]


def choose_profiles(batch_sizes: tuple[int, ...], asked: Profiles) -> Profiles:
    """Return (min, opt, max) batches: those asked for, or one a batch size, each tuned for it alone.

    One that was tuned for a large batch may run a small one at half its speed (docs/latency.md). That of the largest
    reaches down to 1, because the last batch of a data set may be any size. Raises: BuildError for a batch size that no
    profile takes.
    """
    *small, largest = sorted(set(batch_sizes))
    profiles = asked or (*((size, size, size) for size in small), (1, largest, largest))
    for batch in batch_sizes:
        if not any(low <= batch <= high for low, _, high in profiles):
            raise BuildError(f"batch {batch} lies in no profile ({describe_profiles(profiles)}); add one that takes it")
    return profiles


def describe_profiles(profiles: Profiles) -> str:
    """Return profiles as text, for example `1..100 (opt 100)`."""
    return ", ".join(f"{low}..{high} (opt {best})" for low, best, high in profiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProfile:
    """The smallest, tuned and largest shapes of named inputs."""

    low: Shapes
    best: Shapes
    high: Shapes

    def takes(self, shapes: Shapes) -> bool:
        """Tell whether an engine's profile takes some inputs."""
        return all(
            len(shape) == len(self.low[name])
            and all(low <= size <= high for low, size, high in zip(self.low[name], shape, self.high[name], strict=True))
            for name, shape in shapes.items()
            if name in self.low
        )

    def distance(self, shapes: Shapes) -> int:
        """Return how far inputs are from those it is tuned for [sizes of axes]."""
        return sum(
            abs(size - best)
            for name, shape in shapes.items()
            if name in self.best
            for size, best in zip(shape, self.best[name], strict=True)
        )

    @property
    def text(self) -> str:
        """Return it as text, for example `ids 1x16..4x16 (opt 4x16)`."""
        parts = (
            f"{name} {shape_text(self.low[name])}..{shape_text(self.high[name])} (opt {shape_text(self.best[name])})"
            for name in self.best
        )
        return " ".join(parts)


def shape_text(shape: tuple[int, ...]) -> str:
    """Return `1x16` for (1, 16)."""
    return "x".join(map(str, shape)) or "scalar"


def shape_profiles(tensors: ModelTensors, batch_sizes: tuple[int, ...], asked: Profiles) -> tuple[ShapeProfile, ...]:
    """Return the profiles of a model of any graph, with every one of its inputs.

    Where smallest or largest shapes are given there is one, from these over all that is run; else one a batch size, as
    images have them. Raises: BuildError for a batch size that no profile takes.
    """
    if any(one.min_shape or one.max_shape for one in tensors.inputs):
        sizes = (1, *batch_sizes) if tensors.is_stackable else (1,)
        run = [tensors.shapes(size) for size in sizes]
        low = {one.name: one.min_shape or one.shape for one in tensors.inputs}
        high = {one.name: one.max_shape or one.shape for one in tensors.inputs}
        return (
            ShapeProfile(
                low={name: _over(min, shape, *(shapes[name] for shapes in run)) for name, shape in low.items()},
                best=tensors.shapes(max(sizes)),
                high={name: _over(max, shape, *(shapes[name] for shapes in run)) for name, shape in high.items()},
            ),
        )
    by_batch = choose_profiles(batch_sizes, asked) if tensors.is_stackable else ((1, 1, 1),)
    return tuple(
        ShapeProfile(low=tensors.shapes(low), best=tensors.shapes(best), high=tensors.shapes(high))
        for low, best, high in by_batch
    )


def _over(choose: Callable[[tuple[int, ...]], int], *shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(choose(sizes) for sizes in zip(*shapes, strict=True))
