"""What decides inside tasks of samples: sizes, shapes, names, ranks; each line told from its neighbours."""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import ConfigError, DataError, MeasurementError
from harness.protocols import IMAGE, Sample
from harness.specs import ModelSpec
from harness.tasks import collector_of, find_sample_task
from harness.tasks._boxes import Boxes, _matrix, _placed, suppress
from harness.tasks._metrics import N_RESAMPLES, Naming, mean_score
from harness.tasks._precision import Ranking, _needed, coco_precision, mean_over_classes, ranked_precision
from harness.tasks._samples import _short
from harness.tasks.classification import score_top_k
from harness.tasks.detection import OWN_SCORE, BoxScores, _Matches, _own, _size_of, _there_of
from harness.tasks.embeddings import _cosine
from harness.tasks.tokens import _tokens_of

NAMING = Naming(name="right", summary="all are")


def collector(task, **options):
    return find_sample_task(task).collector(options)


def sample(target=None, **inputs):
    return Sample(id="s", inputs=inputs, target=target)


# -- metrics


@pytest.mark.parametrize("values", [[], [np.nan], [1.0, np.inf]])
def test_a_mean_of_nothing_or_of_what_is_no_number_is_refused(values):
    with pytest.raises(MeasurementError, match=r"no sample was scored|is not finite"):
        mean_score(NAMING, values)


def test_one_sample_has_a_value_and_no_interval_and_two_have_both_ends():
    one, two = mean_score(NAMING, [0.5]), mean_score(NAMING, [0.25, 0.75])
    assert (one.value, one.low, one.high) == (0.5, None, None)
    assert two.low < 0.5 < two.high
    assert N_RESAMPLES == 1000  # docs/tasks.md


@pytest.mark.parametrize(("n", "share"), [(1, 0.0), (4, 0.5), (7, 0.3), (50, 1.0)])
def test_each_recall_needs_the_fewest_that_reach_it(n, share):
    needed = _needed(np.array([float(n)]))[0]
    recalls = np.linspace(0, 1, 101)
    for recall, few in zip(recalls, needed, strict=True):
        assert few / n >= recall
        assert few == 0 or (few - 1) / n < recall
    assert needed[0] == 0


def ranking(is_right, n_there, *, scores=None, counts=None):
    is_right = np.atleast_2d(np.asarray(is_right, bool))
    n = is_right.shape[1]
    return Ranking(
        rows=np.arange(n),
        scores=np.linspace(1, 0, n) if scores is None else np.asarray(scores, float),
        is_right=is_right,
        counts=np.ones_like(is_right) if counts is None else np.atleast_2d(np.asarray(counts, bool)),
        n_there=np.asarray(n_there, float),
    )


def coco_by_hand(is_right, n_there):
    """COCO's average precision, by its own loops."""
    right, precision, recall = 0, [], []
    for rank, good in enumerate(is_right, 1):
        right += good
        precision.append(right / rank)
        recall.append(right / n_there)
    for place in range(len(precision) - 1, 0, -1):
        precision[place - 1] = max(precision[place - 1], precision[place])
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return np.mean([precision[place] if place < len(precision) else 0.0 for place in places])


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_is_cocos(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 12))
    is_right = generator.random(n) < 0.6
    n_there = np.ones(n)
    found = coco_precision(ranking(is_right, n_there), np.ones((1, n)))
    assert found[0, 0] == pytest.approx(coco_by_hand(is_right, n), abs=1e-9)


@pytest.mark.parametrize("n_there", [1, 2])
def test_one_box_alone_has_its_average_precision(n_there):
    """All of one, found second; and half of two, found first."""
    is_right = [False, True] if n_there == 1 else [True, False]
    found = coco_precision(ranking(is_right, np.arange(2) < n_there), np.ones((1, 2)))
    assert found[0, 0] == pytest.approx(coco_by_hand(is_right, n_there), abs=1e-9)


def test_a_box_that_does_not_count_is_neither_right_nor_wrong():
    counted = coco_precision(ranking([1, 0, 1], [1, 1, 0], counts=[1, 0, 1]), np.ones((1, 3)))
    assert counted[0, 0] == pytest.approx(1.0)
    twice = coco_precision(ranking([1, 0, 1], [1, 1, 0]), np.array([[1.0, 2.0, 1.0]]))
    assert twice[0, 0] < 1


