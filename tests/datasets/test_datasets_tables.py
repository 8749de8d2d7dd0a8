"""Parquet files, saved Hugging Face data sets and Python files."""

import io

import numpy as np
import pytest
from picture_files import strokes

from harness.datasets import open_dataset, open_samples
from harness.errors import DataError
from harness.models.preprocess import Fit
from harness.specs import Preprocess

Image = pytest.importorskip("PIL.Image", reason="image files are read by Pillow (extra `images`)")
GREY = Fit(Preprocess(), 1)


def one_error(call, *says):
    with pytest.raises(DataError) as error:
        call()
    told = str(error.value)
    assert "\n" not in told
    assert not [word for word in says if word not in told], told


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# -- Parquet


def write_parquet(path, columns, **how):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow (extra `parquet`)")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path, **how)
    return path


def picture_columns(first, stop):
    pixels, labels = strokes(first, stop)
    return {"image": [{"bytes": png(image), "path": None} for image in pixels], "label": labels}


def test_images_and_classes_of_parquet(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", picture_columns(0, 25), row_group_size=10)
    data = open_dataset(str(path), split="test", fit=GREY)
    pixels, labels = strokes(0, 25)
    np.testing.assert_array_equal(data.read(0, 25)[0][:, 0], pixels)
    np.testing.assert_array_equal(data.read(8, 22)[1], labels[8:22])
    assert (data.n_images, data.split) == (25, "all")


def test_images_may_be_bytes_alone(tmp_path):
    pixels, labels = strokes(0, 3)
    path = write_parquet(tmp_path / "a.parquet", {"img": [png(image) for image in pixels], "label": labels})
    np.testing.assert_array_equal(open_dataset(str(path), split="test", fit=GREY).read(2, 3)[0][0, 0], pixels[2])


def test_files_of_a_split_follow_each_other(tmp_path):
    for name, first in (("train-00000-of-00001", 0), ("test-00000-of-00002", 10), ("test-00001-of-00002", 20)):
        write_parquet(tmp_path / "data" / f"{name}.parquet", picture_columns(first, first + 10))
    data = open_dataset(str(tmp_path), split="test", fit=GREY)
    assert (data.n_images, data.split) == (20, "test")
    np.testing.assert_array_equal(data.read(0, 20)[0][:, 0], strokes(10, 30)[0])
    assert open_dataset(str(tmp_path), split="train", fit=GREY).n_images == 10
    write_parquet(tmp_path / "data" / "test-00002.parquet", {"other": [1]})
    one_error(lambda: open_dataset(str(tmp_path), split="test", fit=GREY), "test-00002.parquet", "columns")


def test_columns_of_numbers_are_inputs(tmp_path):
    columns = {"ids": [[1, 2], [3, 4]], "score": np.float32([0.5, 1.5]), "y": [0, 1], "note": ["a", "b"]}
    one = open_samples(str(write_parquet(tmp_path / "a.parquet", columns)), split="test").sample(1)
    assert (set(one.inputs), one.target, one.inputs["score"].dtype) == ({"ids", "score"}, 1, np.float32)
    np.testing.assert_array_equal(one.inputs["ids"], [3, 4])


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"note": ["a"]}, "has note"),
        ({"x": [[1, 2], [3]], "y": [0, 1]}, ""),
        ({"x": [[[1], [2, 3]]]}, "unlike lengths"),
        ({"x": [1.0, None]}, "x"),
        ({"x": [1, 2], "y": [1, None]}, "without a class"),
        ({"image": [{"bytes": None, "path": "/etc/passwd"}], "label": [1]}, "not in the table"),
        ({"image": [b"no image"], "label": [1]}, "row 0: not an image"),
    ],
)
def test_rows_that_are_no_samples_are_refused(tmp_path, columns, says):
    path = write_parquet(tmp_path / "a.parquet", columns)

    def read():
        samples = open_samples(str(path), split="test")
        for index in range(samples.n_samples):
            samples.sample(index)

    if says:
        one_error(read, "a.parquet", says)
    else:  # rows may differ in length: a model's free axis
        read()


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", picture_columns(0, 5))
    path.write_bytes(path.read_bytes()[:-20])
    one_error(lambda: open_samples(str(path), split="test"), "a.parquet: not a whole Parquet file")


