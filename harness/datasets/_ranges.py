"""Ranges of images of a data set: are they there, and what is in them. Knows no file format."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.protocols import Dataset
from harness.records import BLOCK_IMAGES

BLOCK_DIGEST_BYTES = 8
IMAGE_DIGEST_BYTES = 12  # two of a million unlike images share one with a chance of 1e-17
CHUNK_IMAGES = 1000  # images read at once while hashing: bounds memory, changes no digest


def check_range(first: int, stop: int, *, name: str, split: str, n_images: int) -> None:
    """Refuse a range of images that a data set does not hold.

    Raises: DataError, naming the largest range that could be asked.
    """
    if 0 <= first <= stop <= n_images:
        return
    if first >= n_images or first < 0:
        raise DataError(
            f"asked image {first} of {name}/{split}, which has {n_images} (0..{n_images - 1}); choose a smaller start"
        )
    raise DataError(
        f"asked {stop - first} images from {first} on, {name}/{split} has {n_images}: "
        f"at most {n_images - first} from there; ask for fewer, or start earlier"
    )


class RangeFingerprint:
    """A sha256 over the ids, labels and pixels of consecutive images; the same however they are chunked.

    Beside it, a short digest of every whole block of BLOCK_IMAGES images whose first id is a multiple of BLOCK_IMAGES:
    two ranges that overlap can be compared on the blocks they share.
    """

    def __init__(self) -> None:
        self._blocks: list[int] = []
        self._block = hashlib.blake2b(digest_size=BLOCK_DIGEST_BYTES)
        self._block_labels: list[int] = []
        self._ids, self._labels, self._pixels = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._layout: tuple[str, tuple[int, ...]] | None = None
        self._places: dict[bytes, int] = {}  # digest of an image -> its first place in the range
        self._repeats: list[tuple[int, int]] = []
        self._n_images = 0

    def update(self, first: int, pixels: NDArray[np.generic], labels: NDArray[np.int64]) -> None:
        """Add images first.. (any shape and dtype) and their labels: int64[N].

        Raises: DataError when counts differ, or images change their shape or dtype on the way.
        """
        if len(pixels) != len(labels):
            raise DataError(f"{len(pixels)} images came with {len(labels)} labels")
        layout = (pixels.dtype.newbyteorder("<").str, pixels.shape[1:])
        if self._layout not in (None, layout):
            raise DataError(f"images from {first} on are {layout}; those before were {self._layout}")
        self._layout = layout
        self._ids.update(np.arange(first, first + len(labels), dtype="<i8").data)
        self._labels.update(np.ascontiguousarray(labels, "<i8").data)
        little = np.ascontiguousarray(pixels, layout[0])
        self._pixels.update(little.data)
        self._update_blocks(first, little, labels)
        self._note_repeats(little)

    def repeats(self) -> NDArray[np.int64]:
        """Return int64[R, 2]: the place in the range of an image whose pixels came before, and where they did."""
        return np.asarray(self._repeats, np.int64).reshape(-1, 2)

    def block_digests(self) -> NDArray[np.uint64]:
        """Return uint64[blocks]: the digest of every whole block so far, in order."""
        return np.asarray(self._blocks, np.uint64)

    def _note_repeats(self, pixels: NDArray[np.generic]) -> None:
        for image in pixels:
            digest = hashlib.blake2b(image.data, digest_size=IMAGE_DIGEST_BYTES).digest()
            place = self._places.setdefault(digest, self._n_images)
            if place != self._n_images:
                self._repeats.append((self._n_images, place))
            self._n_images += 1

    def _update_blocks(self, first: int, pixels: NDArray[np.generic], labels: NDArray[np.int64]) -> None:
        # Images before the first whole block belong to none.
        start = 0 if self._block_labels else -first % BLOCK_IMAGES
        while start < len(labels):
            stop = min(len(labels), start + BLOCK_IMAGES - len(self._block_labels))
            self._block.update(pixels[start:stop].data)
            self._block_labels += labels[start:stop].tolist()
            if len(self._block_labels) == BLOCK_IMAGES:
                self._block.update(repr((first + stop, self._layout, self._block_labels)).encode())
                self._blocks.append(int.from_bytes(self._block.digest(), "little"))
                self._block, self._block_labels = hashlib.blake2b(digest_size=BLOCK_DIGEST_BYTES), []
            start = stop

    def hexdigest(self) -> str:
        """Return the digest of all images so far: 64 hex digits."""
        total = hashlib.sha256(repr(self._layout).encode())
        for part in (self._ids, self._labels, self._pixels):
            total.update(part.digest())
        return total.hexdigest()


def fingerprint_range(dataset: Dataset, first: int, stop: int) -> str:
    """Return the fingerprint of images first..stop-1, read in pieces.

    Raises: DataError for a range the data set does not hold.
    """
    check_range(first, stop, name=dataset.name, split=dataset.split, n_images=dataset.n_images)
    fingerprint = RangeFingerprint()
    for start in range(first, stop, CHUNK_IMAGES):
        fingerprint.update(start, *dataset.read(start, min(start + CHUNK_IMAGES, stop)))
    return fingerprint.hexdigest()