def test_ranks_with_equal_scores_are_taken_together():
    apart = ranked_precision(ranking([1, 0], [1, 0]), np.ones((1, 2)))
    equal = ranked_precision(ranking([1, 0], [1, 0], scores=[1, 1]), np.ones((1, 2)))
    assert (apart[0], equal[0]) == (1.0, 0.5)


def test_a_class_of_which_nothing_is_there_has_no_part_in_the_mean():
    of_classes = [np.array([1.0, np.nan]), np.array([np.nan, np.nan])]
    found = mean_over_classes(of_classes, 2)
    assert found[0] == 1.0
    assert math.isnan(found[1])
    assert np.isnan(mean_over_classes([], 3)).all()


@pytest.mark.parametrize("n_classes", [2, 5, 6, 7, 40, 600])
def test_margins_and_hits_are_those_of_sorted_outputs(n_classes):
    generator = np.random.default_rng(n_classes)
    outputs = generator.normal(size=(30, n_classes)).astype(np.float32)
    labels = generator.integers(0, n_classes, 30)
    found = score_top_k(outputs, labels)
    order = np.argsort(-outputs, axis=1, kind="stable")
    ranked = -np.sort(-outputs, axis=1)
    assert np.allclose(found.margins, ranked[:, 0].astype(np.float64) - ranked[:, 1])
    assert list(found.top5) == [label in row[:5] for label, row in zip(labels, order, strict=True)]


# -- classes, tokens, vectors


def test_ranks_are_told_where_each_sample_has_more_than_five_numbers():
    def names(*outputs):
        scored = collector("classification")
        for output in outputs:
            scored.add({"out": np.asarray(output, np.float32)}, sample(0))
        return [metric.name for metric in scored.scores()]

    assert "top-5" in names(np.arange(6), np.arange(6))
    assert "top-5" not in names(np.arange(5), np.arange(6))
    assert "top-5" not in names(np.arange(6), np.arange(5))


@pytest.mark.parametrize("target", [3, [[1], [2]], np.ones((2, 2), int)])
def test_tokens_are_a_text_or_a_list(target):
    with pytest.raises(DataError, match="expected a text or a list"):
        _tokens_of(target, sample(), is_text=False)
    assert _tokens_of([1, 2], sample(), is_text=False) == (1, 2)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_token_is_a_sequence_of_one(shape):
    scored = collector("tokens")
    scored.add({"out": np.full(shape, 7)}, sample([7]))
    assert scored.scores()[0].value == 1.0


@pytest.mark.parametrize("sizes", [(3, 4), (4, 3)])
def test_vectors_of_other_lengths_than_the_first_are_refused(sizes):
    scored = collector("embeddings")
    scored.add({"out": np.ones(sizes[0])}, sample("a"))
    with pytest.raises(DataError, match=f"has {sizes[1]} numbers, that of the first {sizes[0]}"):
        scored.add({"out": np.ones(sizes[1])}, sample("a"))


@pytest.mark.parametrize("targets", [("a", {"vector": [1, 1]}), ({"vector": [1, 1]}, "a")])
def test_all_vectors_have_a_label_or_none_has(targets):
    scored = collector("embeddings")
    scored.add({"out": np.ones(2)}, sample(targets[0]))
    with pytest.raises(DataError, match="some samples have a label and some have none"):
        scored.add({"out": np.ones(2)}, sample(targets[1]))


def test_a_vector_of_zeros_is_like_none():
    assert _cosine(np.zeros(3), np.ones(3)) == 0.0
    assert _cosine(np.ones(3), np.ones(3)) == pytest.approx(1.0)


def test_a_vector_may_have_any_shape():
    scored = collector("embeddings")
    scored.add({"out": np.ones((1, 2, 2))}, sample({"vector": [1, 1, 1, 1]}))
    assert scored.scores()[0].value == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "a\0b"])
def test_a_file_that_a_card_names_lies_beside_the_card(tmp_path, name):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "letters.txt").write_text("a\nb\n")
    given = {"name": "m", "onnx_path": "m.onnx", "sha256": "", "input_name": "x", "input_shape": (1,)}
    spec = ModelSpec(
        **given,
        output_name="y",
        num_classes=2,
        task="tokens",
        card_dir=str(tmp_path / "cards"),
        task_settings={"charset_file": "letters.txt"},
    )
    collector_of(spec)
    with pytest.raises(ConfigError, match=r"\[task\] charset_file = .* leads out of the card's folder"):
        collector_of(replace(spec, task_settings={"charset_file": name}))


