"""The worst class: one that lost much, though the whole hardly moved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.records import Accuracy, MetricSlices, percent, points
from harness.stats import holm_p, mcnemar_p, sign_flip_p


def worst_slice(ours: MetricSlices | None, theirs: MetricSlices | None, *, alpha: float) -> str:
    """Name the class that lost most, of those whose loss is significant among all classes; "" where there is none.

    Both sides hold the same rows, because targets alone decide which there are; where they do not, nothing is said.
    Source: the sign-flip test in every class, S. Holm's correction over the classes (Scand. J. Statist. 6 (1979) 65).
    """
    if ours is None or theirs is None or ours.names != theirs.names or ours.of != theirs.of:
        return ""
    rows, groups = ours.rows.array(), ours.groups.array().astype(np.int64)
    if not (np.array_equal(rows, theirs.rows.array()) and np.array_equal(groups, theirs.groups.array())):
        return ""
    sign = -1.0 if ours.higher_is_better else 1.0
    before, now = (side.values.array().astype(np.float64) for side in (theirs, ours))
    losses = sign * (now - before)
    present = np.unique(groups)
    of_classes = [losses[groups == group] for group in present]
    p_values = holm_p([sign_flip_p(of_class) for of_class in of_classes])
    place = _largest(np.asarray([of_class.mean() for of_class in of_classes]), p_values, alpha=alpha)
    if place is None:
        return ""
    is_of = groups == present[place]
    is_rate = bool(((before >= 0) & (before <= 1) & (now >= 0) & (now <= 1)).all())
    name, n = ours.names[int(present[place])], int(is_of.sum())
    mean_before, mean_now = float(before[is_of].mean()), float(now[is_of].mean())
    told = _told(name, n, mean_before, mean_now, is_rate=is_rate, of=ours.of)
    return f"{told} (p = {p_values[place]:.2g} among the classes)"


def worst_class(ours: Accuracy, theirs: Accuracy, *, alpha: float) -> str:
    """Name the class of images that lost most top-1, as `worst_slice`; both are of the same images."""
    labels, hits, hits_before = ours.labels.array().astype(np.int64), ours.hits(), theirs.hits()
    if (hits == hits_before).all():
        return ""
    kept = ours.are_first()
    labels, hits, hits_before = labels[kept], hits[kept], hits_before[kept]
    n_classes = int(labels.max()) + 1
    lost = np.bincount(labels[hits_before & ~hits], minlength=n_classes)
    gained = np.bincount(labels[hits & ~hits_before], minlength=n_classes)
    sizes = np.bincount(labels, minlength=n_classes)
    present = np.flatnonzero(sizes)
    p_values = holm_p([mcnemar_p(int(lost[c]), int(gained[c])) for c in present])
    net = (lost - gained)[present] / sizes[present]
    worst = _largest(net, p_values, alpha=alpha)
    if worst is None:
        return ""
    name = int(present[worst])
    right = np.bincount(labels[hits_before], minlength=n_classes)[name] / sizes[name]
    told = _told(str(name), int(sizes[name]), float(right), float(right - net[worst]), is_rate=True, of="recall")
    return f"{told} (p = {p_values[worst]:.2g} among the classes)"


def _largest(losses: NDArray[np.float64], p_values: NDArray[np.float64], *, alpha: float) -> int | None:
    """Return the place of the largest loss that is significant, None where none is."""
    is_lost = (losses > 0) & (p_values <= alpha)
    return int(np.argmax(np.where(is_lost, losses, -np.inf))) if is_lost.any() else None


def _told(name: str, n: int, before: float, now: float, *, is_rate: bool, of: str) -> str:
    if is_rate:
        moved = f"lost {points(abs(before - now))} of {of} ({percent(before).removesuffix(' %')} -> {percent(now)})"
    else:
        moved = f"{of} {before:.3g} -> {now:.3g}"
    return f"class {name} {moved} on {n} samples"
