"""Ranges of images of a data set: are they there, and what is in them. Knows no file format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.protocols import Dataset
from harness.records import BLOCK_IMAGES

BLOCK_DIGEST_BYTES = 8
WORD_BYTES = 8
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


@dataclass(slots=True)
class Piece:
    """Some or all images of a block of BLOCK_IMAGES, in parts as they came: what is digested at once."""

    place: int  # of its first image in the range
    first: int  # id of that image
    parts: list[tuple[NDArray[np.generic], NDArray[np.int64]]]  # pixels and labels, contiguous and little-endian
    n_images: int = 0

    @property
    def is_whole(self) -> bool:
        """Tell whether it is a whole block."""
        return self.n_images == BLOCK_IMAGES


@dataclass(frozen=True, slots=True)
class Cut:
    """Images as they came, and the blocks that they complete."""

    place: int  # of the first image in the range
    pixels: NDArray[np.generic]
    pieces: list[Piece]


class RangeFingerprint:
    """A sha256 over the ids, labels and pixels of consecutive images; the same however they are chunked.

    Pixels are digested once, a block of BLOCK_IMAGES images (its first id a multiple of BLOCK_IMAGES) at a time, and
    the whole is a digest of those digests. So two ranges that overlap can be compared on the blocks they share, and
    several threads can digest one range: `cut` in order, `digest` in any.
    """

    def __init__(self) -> None:
        self._layout: tuple[str, tuple[int, ...]] | None = None
        self._n_images, self._following = 0, 0
        self._open: Piece | None = None  # of a block that is not complete yet
        self._digests: dict[int, tuple[bytes, bool]] = {}  # of a piece by its place, and whether it is a whole block
        self._looks: dict[int, NDArray[np.uint64]] = {}  # of the images of a cut, by its place

    def update(self, first: int, pixels: NDArray[np.generic], labels: NDArray[np.int64]) -> None:
        """Add images first.. (any shape and dtype) and their labels: int64[N].

        Raises: DataError when counts differ, or images do not follow the last ones or change their shape or dtype.
        """
        self.digest(self.cut(first, pixels, labels))

    def cut(self, first: int, pixels: NDArray[np.generic], labels: NDArray[np.int64]) -> Cut:
        """Part images first.. into blocks; the beginning of a block waits for the rest. Raises: as `update`."""
        if len(pixels) != len(labels):
            raise DataError(f"{len(pixels)} images came with {len(labels)} labels")
        layout = (pixels.dtype.newbyteorder("<").str, pixels.shape[1:])
        if self._layout not in (None, layout):
            raise DataError(f"images from {first} on are {layout}; those before were {self._layout}")
        if self._layout is not None and first != self._following:
            raise DataError(f"images from {first} on came where image {self._following} should follow")
        self._layout = layout
        little, numbers = np.ascontiguousarray(pixels, layout[0]), np.ascontiguousarray(labels, "<i8")
        cut = Cut(self._n_images, little, [])
        start = 0
        while start < len(numbers):
            stop = min(len(numbers), start + BLOCK_IMAGES - (first + start) % BLOCK_IMAGES)
            if self._open is None:
                self._open = Piece(self._n_images + start, first + start, [])
            self._open.parts.append((little[start:stop], numbers[start:stop]))
            self._open.n_images += stop - start
            if (first + stop) % BLOCK_IMAGES == 0:
                cut.pieces.append(self._open)
                self._open = None
            start = stop
        self._n_images += len(numbers)
        self._following = first + len(numbers)
        return cut

    def digest(self, cut: Cut) -> None:
        """Digest what was cut. Threads may do so side by side."""
        for piece in cut.pieces:
            self._digests[piece.place] = self._digest_of(piece), piece.is_whole
        self._looks[cut.place] = _looks(cut.pixels)

    def repeats(self, read: Callable[[int], NDArray[np.generic]]) -> NDArray[np.int64]:
        """Return int64[R, 2]: the place in the range of an image whose pixels came before, and where they did.

        `read(place)` returns the pixels of one image again: those that look alike are compared.
        """
        looks = np.concatenate([np.empty(0, np.uint64), *(self._looks[place] for place in sorted(self._looks))])
        ascending = np.sort(looks)
        is_alike = ascending[1:] == ascending[:-1]
        if not is_alike.any():
            return np.empty((0, 2), np.int64)
        places = np.flatnonzero(np.isin(looks, ascending[1:][is_alike]))
        places = places[np.argsort(looks[places], kind="stable")]
        groups = np.split(places, np.flatnonzero(np.diff(looks[places])) + 1)
        repeats = [pair for group in groups for pair in _repeats_among(group.tolist(), read)]
        return np.asarray(sorted(repeats), np.int64).reshape(-1, 2)

    def block_digests(self) -> NDArray[np.uint64]:
        """Return uint64[blocks]: the digest of every whole block so far, in order."""
        whole = (digest for _, (digest, is_whole) in sorted(self._digests.items()) if is_whole)
        return np.asarray([int.from_bytes(digest[:BLOCK_DIGEST_BYTES], "little") for digest in whole], np.uint64)

    def hexdigest(self) -> str:
        """Return the digest of all images so far: 64 hex digits."""
        total = hashlib.sha256(repr((self._layout, self._n_images)).encode())
        for _, (digest, _) in sorted(self._digests.items()):
            total.update(digest)
        if self._open is not None:
            total.update(self._digest_of(self._open))
        return total.hexdigest()

    def _digest_of(self, piece: Piece) -> bytes:
        head = repr((piece.first, piece.n_images, self._layout)).encode()
        # At once: threads wait for each other at every further call.
        digest = hashlib.sha256(b"".join((head, *(labels.tobytes() for _, labels in piece.parts))))
        for pixels, _ in piece.parts:
            digest.update(pixels.data)
        return digest.digest()


def _looks(images: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Return uint64[N]: a number of each image, equal for equal images; where others share one, pixels decide.

    It costs a tenth of a digest. Source: multilinear hashing, Carter and Wegman 1979, modulo 2**64.
    """
    rows = images.reshape(len(images), -1).view(np.uint8)
    n_words, n_odd = divmod(rows.shape[1], WORD_BYTES)
    weights = _weights(n_words + n_odd)
    words, odd = rows[:, n_odd:].view(np.uint64), rows[:, :n_odd].astype(np.uint64)
    looks: NDArray[np.uint64] = np.einsum("ij,j->i", words, weights[n_odd:])
    looks += np.einsum("ij,j->i", odd, weights[:n_odd])
    return looks


@lru_cache(maxsize=8)
def _weights(n_words: int) -> NDArray[np.uint64]:
    weights: NDArray[np.uint64] = np.random.default_rng(0).integers(0, 2**64, n_words, np.uint64)
    weights |= np.uint64(1)
    return weights


def _repeats_among(places: list[int], read: Callable[[int], NDArray[np.generic]]) -> list[tuple[int, int]]:
    """Return the images among some, in order, that have the pixels of an earlier one, each with the first such."""
    kinds: dict[bytes, int] = {}
    firsts = [(place, kinds.setdefault(np.ascontiguousarray(read(place)).tobytes(), place)) for place in places]
    return [(place, first) for place, first in firsts if place != first]


def fingerprint_range(dataset: Dataset, first: int, stop: int) -> str:
    """Return the fingerprint of images first..stop-1, read in pieces.

    Raises: DataError for a range the data set does not hold.
    """
    check_range(first, stop, name=dataset.name, split=dataset.split, n_images=dataset.n_images)
    fingerprint = RangeFingerprint()
    for start in range(first, stop, CHUNK_IMAGES):
        fingerprint.update(start, *dataset.read(start, min(start + CHUNK_IMAGES, stop)))
    return fingerprint.hexdigest()
