"""Pictures are decoded once for all workers: by their content and by what is made of them, and never a stale one."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from harness.datasets import _pictures, fingerprint_range, open_dataset
from harness.errors import DataError
from harness.models.preprocess import Fit
from harness.specs import DatasetRequest, ModelInput, ModelOutput, ModelSpec, ModelTensors, Preprocess
from harness.store.pictures import PictureStore
from harness.worker.sample_sets import fingerprint_of, samples_of

Image = pytest.importorskip("PIL.Image", reason="image files are read by Pillow (extra `images`)")
FIT = Fit(Preprocess(resize=(8, 12)), 3)
N = 6


def picture(seed, size=(20, 30)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that were decoded."""
    names, decode = [], _pictures.decode_image

    def counted(data, name):
        names.append(name)
        return decode(data, name)

    monkeypatch.setattr(_pictures, "decode_image", counted)
    return names


def folder_of(tmp_path):
    for index in range(N):
        place = tmp_path / "set" / str(index % 2)
        place.mkdir(parents=True, exist_ok=True)
        picture(index).save(place / f"{index}.png")
    return str(tmp_path / "set")


def list_of(tmp_path):
    for index in range(N):
        picture(index).save(tmp_path / f"{index}.png")
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(N)))
    return str(tmp_path / "labels.csv")


def parquet_of(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder_of(tmp_path)
    files = [(tmp_path / "set" / str(i % 2) / f"{i}.png").read_bytes() for i in range(N)]
    parquet.write_table(pyarrow.table({"image": files, "label": [i % 2 for i in range(N)]}), tmp_path / "set.parquet")
    return str(tmp_path / "set.parquet")


@pytest.mark.parametrize("write", [folder_of, list_of, parquet_of])
def test_a_second_process_decodes_nothing_and_sees_the_same(tmp_path, decoded, write):
    path = write(tmp_path)
    plain = open_dataset(path, split="test", fit=FIT)
    expected, labels = plain.read(0, N)
    fingerprint = fingerprint_range(plain, 0, N)
    for n_decoded in (N, 0):
        decoded.clear()
        data = open_dataset(path, split="test", fit=FIT, pictures=PictureStore(tmp_path / "cache"))
        found = data.read(0, N)
        assert len(decoded) == n_decoded
        np.testing.assert_array_equal(found[0], expected)
        np.testing.assert_array_equal(found[1], labels)
        assert fingerprint_range(data, 0, N) == fingerprint


def test_another_card_makes_other_pictures_of_the_same_files(tmp_path, decoded):
    path, store = folder_of(tmp_path), PictureStore(tmp_path / "cache")
    open_dataset(path, split="test", fit=FIT, pictures=store).read(0, N)
    other = open_dataset(path, split="test", fit=Fit(Preprocess(resize=(9, 12)), 3), pictures=store).read(0, N)[0]
    assert other.shape == (N, 3, 9, 12)
    assert len(decoded) == 2 * N


def test_a_changed_file_is_another_picture(tmp_path, decoded):
    path, store = folder_of(tmp_path), PictureStore(tmp_path / "cache")
    data = open_dataset(path, split="test", fit=FIT, pictures=store)
    before = data.read(0, 1)[0]
    file = next((tmp_path / "set" / "0").glob("0.png"))
    picture(99).save(file)
    after = data.read(0, 1)[0]
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, open_dataset(path, split="test", fit=FIT).read(0, 1)[0])


@pytest.mark.parametrize("damage", [lambda data: data, lambda data: data[:-1], lambda data: b""])
def test_a_damaged_picture_is_decoded_again(tmp_path, decoded, damage):
    path = folder_of(tmp_path)
    expected = open_dataset(path, split="test", fit=FIT, pictures=PictureStore(tmp_path / "cache")).read(0, N)[0]
    for file in (tmp_path / "cache" / "pictures").iterdir():
        data = file.read_bytes()
        file.write_bytes(damage(data[:-1] + bytes([data[-1] ^ 1])))
    decoded.clear()
    found = open_dataset(path, split="test", fit=FIT, pictures=PictureStore(tmp_path / "cache")).read(0, N)[0]
    np.testing.assert_array_equal(found, expected)
    assert len(decoded) == N


