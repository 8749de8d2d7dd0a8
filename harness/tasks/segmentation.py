"""A class a pixel: mean intersection over union, share of right pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.protocols import Sample, Tensors
from harness.records import MetricScore
from harness.tasks._metrics import Naming, Ratios, Slicing, mean_score, whole_score
from harness.tasks._samples import (
    CLASSES,
    OUTPUT,
    SampleTask,
    Setting,
    Settings,
    names_of_classes,
    one_output,
    output_of,
    target_of,
    threshold,
)

NAME = "segmentation"
MIOU = Naming(name="mIoU", summary="mean over the classes of intersection over union, both summed over the set")
PIXELS = Naming(name="pixel accuracy", summary="mean over the samples of the share of their pixels that is right")
IGNORED = 255  # the customary label of pixels that do not count


class PixelScores:
    """Scores a class a pixel.

    The output holds a score a class, [C, H, W] (layout CHW) or [H, W, C] (HWC), or the classes themselves, [H, W].
    Source of the mean intersection over union: M. Everingham et al., IJCV 88 (2010) 303, section 4.2.
    """

    def __init__(self, settings: Settings) -> None:
        """Begin without samples."""
        self._settings = settings
        self._ratios, self._slices = Ratios(), Slicing("IoU")
        self._own: list[float] = []
        self._right: list[float] = []
        self._n_classes = 0

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Take the outputs of one sample; its target is int[H, W]."""
        target = np.asarray(target_of(sample, "mask", task=NAME))
        if target.ndim != 2 or not np.issubdtype(target.dtype, np.integer):
            raise DataError(
                f"sample {sample.id}: the mask is {target.dtype}{list(target.shape)}; expected a class a pixel, [H, W]"
            )
        found = self._classes(output_of(outputs, self._settings[OUTPUT], task=NAME), sample)
        if found.shape != target.shape:
            found = self._resized(found, target.shape, sample)
        counts = target != self._settings["ignore"]
        if not counts.any():
            raise DataError(f"sample {sample.id}: no pixel of its mask counts")
        ours, theirs = found[counts].astype(np.int64), target[counts].astype(np.int64)
        n_classes = max(int(theirs.max()), int(ours.max())) + 1
        if theirs.min() < 0:
            raise DataError(f"sample {sample.id}: its mask holds class {theirs.min()}")
        self._n_classes = max(self._n_classes, n_classes)
        shared = np.bincount(theirs[ours == theirs], minlength=n_classes)
        in_target, in_found = (np.bincount(side, minlength=n_classes) for side in (theirs, ours))
        union = in_target + in_found - shared
        parts = {int(c): (float(shared[c]), float(union[c])) for c in np.flatnonzero(union)}
        self._ratios.add(parts)
        self._own.append(float(np.mean([above / below for above, below in parts.values()])))
        self._right.append(float(shared.sum() / theirs.size))
        present = np.flatnonzero(in_target)  # targets alone say which classes a sample has
        self._slices.add(len(self._own) - 1, {int(c): float(shared[c] / union[c]) for c in present})

    def scores(self) -> tuple[MetricScore, ...]:
        """Return mIoU and the share of right pixels."""
        names = names_of_classes(self._settings["classes"], self._n_classes)
        miou = whole_score(MIOU, self._ratios, self._own, self._slices.slices(names))
        return miou, mean_score(PIXELS, self._right)

    def _classes(self, output: NDArray[np.generic], sample: Sample) -> NDArray[np.int64]:
        is_classes = np.issubdtype(output.dtype, np.integer)
        expected = 2 if is_classes else 3
        array = output
        while array.ndim > expected and array.shape[0] == 1:
            array = array[0]
        if array.ndim != expected:
            told = "[H, W]" if is_classes else str(self._settings["layout"])
            raise DataError(f"sample {sample.id}: the output is {output.dtype}{list(output.shape)}; expected {told}")
        if is_classes:
            return array.astype(np.int64)
        axis = 0 if self._settings["layout"] == "CHW" else 2
        if array.shape[axis] == 1:  # one score a pixel: two classes
            is_one = array.astype(np.float64).squeeze(axis) > float(str(self._settings["threshold"]))
            return np.asarray(is_one, np.int64)
        return np.asarray(array.argmax(axis=axis), np.int64)

    def _resized(self, found: NDArray[np.int64], shape: tuple[int, ...], sample: Sample) -> NDArray[np.int64]:
        """Return the classes at the size of the mask, each pixel that of the nearest one."""
        if not self._settings["resize"]:
            raise DataError(
                f"sample {sample.id}: the output has {found.shape[0]}x{found.shape[1]} pixels and the mask "
                f"{shape[0]}x{shape[1]}; set [task] resize = true to take the nearest"
            )
        rows, columns = (
            ((np.arange(n) + 0.5) * size / n).astype(np.int64) for n, size in zip(shape, found.shape, strict=True)
        )
        resized: NDArray[np.int64] = found[rows[:, None], columns[None, :]]
        return resized


TASK = SampleTask(
    name=NAME,
    summary="a class a pixel",
    make=PixelScores,
    metrics=(MIOU.name, PIXELS.name),
    reads=one_output,
    settings=(
        CLASSES,
        Setting(name="layout", summary="the axes of scores", default="CHW", choices=("CHW", "HWC")),
        Setting(name="ignore", summary="the label of pixels that do not count", kinds=(int,), default=IGNORED),
        Setting(name="resize", summary="whether an output of another size is resized", kinds=(bool,), default=False),
        threshold("of one score a pixel: class 1 is above it"),
    ),
)
