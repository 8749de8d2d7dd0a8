"""IDX files: read right, and refused with one clear line when they are not what they say."""

import gzip
import hashlib
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.datasets import _download as download
from harness.datasets import fingerprint_range, idx, open_dataset
from harness.datasets._idx_format import IdxFile, write_idx
from harness.errors import DataError

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason=f"the real MNIST files are not in {MNIST}")

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def content():
    random = np.random.default_rng(3)
    return random.integers(0, 256, (50, 28, 28), np.uint8), random.integers(0, 10, 50).astype(np.uint8)


def write_pair(folder, content, *, images=IMAGES, labels=LABELS, ending=""):
    folder.mkdir(parents=True, exist_ok=True)
    write_idx(folder / (images + ending), content[0])
    write_idx(folder / (labels + ending), content[1])
    return folder / (images + ending)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_a_named_set_is_read_from_data_dir(tmp_path, content, folder, ending):
    write_pair(tmp_path / folder, content, ending=ending)
    data = open_dataset("mnist", split="test", data_dir=tmp_path)
    pixels, labels = data.read(10, 30)
    np.testing.assert_array_equal(pixels, content[0][10:30])
    np.testing.assert_array_equal(labels, content[1][10:30])
    assert (data.name, data.split, data.n_images, data.num_classes, data.image_shape) == (
        "mnist",
        "test",
        50,
        10,
        (28, 28),
    )
    assert labels.dtype == np.int64


def test_dotted_names_are_found(tmp_path, content):
    write_pair(tmp_path, content, images="t10k-images.idx3-ubyte", labels="t10k-labels.idx1-ubyte")
    assert open_dataset("mnist", split="test", data_dir=tmp_path).n_images == 50


def test_raw_and_gzip_have_one_fingerprint(tmp_path, content):
    raw = open_dataset(str(write_pair(tmp_path / "raw", content)), split="test")
    packed = open_dataset(str(write_pair(tmp_path / "gz", content, ending=".gz")), split="test")
    assert fingerprint_range(raw, 3, 47) == fingerprint_range(packed, 3, 47)


def test_a_gzip_file_is_inflated_once_and_a_damaged_copy_is_replaced(tmp_path, content):
    path = tmp_path / "images.gz"
    write_idx(path, content[0])
    cache = tmp_path / "inflated"
    np.testing.assert_array_equal(IdxFile(path, cache_dir=cache).rows(0, 50), content[0])
    (copy,) = cache.iterdir()
    made_at = copy.stat().st_mtime_ns
    IdxFile(path, cache_dir=cache)
    assert copy.stat().st_mtime_ns == made_at
    damaged = bytearray(copy.read_bytes())
    damaged[500] ^= 1
    copy.write_bytes(damaged)
    np.testing.assert_array_equal(IdxFile(path, cache_dir=cache).rows(0, 50), content[0])


def test_qmnist_labels_are_the_first_column(tmp_path, content):
    table = np.zeros((50, 8), np.int32)
    table[:, 0], table[:, 1] = content[1], 77
    write_pair(
        tmp_path, (content[0], table), images="qmnist-test-images-idx3-ubyte", labels="qmnist-test-labels-idx2-int"
    )
    data = open_dataset("qmnist", split="test", data_dir=tmp_path)
    np.testing.assert_array_equal(data.read(0, 50)[1], content[1])


def test_emnist_images_are_turned_upright(tmp_path, content):
    names = {"images": "emnist-digits-test-images-idx3-ubyte", "labels": "emnist-digits-test-labels-idx1-ubyte"}
    path = write_pair(tmp_path, (content[0].transpose(0, 2, 1), content[1]), ending=".gz", **names)
    for data in (
        open_dataset("emnist-digits", split="test", data_dir=tmp_path),
        open_dataset(str(path), split="test"),
    ):
        np.testing.assert_array_equal(data.read(0, 50)[0], content[0])


def test_a_path_gives_the_split_asked(tmp_path, content):
    write_pair(tmp_path, content)
    other = (content[0][:5], content[1][:5])
    train = write_pair(tmp_path, other, images="train-images-idx3-ubyte", labels="train-labels-idx1-ubyte")
    data = open_dataset(str(train), split="test")
    assert (data.split, data.n_images) == ("test", 50)
    assert open_dataset(str(train), split="train").n_images == 5


def test_a_path_of_no_split_is_one_whole_set(tmp_path, content):
    path = write_pair(tmp_path, content, images="my-images", labels="my-labels")
    for split in ("train", "test"):
        assert open_dataset(str(path), split=split).split == "all"


def test_a_known_set_is_recognised_by_its_labels(tmp_path, content, monkeypatch):
    path = write_pair(tmp_path, content, images="my-images", labels="my-labels")
    digest = hashlib.sha256(struct.pack(">II", 0x0801, 50) + content[1].tobytes()).hexdigest()
    monkeypatch.setitem(idx.KNOWN_LABELS, digest, ("mnist", "train"))
    data = open_dataset(str(path), split="test")
    assert (data.name, data.split) == ("mnist", "train")
    write_pair(tmp_path / "wrong", content)
    with pytest.raises(DataError, match="labels of mnist/train, not of fashion-mnist/test"):
        open_dataset("fashion-mnist", split="test", data_dir=tmp_path / "wrong")


