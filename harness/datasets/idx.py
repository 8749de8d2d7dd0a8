"""Images and labels in IDX files: the MNIST family by name, or any pair by the path of its images."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets._download import RemoteFile, cache_root, fetch
from harness.datasets._idx_format import ELEMENT_TYPES, IdxFile, is_gzip
from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._ranges import check_range
from harness.errors import DataError
from harness.protocols import Progress

WHOLE = "all"  # the split of a pair of files that belongs to no known split


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A named data set: its files, where they come from, and their peculiarities."""

    mirrors: tuple[str, ...]
    sha256: dict[str, str]  # published file -> its sha256
    folder: str  # torchvision's folder for it, tried below --data-dir
    prefix: dict[str, str]  # split -> how its file names begin
    labels: str = "labels-idx1-ubyte"
    archive: str = ""  # the files lie in this zip archive
    member_folder: str = ""
    is_transposed: bool = False


# Mirrors and sha256: torchvision's prototype data sets (mnist.py), checked against TensorFlow Datasets' url_checksums;
# EMNIST's archive: TensorFlow Datasets and the address that torchvision uses since 2024.
PUBLISHED: dict[str, Published] = {
    "mnist": Published(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        folder="MNIST/raw",
        prefix={"train": "train-", "test": "t10k-"},
        sha256={
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion-mnist": Published(
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        folder="FashionMNIST/raw",
        prefix={"train": "train-", "test": "t10k-"},
        sha256={
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
    "kmnist": Published(
        mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        folder="KMNIST/raw",
        prefix={"train": "train-", "test": "t10k-"},
        sha256={
            "train-images-idx3-ubyte.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "train-labels-idx1-ubyte.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "t10k-images-idx3-ubyte.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "t10k-labels-idx1-ubyte.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
    ),
    "qmnist": Published(
        mirrors=("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
        folder="QMNIST/raw",
        prefix={"train": "qmnist-train-", "test": "qmnist-test-"},
        labels="labels-idx2-int",
        sha256={
            "qmnist-train-images-idx3-ubyte.gz": "9e26a7bf1683614e065d7b76460ccd52807165b3f22561fb782bd9f38c52b51d",
            "qmnist-train-labels-idx2-int.gz": "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
            "qmnist-test-images-idx3-ubyte.gz": "43fc22bf7498b8fc98de98369d72f752d0deabc280a43a7bcc364ab19e57b375",
            "qmnist-test-labels-idx2-int.gz": "9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
        },
    ),
    "emnist-digits": Published(
        mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/",),
        folder="EMNIST/raw",
        prefix={"train": "emnist-digits-train-", "test": "emnist-digits-test-"},
        archive="gzip.zip",
        member_folder="gzip/",
        is_transposed=True,
        sha256={"gzip.zip": "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"},
    ),
}
N_CLASSES = 10  # of every named set

# sha256 of an uncompressed labels file -> which published split it is. A pair given by path, or laid in another set's
# folder, is recognised by it: "scored on training images" must not depend on a file's name.
# Source: the uncompressed files' published sums; train computed from MNIST's own file as well.
KNOWN_LABELS = {
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5": ("mnist", "train"),
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2": ("mnist", "test"),
}
LABELS_MAGIC = 0x0801
IDX_NAME = re.compile(r"idx[0-9]-|ubyte")


class IdxDataset:
    """Labelled images of a pair of IDX files; a `Dataset`."""

    def __init__(
        self, images: IdxFile, labels: IdxFile, *, name: str, split: str, num_classes: int | None, is_transposed: bool
    ) -> None:
        """Check that images and labels belong together.

        Raises: DataError for other than uint8 images, counts that differ, or labels outside 0..num_classes-1.
        """
        if images.dtype != np.uint8 or len(images.shape) not in (3, 4):
            raise DataError(
                f"{images.path}: holds {images.dtype} of shape {images.shape}; "
                "expected uint8 images N x H x W or N x C x H x W"
            )
        if images.shape[0] != labels.shape[0]:
            raise DataError(
                f"{images.path} holds {images.shape[0]} images, {labels.path} {labels.shape[0]} labels; "
                "they are not of one set, give the matching pair"
            )
        self._images, self._is_transposed = images, is_transposed
        self._labels = labels_from_file(labels)
        self.name, self.split = name, split
        self.n_images = images.shape[0]
        side = images.shape[1:]
        self.image_shape = (*side[:-2], side[-1], side[-2]) if is_transposed else side
        highest = int(self._labels.max(initial=0))
        self.num_classes = num_classes if num_classes is not None else max(2, highest + 1)
        if self.n_images and (int(self._labels.min()) < 0 or highest >= self.num_classes):
            at = int(np.flatnonzero((self._labels < 0) | (self._labels >= self.num_classes))[0])
            raise DataError(
                f"{labels.path}: label {at} is {self._labels[at]}; {name} has classes 0..{self.num_classes - 1}, "
                "so this is another set's file or a damaged one"
            )

    def read(self, first: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images first..stop-1 as uint8[N, H, W] or uint8[N, C, H, W], and labels as int64[N].

        Raises: DataError for a range past the end.
        """
        check_range(first, stop, name=self.name, split=self.split, n_images=self.n_images)
        pixels = self._images.rows(first, stop).astype(np.uint8, copy=False)
        if self._is_transposed:
            pixels = np.ascontiguousarray(pixels.swapaxes(-1, -2))
        return pixels, self._labels[first:stop].copy()


def labels_from_file(file: IdxFile) -> NDArray[np.int64]:
    """Return int64[N]: the labels of an IDX file of whole numbers, the first column of one with several (QMNIST).

    Raises: DataError for another shape or element type.
    """
    if file.dtype.kind not in "ui" or len(file.shape) not in (1, 2) or 0 in file.shape[1:]:
        raise DataError(
            f"{file.path}: holds {file.dtype} of shape {file.shape}; expected whole numbers, one label an image"
        )
    rows = file.rows(0, file.shape[0])
    return (rows if rows.ndim == 1 else rows[:, 0]).astype(np.int64)


def open_named(
    name: str, *, split: str, data_dir: str | Path | None = None, progress: Progress | None = None
) -> IdxDataset:
    """Open a named set from `data_dir`, or from the user's cache, downloading it there when absent.

    Raises: DataError when files are missing or wrong; it says which files to put where.
    """
    published = PUBLISHED[name]
    if split not in published.prefix:
        raise DataError(f"{name} has no split {split!r}; there are: {', '.join(published.prefix)}")
    stems = [published.prefix[split] + tail for tail in ("images-idx3-ubyte", published.labels)]
    if data_dir is not None:
        paths = _find_in_folder(Path(data_dir), name, published, stems)
    else:
        paths = [_find_or_fetch(name, published, stem, progress) for stem in stems]
    images, labels = _open_pair(*paths)
    known = recognise_labels(labels)
    if known is not None and known != (name, split):
        raise DataError(f"{paths[1]} holds the labels of {known[0]}/{known[1]}, not of {name}/{split}; fix --data-dir")
    return IdxDataset(
        images, labels, name=name, split=split, num_classes=N_CLASSES, is_transposed=published.is_transposed
    )


def open_pair(path: Path, *, split: str) -> IdxDataset:
    """Open the images at `path` and the labels beside them.

    Files named after a split (train-..., t10k-..., test-...) give the split asked; any other file is the only one there
    is, and is called split "all". A pair whose labels are a known set's is called by that set's name.
    Raises: DataError when labels are not found; it says what was looked for.
    """
    images_path, found_split = _path_of_split(path, split)
    candidates = labels_candidates(images_path)
    labels_path = next((c for c in candidates if c.is_file()), None)
    if labels_path is None:
        looked = ", ".join(c.name for c in candidates) or "a name with 'images' in it, to put 'labels' for"
        raise DataError(f"{images_path}: no labels beside it; looked for {looked} in {images_path.parent}")
    images, labels = _open_pair(images_path, labels_path)
    known = recognise_labels(labels)
    name, split_name = known or (str(images_path), found_split)
    is_transposed = images_path.name.startswith("emnist-")
    num_classes = N_CLASSES if known else None
    return IdxDataset(images, labels, name=name, split=split_name, num_classes=num_classes, is_transposed=is_transposed)


def labels_candidates(images_path: Path) -> list[Path]:
    """Return the names that the labels of an images file go by, likeliest first."""
    name = images_path.name
    if "images" not in name:
        return []
    stem = name.replace("images", "labels").removesuffix(".gz")
    stems = [stem.replace("idx3", "idx1"), stem.replace("idx3-ubyte", "idx2-int"), stem]
    packed = name.endswith(".gz")
    endings = (".gz", "") if packed else ("", ".gz")
    return [images_path.with_name(s + ending) for s in dict.fromkeys(stems) for ending in endings]


def recognise_labels(file: IdxFile) -> tuple[str, str] | None:
    """Return (name, split) of the published set that a labels file is, None for any other."""
    if file.dtype != np.uint8 or len(file.shape) != 1:
        return None
    digest = hashlib.sha256(struct.pack(">II", LABELS_MAGIC, file.shape[0]))
    digest.update(file.rows(0, file.shape[0]).tobytes())
    return KNOWN_LABELS.get(digest.hexdigest())


def _open_pair(images_path: Path, labels_path: Path) -> tuple[IdxFile, IdxFile]:
    inflated = cache_root() / "inflated"
    return IdxFile(images_path, cache_dir=inflated), IdxFile(labels_path, cache_dir=inflated)


def _spellings(stem: str) -> list[str]:
    """Return the file names a published file goes by: with a dot before idx, raw or gzip."""
    return [name + ending for name in (stem, stem.replace("-idx", ".idx")) for ending in ("", ".gz")]


def _find_in_folder(data_dir: Path, name: str, published: Published, stems: list[str]) -> list[Path]:
    if not data_dir.is_dir():
        raise DataError(f"--data-dir {data_dir}: no such folder; {name} needs {' and '.join(stems)} (or .gz) in it")
    folders = (data_dir / name, data_dir / published.folder, data_dir)
    for folder in folders:
        found = [next((folder / s for s in _spellings(stem) if (folder / s).is_file()), None) for stem in stems]
        if all(found):
            return [path for path in found if path is not None]
    raise DataError(
        f"{name}: {' and '.join(stems)} (raw or .gz) are not in {data_dir}, nor in its folders "
        f"{name} and {published.folder}; put both files there, or leave --data-dir out to download them"
    )


def _find_or_fetch(name: str, published: Published, stem: str, progress: Progress | None) -> Path:
    folder = cache_root() / "datasets" / name
    packed = f"{stem}.gz"
    remote_name = published.archive or packed
    remote = RemoteFile(
        urls=tuple(mirror + remote_name for mirror in published.mirrors),
        sha256=published.sha256[remote_name],
        member=published.member_folder + packed if published.archive else "",
    )
    try:
        return fetch(remote, folder=folder, progress=progress)
    except DataError as error:
        raise DataError(
            f"{name}: {packed} is not here and cannot be downloaded ({error}); "
            f"put it and its partner into a folder and give --data-dir"
        ) from error


def _path_of_split(path: Path, split: str) -> tuple[Path, str]:
    """Return the images file of a split beside `path`, and its split."""
    marks = {"train": ("train-",), "test": ("t10k-", "test-")}
    for own, own_marks in marks.items():
        mark = next((m for m in own_marks if m in path.name), None)
        if mark is None:
            continue
        if own == split:
            return path, own
        others = [path.with_name(path.name.replace(mark, other)) for other in marks.get(split, ())]
        found = next((other for other in others if other.is_file()), None)
        if found is None:
            looked = ", ".join(other.name for other in others) or "nothing"
            raise DataError(
                f"{path} is the {own} split; of split {split!r} there is no file ({looked}) beside it; "
                f"choose --split {own}"
            )
        return found, split
    return path, WHOLE


def _open(request: OpenRequest) -> IdxDataset:
    return open_named(request.name, split=request.split, data_dir=request.data_dir, progress=request.progress)


def _state(name: str) -> str:
    folder = cache_root() / "datasets" / name
    if folder.is_dir() and any(folder.iterdir()):
        return f"usable: in {folder}"
    return "not here: downloaded at first use, or give its files by --data-dir"


def _takes(path: Path) -> bool:
    """Tell whether a file is IDX by its name or its first bytes; a damaged one is still called what it is."""
    if not path.is_file():
        return False
    if is_gzip(path) or path.suffix in ("", ".idx") or IDX_NAME.search(path.name):
        return True
    with path.open("rb") as file:
        magic = file.read(3)
    return len(magic) == 3 and magic[:2] == b"\0\0" and magic[2] in ELEMENT_TYPES


DATASETS = DatasetKind(
    names=tuple(PUBLISHED),
    open=_open,
    state=_state,
    takes_path=_takes,
    is_last=True,  # any file may be an IDX file: kinds that know theirs by the name come first
    open_path=lambda path, split: open_pair(path, split=split),
    reads="an IDX images file",
)
