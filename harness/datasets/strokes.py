"""Digits drawn from pen strokes: any number of labelled images, the same bytes on every machine.

An image depends on (seed, split, its index) alone, through blocks of BLOCK images that are drawn at once. Every step
is exact: random numbers are a bit generator's raw words, coordinates are fixed-point integers, and the one floating
point step, a batched matrix product, holds whole numbers whose sums stay below 2**24, so that no order of summation
and no fused multiply-add can change a bit of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.datasets._glyphs import GLYPHS, N_CONTROLS, N_PEN_POINTS, WEIGHT_BITS, glyph_controls, pen_weights
from harness.datasets._kind import DatasetKind
from harness.datasets._ranges import check_range
from harness.errors import DataError

BLOCK = 1000  # images drawn from one random stream; part of the data's definition
PIECE = 125  # images drawn at once: keeps the arrays in a core's cache; no part of the definition
SIDE = 28  # pixels
N_CLASSES = 10
N_IMAGES = 10_000_000  # of each split; a bound of convenience, nothing is stored
SPLITS = {"train": 0, "test": 1}
DEFAULT_SEED = 20_261_121

SUBPIXELS = 64  # fixed-point units of a pixel
N_STRAY = 8  # pen points of the stray mark
N_POINTS = N_PEN_POINTS + N_STRAY
BUMP_MAX = 256  # N_POINTS * BUMP_MAX**2 = 4.7e6 < 2**24: float32 holds every partial sum exactly
RADII = tuple(range(64, 64 + 8 * 24, 8))  # pen radii [subpixels]: 1.0 to 3.9 px, where the bump reaches zero
FAR = 1 << 14  # a coordinate off the canvas [subpixels]
INK_SHIFT = 6  # bits of the sum of bumps that ink does not need: its square then fits 32 bits
INK_FULL = 3 * BUMP_MAX * BUMP_MAX // 2 >> INK_SHIFT  # summed bumps that give full ink
N_WORDS = 32  # random words of 64 bits an image for its shape
N_NOISE_WORDS = SIDE * SIDE // 8


def _bump_table() -> NDArray[np.float32]:
    """Return float32[len(RADII), reach]: biweight (1 - (d/r)**2)**2 of a distance [subpixels], whole numbers.

    Source: Tukey's biweight; the last column is 0, distances beyond it are clipped to it.
    """
    reach = RADII[-1] + 1
    table = np.zeros((len(RADII), reach), np.float32)
    for row, radius in enumerate(RADII):
        for distance in range(radius):
            rest = radius * radius - distance * distance
            table[row, distance] = BUMP_MAX * rest * rest // radius**4
    return table


class _Tables:
    """What all images share: per glyph its control points and pen weights, per digit its glyphs, and the bumps."""

    def __init__(self) -> None:
        self.controls = np.stack([glyph_controls(g) for g in GLYPHS])
        self.weights = np.stack([pen_weights(g) for g in GLYPHS]).astype(np.float64)
        digits = np.array([g.digit for g in GLYPHS])
        self.first = np.array([int(np.flatnonzero(digits == d)[0]) for d in range(N_CLASSES)], np.int64)
        self.count = np.bincount(digits, minlength=N_CLASSES).astype(np.int64)
        self.bumps = _bump_table()


class _Draws:
    """The random numbers of some images, handed out in a fixed order from their rows of 16-bit words."""

    def __init__(self, words: NDArray[np.int64]) -> None:
        self._words = words
        self._used = 0

    def uniform(self, n_values: int) -> NDArray[np.int64]:
        """Return int64[N, n_values], uniform on 0..65535."""
        start, self._used = self._used, self._used + n_values
        if self._used > self._words.shape[1]:
            raise IndexError(f"{self._used} random numbers an image asked, {self._words.shape[1]} drawn")
        return self._words[:, start : self._used]

    def bell(self, n_values: int) -> NDArray[np.int64]:
        """Return int64[N, n_values], bell-shaped on -65535..65535 (a difference of two uniform numbers)."""
        both = self.uniform(2 * n_values)
        return both[:, :n_values] - both[:, n_values:]


class Strokes:
    """Digits 0..9 in uint8[28, 28], drawn when read; a `Dataset`. Each block of 1,000 holds 100 of each digit."""

    name = "strokes"
    n_images = N_IMAGES
    num_classes = N_CLASSES
    image_shape: tuple[int, ...] = (SIDE, SIDE)

    def __init__(self, *, split: str = "test", seed: int = DEFAULT_SEED) -> None:
        if split not in SPLITS:
            raise DataError(f"strokes has no split {split!r}; there are: {', '.join(SPLITS)}")
        self.split = split
        self._seed = seed
        self._tables = _Tables()
        self._last: tuple[int, NDArray[np.uint8], NDArray[np.int64]] | None = None

    def read(self, first: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images first..stop-1 as uint8[N, 28, 28] and their labels as int64[N].

        Raises: DataError for a range outside 0..n_images.
        """
        check_range(first, stop, name=self.name, split=self.split, n_images=self.n_images)
        pixels = np.empty((stop - first, SIDE, SIDE), np.uint8)
        labels = np.empty(stop - first, np.int64)
        at = first
        while at < stop:
            block, offset = divmod(at, BLOCK)
            until = min(stop, (block + 1) * BLOCK)
            drawn, named = self._block(block)
            pixels[at - first : until - first] = drawn[offset : offset + until - at]
            labels[at - first : until - first] = named[offset : offset + until - at]
            at = until
        return pixels, labels

    def _block(self, block: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        last = self._last  # small batches read one block many times over
        if last is not None and last[0] == block:
            return last[1], last[2]
        pixels, labels = self._draw_block(block)
        self._last = (block, pixels, labels)
        return pixels, labels

    def _draw_block(self, block: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        # Philox's raw words are guaranteed to stay as they are; Generator's methods are not (NEP 19).
        source = np.random.Philox(key=np.array([self._seed, (block << 1) | SPLITS[self.split]], np.uint64))
        labels = np.argsort(source.random_raw(BLOCK), kind="stable").astype(np.int64) % N_CLASSES
        shape_words = _little_endian(source.random_raw(BLOCK * N_WORDS), "<u2", BLOCK)
        noise = _little_endian(source.random_raw(BLOCK * N_NOISE_WORDS), "u1", BLOCK)
        pixels = np.empty((BLOCK, SIDE, SIDE), np.uint8)
        for start in range(0, BLOCK, PIECE):
            piece = slice(start, start + PIECE)
            draws = _Draws(shape_words[piece].astype(np.int64))
            points, radii = _pen_path(self._tables, labels[piece], draws)
            pixels[piece] = _ink(self._tables.bumps, points, radii, draws, noise[piece])
        return pixels, labels


def _little_endian(words: NDArray[np.uint64], dtype: str, n_images: int) -> NDArray[np.generic]:
    return words.astype("<u8").view(dtype).reshape(n_images, -1)


def _pen_path(tables: _Tables, labels: NDArray[np.int64], draws: _Draws) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return int64[N, N_POINTS, 2], pen points in subpixels (x, y), and int64[N, N_POINTS], their rows in RADII."""
    n_images = len(labels)
    glyphs = tables.first[labels] + (draws.uniform(1)[:, 0] * tables.count[labels] >> 16)
    # How carefully this one is written: mostly neat, with a tail of scrawls.
    care = draws.uniform(1)
    jitter = 60 + (care * care >> 16) * 240 // 65536  # up to this many 1/16 of a box unit
    controls = tables.controls[glyphs] * 16
    controls = controls + (draws.bell(2 * N_CONTROLS).reshape(n_images, N_CONTROLS, 2) * jitter[:, :, None] >> 16)
    shaped = np.matmul(controls, _affine(draws)) >> 10
    points = np.empty((n_images, N_POINTS, 2), np.int64)
    # Whole numbers below 2**53 throughout: exact in float64.
    along = np.matmul(tables.weights[glyphs], shaped.astype(np.float64))
    written = along.astype(np.int64) >> WEIGHT_BITS
    middle = (written.min(axis=1) + written.max(axis=1)) >> 1
    shift = draws.bell(2) * (2 * SUBPIXELS) >> 16
    written += (SIDE * SUBPIXELS // 2 - middle + shift)[:, None, :]
    points[:, :N_PEN_POINTS] = written
    _lift_pen(points, draws)
    points[:, N_PEN_POINTS:] = _stray_mark(draws)
    base = draws.uniform(1) * 11 >> 16
    taper = draws.bell(1) * 4 >> 16
    slope = np.arange(N_POINTS) - N_POINTS // 2
    radii = np.clip(base + 4 + (taper * slope // (N_POINTS // 2)), 0, len(RADII) - 1)
    return points, radii


def _affine(draws: _Draws) -> NDArray[np.int64]:
    """Return int64[N, 2, 2] that takes 1/16 box units to subpixels, times 2**10: size, slant, then rotation.

    The rotation is the exact rational one, ((1-t^2)/(1+t^2), 2t/(1+t^2)) with t the tangent of half the angle.
    """
    height = 760 + (draws.bell(1)[:, 0] * 130 >> 16)  # 1600 units * 760 / 1024 / 64 = 18.6 px
    width = height * (820 + (draws.bell(1)[:, 0] * 300 >> 16)) >> 10
    slant = draws.bell(1)[:, 0] * 520 >> 16  # of 1024: up to 27 degrees
    half = draws.bell(1)[:, 0] * 52 >> 16  # of 256: up to 23 degrees
    norm = 256 * 256 + half * half
    cosine = (256 * 256 - half * half) * 1024 // norm
    sine = 2 * 256 * half * 1024 // norm
    lean = -slant * height >> 10
    matrix = np.empty((len(height), 2, 2), np.int64)
    matrix[:, 0, 0] = width * cosine >> 10
    matrix[:, 0, 1] = width * sine >> 10
    matrix[:, 1, 0] = (lean * cosine - height * sine) >> 10
    matrix[:, 1, 1] = (lean * sine + height * cosine) >> 10
    return matrix


def _lift_pen(points: NDArray[np.int64], draws: _Draws) -> None:
    """Leave a gap in the line of every fourth image, up to 12 pen points long."""
    kind, place, length = (column[:, None] for column in draws.uniform(3).T)
    start = place * N_PEN_POINTS >> 16
    stop = start + 1 + (length * 12 >> 16)
    index = np.arange(N_PEN_POINTS)
    gone = (kind < 65536 // 4) & (index >= start) & (index < stop)
    points[:, :N_PEN_POINTS][gone] = FAR


def _stray_mark(draws: _Draws) -> NDArray[np.int64]:
    """Return int64[N, N_STRAY, 2]: in one image of eight a short line near an edge, as of a neighbour's digit."""
    kind, side, along, tilt = (column[:, None] for column in draws.uniform(4).T)
    step = np.arange(N_STRAY)[None, :] - N_STRAY // 2
    across = np.where(side < 32768, SUBPIXELS, (SIDE - 1) * SUBPIXELS) + (step * (tilt - 32768) * 40 >> 15)
    length = (along * SIDE * SUBPIXELS >> 16) + step * 40
    mark = np.stack([across, length], axis=2)
    lying = (side & 1).astype(bool)[:, :, None]
    mark = np.where(lying, mark[:, :, ::-1], mark)
    return np.where((kind < 65536 // 8)[:, :, None], mark, FAR)


def _ink(
    bumps: NDArray[np.float32],
    points: NDArray[np.int64],
    radii: NDArray[np.int64],
    draws: _Draws,
    noise: NDArray[np.generic],
) -> NDArray[np.uint8]:
    """Return uint8[N, 28, 28]: the sum of all pen points' bumps, saturated, scaled and with noise."""
    n_images, reach = len(points), bumps.shape[1]
    centers = (np.arange(SIDE) * SUBPIXELS + SUBPIXELS // 2).astype(np.int32)
    rows = (radii * reach).astype(np.int32)[:, :, None]
    flat = bumps.ravel()

    def spread(axis: int) -> NDArray[np.float32]:
        distance = np.abs(centers - points[:, :, axis, None].astype(np.int32))
        heights: NDArray[np.float32] = flat[np.minimum(distance, reach - 1, out=distance) + rows]
        return heights

    # float32, yet exact: whole numbers, and no partial sum reaches 2**24 (see BUMP_MAX).
    summed = np.matmul(spread(1).transpose(0, 2, 1), spread(0)).astype(np.int32) >> INK_SHIFT
    missing = INK_FULL - np.minimum(summed, INK_FULL)
    full = 255 - missing * missing * 255 // (INK_FULL * INK_FULL)
    contrast, dirt = (column[:, None, None] for column in draws.uniform(2).T)
    strength = 256 - (contrast * contrast >> 16) * 130 // 65536
    level = (dirt * dirt >> 16) * 80 // 65536
    grain = noise.reshape(n_images, SIDE, SIDE).astype(np.int32) - 128
    inked: NDArray[np.int32] = (full * strength.astype(np.int32) >> 8) + (grain * level.astype(np.int32) >> 7)
    return np.clip(inked, 0, 255).astype(np.uint8)


DATASETS = DatasetKind(
    names=("strokes",),
    open=lambda request: Strokes(split=request.split),
    state=lambda name: "usable: drawn here, any size",
)