def broken(tmp_path, data, name="broken"):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        IdxFile(path, cache_dir=tmp_path / "inflated")
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def header(code, *sizes):
    return struct.pack(f">HBB{len(sizes)}I", 0, code, len(sizes), *sizes)


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n0000", b"\0\0\x08\0aaaa", b"\0\0\x07\x01aaaa", b"\0\0\x08\xffaaaa"]
)
def test_wrong_magic(tmp_path, data):
    assert "wrong magic" in broken(tmp_path, data)


@pytest.mark.parametrize("data", [b"", b"\0\0", header(8, 50, 28, 28)[:9]])
def test_shorter_than_a_header(tmp_path, data):
    message = broken(tmp_path, data)
    assert "header" in message


def test_short_and_long_files_are_refused(tmp_path):
    data = header(8, 2, 28, 28) + bytes(2 * 784)
    assert "1584 bytes in all, but it has 1583" in broken(tmp_path, data[:-1])
    assert "but it has 1585" in broken(tmp_path, data + b"x")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_lying_dimensions_allocate_nothing(tmp_path, pack):
    data = pack(header(8, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(100))
    tracemalloc.start()
    try:
        message = broken(tmp_path, data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "4294967295 x 4294967295 x 4294967295" in message
    assert peak_bytes < 4 << 20


def test_a_gzip_bomb_is_not_inflated_past_its_declared_size(tmp_path):
    bomb = gzip.compress(header(8, 1000, 28, 28) + bytes(64 << 20))
    assert "more follow" in broken(tmp_path, bomb)
    assert not list((tmp_path / "inflated").iterdir())  # not even the part that was written


def test_gzip_cut_short_damaged_or_too_little(tmp_path):
    random = np.random.default_rng(0).bytes(2 * 784)
    whole = gzip.compress(header(8, 2, 28, 28) + random)
    assert "cut short" in broken(tmp_path, whole[:-300])
    assert "cut short" in broken(tmp_path, whole[:-3])  # within the checksum
    assert "damaged" in broken(tmp_path, whole[:-8] + b"\0\0\0\0" + whole[-4:])
    assert "it holds 1000" in broken(tmp_path, gzip.compress((header(8, 2, 28, 28) + random)[:1000]))


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        IdxFile(tmp_path / "absent", cache_dir=tmp_path)


def test_counts_differ(tmp_path, content):
    write_pair(tmp_path, (content[0], content[1][:49]))
    with pytest.raises(DataError, match=r"50 images, .* 49 labels"):
        open_dataset("mnist", split="test", data_dir=tmp_path)


def test_labels_out_of_range_are_named(tmp_path, content):
    labels = content[1].copy()
    labels[17] = 10
    write_pair(tmp_path, (content[0], labels))
    with pytest.raises(DataError, match=r"label 17 is 10; mnist has classes 0\.\.9"):
        open_dataset("mnist", split="test", data_dir=tmp_path)


def test_negative_labels_are_refused(tmp_path, content):
    labels = content[1].astype(np.int32)
    labels[3] = -1
    path = write_pair(tmp_path, (content[0], labels), images="my-images", labels="my-labels")
    with pytest.raises(DataError, match="label 3 is -1"):
        open_dataset(str(path), split="test")


def test_images_and_labels_swapped(tmp_path, content):
    write_pair(tmp_path, (content[1], content[0]))
    with pytest.raises(DataError, match="expected uint8 images"):
        open_dataset("mnist", split="test", data_dir=tmp_path)


def test_float_labels_are_refused(tmp_path, content):
    write_pair(tmp_path, (content[0], content[1].astype(np.float32)))
    with pytest.raises(DataError, match="expected whole numbers"):
        open_dataset("mnist", split="test", data_dir=tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=f"{IMAGES} and {LABELS} .* put both files there"):
        open_dataset("mnist", split="test", data_dir=tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_dataset("mnist", split="test", data_dir=tmp_path / "absent")


def test_labels_beside_a_path_are_looked_for_by_name(tmp_path, content):
    path = tmp_path / "odd-images-idx3-ubyte"
    write_idx(path, content[0])
    with pytest.raises(DataError, match="looked for odd-labels-idx1-ubyte"):
        open_dataset(str(path), split="test")
    nameless = tmp_path / "pictures"
    write_idx(nameless, content[0])
    with pytest.raises(DataError, match="a name with 'images' in it"):
        open_dataset(str(nameless), split="test")


def test_the_other_split_of_a_path_must_be_there(tmp_path, content):
    path = write_pair(tmp_path, content)
    with pytest.raises(DataError, match=r"is the test split.*choose --split test"):
        open_dataset(str(path), split="train")


def test_a_range_past_the_end(tmp_path, content):
    write_pair(tmp_path, content)
    data = open_dataset("mnist", split="test", data_dir=tmp_path)
    with pytest.raises(DataError, match="asked 20 images from 40 on, mnist/test has 50: at most 10"):
        data.read(40, 60)
    with pytest.raises(DataError, match=r"asked image 50 of mnist/test, which has 50 \(0\.\.49\)"):
        data.read(50, 51)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64])
def test_every_element_type_comes_back(tmp_path, dtype):
    array = np.arange(-12, 12).reshape(2, 3, 4).astype(dtype)
    write_idx(tmp_path / "a.gz", array)
    rows = IdxFile(tmp_path / "a.gz", cache_dir=tmp_path / "inflated").rows(1, 2)
    assert rows.dtype == array.dtype
    np.testing.assert_array_equal(rows, array[1:])


def serve(monkeypatch, files):
    """Let pooch fetch from a dict of URL -> bytes; any other URL is unreachable."""
    asked = []

    def answer(self, url, output_file, pooch, check_only=False):
        asked.append(url)
        if url not in files:
            raise ConnectionError(url)
        if self.progressbar:
            self.progressbar.total = len(files[url])
            self.progressbar.update(len(files[url]))
            self.progressbar.close()
        Path(output_file).write_bytes(files[url])

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", answer)
    return asked


def published_gzip(content, monkeypatch, name="mnist"):
    packed = {
        f"{IMAGES}.gz": gzip.compress(header(8, 50, 28, 28) + content[0].tobytes()),
        f"{LABELS}.gz": gzip.compress(header(8, 50) + content[1].tobytes()),
    }
    for file, data in packed.items():
        monkeypatch.setitem(idx.PUBLISHED[name].sha256, file, hashlib.sha256(data).hexdigest())
    return packed


def test_an_absent_set_is_downloaded_once_from_the_second_mirror(content, monkeypatch):
    mirror = idx.PUBLISHED["mnist"].mirrors[1]
    files = {mirror + name: data for name, data in published_gzip(content, monkeypatch).items()}
    asked = serve(monkeypatch, files)
    seen = []
    data = open_dataset("mnist", split="test", progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(data.read(0, 50)[0], content[0])
    assert len(asked) == 4
    assert seen[0] == (len(files[mirror + f"{IMAGES}.gz"]),) * 2
    open_dataset("mnist", split="test")
    assert len(asked) == 4


def test_a_download_of_another_sha256_is_refused_and_not_kept(content, monkeypatch):
    packed = published_gzip(content, monkeypatch)
    files = {mirror + name: data + b"!" for mirror in idx.PUBLISHED["mnist"].mirrors for name, data in packed.items()}
    asked = serve(monkeypatch, files)
    for _ in range(2):
        with pytest.raises(DataError, match="not the published file"):
            open_dataset("mnist", split="test")
    assert len(asked) == 4


def test_offline_says_which_files_to_put_where(monkeypatch):
    serve(monkeypatch, {})
    with pytest.raises(DataError, match=rf"{IMAGES}\.gz is not here .* --data-dir") as error:
        open_dataset("mnist", split="test")
    assert "\n" not in str(error.value)


def test_emnist_comes_out_of_its_archive(tmp_path, content, monkeypatch):
    archive = tmp_path / "gzip.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for kind, array in (("images-idx3", content[0].transpose(0, 2, 1)), ("labels-idx1", content[1])):
            name = f"emnist-digits-test-{kind}-ubyte.gz"
            write_idx(tmp_path / name, array)
            zipped.write(tmp_path / name, f"gzip/{name}")
    published = idx.PUBLISHED["emnist-digits"]
    monkeypatch.setitem(published.sha256, "gzip.zip", hashlib.sha256(archive.read_bytes()).hexdigest())
    asked = serve(monkeypatch, {published.mirrors[0] + "gzip.zip": archive.read_bytes()})
    data = open_dataset("emnist-digits", split="test")
    np.testing.assert_array_equal(data.read(0, 50)[0], content[0])
    assert len(asked) == 1


def test_every_published_file_has_a_sha256():
    for name, published in idx.PUBLISHED.items():
        assert set(published.prefix) == {"train", "test"}, name
        assert all(len(digest) == 64 for digest in published.sha256.values())
        for prefix in published.prefix.values():
            for tail in ("images-idx3-ubyte", published.labels):
                assert (published.archive or f"{prefix}{tail}.gz") in published.sha256


def test_cache_root_follows_the_user(tmp_path):
    assert tmp_path in download.cache_root().parents


@needs_mnist
def test_real_mnist_is_recognised_by_name_and_by_path():
    named = open_dataset("mnist", split="train", data_dir=MNIST)
    by_path = open_dataset(str(MNIST / "train-images-idx3-ubyte.gz"), split="train")
    assert (by_path.name, by_path.split, by_path.n_images) == ("mnist", "train", 60_000)
    assert named.read(0, 10)[1].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert fingerprint_range(named, 50_000, 50_500) == fingerprint_range(by_path, 50_000, 50_500)
    with pytest.raises(DataError, match="60000: at most 5000"):
        named.read(55_000, 65_000)
