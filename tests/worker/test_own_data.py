"""A classifier is scored on data of one's own: the same images give the same hits, whatever kind of data holds them."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison_records import accuracy_with
from picture_files import strokes, write_folder
from sample_records import number_scores

from harness.datasets._idx_format import write_idx
from harness.datasets.trt_batches import write_batches
from harness.errors import ConfigError, DataError
from harness.measure.evidence import flips_between_runs, pictures_of_changed
from harness.models import load_card
from harness.models.preprocess import fit_of, images_from_pixels
from harness.options.values import HarnessOptions, data_request
from harness.protocols import no_progress
from harness.records import PackedArray
from harness.run.data import Fingerprints, check_data
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, Preprocess, TimingPlan
from harness.worker import measuring
from harness.worker.images import calibration_set
from harness.worker.opening import OpenCase
from harness.worker.requests import CaseRequest

Image = pytest.importorskip("PIL.Image", reason="image files are read by Pillow (extra `images`)")
ROOT = Path(__file__).parents[2]
N_IMAGES = 300


@pytest.fixture(scope="module")
def images():
    return strokes(0, N_IMAGES)


@pytest.fixture(scope="module")
def lenet():
    return load_card(ROOT / "models" / "lenet5.toml")


@pytest.fixture
def score(lenet, tmp_path):
    """Return a function that scores FP32 of lenet5 on ONNX Runtime on a data set."""
    pytest.importorskip("onnxruntime")

    def scored(name, model=lenet, **data):
        request = CaseRequest(
            case=Case(model="lenet5", backend="ort", precision=Precision.FP32, recipe="none"),
            model=model,
            data=DatasetRequest(name=str(name), score_images=N_IMAGES, **data),
            build=BuildOptions(cache_dir=str(tmp_path / "cache")),
            timing=TimingPlan(batch_sizes=(1,)),
        )
        case = OpenCase(request)
        try:
            assert case.prepare().support.supported
            return measuring.score(case, no_progress)
        finally:
            case.close()

    return scored


def files_of(folder, pixels):
    (folder / "files").mkdir(parents=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "files" / f"{index}.png")
    return [f"files/{index}.png" for index in range(len(pixels))]


def as_csv(folder, pixels, labels):
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *zip(files_of(folder, pixels), labels, strict=True)])
    return folder


def as_json(folder, pixels, labels):
    (folder / "labels.json").write_text(json.dumps(dict(zip(files_of(folder, pixels), labels.tolist(), strict=True))))
    return folder / "labels.json"


def as_pixel_rows(folder, pixels, labels):
    header = ",".join(["label", *(f"pixel{index}" for index in range(784))])
    rows = np.c_[labels, pixels.reshape(len(pixels), -1)]
    np.savetxt(folder / "rows.csv", rows, "%d", ",", header=header, comments="")
    return folder / "rows.csv"


def as_npz(folder, pixels, labels):
    np.savez_compressed(folder / "a.npz", x_test=pixels, y_test=labels)
    return folder / "a.npz"


def as_parquet(folder, pixels, labels):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow (extra `parquet`)")
    from pyarrow import parquet

    files = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append({"bytes": file.getvalue(), "path": None})
    parquet.write_table(pyarrow.table({"image": files, "label": labels}), folder / "test.parquet", row_group_size=99)
    return folder / "test.parquet"


def as_hugging_face(folder, pixels, labels):
    datasets = pytest.importorskip("datasets", reason="saved data sets are read by datasets (extra `datasets`)")
    if not hasattr(datasets, "Features"):  # the folder of the tests of data sets
        pytest.skip("saved data sets are read by datasets (extra `datasets`)")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    columns = {"image": [Image.fromarray(image) for image in pixels], "label": labels.tolist()}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def as_idx(folder, pixels, labels):
    write_idx(folder / "a-images-idx3-ubyte", pixels)
    write_idx(folder / "a-labels-idx1-ubyte", labels.astype(np.uint8))
    return folder / "a-images-idx3-ubyte"


def as_batches(folder, pixels, labels):
    scaled = images_from_pixels(pixels, load_card(ROOT / "models" / "lenet5.toml"))
    write_batches(folder / "batches", scaled, labels, 100)
    return folder / "batches"


def as_python(folder, pixels, labels):
    np.savez(folder / "data.npz", pixels=pixels, labels=labels)
    (folder / "mine.py").write_text(
        "import numpy as np\nfrom pathlib import Path\n\n\nclass Mine:\n    def __init__(self, split):\n"
        "        arrays = np.load(Path(__file__).parent / 'data.npz')\n"
        "        self._images, self._labels = arrays['pixels'], arrays['labels']\n"
        "        self.name, self.split, self.num_classes = 'mine', split, 10\n"
        "        self.n_images, self.image_shape = len(self._labels), (28, 28)\n\n"
        "    def read(self, first, stop):\n        return self._images[first:stop], self._labels[first:stop]\n"
    )
    return f"{folder / 'mine.py'}:Mine"


KINDS = (as_csv, as_json, as_pixel_rows, as_npz, as_parquet, as_hugging_face, as_idx, as_batches, as_python)


@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
def test_the_same_images_give_the_same_hits(score, images, tmp_path, write):
    expected, found = score("strokes"), score(write(tmp_path, *images))
    np.testing.assert_array_equal(found.hits(), expected.hits())
    np.testing.assert_array_equal(found.predictions.array(), expected.predictions.array())
    assert found.outputs_sha256 == expected.outputs_sha256
    assert 0 < expected.hits().sum() < N_IMAGES


def test_a_folder_by_class_gives_the_same_hits_in_its_own_order(score, images, tmp_path):
    pixels, labels = images
    expected, found = score("strokes"), score(write_folder(tmp_path / "digits", pixels, labels))
    assert found.hits().sum() == expected.hits().sum()
    of_class = [np.bincount(one.labels.array()[one.hits()], minlength=10) for one in (expected, found)]
    np.testing.assert_array_equal(*of_class)
    assert found.images.dataset == "digits"


def test_images_twice_as_large_are_sized_by_the_card(score, images, tmp_path, lenet):
    pixels, labels = images
    doubled = np.stack([np.kron(image, np.ones((2, 2), np.uint8)) for image in pixels])
    folder = write_folder(tmp_path / "digits", doubled, labels)
    with pytest.raises(DataError, match=r"\(1, 56, 56\) do not fit .* \[preprocess\] resize"):
        score(folder)
    asked = Preprocess(resize=(28, 28), interpolation="box")  # the mean of four equal pixels is each of them
    found = score(folder, replace(lenet, preprocess=asked))
    assert found.hits().sum() == score("strokes").hits().sum()


def test_coloured_files_become_grey_for_a_model_of_one_channel(score, images, tmp_path):
    pixels, labels = images
    folder = write_folder(tmp_path / "digits", np.repeat(pixels[:, :, :, None], 3, axis=3), labels)
    assert score(folder).hits().sum() == score("strokes").hits().sum()


def test_images_that_changed_sides_are_shown_as_the_model_saw_them(score, images, tmp_path, lenet):
    pixels, labels = images
    folder = write_folder(tmp_path / "digits", pixels, labels)
    accuracy = score(folder)
    hits = accuracy.hits().copy()
    hits[7] = not hits[7]
    predictions = accuracy.predictions.array().copy()
    predictions[7] = (predictions[7] + 1) % 10
    other = replace(
        accuracy, top1_hits=PackedArray.of(np.packbits(hits)), predictions=PackedArray.of(predictions.astype(np.uint8))
    )
    (flip,) = flips_between_runs(accuracy, other, DatasetRequest(name=str(folder)), lenet)
    label = accuracy.labels.array()[7]
    assert (flip.index, flip.label) == (7, label)
    assert flip.image.array().tobytes() in {image.tobytes() for image in pixels[labels == label]}


def test_a_large_coloured_image_is_shown_small_and_grey(tmp_path, lenet):
    colour = np.zeros((2, 3, 100, 150), np.uint8)
    colour[1, :, ::3, ::3] = np.reshape([30, 60, 90], (3, 1, 1))
    np.savez(tmp_path / "a.npz", images=colour, labels=np.array([0, 1]))
    data, coloured = DatasetRequest(name=str(tmp_path / "a.npz")), replace(lenet, input_shape=(3, 100, 150))
    (flip,) = flips_between_runs(accuracy_with(n=2), accuracy_with(n=2, wrong=[1]), data, coloured)
    np.testing.assert_array_equal(flip.image.array(), np.full((34, 50), 60, np.uint8))


# -- calibration from another data set


def options_for(data, precisions=(Precision.FP32, Precision.INT8)):
    return HarnessOptions(data=data, precisions=precisions)


def test_calibration_images_may_be_of_another_data_set(images, tmp_path, lenet):
    folder = write_folder(tmp_path / "digits", *images)
    data = data_request(name="strokes", score_images=50, calibration_name=str(folder), calibration_images=40)
    check_data(options_for(data), [lenet], no_progress)
    calibration = calibration_set(lenet, data)
    assert (calibration.images.dataset, calibration.n_images) == ("digits", 40)
    batch = next(calibration.batches(40))
    assert batch.shape == (40, 1, 28, 28)
    own = calibration_set(lenet, data_request(name="strokes", score_images=50, calibration_images=40))
    assert own.fingerprint != calibration.fingerprint


def test_images_that_are_scored_may_not_calibrate_however_their_folder_is_spelled(images, tmp_path, lenet, monkeypatch):
    folder = write_folder(tmp_path / "digits", *images)
    monkeypatch.chdir(tmp_path)
    for other in (str(folder), "./digits", "digits/../digits"):
        data = data_request(name=str(folder), score_images=50, calibration_name=other, calibration_images=40)
        with pytest.raises(ConfigError, match=r"40 calibration images .* would also be scored; .*-from=50"):
            check_data(options_for(data), [lenet], no_progress)
        check_data(options_for(data, (Precision.FP32,)), [lenet], no_progress)
        check_data(options_for(replace(data, calibration_first=50)), [lenet], no_progress)


def test_the_same_range_of_another_data_set_is_no_overlap():
    data = DatasetRequest(name="a", split="test", calibration_name="b", calibration_split="test")
    assert data.scored.overlap(data.calibration) == 0
    with pytest.raises(ConfigError, match="would also be scored"):
        DatasetRequest(name="a", split="test", calibration_split="test")
    asked = data_request(name="a", split="train", calibration_name="b", calibration_split="train")
    assert asked.calibration_first == 0


def test_too_few_calibration_images_are_told_by_their_own_data_set(images, tmp_path, lenet):
    folder = write_folder(tmp_path / "digits", *images)
    data = data_request(name="strokes", score_images=50, calibration_name=str(folder), calibration_images=400)
    with pytest.raises(DataError, match=f"asked 400 images .* {folder}/all has {N_IMAGES}"):
        check_data(options_for(data), [lenet], no_progress)


def test_each_model_of_a_fleet_has_the_fingerprint_of_the_pixels_that_it_scores(images, tmp_path, lenet):
    folder = write_folder(tmp_path / "digits", *images)
    data = DatasetRequest(name=str(folder), score_images=50)
    flat = load_card(ROOT / "models" / "mlp.toml")
    assert fit_of(flat) == fit_of(lenet)
    fingerprints = Fingerprints(options_for(data))
    assert fingerprints.of(lenet) == fingerprints.of(flat) != ""
    assert fingerprints.of(replace(flat, preprocess=Preprocess(resize=(27, 27)))) != fingerprints.of(flat)
    assert fingerprints.of(replace(flat, timing_only=True)) == ""


# -- the whole run


def test_the_suites_run_on_a_folder_of_images(images, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = write_folder(tmp_path / "digits", *images)
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(ROOT / "suites" / "test_accuracy.py"),
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    command += [f"--rootdir={ROOT}", f"--report-dir={tmp_path / 'reports'}", f"--engine-cache={tmp_path / 'cache'}"]
    command += ["--backend=ort", "--precision=fp32,int8", "--model=mlp", "--baseline=ignore"]
    command += [f"--dataset={folder}", "--score-images=200", f"--calibration-dataset={folder}"]
    command += ["--calibration-from=200", "--calibration-images=100"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), own.get("PYTHONPATH"))))
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=own, timeout=200)
    (summary,) = (tmp_path / "reports").glob("2*/summary.json")
    cases = {case["id"]: case for case in json.loads(summary.read_text())["cases"]}
    assert set(cases) == {"mlp-ort-fp32", "mlp-ort-int8"}, child.stdout + child.stderr
    assert all(case["accuracy"]["top1"] > 0.9 for case in cases.values()), cases
    records = [json.loads(line) for line in (summary.parent / "records.jsonl").read_text().splitlines()]
    (calibration,) = (r["artifact"]["calibration"] for r in records if r["artifact"] and r["artifact"]["calibration"])
    assert (calibration["images"]["dataset"], calibration["images"]["first"]) == (str(folder), 200)


def test_samples_whose_metric_changed_are_kept_as_pictures(tmp_path):
    """The worst first, in colours and small; what did not change, and what is no picture, is left out."""
    colour = np.zeros((9, 200, 300, 3), np.uint8)
    colour[5], colour[7] = [10, 60, 90], [200, 0, 1]
    np.savez(tmp_path / "a.npz", images=colour, labels=np.arange(9))
    before, now = number_scores(np.zeros(8)), number_scores([0, 0, 0, 0, 2, 0, 9, 0])
    data = DatasetRequest(name=str(tmp_path / "a.npz"), score_first=1, score_images=8)
    found = pictures_of_changed(before, now, data)
    assert [one.id for one in found] == ["7", "5"]
    np.testing.assert_array_equal(found[0].image.array(), np.full((3, 100, 150), [[[200]], [[0]], [[1]]], np.uint8))
    assert pictures_of_changed(before, before, data) == ()
    assert pictures_of_changed(replace(before, fingerprint="other"), now, data) == ()
    np.savez(tmp_path / "b.npz", ids=np.zeros((9, 4), np.int64), labels=np.arange(9))
    assert pictures_of_changed(before, now, replace(data, name=str(tmp_path / "b.npz"))) == ()
