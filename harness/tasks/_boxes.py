"""What detectors give -> boxes in the pixels of the stored image: layouts of outputs, formats, places, suppression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError
from harness.protocols import Tensors
from harness.tasks._samples import OUTPUT, Read, Settings, one_output, output_of

NAME = "detection"
SEPARATE = "separate"  # boxes, scores and labels are outputs of their own
MAX_LOG = 20.0  # of a size in cells: what is beyond is no box
MAX_CANDIDATES = 3_000  # of one sample, by score, that suppression looks at
ROWS_WIDTH, SSD_WIDTH = 6, 7

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """Boxes of one sample."""

    corners: Floats  # float64[M, 4]: left, top, right, bottom
    scores: Floats  # float64[M]
    classes: NDArray[np.int64]  # int64[M]

    def chosen(self, places: NDArray[np.int64] | NDArray[np.bool_]) -> Boxes:
        """Return some of them."""
        return Boxes(corners=self.corners[places], scores=self.scores[places], classes=self.classes[places])


def boxes_of(outputs: Tensors, settings: Settings, *, sample_id: str, size: tuple[int, int] | None) -> Boxes:
    """Return the boxes of one sample in the pixels of its stored image, the best first, at most `max_detections`.

    `size`: (height, width) of the stored image, where it is known.
    Raises: ConfigError for settings that do not fit the outputs; DataError for outputs of another shape.
    """
    kind = settings["format"]
    try:
        if kind == "yolo":
            found = _from_yolo(output_of(outputs, settings[OUTPUT], task=NAME), settings)
        elif kind == "rows":
            found = _from_rows(output_of(outputs, settings[OUTPUT], task=NAME))
        else:
            found = _from_separate(outputs, settings)
    except DataError as error:
        raise DataError(f"sample {sample_id}: {error}") from error
    found = found.chosen((found.scores >= float(str(settings["score_threshold"]))) & (found.classes >= 0))
    found = found.chosen(np.argsort(-found.scores, kind="stable")[:MAX_CANDIDATES])
    corners = _placed(_corners(found.corners, str(settings["box_format"])), settings, size=size, sample_id=sample_id)
    found = Boxes(corners=corners, scores=found.scores, classes=found.classes)
    limit = settings["nms"] if settings["nms"] is not None else (YOLO_NMS if kind == "yolo" else 1.0)
    if float(str(limit)) < 1:
        found = found.chosen(suppress(found, float(str(limit))))
    return found.chosen(np.arange(min(found.scores.size, int(str(settings["max_detections"])))))


YOLO_NMS = 0.7  # overlap, as ultralytics validates its models


def _matrix(array: NDArray[np.generic], what: str) -> Floats:
    squeezed = array
    while squeezed.ndim > 2 and squeezed.shape[0] == 1:
        squeezed = squeezed[0]
    if squeezed.ndim > 2 and 1 in squeezed.shape:
        squeezed = squeezed.reshape([n for n in squeezed.shape if n != 1])
    if squeezed.ndim != 2:
        raise DataError(f"the output has shape {list(array.shape)}; expected {what}")
    return squeezed.astype(np.float64)


def _from_yolo(output: NDArray[np.generic], settings: Settings) -> Boxes:
    """Read [4 + classes, boxes] or [boxes, 4 + classes], whichever is wider; with objectness, [.., 5 + classes]."""
    table = _matrix(output, "[4 + classes, boxes]")
    if table.shape[0] < table.shape[1]:
        table = table.T
    n_first = 5 if settings["objectness"] else 4
    if table.shape[1] <= n_first:
        raise DataError(f"the output has shape {list(output.shape)}; expected {n_first} numbers and the classes a box")
    scores = table[:, n_first:] * (table[:, 4:5] if settings["objectness"] else 1.0)
    boxes = table[:, :4] if settings["strides"] is None else _from_cells(table[:, :4], settings)
    return _from_matrix(boxes, scores, background=None, threshold=float(str(settings["score_threshold"])))


def _from_cells(boxes: Floats, settings: Settings) -> Floats:
    """Return centres and sizes in pixels of boxes that are told from their cells: (x, y) + cell, log of the size.

    Source: YOLOX, yolox/utils/demo_utils.py, demo_postprocess. Raises: ConfigError, DataError for another number.
    """
    size, strides = settings["input_size"], settings["strides"]
    if not isinstance(size, list) or not isinstance(strides, list):
        raise ConfigError("[task] strides needs input_size = [height, width]")
    grids, scales = [], []
    for stride in strides:
        rows, columns = np.mgrid[: int(size[0]) // int(stride), : int(size[1]) // int(stride)]
        grids.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        scales.append(np.full((rows.size, 1), float(stride)))
    cells, scale = np.concatenate(grids), np.concatenate(scales)
    if len(cells) != len(boxes):
        raise DataError(f"{len(boxes)} boxes for {len(cells)} cells of an input of {size[0]} x {size[1]}")
    return np.concatenate([(boxes[:, :2] + cells) * scale, np.exp(np.minimum(boxes[:, 2:], MAX_LOG)) * scale], axis=1)


def _from_rows(output: NDArray[np.generic]) -> Boxes:
    """Read [boxes, 6]: box, score, class; or [boxes, 7]: image, class, score, box."""
    table = _matrix(output, "[boxes, 6] or [boxes, 7]")
    if table.shape[1] == ROWS_WIDTH:
        return Boxes(corners=table[:, :4], scores=table[:, 4], classes=table[:, 5].astype(np.int64))
    if table.shape[1] != SSD_WIDTH:
        raise DataError(f"the output has shape {list(output.shape)}; expected [boxes, 6] or [boxes, 7]")
    ends = np.flatnonzero(table[:, 0] < 0)  # OpenVINO's DetectionOutput marks the end with image -1
    table = table[: ends[0]] if ends.size else table
    return Boxes(corners=table[:, 3:], scores=table[:, 2], classes=table[:, 1].astype(np.int64))


def _from_separate(outputs: Tensors, settings: Settings) -> Boxes:
    """Read boxes [M, 4], scores [M] with labels [M], or scores [M, classes]; padding has a score of 0 or class -1."""
    raw = output_of(outputs, _named(settings, "boxes"), task=NAME, key="boxes")
    if raw.size % 4:
        raise DataError(f"the boxes have shape {list(raw.shape)}; expected [boxes, 4]")
    corners = raw.reshape(-1, 4).astype(np.float64)
    scores = output_of(outputs, _named(settings, "scores"), task=NAME, key="scores").astype(np.float64)
    n_boxes = len(corners)
    if scores.size == n_boxes:
        labels = output_of(outputs, _named(settings, "labels"), task=NAME, key="labels").reshape(-1)
        if labels.size != n_boxes:
            raise DataError(f"{n_boxes} boxes have {labels.size} labels")
        return Boxes(corners=corners, scores=scores.reshape(-1), classes=labels.astype(np.int64))
    if n_boxes == 0 or scores.size % n_boxes:
        told = f"{n_boxes} boxes have scores of shape {list(scores.shape)}"
        raise DataError(f"{told}; expected one a box, or one a class")
    table = _matrix(scores, "[boxes, classes]")
    table = table if len(table) == n_boxes else table.T
    background = settings["background"]
    number = None if background is None else int(str(background))
    return _from_matrix(corners, table, background=number, threshold=float(str(settings["score_threshold"])))


def outputs_read(settings: Settings) -> Read:
    """Return the outputs that boxes are read from; that of labels where it is named: one score a class needs none."""
    if settings["format"] != SEPARATE:
        return one_output(settings)
    parts = ("boxes", "scores", "labels") if settings["labels"] else ("boxes", "scores")
    return tuple((part, _named(settings, part)) for part in parts)


def _named(settings: Settings, part: str) -> str:
    """Return the name of an output: the one given, or its own."""
    return str(settings[part] or part)


def _from_matrix(corners: Floats, scores: Floats, *, background: int | None, threshold: float) -> Boxes:
    """Take every class of a box that is above the threshold; classes after the background move down by one."""
    if background is not None:
        scores = np.delete(scores, background, axis=1)
    boxes, classes = np.nonzero(scores >= max(threshold, np.finfo(np.float64).tiny))
    return Boxes(corners=corners[boxes], scores=scores[boxes, classes], classes=classes.astype(np.int64))


def _corners(boxes: Floats, kind: str) -> Floats:
    """Return left, top, right, bottom."""
    if kind == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if kind == "xyxy":
        return boxes
    half = boxes[:, 2:] / 2
    first = boxes[:, :2] - half if kind == "cxcywh" else boxes[:, :2]
    return np.concatenate((first, first + boxes[:, 2:]), axis=1)


def _placed(corners: Floats, settings: Settings, *, size: tuple[int, int] | None, sample_id: str) -> Floats:
    """Return boxes in pixels of the stored image, cut at its edges where its size is known.

    Undoes the card's [preprocess]: `fit` stretch, or letterbox with the margin in halves.
    """
    where, fit, shown = settings["boxes_in"], settings["fit"], settings["input_size"]
    if where == "image":
        return corners
    if size is None:
        raise DataError(f"sample {sample_id}: the size of its image is not known; its boxes have no place in it")
    height, width = (float(side) for side in size)
    if fit == "letterbox" or where == "input":
        if not (isinstance(shown, list) and len(shown) == 2 and all(type(side) is int and side > 0 for side in shown)):
            raise ConfigError(f"[task] input_size = {shown!r}: expected [height, width] of the model's input")
        tall, wide = (float(side) for side in shown)
    else:
        tall, wide = height, width
    pixels = corners * [wide, tall, wide, tall] if where == "fraction" else corners.astype(np.float64)
    if fit == "letterbox":
        ratio = min(tall / height, wide / width)
        seen = max(1, round(height * ratio)), max(1, round(width * ratio))
        top, left = (round((whole - own) / 2 - 0.1) for whole, own in zip((tall, wide), seen, strict=True))
        scale_y, scale_x = seen[0] / height, seen[1] / width
    else:
        top, left, scale_y, scale_x = 0, 0, tall / height, wide / width
    placed = (pixels - [left, top, left, top]) / [scale_x, scale_y, scale_x, scale_y]
    return np.clip(placed, 0.0, [width, height, width, height])


def suppress(boxes: Boxes, limit: float) -> NDArray[np.int64]:
    """Return the places of boxes that no better one of their class overlaps by more than the limit, best first.

    `boxes`: by falling score. Source: greedy non-maximum suppression; N. Dalal, B. Triggs, CVPR 2005, section 6.
    """
    corners, areas = boxes.corners, np.prod(np.maximum(boxes.corners[:, 2:] - boxes.corners[:, :2], 0.0), axis=1)
    is_open = np.ones(len(corners), np.bool_)
    kept = []
    for place in range(len(corners)):
        if not is_open[place]:
            continue
        kept.append(place)
        first = np.maximum(corners[place, :2], corners[place + 1 :, :2])
        last = np.minimum(corners[place, 2:], corners[place + 1 :, 2:])
        shared = np.prod(np.maximum(last - first, 0.0), axis=1)
        union = areas[place] + areas[place + 1 :] - shared
        overlaps = shared > limit * union
        is_open[place + 1 :] &= ~(overlaps & (boxes.classes[place + 1 :] == boxes.classes[place]))
    return np.asarray(kept, np.int64)
