"""Any number of classes a sample: mean average precision, F1."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, MeasurementError
from harness.protocols import Sample, Tensors
from harness.records import MetricScore
from harness.tasks._metrics import Counts, Floats, Naming, Ratios, Slicing, whole_score
from harness.tasks._precision import Ranking, mean_over_classes, ranked_precision
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

NAME = "multi-label"
MAP = Naming(name="mAP", summary="mean over the classes of average precision")
F1 = Naming(name="F1", summary="harmonic mean of precision and recall, over all classes together")
MACRO_F1 = Naming(name="macro F1", summary="mean over the classes of F1")


class LabelScores:
    """Scores a probability a class; a class is found where it is above the threshold."""

    def __init__(self, settings: Settings) -> None:
        """Begin without samples."""
        self._settings = settings
        self._outputs: list[Floats] = []
        self._targets: list[NDArray[np.bool_]] = []

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Take the outputs of one sample; its target is a list of class indices, or bool[K]."""
        output = output_of(outputs, self._settings[OUTPUT], task=NAME).astype(np.float64).reshape(-1)
        if self._outputs and output.size != self._outputs[0].size:
            first = self._outputs[0].size
            raise DataError(f"sample {sample.id}: the output has {output.size} classes, that of the first {first}")
        target = np.asarray(target_of(sample, "labels", task=NAME))
        if target.dtype == np.bool_:
            if target.shape != output.shape:
                raise DataError(
                    f"sample {sample.id}: the target has {target.size} classes and the output {output.size}"
                )
            is_there = target
        else:
            is_there = np.zeros(output.size, np.bool_)
            for one in target.reshape(-1):
                is_there[class_of(one, sample, n_classes=output.size)] = True
        self._outputs.append(output)
        self._targets.append(is_there)

    def scores(self) -> tuple[MetricScore, ...]:
        """Return mAP, F1 and macro F1. Raises: MeasurementError without samples, or without any label."""
        if not self._outputs:
            raise MeasurementError(f"task {NAME}: no sample was scored")
        outputs, targets = np.stack(self._outputs), np.stack(self._targets)
        found = outputs > float(str(self._settings["threshold"]))
        micro, macro, slicing = Ratios(), Ratios(), Slicing("recall")
        own = []
        for row, (ours, theirs) in enumerate(zip(found, targets, strict=True)):
            both, either = 2.0 * (ours & theirs), ours.astype(np.float64) + theirs
            micro.add({0: (float(both.sum()), float(either.sum()))})
            macro.add({int(c): (float(both[c]), float(either[c])) for c in np.flatnonzero(either)})
            own.append(float(both.sum() / either.sum()) if either.any() else 1.0)
            slicing.add(row, {int(c): float(ours[c]) for c in np.flatnonzero(theirs)})
        slices = slicing.slices(names_of_classes(self._settings["classes"], outputs.shape[1]))
        rankings = _rankings(outputs, targets)
        scores = [whole_score(MAP, partial(_mean_precision, rankings), own, slices)]
        if found.any() or targets.any():
            scores += [whole_score(F1, micro, own), whole_score(MACRO_F1, macro, own)]
        return tuple(scores)


def _rankings(outputs: Floats, targets: NDArray[np.bool_]) -> list[Ranking]:
    """Return the ranking of every class that a sample holds. `outputs`, `targets`: [N, K]."""
    rows = np.arange(len(outputs))
    return [
        Ranking.of(rows, outputs[:, c], targets[None, :, c], targets[:, c].astype(np.float64))
        for c in np.flatnonzero(targets.any(axis=0))
    ]


def _mean_precision(rankings: list[Ranking], counts: Counts) -> Floats:
    return mean_over_classes([ranked_precision(ranking, counts) for ranking in rankings], len(counts))


TASK = SampleTask(
    name=NAME,
    summary="any number of classes a sample",
    make=LabelScores,
    metrics=(MAP.name, F1.name, MACRO_F1.name),
    reads=one_output,
    settings=(
        CLASSES,
        threshold("a class is found where its output is above it (of logits: 0)"),
    ),
)
