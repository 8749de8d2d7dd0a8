"""One class a sample, from any named output: top-1, top-5, class-balanced accuracy, recall of every class."""

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
    Settings,
    class_of,
    names_of_classes,
    one_output,
    output_of,
    target_of,
    threshold,
)

NAME = "classification"
TOP_K = 5
TOP1 = Naming(name="top-1", summary="samples whose largest output is their class")
TOP5 = Naming(name="top-5", summary="samples whose class is among the five largest outputs")
BALANCED = Naming(name="balanced accuracy", summary="mean over the classes of the share of their samples that is right")


class ClassScores:
    """Scores one class a sample.

    An output of more than one number holds a score a class; one whole number is the class itself; one number with a
    fraction is the probability of class 1 of 2 (of a logit: `threshold = 0`).
    """

    def __init__(self, settings: Settings) -> None:
        """Begin without samples."""
        self._settings = settings
        self._top1: list[bool] = []
        self._top5: list[bool] = []
        self._balanced, self._recall = Ratios(), Slicing("recall")
        self._n_classes = 2
        self._has_ranks = True

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Take the outputs of one sample."""
        output = output_of(outputs, self._settings[OUTPUT], task=NAME).reshape(-1)
        if output.size == 0:
            raise DataError(f"sample {sample.id}: the output is empty")
        is_class = output.size == 1 and np.issubdtype(output.dtype, np.integer)
        label = class_of(
            target_of(sample, "label", task=NAME), sample, n_classes=None if is_class else max(output.size, 2)
        )
        order = _ranked(output, threshold=self._settings["threshold"])
        self._has_ranks = self._has_ranks and not is_class and output.size > TOP_K
        self._n_classes = max(self._n_classes, label + 1, int(order.max()) + 1, output.size)
        is_right = bool(order[0] == label)
        self._top1.append(is_right)
        self._top5.append(bool((order[:TOP_K] == label).any()))
        self._balanced.add({label: (float(is_right), 1.0)})
        self._recall.add(len(self._top1) - 1, {label: float(is_right)})

    def scores(self) -> tuple[MetricScore, ...]:
        """Return top-1, top-5 where there are more than five classes, and class-balanced accuracy."""
        names = names_of_classes(self._settings["classes"], self._n_classes)
        top1 = mean_score(TOP1, self._top1, self._recall.slices(names))
        balanced = whole_score(BALANCED, self._balanced, np.asarray(self._top1, np.float64))
        top5 = (mean_score(TOP5, self._top5),) if self._has_ranks else ()
        return (top1, *top5, balanced)


def _ranked(output: NDArray[np.generic], *, threshold: object) -> NDArray[np.int64]:
    """Return the classes in the order of their scores, the first of equal ones first."""
    if output.size > 1:
        return np.argsort(-output.astype(np.float64), kind="stable")
    if np.issubdtype(output.dtype, np.integer):
        return output.astype(np.int64)
    is_one = bool(output.astype(np.float64)[0] > float(str(threshold)))
    return np.asarray([1, 0] if is_one else [0, 1], np.int64)


CLASSES_OF_SAMPLES = SampleTask(
    name=NAME,
    summary="one class a sample: the largest output",
    make=ClassScores,
    metrics=(TOP1.name, TOP5.name, BALANCED.name),
    reads=one_output,
    settings=(
        CLASSES,
        threshold("of an output of one number: class 1 is above it"),
    ),
)
