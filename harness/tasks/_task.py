"""What a task is: a name, and how the outputs of a batch become the results of its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.tasks._samples import SampleTask


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """Per-image results of one batch."""

    predictions: NDArray[np.int64]  # int64[N]
    top1: NDArray[np.bool_]  # bool[N]
    top5: NDArray[np.bool_]  # bool[N]
    margins: NDArray[np.float32]  # float32[N]: largest minus second largest, at most that of float32
    n_ties_top1: int
    n_ties_top5: int
    top1_last: NDArray[np.bool_] | None = None  # bool[N]: top-1 if ties went to the last class; None: there are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One meaning of an output; a file in harness/tasks/ offers it as TASK.

    `score(outputs, labels)` takes float32[N, K] and int64[N] and returns the results of the N images. Pure.
    """

    name: str
    summary: str
    score: Callable[[NDArray[np.float32], NDArray[np.int64]], TopK]
    samples: SampleTask | None = None  # the same meaning of a model whose inputs are no batch of images