def test_the_pictures_have_a_limit_and_the_oldest_go_first(tmp_path):
    pixels = np.zeros((3, 10, 10), np.uint8)
    store = PictureStore(tmp_path, max_bytes=1_500)
    for index in range(6):
        store.keep(f"{index}", pixels + np.uint8(index))
    kept = [index for index in range(6) if store.find(f"{index}") is not None]
    assert kept == [0, 1, 2, 3]
    assert sum(file.stat().st_size for file in (tmp_path / "pictures").iterdir()) <= 1_500
    again = PictureStore(tmp_path, max_bytes=1_000)
    assert sum(file.stat().st_size for file in (tmp_path / "pictures").iterdir()) <= 500
    assert again.find("0") is None


def test_a_cache_that_cannot_be_written_keeps_nothing_and_costs_nothing(tmp_path, decoded):
    (tmp_path / "cache").write_text("a file")
    store = PictureStore(tmp_path / "cache")
    store.keep("a", np.zeros((3, 2, 2), np.uint8))
    assert store.find("a") is None
    assert open_dataset(folder_of(tmp_path), split="test", fit=FIT, pictures=store).read(0, N)[0].shape[0] == N


# -- models of any graph


def coco_of(tmp_path, width=30):
    images = [{"id": i, "file_name": f"{i}.png", "width": width, "height": 20} for i in range(N)]
    for index in range(N):
        picture(index).save(tmp_path / f"{index}.png")
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 5, 5]} for i in range(N)]
    told = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(told))
    return str(tmp_path / "boxes.json")


TENSORS = ModelTensors(
    inputs=(ModelInput(name="x", dtype="float32", shape=(1, 3, 16, 16), batch_axis=0, free_axes=(0,)),),
    outputs=(ModelOutput(name="y", batch_axis=0),),
)
DETECTOR = ModelSpec(
    name="d",
    onnx_path="d.onnx",
    sha256="",
    input_name="x",
    input_shape=(3, 16, 16),
    output_name="y",
    num_classes=2,
    tensors=TENSORS,
    preprocess=Preprocess(resize=(16, 16), fit="letterbox"),
    mean=(3.0,),
)


def request_of(path, cache=""):
    return SimpleNamespace(
        model=DETECTOR, data=DatasetRequest(name=path), has_data=True, build=SimpleNamespace(cache_dir=str(cache))
    )


def test_samples_of_a_graph_are_the_same_from_the_cache(tmp_path, decoded):
    path = coco_of(tmp_path)
    plain = fingerprint_of(samples_of(request_of(path)))
    decoded.clear()
    for n_decoded in (N, N):  # the second time not one more
        samples = samples_of(request_of(path, tmp_path / "cache"))
        assert fingerprint_of(samples) == plain
        assert len(decoded) == n_decoded
    assert samples.sample(0).inputs["x"].shape == (3, 16, 16)
    assert samples.sample(0).target["size"] == (20, 30)


def test_a_size_that_the_set_tells_wrong_is_told_in_every_worker(tmp_path, decoded):
    right = coco_of(tmp_path)
    fingerprint_of(samples_of(request_of(right, tmp_path / "cache")))
    wrong = coco_of(tmp_path, width=31)
    for _ in range(2):
        with pytest.raises(DataError, match=r"0\.png: 30 x 20 pixels, .*boxes\.json says 31 x 20"):
            samples_of(request_of(wrong, tmp_path / "cache")).sample(0)


def test_a_picture_under_the_name_of_another_is_decoded_again(tmp_path, decoded):
    path, cache = folder_of(tmp_path), tmp_path / "cache"
    expected = open_dataset(path, split="test", fit=FIT, pictures=PictureStore(cache)).read(0, N)[0]
    first, second = sorted((cache / "pictures").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    found = open_dataset(path, split="test", fit=FIT, pictures=PictureStore(cache)).read(0, N)[0]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("spoil", ["others may write", "a link"])
def test_a_folder_that_others_could_have_filled_holds_no_pictures(tmp_path, spoil):
    picture, folder = np.ones((1, 2, 2), np.uint8), tmp_path / "pictures"
    PictureStore(tmp_path).keep("key", picture)
    assert PictureStore(tmp_path).find("key") is not None
    if spoil == "a link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    else:
        folder.chmod(0o777)
    store = PictureStore(tmp_path)
    assert store.find("key") is None
    store.keep("other", picture)
    assert not (folder / "other").exists()