# -- boxes


@pytest.fixture
def boxes(monkeypatch):
    monkeypatch.setattr("harness.tasks.detection.importlib.util.find_spec", lambda name: name)
    defaults = {setting.name: setting.default for setting in find_sample_task("detection").settings}
    return lambda **given: BoxScores({"output": None, **defaults, **given})


def found_boxes(*, scores=(0.9,), labels=(0,), corners=((0, 0, 2, 2),)):
    return {"boxes": np.asarray(corners, float), "scores": np.asarray(scores, float), "labels": np.asarray(labels)}


THERE = {"boxes": [[0, 0, 2, 2]], "labels": [3], "size": (20, 30), "categories": {3: "cat", 5: "dog"}}


@pytest.mark.parametrize("harm", ["scores", "corners"])
def test_a_box_that_is_no_number_is_refused(boxes, harm):
    bad = {"scores": (np.inf,)} if harm == "scores" else {"corners": ((0, 0, np.inf, 2),)}
    with pytest.raises(MeasurementError, match="is not finite"):
        boxes().add(found_boxes(**bad), sample(THERE))
    boxes().add(found_boxes(), sample(THERE))


def test_each_box_has_its_own_label(boxes):
    scored = boxes()
    two = found_boxes(scores=(0.9, 0.8), labels=(3, 5), corners=((0, 0, 2, 2), (4, 4, 6, 6)))
    scored.add({**two, "labels": two["labels"][None]}, sample(THERE))
    assert list(scored._found[0].classes) == [3, 5]


def test_classes_go_by_name_where_both_sides_have_names(boxes):
    scored = boxes(classes=["dog", "cat"])
    scored.add(found_boxes(labels=(1,)), sample(THERE))
    assert list(scored._found[0].classes) == [3]
    with pytest.raises(DataError, match=r"class 2 has no name; \[task\] classes has 2"):
        scored.add(found_boxes(labels=(2,)), sample(THERE))


def test_a_class_that_the_data_does_not_know_is_of_none_of_its_categories(boxes):
    known = {**THERE, "labels": [0], "categories": {0: "cat", 5: "dog"}}
    scored = boxes(classes=["bird", "cat"])
    scored.add(found_boxes(labels=(0,)), sample(known))
    assert list(scored._found[0].classes) == [-1]


def test_categories_without_names_take_those_of_the_card_from_its_offset_on(boxes):
    scored = boxes(classes=["cat", "dog"], label_offset=3)
    scored.add(found_boxes(labels=(1,)), sample({**THERE, "categories": {}}))
    assert scored._names_of_all([3, 4, 7]) == ["cat", "dog", "7"]


def test_boxes_smaller_than_a_pixel_have_their_areas_and_none_has_less_than_nothing():
    """Of two that overlap by a third, and of one whose corners are in reverse order."""
    corners = np.array([[0, 0, 0.2, 0.2], [0.1, 0, 0.3, 0.2], [0.9, 0.9, 0.8, 0.8]])
    found = Boxes(corners=corners, scores=np.array([0.9, 0.8, 0.7]), classes=np.zeros(3, np.int64))
    assert list(suppress(found, 0.3)) == [0, 2]
    assert list(suppress(found, 0.35)) == [0, 1, 2]
    around = Boxes(corners=np.array([[2, 2, 1, 1], [0, 0, 4, 4.0]]), scores=np.ones(2), classes=np.zeros(2, np.int64))
    assert list(suppress(around, 0.0)) == [0, 1]


def test_a_long_value_is_shortened_to_sixty_characters_and_a_short_one_is_not():
    assert _short("x" * 58) == repr("x" * 58)
    assert _short("x" * 59) == f"'{'x' * 56}..."


