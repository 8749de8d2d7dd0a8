"""Boxes with a class: COCO's mean average precision; pycocotools matches boxes, and is imported when it is used."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError, MeasurementError
from harness.protocols import IMAGE, Sample, Tensors
from harness.records import MetricScore
from harness.tasks._boxes import NAME, SEPARATE, Boxes, Floats, boxes_of, outputs_read
from harness.tasks._metrics import Counts, Naming, Slicing, whole_scores
from harness.tasks._precision import Ranking, coco_precision, mean_over_classes
from harness.tasks._samples import CLASSES, SampleTask, Setting, Settings, numbers_of

MAP = Naming(name="mAP", summary="mean of average precision over the classes and over overlaps of 0.50 to 0.95")
MAP50 = Naming(name="mAP@50", summary="mean over the classes of average precision at an overlap of 0.50")
MAP75 = Naming(name="mAP@75", summary="mean over the classes of average precision at an overlap of 0.75")
AT_50, AT_75 = 0, 5  # places among COCO's overlaps
OWN_SCORE = 0.25  # what a sample scores alone counts boxes of at least this score
MAX_DETECTIONS = 100  # a sample and class, as COCO has it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _There:
    """The boxes that a sample holds."""

    corners: Floats  # float64[G, 4]
    categories: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    areas: Floats


class BoxScores:
    """Scores boxes: matches by pycocotools, on all sizes of boxes, at most 100 a sample and class."""

    def __init__(self, settings: Settings) -> None:
        """Begin without samples. Raises: ConfigError where pycocotools is not installed."""
        if importlib.util.find_spec("pycocotools") is None:
            raise ConfigError("task detection needs pycocotools: pip install 'nn-engine-harness[detection]'")
        self._settings = settings
        self._found: list[Boxes] = []
        self._there: list[_There] = []
        self._names: dict[int, str] = {}

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Take the outputs of one sample. Its target has `boxes` [G, 4] (corners, pixels) and `labels` [G]."""
        there = _there_of(sample)
        categories = sample.target.get("categories") if isinstance(sample.target, Mapping) else None
        found = boxes_of(outputs, self._settings, sample_id=sample.id, size=_size_of(sample))
        if not (np.isfinite(found.corners).all() and np.isfinite(found.scores).all()):
            raise MeasurementError(f"sample {sample.id}: a box or score is not finite")
        if isinstance(categories, Mapping):
            self._names.update({int(number): str(name) for number, name in categories.items()})
        self._there.append(there)
        self._found.append(
            Boxes(corners=found.corners, scores=found.scores, classes=self._categories(found.classes, sample))
        )

    def scores(self) -> tuple[MetricScore, ...]:
        """Return mAP, mAP@50, mAP@75. Raises: MeasurementError without samples, or without a box to be found."""
        if not any((~there.is_crowd).any() for there in self._there):
            raise MeasurementError(f"task {NAME}: no sample holds a box to be found")
        matches = _matches(self._there, self._found)
        own, slicing = _own(matches, len(self._there))
        names = self._names_of_all([match.category for match in matches])
        for place, match in enumerate(matches):
            for row in np.flatnonzero(match.n_there):
                slicing.add(int(row), {place: match.f1_of(int(row))})
        rankings = [match.ranking() for match in matches]
        return whole_scores([MAP, MAP50, MAP75], partial(_precisions, rankings), own, slicing.slices(names))

    def _categories(self, classes: NDArray[np.int64], sample: Sample) -> NDArray[np.int64]:
        """Return the categories of a model's classes: by name where both sides have names, else by number."""
        given = self._settings["classes"]
        if isinstance(given, list) and self._names:
            by_name = {name: number for number, name in self._names.items()}
            if classes.size and classes.max() >= len(given):
                told = f"class {classes.max()} has no name; [task] classes has {len(given)}"
                raise DataError(f"sample {sample.id}: {told}")
            numbers = np.asarray([by_name.get(str(name), -1) for name in given], np.int64)
            return numbers[classes]
        return classes + int(str(self._settings["label_offset"]))

    def _names_of_all(self, categories: list[int]) -> list[str]:
        given, offset = self._settings["classes"], int(str(self._settings["label_offset"]))
        if isinstance(given, list) and not self._names:
            named = {offset + place: str(name) for place, name in enumerate(given)}
            return [named.get(number, str(number)) for number in categories]
        return [self._names.get(number, str(number)) for number in categories]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Matches:
    """All boxes of one category, matched at COCO's overlaps."""

    category: int
    rows: NDArray[np.int64]  # int64[M]: place of the sample
    scores: Floats
    is_right: NDArray[np.bool_]  # bool[T, M]
    counts: NDArray[np.bool_]  # bool[T, M]
    n_there: Floats  # float64[N], crowds left out

    def ranking(self) -> Ranking:
        """Return them by score."""
        return Ranking.of(self.rows, self.scores, self.is_right, self.n_there, self.counts)

    def counted(self, row: int) -> tuple[float, float]:
        """Return (right boxes, boxes) of a sample at an overlap of 0.50, of those that are shown."""
        is_shown = (self.rows == row) & (self.scores >= OWN_SCORE) & self.counts[AT_50]
        return float((self.is_right[AT_50] & is_shown).sum()), float(is_shown.sum())

    def f1_of(self, row: int) -> float:
        """Return F1 of a sample."""
        n_right, n_found = self.counted(row)
        return 2 * n_right / (n_found + float(self.n_there[row]))