# -- Hugging Face


def save_hugging_face(folder, *, is_dict):
    datasets = pytest.importorskip("datasets", reason="saved data sets are read by datasets (extra `datasets`)")
    if not hasattr(datasets, "Features"):  # the folder of these tests
        pytest.skip("saved data sets are read by datasets (extra `datasets`)")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"digit {k}" for k in range(10)])}
    )

    def made(first, stop):
        columns = picture_columns(first, stop)
        return datasets.Dataset.from_dict({**columns, "label": columns["label"].tolist()}, features=features)

    found = datasets.DatasetDict(train=made(0, 10), validation=made(10, 30)) if is_dict else made(10, 30)
    found.save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("is_dict", [True, False])
def test_a_saved_data_set_is_read(tmp_path, is_dict):
    folder = save_hugging_face(tmp_path / "saved", is_dict=is_dict)
    data = open_dataset(str(folder), split="test", fit=GREY)
    pixels, labels = strokes(10, 30)
    assert (data.n_images, data.num_classes, data.split) == (20, 10, "test" if is_dict else "all")
    np.testing.assert_array_equal(data.read(0, 20)[0][:, 0], pixels)
    np.testing.assert_array_equal(data.read(0, 20)[1], labels)
    assert open_samples(str(folder), split="test").class_names[3] == "digit 3"


def test_a_damaged_saved_data_set_is_refused(tmp_path):
    folder = save_hugging_face(tmp_path / "saved", is_dict=False)
    (folder / "dataset_info.json").write_text("{")
    one_error(lambda: open_samples(str(folder), split="test"), "saved: not a saved data set")


def test_a_kind_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    one_error(lambda: open_samples(str(tmp_path), split="test"), "needs datasets", "nn-engine-harness[datasets]")


# -- Python


SOURCE = """
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from harness.protocols import Sample


@dataclass
class Tuning:  # a dataclass looks its module up
    pitch: int = 3


class Waves:
    def __init__(self, split):
        self.name, self.split, self.n_samples = "waves", split, 3

    def sample(self, index):
        return Sample(id=f"wave {index}", inputs={"audio": np.full(4, index, np.float32)}, target=index)


class Digits:
    def __init__(self, split):
        self.name, self.split, self.n_images, self.num_classes, self.image_shape = "digits", split, 4, 2, (2, 2)

    def read(self, first, stop):
        return np.zeros((stop - first, 2, 2), np.uint8), np.arange(first, stop) % 2


def broken(split):
    raise RuntimeError("on\\npurpose")


def nothing(split):
    return 7
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


def test_a_set_of_samples_in_python(source):
    samples = open_samples(f"{source}:Waves", split="train")
    assert (samples.n_samples, samples.split, samples.sample(2).id) == (3, "train", "wave 2")
    one_error(lambda: open_dataset(f"{source}:Waves", split="train"), "waves", "no class for each image")


def test_a_data_set_in_python(source):
    data = open_dataset(f"{source}:Digits", split="test", fit=GREY)
    assert data.read(1, 3)[1].tolist() == [1, 0]
    assert open_samples(f"{source}:Digits", split="test").sample(1).target == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [("broken", "RuntimeError: on purpose"), ("nothing", "is a int"), ("Absent", "no attribute 'Absent'")],
)
def test_what_is_no_data_set_is_refused_in_one_line(source, name, says):
    one_error(lambda: open_samples(f"{source}:{name}", split="test"), "mine.py", says)


def test_a_missing_python_file_is_named(tmp_path):
    one_error(lambda: open_samples(f"{tmp_path / 'gone.py'}:Waves", split="test"), "gone.py: no such file")
