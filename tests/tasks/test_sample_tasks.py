"""Tasks of samples: metrics against values by hand and by SciPy, settings that are refused by their key."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, DataError, MeasurementError
from harness.models import load_card
from harness.protocols import Sample
from harness.specs import ModelInput, ModelOutput, ModelSpec, ModelTensors, Preprocess
from harness.tasks import collector_of, find_sample_task, find_task, list_tasks
from harness.tasks._metrics import N_RESAMPLES, Ratios, resample_counts
from harness.tasks.tokens import ctc_greedy, edit_distance


def scores_of(task, pairs, **options):
    """Return the metrics by name of (outputs, target) pairs; outputs that are no mapping are the only one."""
    collector = find_sample_task(task).collector(options)
    for i, (outputs, target) in enumerate(pairs):
        named = outputs if isinstance(outputs, dict) else {"out": np.asarray(outputs)}
        collector.add(named, Sample(id=str(i), inputs={}, target=target))
    scores = collector.scores()
    for score in scores:
        score.check(len(pairs))
    return {score.name: score for score in scores}


# -- what every task keeps


def test_every_bundled_task_is_found_by_name_and_says_what_it_scores():
    for name in list_tasks():
        task = find_sample_task(name)
        assert task.name == name
        assert task.summary
        assert (task.metrics == ()) == (name == "raw")


def test_a_task_of_samples_is_no_task_of_images():
    with pytest.raises(ConfigError, match="task tokens scores samples of named tensors"):
        find_task("tokens")


def test_an_unknown_task_is_refused_by_name():
    with pytest.raises(ConfigError, match="no task is called 'tokenz'"):
        find_sample_task("tokenz")


@pytest.mark.parametrize(
    ("task", "options", "told"),
    [
        (
            "tokens",
            {"decoder": "ctc"},
            r"\[task\] decoder: task tokens has no such key; it has: output, metric,",
        ),
        ("tokens", {"decode": "beam"}, r"\[task\] decode = 'beam': task tokens takes ctc, ids"),
        ("tokens", {"blank": "0"}, r"\[task\] blank = '0': task tokens expects a whole number"),
        ("tokens", {"blank": -1}, r"\[task\] blank = -1: task tokens expects 0"),
        ("tokens", {"blank": True}, r"\[task\] blank = True: task tokens expects a whole number"),
        ("tokens", {"charset": "ab", "charset_file": "x"}, "charset and charset_file: give one"),
        ("tokens", {"charset_file": "none.txt"}, "charset_file = 'none.txt' cannot be read"),
        ("regression", {"metric": "mAP"}, r"\[task\] metric = 'mAP': task regression scores MAE, RMSE, R2"),
        ("classification", {"threshold": float("nan")}, r"\[task\] threshold"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(task, options, told):
    with pytest.raises(ConfigError, match=told):
        find_sample_task(task).collector(options)


def test_several_outputs_need_a_name():
    outputs = {"a": np.zeros(3), "b": np.zeros(3)}
    with pytest.raises(ConfigError, match=r"\[task\] output: .* the model has a, b; name it"):
        scores_of("classification", [(outputs, 0)])
    with pytest.raises(ConfigError, match=r"\[task\] output = 'c': the model has no such output; it has: a, b"):
        scores_of("classification", [(outputs, 0)], output="c")
    assert scores_of("classification", [(outputs, 0)], output="b")["top-1"].value == 1


@pytest.mark.parametrize("task", ["classification", "regression", "tokens", "raw"])
def test_nan_is_no_score(task):
    with pytest.raises(MeasurementError, match="holds NaN"):
        scores_of(task, [([[0.5, np.nan]], [0])])


@pytest.mark.parametrize("task", ["classification", "regression", "tokens"])
def test_a_sample_without_a_target_is_refused_by_its_id(task):
    with pytest.raises(DataError, match="sample 0: it has no "):
        scores_of(task, [([0.5, 0.1], None)])


def test_names_of_another_models_classes_are_refused():
    pairs = [({"y": np.array([1.0])}, 1.5), ({"y": np.array([2.0])}, 2.5)]
    with pytest.raises(ConfigError, match="classes: 3 names for an output of 1"):
        scores_of("regression", pairs, classes=["a", "b", "c"])


@pytest.mark.parametrize("task", ["classification", "regression", "tokens"])
def test_no_samples_are_no_score(task):
    with pytest.raises(MeasurementError):
        find_sample_task(task).collector({}).scores()


def test_another_metric_leads_when_asked_and_keeps_the_slices():
    pairs = [([0.1, 0.9], 1), ([0.9, 0.1], 0), ([0.9, 0.1], 1)]
    scores = scores_of("classification", pairs, metric="balanced accuracy")
    assert next(iter(scores)) == "balanced accuracy"
    assert scores["balanced accuracy"].slices is not None
    assert scores["top-1"].slices is None


def test_one_sample_has_no_interval():
    score = scores_of("regression", [([1.0], 2.0)])["MAE"]
    assert (score.low, score.high) == (None, None)


def test_raw_scores_nothing():
    assert scores_of("raw", [({"a": np.zeros(3), "b": np.ones(2)}, None)]) == {}


# -- resampling


def test_resamples_are_the_same_at_every_call_and_each_holds_all_samples():
    first, second = np.concatenate(list(resample_counts(7))), np.concatenate(list(resample_counts(7)))
    assert np.array_equal(first, second)
    assert first.shape == (N_RESAMPLES, 7)
    assert (first.sum(axis=1) == 7).all()
    assert abs(first.mean() - 1) < 1e-12
    assert abs(first.var() - 6 / 7) < 0.05  # of a binomial count: n * 1/n * (1 - 1/n)


def test_the_resamples_of_a_large_set_do_not_depend_on_how_many_are_held_at_a_time(monkeypatch):
    whole = np.concatenate(list(resample_counts(50)))
    monkeypatch.setattr("harness.tasks._metrics.BLOCK_VALUES", 333)
    assert np.array_equal(whole, np.concatenate(list(resample_counts(50))))


def test_ratios_are_means_over_groups_of_sums_over_sums():
    ratios = Ratios()
    ratios.add({0: (1.0, 2.0), 2: (0.0, 1.0)})
    ratios.add({0: (1.0, 1.0)})
    counts = np.asarray([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    assert ratios(counts) == pytest.approx([(2 / 3 + 0) / 2, (1 / 2 + 0) / 2, 1.0])


# -- classification


def test_classes_of_samples_by_hand():
    outputs = np.eye(6)[[0, 1, 2, 3, 3, 5]] + np.linspace(0, 0.06, 6)
    labels = [0, 1, 2, 3, 4, 0]
    scores = scores_of("classification", list(zip(outputs, labels, strict=True)), classes=["a", "b"])
    assert scores["top-1"].value == pytest.approx(4 / 6)
    assert scores["top-5"].value == pytest.approx(5 / 6)  # class 0 has the smallest output of the last sample
    assert scores["balanced accuracy"].value == pytest.approx((0.5 + 1 + 1 + 1 + 0) / 5)
    assert scores["top-1"].slices.names == ("a", "b", "2", "3", "4", "5")
    assert scores["top-1"].slices.groups.array().tolist() == labels
    assert scores["top-1"].slices.values.array().tolist() == [1, 1, 1, 1, 0, 0]
    low, high = scores["top-1"].low, scores["top-1"].high
    assert 0 < low < 4 / 6 < high < 1


def test_an_output_of_one_number_is_a_probability_and_of_one_whole_number_a_class():
    assert scores_of("classification", [([0.7], 1), ([0.2], 0), ([0.2], 1)])["top-1"].value == pytest.approx(2 / 3)
    assert scores_of("classification", [([0.2], 1)], threshold=0)["top-1"].value == 1
    assert scores_of("classification", [(np.asarray([4]), 4), (np.asarray(2), 4)])["top-1"].value == 0.5


def test_a_label_beyond_the_output_is_refused():
    with pytest.raises(DataError, match="sample 0: class 7 is not one of the model's 3 classes"):
        scores_of("classification", [(np.zeros(3), 7)])
    with pytest.raises(DataError, match="is not a class index"):
        scores_of("classification", [(np.zeros(3), "cat")])


# -- regression


def test_errors_by_hand():
    pairs = [([1.0, 2.0], [1.5, 2.0]), ([3.0, 4.0], [3.0, 2.0])]
    scores = scores_of("regression", pairs, unit="cm")
    assert scores["MAE"].value == pytest.approx((0.25 + 1.0) / 2)
    assert scores["MAE"].values.array().tolist() == [0.25, 1.0]
    assert scores["RMSE"].value == pytest.approx(np.sqrt((0.25 + 4) / 4))
    assert (scores["MAE"].unit, scores["MAE"].higher_is_better, scores["MAE"].is_fraction) == ("cm", False, False)
    assert scores["MAE"].slices.values.array().tolist() == [0.5, 0.0, 0.0, 2.0]


def test_r2_is_the_mean_over_numbers_of_the_explained_share():
    generator = np.random.default_rng(5)
    targets = generator.normal(100, 1, (40, 3))
    found = targets + generator.normal(0, (0.1, 0.5, 2.0), (40, 3))
    score = scores_of("regression", list(zip(found, targets, strict=True)))["R2"]
    each = 1 - ((found - targets) ** 2).sum(axis=0) / ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    assert score.value == pytest.approx(each.mean())
    counts = next(iter(resample_counts(40)))[0].astype(int)
    drawn = np.repeat(np.arange(40), counts)
    t, f = targets[drawn], found[drawn]
    again = 1 - ((f - t) ** 2).sum(axis=0) / ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    assert score.resamples.array()[0] == pytest.approx(again.mean())


def test_equal_targets_have_no_r2():
    assert set(scores_of("regression", [([1.0], 1.0), ([2.0], 1.0)])) == {"MAE", "RMSE"}


def test_another_number_of_outputs_is_refused():
    with pytest.raises(DataError, match=r"sample 1: the output has shape \[3\] and the target \[3\]; expected 2"):
        scores_of("regression", [([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])])


# -- tokens


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1, slow_distance(a[1:], b[1:]) + (a[0] != b[0]))


@given(st.text("ab", max_size=5), st.text("ab", max_size=5))
@settings(max_examples=60, deadline=None)
def test_edit_distance_is_the_least_number_of_edits(a, b):
    assert edit_distance(a, b) == slow_distance(a, b) == edit_distance(b, a)


def test_a_best_path_loses_repeats_then_blanks():
    assert ctc_greedy(np.asarray([0, 1, 1, 0, 1, 2, 2, 0]), blank=0) == (1, 1, 2)
    assert ctc_greedy(np.asarray([], np.int64), blank=0) == ()


def steps(path, n_classes=4):
    return np.eye(n_classes, dtype=np.float32)[path][None] + 0.01


def test_recognized_text_by_hand():
    pairs = [(steps([0, 1, 1, 0, 2]), "ab"), (steps([3, 3, 0, 3]), "cca"), (steps([0, 0]), "b")]
    scores = scores_of("tokens", pairs, charset="abc")
    assert list(scores) == ["exact match", "CER", "edit distance"]
    assert scores["exact match"].value == pytest.approx(1 / 3)
    assert scores["CER"].value == pytest.approx(2 / 6)
    assert scores["CER"].values.array() == pytest.approx([0, 1 / 3, 1])
    assert scores["edit distance"].values.array().tolist() == [0, 1, 1]
    assert scores["CER"].low <= 2 / 6 <= scores["CER"].high


def test_classes_may_come_first_and_blank_last():
    output = np.moveaxis(steps([0, 0, 3, 2, 3]), 1, 2)  # not as many steps as classes
    scores = scores_of("tokens", [(output, "ac")], layout="CT", blank=3, first_id=0, charset=["a", "b", "c"])
    assert scores["exact match"].value == 1


def test_ids_end_at_the_end_and_leave_padding_out():
    found = np.asarray([[5, 9, 0, 7, 2, 8]])
    scores = scores_of("tokens", [(found, [5, 9, 7])], decode="ids", end_id=2, skip_ids=[0])
    assert scores["exact match"].value == 1


def test_a_charset_may_be_a_file(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text("a\nb\n \n", "utf-8")
    assert scores_of("tokens", [(steps([1, 3, 2]), "A b")], charset_file=str(path), ignore_case=True)["CER"].value == 0


def test_a_token_beyond_the_charset_and_a_text_without_one_are_refused():
    with pytest.raises(DataError, match=r"sample 0: token 3 is not one of the charset's 1\.\.2"):
        scores_of("tokens", [(steps([3]), "a")], charset="ab")
    with pytest.raises(DataError, match=r"the target is a text; give \[task\] charset"):
        scores_of("tokens", [(steps([1]), "a")])
    with pytest.raises(DataError, match=r"the output has shape \[3, 2, 2\]; expected \[steps, classes\]"):
        scores_of("tokens", [(np.zeros((3, 2, 2)), "a")], charset="ab")


def test_the_page_of_tasks_names_every_task_metric_and_setting():
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    for name in list_tasks():
        task = find_sample_task(name)
        metrics = [metric for metric in task.metrics if not metric.startswith("recall@")]
        missing = [word for word in (name, *(s.name for s in task.settings)) if f"`{word}`" not in page]
        assert missing + [metric for metric in metrics if metric not in page] == []


def spec_with(task, folder, **changes):
    fields = {"input_name": "x", "input_shape": (3, 64, 96), "output_name": "y", "num_classes": 2}
    return ModelSpec(name="m", onnx_path=str(folder / "m.onnx"), sha256="", task=task, **{**fields, **changes})


def test_a_charset_lies_beside_the_card(tmp_path):
    (tmp_path / "keys.txt").write_text("a\nb\n", "utf-8")
    collector = collector_of(spec_with("tokens", tmp_path, task_settings={"charset_file": "keys.txt"}))
    collector.add({"y": steps([1, 0, 2])}, Sample(id="0", inputs={}, target="ab"))
    assert collector.scores()[0].value == 1
    with pytest.raises(ConfigError, match=r"other\.txt' cannot be read"):
        collector_of(spec_with("tokens", tmp_path, task_settings={"charset_file": "other.txt"}))


def test_it_lies_beside_the_card_where_the_model_is_a_link_to_elsewhere(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "0a1b").write_bytes(b"net")
    (tmp_path / "m.onnx").symlink_to(tmp_path / "store" / "0a1b")
    (tmp_path / "keys.txt").write_text("a\nb\n", "utf-8")
    card = '[model]\nfile = "m.onnx"\n[graph]\n[output]\ntask = "tokens"\n[task]\ncharset_file = "keys.txt"\n'
    (tmp_path / "m.toml").write_text(card)
    collector = collector_of(load_card(tmp_path / "m.toml"))
    collector.add({"y": steps([1, 0, 2])}, Sample(id="0", inputs={}, target="ab"))
    assert collector.scores()[0].value == 1


@pytest.mark.parametrize(
    ("changes", "given", "expected"),
    [
        ({}, {}, ("stretch", [64, 96])),
        ({"layout": "NHWC", "input_shape": (64, 96, 3)}, {}, ("stretch", [64, 96])),
        ({"preprocess": Preprocess(resize=(32, 48), fit="letterbox")}, {}, ("letterbox", [32, 48])),
        ({"preprocess": Preprocess(resize=(32, 48), fit="letterbox")}, {"input_size": [8, 8]}, ("letterbox", [8, 8])),
        ({"input_shape": (3, -1, -1)}, {}, ("stretch", None)),
    ],
)
def test_a_task_knows_what_the_card_does_to_images(tmp_path, monkeypatch, changes, given, expected):
    seen = {}
    detection = replace(find_sample_task("detection"), make=seen.update)
    monkeypatch.setattr("harness.tasks.find_sample_task", lambda name: detection)
    collector_of(spec_with("detection", tmp_path, task_settings=given, **changes))
    assert (seen["fit"], seen["input_size"]) == expected


def graph_with(task, folder, outputs, **settings):
    tensors = ModelTensors(
        inputs=(ModelInput(name="x", dtype="float32", shape=(1, 4)),),
        outputs=tuple(ModelOutput(name=name) for name in outputs),
    )
    return spec_with(task, folder, tensors=tensors, task_settings=settings)


@pytest.mark.parametrize("task", [name for name in list_tasks() if name not in ("raw", "detection")])
def test_the_scored_output_is_known_before_anything_runs(tmp_path, task):
    collector_of(graph_with(task, tmp_path, ["y"]))
    collector_of(graph_with(task, tmp_path, ["y", "z"], output="z"))
    with pytest.raises(ConfigError, match=r"m: \[task\] output: .* the model has y, z; name it"):
        collector_of(graph_with(task, tmp_path, ["y", "z"]))
    with pytest.raises(ConfigError, match=r"m: \[task\] output = 'q': the model has no such output; it has: y"):
        collector_of(graph_with(task, tmp_path, ["y"], output="q"))


def test_the_outputs_of_boxes_are_known_before_anything_runs(tmp_path, monkeypatch):
    detection = replace(find_sample_task("detection"), make=dict)  # without pycocotools
    monkeypatch.setattr("harness.tasks.find_sample_task", lambda name: detection)
    collector_of(graph_with("detection", tmp_path, ["boxes", "scores"]))  # a score a class
    collector_of(graph_with("detection", tmp_path, ["b", "s", "l"], boxes="b", scores="s", labels="l"))
    collector_of(graph_with("detection", tmp_path, ["y"], format="rows"))
    for outputs, said, told in (
        (["y"], {}, "boxes = 'boxes'"),
        (["boxes", "scores"], {"labels": "classes"}, "labels = 'classes'"),
        (["boxes", "scores"], {"format": "yolo"}, "output: "),
    ):
        with pytest.raises(ConfigError, match=told):
            collector_of(graph_with("detection", tmp_path, outputs, **said))


def test_raw_outputs_need_no_name_and_a_wrong_one_is_told(tmp_path):
    collector_of(graph_with("raw", tmp_path, ["y", "z"]))
    with pytest.raises(ConfigError, match="no such output"):
        collector_of(graph_with("raw", tmp_path, ["y", "z"], output="q"))