def _own(matches: list[_Matches], n_samples: int) -> tuple[Floats, Slicing]:
    """Return F1 of every sample over all categories at an overlap of 0.50, and an empty slicing."""
    right, both = np.zeros(n_samples), np.zeros(n_samples)
    for match in matches:
        is_shown = (match.scores >= OWN_SCORE) & match.counts[AT_50]
        right += np.bincount(match.rows[is_shown & match.is_right[AT_50]], minlength=n_samples)
        both += np.bincount(match.rows[is_shown], minlength=n_samples) + match.n_there
    own = np.divide(2 * right, both, out=np.ones(n_samples), where=both > 0)  # nothing there, nothing found: right
    return own, Slicing("F1 at an overlap of 0.50")


def _precisions(rankings: list[Ranking], counts: Counts) -> Floats:
    """Return float64[R, 3]: mAP, mAP@50, mAP@75."""
    of_classes = [coco_precision(ranking, counts) for ranking in rankings]
    per_overlap = np.stack(
        [mean_over_classes([one[:, t] for one in of_classes], len(counts)) for t in range(of_classes[0].shape[1])],
        axis=1,
    )
    return np.stack([per_overlap.mean(axis=1), per_overlap[:, AT_50], per_overlap[:, AT_75]], axis=1)


def _matches(there: list[_There], found: list[Boxes]) -> list[_Matches]:
    """Match boxes by pycocotools; one entry a category that a sample holds."""
    from pycocotools.cocoeval import COCOeval

    categories = sorted({int(c) for one in there for c in one.categories[~one.is_crowd]})
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation = COCOeval(_as_coco(there, categories), _as_coco(found, categories), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
    n, n_overlaps = len(there), len(evaluation.params.iouThrs)
    matches = []
    for place, category in enumerate(categories):
        parts = [(row, one) for row, one in enumerate(evaluation.evalImgs[place * n : (place + 1) * n]) if one]
        n_there = np.zeros(n)
        for row, one in parts:
            n_there[row] = np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)
        rows = [np.full(len(one["dtScores"]), row, np.int64) for row, one in parts]
        right = [np.asarray(one["dtMatches"]).reshape(n_overlaps, -1) > 0 for _, one in parts]
        ignored = [np.asarray(one["dtIgnore"]).reshape(n_overlaps, -1).astype(np.bool_) for _, one in parts]
        matches.append(
            _Matches(
                category=category,
                rows=np.concatenate(rows),
                scores=np.concatenate([np.asarray(one["dtScores"], np.float64) for _, one in parts]),
                is_right=np.concatenate(right, axis=1),
                counts=~np.concatenate(ignored, axis=1),
                n_there=n_there,
            )
        )
    return matches


def _entries(side: _There | Boxes) -> list[dict[str, Any]]:
    """Return boxes as COCO writes them, without their ids."""
    entries = [
        {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top), "iscrowd": 0}
        for left, top, right, bottom in side.corners.tolist()
    ]
    if isinstance(side, _There):
        rows = zip(entries, side.categories.tolist(), side.areas.tolist(), side.is_crowd.tolist(), strict=True)
        return [{**one, "category_id": c, "area": area, "iscrowd": int(crowd)} for one, c, area, crowd in rows]
    found = zip(entries, side.classes.tolist(), side.scores.tolist(), strict=True)
    return [{**one, "category_id": c, "score": score} for one, c, score in found]


