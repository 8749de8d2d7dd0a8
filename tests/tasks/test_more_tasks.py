"""Multi-label, segmentation, embeddings and detection: values by hand, by plain loops, and by pycocotools."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, DataError, MeasurementError
from harness.protocols import IMAGE, Sample
from harness.tasks import find_sample_task
from harness.tasks._boxes import Boxes, boxes_of, suppress
from harness.tasks._metrics import resample_counts
from harness.tasks._precision import Ranking, ranked_precision
from tests.tasks.test_sample_tasks import scores_of

# -- multi-label


def plain_precision(scores, is_there):
    """Average precision by its definition, one threshold at a time."""
    total, before = 0.0, 0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        right = int((found & is_there).sum())
        total += (right - before) * right / found.sum()
        before = right
    return total / is_there.sum()


def test_average_precision_is_that_of_the_textbook():
    # scikit-learn's own example: average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) = 0.8333...
    there = np.asarray([False, False, True, True])
    ranking = Ranking.of(np.arange(4), np.asarray([0.1, 0.4, 0.35, 0.8]), there[None], there.astype(float))
    assert ranked_precision(ranking, np.ones((1, 4)))[0] == pytest.approx(5 / 6)


@given(st.integers(2, 12), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_average_precision_of_a_resample_is_that_of_the_samples_drawn(n, seed):
    generator = np.random.default_rng(seed)
    scores, there = generator.integers(0, 4, n) / 4, generator.random(n) < 0.5
    counts = generator.integers(0, 3, n)
    drawn = np.repeat(np.arange(n), counts)
    ranking = Ranking.of(np.arange(n), scores, there[None], there.astype(float))
    found = ranked_precision(ranking, counts[None].astype(float))[0]
    if there[drawn].any():
        assert found == pytest.approx(plain_precision(scores[drawn], there[drawn]))
    else:
        assert np.isnan(found)


def test_labels_by_hand():
    outputs = [[0.9, 0.6, 0.1], [0.2, 0.8, 0.4], [0.7, 0.3, 0.9]]
    targets = [[0], [1, 2], np.asarray([False, False, True])]
    scores = scores_of("multi-label", list(zip(outputs, targets, strict=True)), classes=["a", "b", "c"])
    # class a: right first; b: right first; c: right first, then second of three
    assert scores["mAP"].value == pytest.approx((1 + 1 + 1) / 3)
    assert scores["F1"].value == pytest.approx(2 * 3 / (5 + 4))  # found a b, b, a c; there a, b c, c
    assert scores["macro F1"].value == pytest.approx((2 / 3 + 2 / 3 + 2 / 3) / 3)
    assert scores["mAP"].values.array() == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert scores["mAP"].slices.groups.array().tolist() == [0, 1, 2, 2]
    assert scores["mAP"].slices.values.array().tolist() == [1, 1, 0, 1]


def test_a_sample_without_labels_is_right_where_none_is_found():
    pairs = [([0.1, 0.2], []), ([0.9, 0.2], []), ([0.9, 0.2], [0])]
    scores = scores_of("multi-label", [(np.asarray(outputs), targets) for outputs, targets in pairs])
    assert scores["mAP"].values.array().tolist() == [1, 0, 1]


def test_labels_beyond_the_output_are_refused():
    with pytest.raises(DataError, match="class 3 is not one of the model's 3 classes"):
        scores_of("multi-label", [(np.zeros(3), [3])])
    with pytest.raises(DataError, match="the target has 2 classes and the output 3"):
        scores_of("multi-label", [(np.zeros(3), np.asarray([True, False]))])
    with pytest.raises(DataError, match="the target has 4 classes and the output 3"):
        scores_of("multi-label", [(np.zeros(3), np.asarray([True, False, False, False]))])
    with pytest.raises(MeasurementError, match="mAP is not defined on these 1 samples"):
        scores_of("multi-label", [(np.zeros(3), [])])


# -- segmentation


def test_overlaps_by_hand():
    target = np.asarray([[0, 0, 1], [2, 255, 1]])
    output = np.asarray([[0, 1, 1], [2, 2, 0]])
    scores = scores_of("segmentation", [(output, target)], classes=["ground", "car", "tree"])
    assert scores["mIoU"].value == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)
    assert scores["pixel accuracy"].value == pytest.approx(3 / 5)
    assert scores["mIoU"].slices.names == ("ground", "car", "tree")
    assert scores["mIoU"].slices.values.array() == pytest.approx([1 / 3, 1 / 3, 1])


def test_overlaps_are_summed_over_the_set_before_they_are_divided():
    pairs = [(np.asarray([[1, 0]]), np.asarray([[1, 0]])), (np.asarray([[0, 0, 0, 0]]), np.asarray([[1, 1, 0, 0]]))]
    scores = scores_of("segmentation", pairs)
    assert scores["mIoU"].value == pytest.approx((3 / 5 + 1 / 3) / 2)
    assert scores["pixel accuracy"].value == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_scores_of_pixels_may_have_classes_first_or_last_and_be_smaller(layout):
    classes = np.asarray([[0, 1], [2, 0]])
    scores = np.eye(3)[classes]
    output = np.moveaxis(scores, 2, 0)[None] if layout == "CHW" else scores[None]
    target = np.kron(classes, np.ones((3, 3), int))
    assert scores_of("segmentation", [(output, target)], layout=layout, resize=True)["mIoU"].value == 1
    with pytest.raises(DataError, match=r"the output has 2x2 pixels and the mask 6x6; set \[task\] resize = true"):
        scores_of("segmentation", [(output, target)], layout=layout)


def test_one_score_a_pixel_is_two_classes():
    assert scores_of("segmentation", [([[[0.2, 0.8]]], np.asarray([[0, 1]]))])["pixel accuracy"].value == 1


def test_masks_of_other_kinds_are_refused():
    with pytest.raises(DataError, match="expected a class a pixel"):
        scores_of("segmentation", [(np.zeros((2, 2), int), np.zeros((2, 2)))])
    with pytest.raises(DataError, match="no pixel of its mask counts"):
        scores_of("segmentation", [(np.zeros((1, 1), int), np.asarray([[255]]))])


# -- embeddings


def test_recall_by_hand():
    vectors = [[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [0.7, 0.7]]
    labels = ["a", "a", "b", "b", "a"]
    scores = scores_of("embeddings", list(zip(vectors, labels, strict=True)), ranks=[1, 2, 3])
    # the last one's nearest are of b and a by a hair: cosines 0.78 twice, so a tie, which is no find at 1
    assert scores["recall@1"].value == pytest.approx(4 / 5)
    assert scores["recall@2"].value == 1
    assert scores["recall@1"].slices.names == ("a", "b")
    assert next(iter(scores)) == "recall@1"


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_recall_is_that_of_a_plain_search(similarity):
    generator = np.random.default_rng(1)
    vectors, labels = generator.normal(0, 1, (60, 5)), generator.integers(0, 6, 60)
    scores = scores_of("embeddings", list(zip(vectors, labels.tolist(), strict=True)), similarity=similarity, ranks=[3])
    hits = []
    for i, vector in enumerate(vectors):
        alike = {
            "cosine": vectors @ vector / np.linalg.norm(vectors, axis=1),
            "dot": vectors @ vector,
            "euclidean": -np.linalg.norm(vectors - vector, axis=1),
        }[similarity]
        alike[i] = -np.inf
        hits.append(labels[i] in labels[np.argsort(-alike)[:3]])
    assert scores["recall@3"].values.array().tolist() == [float(hit) for hit in hits]


def test_vectors_may_be_their_own_targets():
    scores = scores_of("embeddings", [([1.0, 0.0], np.asarray([1.0, 1.0])), ([2.0, 0.0], np.asarray([1.0, 0.0]))])
    assert scores["cosine"].value == pytest.approx((np.sqrt(0.5) + 1) / 2)
    assert list(scores) == ["cosine"]


def test_labels_that_nobody_shares_find_nothing():
    with pytest.raises(MeasurementError, match="no two samples share a label"):
        scores_of("embeddings", [([1.0], "a"), ([2.0], "b")])
    with pytest.raises(ConfigError, match=r"\[task\] ranks = \[0\]"):
        find_sample_task("embeddings").collector({"ranks": [0]})


# -- boxes


def settings_with(**options):
    defaults = {setting.name: setting.default for setting in find_sample_task("detection").settings}
    return {**defaults, "output": None, **options}


def read(outputs, *, size=(100, 200), **options):
    return boxes_of(outputs, settings_with(**options), sample_id="s", size=size)


def test_boxes_scores_and_labels_of_their_own():
    outputs = {
        "boxes": np.asarray([[[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]]], np.float32),
        "scores": np.asarray([[0.4, 0.9, 0.0]], np.float32),
        "labels": np.asarray([[3, 1, -1]]),
    }
    found = read(outputs)
    assert found.corners.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]], "the best first; padding has a score of 0"
    assert found.classes.tolist() == [1, 3]
    with pytest.raises(ConfigError, match=r"\[task\] boxes = 'locations': the model has no such output"):
        read(outputs, boxes="locations")
    with pytest.raises(DataError, match="sample s: 3 boxes have 2 labels"):
        read({**outputs, "labels": np.zeros(2)})


def test_a_score_a_class_may_begin_with_the_background():
    outputs = {
        "boxes": np.asarray([[0, 0, 10, 10], [20, 20, 30, 30.0]]),
        "scores": np.asarray([[0.9, 0.05, 0.0], [0.1, 0.2, 0.7]]),
    }
    found = read(outputs, background=0)
    assert list(zip(found.classes.tolist(), found.scores.tolist(), strict=True)) == [(1, 0.7), (0, 0.2), (0, 0.05)]
    assert read(outputs, background=0, score_threshold=0.1).classes.tolist() == [1, 0]


@pytest.mark.parametrize("is_turned", [False, True])
def test_a_yolo_head_loses_what_a_better_box_of_its_class_covers(is_turned):
    table = np.asarray(
        [
            [50, 50, 20, 20, 0.9, 0.1],
            [51, 50, 20, 20, 0.8, 0.1],  # covered
            [51, 50, 20, 20, 0.1, 0.7],  # of another class
            [150, 50, 20, 20, 0.6, 0.1],
        ]
        + [[0, 0, 1, 1, 0, 0]] * 10
    )
    output = table[None] if is_turned else table.T[None]
    found = read({"out": output}, format="yolo", box_format="cxcywh", score_threshold=0.25)
    assert found.classes.tolist() == [0, 1, 0]
    assert found.corners.tolist() == [[40, 40, 60, 60], [41, 40, 61, 60], [140, 40, 160, 60]]
    assert len(read({"out": output}, format="yolo", score_threshold=0.25, nms=1, box_format="cxcywh").scores) == 4


def test_objectness_multiplies_the_scores_of_the_classes():
    table = np.asarray([[50, 50, 20, 20, 0.5, 0.9, 0.2]] + [[0.0] * 7] * 8)
    found = read({"out": table.T}, format="yolo", objectness=True, score_threshold=0.2)
    assert found.scores.tolist() == [0.45]


def test_rows_of_six_and_of_seven():
    assert read({"out": np.asarray([[1, 2, 3, 4, 0.5, 7]])}, format="rows").classes.tolist() == [7]
    ssd = np.asarray([[[[0, 2, 0.5, 0.1, 0.2, 0.3, 0.4], [-1, 0, 0, 0, 0, 0, 0], [0, 9, 0.9, 0, 0, 1, 1]]]])
    found = read({"out": ssd}, format="rows", boxes_in="fraction")
    assert found.classes.tolist() == [2], "a row of image -1 ends the list"
    assert found.corners[0] == pytest.approx([20, 20, 60, 40])
    with pytest.raises(DataError, match=r"expected \[boxes, 6\] or \[boxes, 7\]"):
        read({"out": np.zeros((3, 5))}, format="rows")


@pytest.mark.parametrize("box_format", ["xyxy", "xywh", "cxcywh", "yxyx"])
def test_box_formats(box_format):
    given = {"xyxy": [10, 20, 30, 60], "xywh": [10, 20, 20, 40], "cxcywh": [20, 40, 20, 40], "yxyx": [20, 10, 60, 30]}
    found = read({"out": np.asarray([[*given[box_format], 0.5, 0]])}, format="rows", box_format=box_format)
    assert found.corners.tolist() == [[10, 20, 30, 60]]


@pytest.mark.parametrize("boxes_in", ["input", "fraction"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_boxes_go_back_to_where_the_image_was(fit, boxes_in):
    height, width, shown = 100, 200, 64  # a letterbox of 64 x 64 shows it as 32 x 64, with a margin of 16 above
    box = np.asarray([20.0, 10.0, 120.0, 90.0])
    scale = [shown / width, shown / height] if fit == "stretch" else [0.32, 0.32]
    seen = box * [*scale, *scale] + ([0, 0, 0, 0] if fit == "stretch" else [0, 16, 0, 16])
    given = seen / (shown if boxes_in == "fraction" else 1)
    output = {"out": np.asarray([[*given, 0.5, 0]])}
    found = read(output, size=(height, width), format="rows", boxes_in=boxes_in, fit=fit, input_size=[shown, shown])
    assert found.corners[0] == pytest.approx(box)
    if fit == "letterbox":
        with pytest.raises(ConfigError, match=r"\[task\] input_size = None: expected \[height, width\]"):
            read(output, size=(height, width), format="rows", boxes_in=boxes_in, fit=fit)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_no_kept_box_overlaps_a_better_one_of_its_class_and_every_other_one_does(seed):
    generator = np.random.default_rng(seed)
    first = generator.uniform(0, 50, (25, 2))
    corners = np.concatenate((first, first + generator.uniform(5, 40, (25, 2))), axis=1)
    boxes = Boxes(corners=corners, scores=np.linspace(1, 0, 25), classes=generator.integers(0, 2, 25))
    kept = suppress(boxes, 0.4)

    def overlap(a, b):
        sides = np.minimum(corners[a, 2:], corners[b, 2:]) - np.maximum(corners[a, :2], corners[b, :2])
        shared = np.prod(np.maximum(sides, 0))
        return shared / (sum(np.prod(corners[i, 2:] - corners[i, :2]) for i in (a, b)) - shared)

    for place in range(25):
        better = [k for k in kept if k < place and boxes.classes[k] == boxes.classes[place]]
        assert (place in kept) == all(overlap(k, place) <= 0.4 for k in better)


# -- detection, with pycocotools


def night(seed, *, n=12, n_classes=3, shift=2.0, digits=2):
    """Samples with boxes, crowds among them, and a detector that moves, misses and invents some."""
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(n):
        n_there = int(generator.integers(0, 5))
        first = generator.uniform(0, 100, (n_there, 2))
        there = np.concatenate((first, first + generator.uniform(10, 60, (n_there, 2))), axis=1)
        labels = generator.integers(1, n_classes + 1, n_there)
        crowd = generator.random(n_there) < 0.15
        found = np.concatenate((there + generator.normal(0, shift, there.shape), generator.uniform(0, 90, (3, 4))))
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        classes = np.concatenate((labels, generator.integers(1, n_classes + 1, 3)))
        scores = np.round(generator.random(len(found)), digits)
        outputs = {"boxes": found, "scores": scores, "labels": classes}
        pairs.append((outputs, {"boxes": there, "labels": labels, "iscrowd": crowd}))
    return pairs


def by_pycocotools(pairs):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    there, found = [], []
    for row, (outputs, target) in enumerate(pairs):
        for box, label, crowd in zip(target["boxes"], target["labels"], target["iscrowd"], strict=True):
            size = [*box[:2], *(box[2:] - box[:2])]
            there.append({"id": len(there) + 1, "image_id": row, "category_id": int(label), "bbox": size})
            there[-1] |= {"area": size[2] * size[3], "iscrowd": int(crowd)}
        for box, label, score in zip(outputs["boxes"], outputs["labels"], outputs["scores"], strict=True):
            size = [*box[:2], *(box[2:] - box[:2])]
            found.append({"image_id": row, "category_id": int(label), "bbox": size, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": row} for row in range(len(pairs))],
            "categories": [{"id": c} for c in (1, 2, 3)],
            "annotations": there,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3]


@pytest.mark.parametrize("seed", range(4))
def test_map_is_that_of_pycocotools(seed):
    pytest.importorskip("pycocotools", reason="needs pycocotools (extra detection)")
    pairs = night(seed)
    scores = scores_of("detection", pairs, score_threshold=0)
    found = [scores[name].value for name in ("mAP", "mAP@50", "mAP@75")]
    assert found == pytest.approx(list(by_pycocotools(pairs)), abs=1e-9)
    assert scores["mAP"].low <= scores["mAP"].value <= scores["mAP"].high


def test_a_resample_scores_what_pycocotools_says_of_the_samples_drawn():
    pytest.importorskip("pycocotools", reason="needs pycocotools (extra detection)")
    pairs = night(7, n=8, digits=15)  # of equal scores, copies of an image would be ranked otherwise
    score = scores_of("detection", pairs, score_threshold=0)["mAP"]
    counts = next(iter(resample_counts(8)))[:4].astype(int)
    for of_resample, value in zip(counts, score.resamples.array()[:4], strict=True):
        drawn = [pairs[i] for i in np.repeat(np.arange(8), of_resample)]
        assert value == pytest.approx(by_pycocotools(drawn)[0], abs=1e-9)


def test_what_a_sample_scores_alone_and_the_classes_that_it_holds():
    pytest.importorskip("pycocotools", reason="needs pycocotools (extra detection)")
    box, other = [10, 10, 50, 50], [100, 100, 150, 150]
    target = {"boxes": [box, other], "labels": [1, 2], "categories": {1: "cat", 2: "dog"}, "size": (200, 200)}
    outputs = {"boxes": np.asarray([box, other]), "scores": np.asarray([0.9, 0.2]), "labels": np.asarray([0, 1])}
    scores = scores_of("detection", [(outputs, target)], classes=["cat", "dog"])
    assert scores["mAP"].value == 1, "of all scores"
    assert scores["mAP"].values.array() == pytest.approx([2 / 3]), "the dog's score is below 0.25"
    assert scores["mAP"].slices.names == ("cat", "dog")
    assert scores["mAP"].slices.values.array().tolist() == [1, 0]
    offset = scores_of("detection", [(outputs, {"boxes": [box, other], "labels": [1, 2]})], label_offset=1)
    assert offset["mAP"].value == 1


def test_detections_without_anything_found_score_nothing_and_without_anything_there_are_refused():
    pytest.importorskip("pycocotools", reason="needs pycocotools (extra detection)")
    nothing = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}
    target = {"boxes": [[0, 0, 5, 5]], "labels": [1]}
    assert scores_of("detection", [(nothing, target)])["mAP"].value == 0
    with pytest.raises(MeasurementError, match="no sample holds a box to be found"):
        scores_of("detection", [(nothing, {"boxes": [], "labels": []})])
    with pytest.raises(DataError, match="a box ends before it begins"):
        scores_of("detection", [(nothing, {"boxes": [[5, 5, 0, 0]], "labels": [1]})])
    with pytest.raises(DataError, match="its target has no boxes and labels"):
        scores_of("detection", [(nothing, 3)])


def test_the_size_of_a_stored_image_is_read_from_it():
    pytest.importorskip("pycocotools", reason="needs pycocotools (extra detection)")
    collector = find_sample_task("detection").collector({"format": "rows", "boxes_in": "fraction"})
    target = {"boxes": [[20, 10, 100, 50]], "labels": [0]}
    sample = Sample(id="s", inputs={IMAGE: np.zeros((100, 200, 3), np.uint8)}, target=target)
    collector.add({"out": np.asarray([[0.1, 0.1, 0.5, 0.5, 0.9, 0]])}, sample)
    assert collector.scores()[0].value == 1


def test_detection_without_its_library_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'nn-engine-harness\[detection\]'"):
        find_sample_task("detection").make({})


@pytest.mark.parametrize("size", [[16, 24], [24, 16]])
def test_boxes_told_from_their_cells_stand_in_pixels(size):
    height, width = size
    n_cells = (height // 8) * (width // 8)
    table = np.zeros((n_cells + 1, 6))  # one more cell of the coarse grid
    table[:, 4] = 0.01
    place = 1 * (width // 8) + 1  # row 1, column 1 of stride 8
    table[place] = [0.5, 0.25, np.log(2.0), np.log(0.5), 0.9, 0.0]
    table[-1] = [0.5, 0.5, 0.0, np.log(0.5), 0.0, 0.8]  # the only cell of stride 16
    asked = {"format": "yolo", "box_format": "cxcywh", "score_threshold": 0.25, "nms": 1, "input_size": size}
    found = read({"out": table}, size=(height, width), strides=[8, 16], **asked)
    centre_x, centre_y, wide, tall = (1 + 0.5) * 8, (1 + 0.25) * 8, 16.0, 4.0
    corners = [centre_x - wide / 2, centre_y - tall / 2, centre_x + wide / 2, centre_y + tall / 2]
    assert found.corners[0] == pytest.approx(corners)
    assert found.corners[1] == pytest.approx([0, 4, 16, 12])
    assert found.classes.tolist() == [0, 1]
    with pytest.raises(DataError, match=f"{n_cells} boxes for {n_cells + 1} cells of an input of {height} x {width}"):
        read({"out": table[1:]}, size=(height, width), strides=[8, 16], **asked)


def test_padding_of_class_minus_one_is_dropped_whatever_its_score():
    rows = np.asarray([[1, 2, 3, 4, 0.5, 0], [1, 2, 3, 4, 0.9, -1]])
    assert read({"out": rows}, format="rows").classes.tolist() == [0]