def test_classes_are_labels_unless_an_offset_is_given(boxes):
    plain, shifted = boxes(), boxes(label_offset=1)
    for scored in (plain, shifted):
        scored.add(found_boxes(labels=(4,)), sample(THERE))
    assert (list(plain._found[0].classes), list(shifted._found[0].classes)) == ([4], [5])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": [1, 2]}, "1 boxes have 2 labels"),
        ({"labels": [0.5]}, "expected one number each"),
        ({"boxes": [[2, 0, 0, 2]]}, "ends before it begins"),
        ({"boxes": [[0, 2, 2, 0]]}, "ends before it begins"),
        ({"area": [1, 2]}, "1 boxes have 2 areas"),
        ({"area": []}, "1 boxes have 0 areas"),
        ({"iscrowd": [0, 1]}, "2 crowd flags"),
        ({"iscrowd": []}, "0 crowd flags"),
    ],
)
def test_a_target_whose_parts_do_not_agree_is_refused(changes, told):
    with pytest.raises(DataError, match=told):
        _there_of(sample({**THERE, **changes}))


def test_a_target_has_areas_of_its_boxes_and_may_be_empty():
    there = _there_of(sample({"boxes": [[1, 2, 4, 7]], "labels": [[3]]}))
    assert (list(there.areas), list(there.is_crowd), list(there.categories)) == ([15.0], [False], [3])
    assert _there_of(sample({"boxes": [], "labels": []})).areas.size == 0


def test_the_size_of_an_image_is_the_targets_or_the_images_own():
    assert _size_of(sample({"size": (20, 30)})) == (20, 30)
    assert _size_of(sample(None, **{IMAGE: np.zeros((5, 7, 3))})) == (5, 7)
    assert _size_of(sample(None)) is None


def test_what_a_sample_scores_alone_is_f1_of_the_boxes_that_are_shown():
    def match(scores, is_right, counts):
        return _Matches(
            category=0,
            rows=np.zeros(len(scores), np.int64),
            scores=np.asarray(scores, float),
            is_right=np.tile(np.asarray(is_right, bool), (10, 1)),
            counts=np.tile(np.asarray(counts, bool), (10, 1)),
            n_there=np.array([2.0]),
        )

    low, shown = OWN_SCORE - 0.01, OWN_SCORE
    assert OWN_SCORE == 0.25
    assert _own([match([shown, shown], [1, 0], [1, 1])], 1)[0][0] == pytest.approx(2 / 4)
    assert _own([match([shown, low], [1, 0], [1, 1])], 1)[0][0] == pytest.approx(2 / 3)
    assert _own([match([shown, shown], [1, 0], [1, 0])], 1)[0][0] == pytest.approx(2 / 3)
    assert _own([match([low, low], [1, 0], [0, 0])], 1)[0][0] == 0.0


@pytest.mark.parametrize("shape", [(1, 3, 6), (1, 1, 3, 6), (3, 1, 6), (3, 6)])
def test_axes_of_one_are_left_out_of_a_matrix(shape):
    assert _matrix(np.zeros(shape), "rows").shape == (3, 6)


@pytest.mark.parametrize("shape", [(2, 3, 6), (6,)])
def test_what_is_no_matrix_is_refused(shape):
    with pytest.raises(DataError, match="expected rows"):
        _matrix(np.zeros(shape), "rows")


@pytest.mark.parametrize(("height", "width"), [(1, 400), (400, 1), (40, 80), (80, 40)])
def test_a_letterbox_is_undone_for_images_as_thin_as_one_pixel(height, width):
    settings = {"boxes_in": "input", "fit": "letterbox", "input_size": [32, 32]}
    ratio = min(32 / height, 32 / width)
    seen = max(1, round(height * ratio)), max(1, round(width * ratio))
    top, left = (round((32 - own) / 2 - 0.1) for own in seen)
    whole = np.array([[left, top, left + seen[1], top + seen[0]]], float)
    assert np.allclose(_placed(whole, settings, size=(height, width), sample_id="s"), [[0, 0, width, height]])


@pytest.mark.parametrize("size", [None, [32], [32, 0], [32, 1.5], "32"])
def test_a_size_of_the_input_that_is_none_is_refused(size):
    settings = {"boxes_in": "input", "fit": "stretch", "input_size": size}
    with pytest.raises(ConfigError, match="input_size"):
        _placed(np.zeros((1, 4)), settings, size=(4, 4), sample_id="s")