def _as_coco(sides: Sequence[_There | Boxes], categories: list[int]) -> Any:
    from pycocotools.coco import COCO

    entries = [{**one, "image_id": row} for row, side in enumerate(sides) for one in _entries(side)]
    annotations = [{**one, "id": place} for place, one in enumerate(entries, start=1)]  # 0 would read as "no match"
    coco = COCO()
    coco.dataset = {
        "images": [{"id": row} for row in range(len(sides))],
        "categories": [{"id": number} for number in categories],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _there_of(sample: Sample) -> _There:
    """Read a target. Raises: DataError for another form."""
    target = sample.target
    if not isinstance(target, Mapping) or "boxes" not in target or "labels" not in target:
        raise DataError(f"sample {sample.id}: its target has no boxes and labels, which task {NAME} needs")
    corners = numbers_of(target["boxes"], sample).reshape(-1, 4)
    labels = np.asarray(target["labels"]).reshape(-1)
    if labels.size != len(corners) or not (labels.size == 0 or np.issubdtype(labels.dtype, np.integer)):
        raise DataError(f"sample {sample.id}: {len(corners)} boxes have {labels.size} labels; expected one number each")
    if (corners[:, 2:] < corners[:, :2]).any():
        raise DataError(f"sample {sample.id}: a box ends before it begins; expected left, top, right, bottom")
    sides = corners[:, 2:] - corners[:, :2]
    areas = numbers_of(target["area"], sample).reshape(-1) if "area" in target else np.prod(sides, axis=1)
    crowd = np.asarray(target.get("iscrowd", np.zeros(labels.size)), np.bool_).reshape(-1)
    if not areas.size == crowd.size == labels.size:
        raise DataError(f"sample {sample.id}: {labels.size} boxes have {areas.size} areas and {crowd.size} crowd flags")
    return _There(corners=corners, categories=labels.astype(np.int64), is_crowd=crowd, areas=areas)


def _size_of(sample: Sample) -> tuple[int, int] | None:
    """Return (height, width) of the stored image, None where nothing tells it."""
    size = sample.target.get("size") if isinstance(sample.target, Mapping) else None
    if size is not None:
        return int(size[0]), int(size[1])
    image = sample.inputs.get(IMAGE)
    return None if image is None else (int(image.shape[0]), int(image.shape[1]))


TASK = SampleTask(
    name=NAME,
    summary="boxes with a class",
    make=BoxScores,
    metrics=(MAP.name, MAP50.name, MAP75.name),
    reads=outputs_read,
    settings=(
        CLASSES,
        Setting(
            name="format",
            summary="separate (outputs boxes, scores, labels), yolo ([4 + classes, boxes]) or rows ([boxes, 6 or 7])",
            default=SEPARATE,
            choices=(SEPARATE, "yolo", "rows"),
        ),
        Setting(name="boxes", summary="of separate outputs: the name of that of boxes"),
        Setting(name="scores", summary="of separate outputs: the name of that of scores"),
        Setting(name="labels", summary="of separate outputs: the name of that of labels"),
        Setting(
            name="box_format",
            summary="corners, centre and size, or a corner and size",
            default="xyxy",
            choices=("xyxy", "cxcywh", "xywh", "yxyx"),
        ),
        Setting(
            name="boxes_in",
            summary="pixels of the stored image, pixels of the model's input, or fractions of that",
            default="image",
            choices=("image", "input", "fraction"),
        ),
        Setting(name="input_size", summary="[height, width] of the model's input", kinds=(list,)),
        Setting(
            name="fit",
            summary="how [preprocess] fits an image into the input",
            default="stretch",
            choices=("stretch", "letterbox"),
        ),
        Setting(name="objectness", summary="yolo: whether it follows the box", kinds=(bool,), default=False),
        Setting(name="strides", summary="yolo: cells [pixels] that boxes are told from, as YOLOX does", kinds=(list,)),
        Setting(name="background", summary="the class of scores that is none", kinds=(int,), low=0),
        Setting(name="label_offset", summary="added to a class to get its label", kinds=(int,), default=0),
        Setting(
            name="score_threshold",
            summary="boxes below it are left out",
            kinds=(int, float),
            default=0.001,
            low=0,
            high=1,
        ),
        Setting(
            name="nms",
            summary="overlap at which the lesser of two boxes goes (yolo: 0.7; others: 1, none goes)",
            kinds=(int, float),
            low=0,
            high=1,
        ),
        Setting(
            name="max_detections",
            summary="boxes of a sample that are kept",
            kinds=(int,),
            default=300,
            low=1,
            high=10_000,
        ),
    ),
)