@pytest.mark.parametrize("label", [3, 7])
def test_a_class_that_is_never_answered_is_a_class(label):
    scored = collector("classification")
    for answer, target in ((0, label), (1, 1), (0, 0)):
        scored.add({"out": np.array([answer])}, sample(target))
    metrics = {metric.name: metric for metric in scored.scores()}
    assert metrics["top-1"].value == pytest.approx(2 / 3)
    assert metrics["top-1"].slices.names[int(metrics["top-1"].slices.groups.array().max())] == str(label)


@pytest.mark.parametrize(("found", "target"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([], [])])
def test_a_regression_has_as_many_numbers_as_its_target(found, target):
    with pytest.raises(DataError, match="numbers in both"):
        collector("regression").add({"out": np.asarray(found, np.float32)}, sample(target))


def test_the_errors_of_every_number_are_better_where_they_are_smaller():
    scored = collector("regression")
    scored.add({"out": np.array([1.0, 2.0], np.float32)}, sample([1.0, 4.0]))
    mean = scored.scores()[0]
    assert (mean.name, mean.higher_is_better) == ("MAE", False)
    assert mean.slices.values.array().tolist() == [0.0, 2.0]


def test_characters_begin_at_class_one_behind_the_blank():
    scored = collector("tokens", charset=["a", "b"], decode="ctc")
    output = np.eye(3, dtype=np.float32)[[1, 0, 2]][None]
    scored.add({"out": output}, sample("ab"))
    assert {metric.name: metric.value for metric in scored.scores()}["exact match"] == 1.0


SETTINGS = {  # as docs/tasks.md tells them: (what holds where a card says nothing, the least, the most)
    "classification": {"classes": (None, None, None), "threshold": (0.5, None, None)},
    "detection": {
        "classes": (None, None, None),
        "format": ("separate", None, None),
        "boxes": (None, None, None),
        "scores": (None, None, None),
        "labels": (None, None, None),
        "box_format": ("xyxy", None, None),
        "boxes_in": ("image", None, None),
        "input_size": (None, None, None),
        "fit": ("stretch", None, None),
        "objectness": (False, None, None),
        "strides": (None, None, None),
        "background": (None, 0, None),
        "label_offset": (0, None, None),
        "score_threshold": (0.001, 0, 1),
        "nms": (None, 0, 1),
        "max_detections": (300, 1, 10_000),
    },
    "embeddings": {"ranks": ([1, 5], None, None), "similarity": ("cosine", None, None)},
    "multi-label": {"classes": (None, None, None), "threshold": (0.5, None, None)},
    "raw": {},
    "regression": {"unit": (None, None, None), "classes": (None, None, None)},
    "segmentation": {
        "classes": (None, None, None),
        "layout": ("CHW", None, None),
        "ignore": (255, None, None),
        "resize": (False, None, None),
        "threshold": (0.5, None, None),
    },
    "tokens": {
        "decode": ("ctc", None, None),
        "layout": ("TC", None, None),
        "charset": (None, None, None),
        "charset_file": (None, None, None),
        "first_id": (1, 0, None),
        "blank": (0, 0, None),
        "end_id": (None, 0, None),
        "skip_ids": ([], None, None),
        "ignore_case": (False, None, None),
    },
}


@pytest.mark.parametrize("task", SETTINGS)
def test_a_task_holds_what_it_says_where_a_card_says_nothing(task):
    found = {one.name: (one.default, one.low, one.high) for one in find_sample_task(task).settings}
    assert found == SETTINGS[task]


def test_a_class_above_all_answers_counts_as_one():
    """Outputs that are classes tell no number of classes: labels do too."""
    scores = collector("classification")
    for label, answer in ((5, 2), (2, 2)):
        scores.add({"y": np.array([answer])}, sample(np.array(label)))
    (top1, balanced) = scores.scores()
    assert top1.value == 0.5
    assert len(top1.slices.names) == 6  # up to the label 5
    assert balanced.value == 0.5


def test_recall_is_known_by_name_at_every_rank_that_may_be_asked():
    task = find_sample_task("embeddings")
    assert task.metrics == (*(f"recall@{k}" for k in range(1, 101)), "cosine")
    task.collector({"ranks": [1, 100]})
    for ranks in ([0], [101], [True], []):
        with pytest.raises(ConfigError, match="whole numbers of 1 to 100"):
            task.collector({"ranks": ranks})
