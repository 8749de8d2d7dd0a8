"""The shapes of the digits of `strokes`: control points, pen strokes, and how to walk along them. Pure, exact.

A glyph is a handful of control points and the strokes that join them by Catmull-Rom curves. Every pen point is a fixed
integer combination of the control points, so that drawing is one matrix product per image. Whole numbers only: a
float here would put the last bit of every pixel at the mercy of a library.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

N_CONTROLS = 12  # control points of the largest glyph; the others are padded
N_PEN_POINTS = 64  # pen points along the strokes of one glyph
WEIGHT_BITS = 12  # fixed-point bits of the weight of a control point in a pen point
LENGTH_SCALE = 1 << 16  # sub-units of a length, so that its integer square root is fine enough

Point = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyph:
    """One way to write a digit: control points in a box of 100 x 100 (y down), strokes as indices into them."""

    digit: int
    controls: tuple[Point, ...]
    strokes: tuple[tuple[int, ...], ...]


def _glyph(digit: int, controls: str, *strokes: str) -> Glyph:
    """Read `"x,y x,y ..."` and strokes such as `"0 1 2"`."""
    pairs = tuple((int(x), int(y)) for x, y in (pair.split(",") for pair in controls.split()))
    return Glyph(digit=digit, controls=pairs, strokes=tuple(tuple(map(int, s.split())) for s in strokes))


GLYPHS: tuple[Glyph, ...] = (
    _glyph(0, "50,0 22,14 12,50 24,87 50,100 77,86 88,50 76,13", "0 1 2 3 4 5 6 7 0"),
    _glyph(0, "62,3 32,8 18,38 20,74 44,99 72,84 82,48 72,14 44,1", "0 1 2 3 4 5 6 7 8"),
    _glyph(0, "44,2 24,30 22,66 44,98 66,84 76,50 68,16 40,6", "0 1 2 3 4 5 6 7"),
    _glyph(1, "52,0 50,33 49,66 48,100", "0 1 2 3"),
    _glyph(1, "64,0 56,33 46,66 38,100", "0 1 2 3"),
    _glyph(1, "30,24 54,0 53,50 52,100", "0 1", "1 2 3"),
    _glyph(1, "34,22 52,2 52,50 52,98 28,99 76,98", "0 1", "1 2 3", "4 3 5"),
    _glyph(2, "16,22 34,3 62,2 80,22 68,48 42,72 14,98 50,97 88,95", "0 1 2 3 4 5 6", "6 7 8"),
    _glyph(2, "20,18 46,0 76,16 72,44 46,72 22,92 12,80 30,74 58,92 88,92", "0 1 2 3 4 5 6 7 8 9"),
    _glyph(2, "14,12 46,6 74,20 66,50 38,76 12,96 46,90 86,99", "0 1 2 3 4 5", "5 6 7"),
    _glyph(3, "18,14 44,0 74,12 72,36 42,48 76,60 80,84 46,100 14,86", "0 1 2 3 4", "4 5 6 7 8"),
    _glyph(3, "20,4 50,3 78,4 60,24 44,42 74,54 78,82 48,100 16,90", "0 1 2", "2 3 4", "4 5 6 7 8"),
    _glyph(3, "22,10 52,1 74,18 60,40 38,47 66,54 76,76 56,96 20,96", "0 1 2 3 4 5 6 7 8"),
    _glyph(4, "24,2 20,30 16,58 50,58 88,56 66,14 63,56 60,100", "0 1 2", "2 3 4", "5 6 7"),
    _glyph(4, "62,0 38,30 12,64 50,65 90,64 63,50 62,100", "0 1 2", "2 3 4", "0 5 6"),
    _glyph(4, "18,4 18,34 34,54 58,48 76,30 78,2 74,50 70,98", "0 1 2 3 4", "5 6 7"),
    _glyph(5, "80,3 52,3 26,5 22,42 52,34 80,52 78,84 46,100 14,90", "0 1 2", "2 3", "3 4 5 6 7 8"),
    _glyph(5, "30,6 26,26 24,46 56,42 78,62 66,92 38,100 14,88 58,4 86,2", "0 1 2", "2 3 4 5 6 7", "0 8 9"),
    _glyph(5, "84,2 54,6 36,14 30,36 52,50 70,68 62,92 36,99 14,90", "0 1 2 3 4 5 6 7 8"),
    _glyph(6, "68,2 40,20 22,52 24,84 50,100 76,86 74,60 50,50 26,68", "0 1 2 3 4 5 6 7 8"),
    _glyph(6, "40,0 28,34 22,68 36,96 64,96 76,74 60,56 36,62 24,80", "0 1 2 3 4 5 6 7 8"),
    _glyph(6, "78,10 52,4 28,26 20,62 34,94 62,96 76,76 62,58 36,62 22,76", "0 1 2 3 4 5 6 7 8 9"),
    _glyph(7, "14,6 48,5 84,4 66,36 52,68 42,100", "0 1 2", "2 3 4 5"),
    _glyph(7, "14,8 48,5 82,4 64,36 52,68 44,100 28,52 76,48", "0 1 2", "2 3 4 5", "6 7"),
    _glyph(7, "14,24 18,6 50,8 84,2 70,32 52,60 50,100", "0 1", "1 2 3", "3 4 5 6"),
    _glyph(7, "12,14 40,6 70,4 80,16 66,48 52,74 42,100", "0 1 2 3 4 5 6"),
    _glyph(8, "74,14 48,0 24,18 38,42 68,60 76,82 50,100 22,84 34,58 66,38", "0 1 2 3 4 5 6 7 8 9 0"),
    _glyph(8, "50,0 26,22 50,46 74,22 50,100 20,74 80,74", "0 1 2 3 0", "2 5 4 6 2"),
    _glyph(8, "78,8 46,2 26,22 48,46 70,72 48,98 24,78 42,52 66,26 80,8", "0 1 2 3 4 5 6 7 8 9"),
    _glyph(9, "76,20 50,0 22,16 24,42 50,52 74,36 75,68 70,100", "0 1 2 3 4 5 0", "0 6 7"),
    _glyph(9, "74,14 46,2 22,24 38,48 66,40 76,10 72,44 64,74 52,100", "0 1 2 3 4 5", "5 6 7 8"),
    _glyph(9, "76,22 52,0 24,18 30,44 58,50 76,28 78,64 62,96 26,92", "0 1 2 3 4 5", "5 6 7 8"),
)


def _catmull_rom_weights(part: int, whole: int) -> tuple[int, int, int, int]:
    """Return the fixed-point weights of four neighbours at part/whole of the way between the middle two.

    Source: Catmull and Rom, A class of local interpolating splines, 1974; the uniform form with tension 1/2.
    """
    a, b = part, whole  # t = a / b; every weight is a polynomial over 2 * b**3
    quads = (
        -(a**3) + 2 * a * a * b - a * b * b,
        3 * a**3 - 5 * a * a * b + 2 * b**3,
        -3 * a**3 + 4 * a * a * b + a * b * b,
        a**3 - a * a * b,
    )
    first, second, third, fourth = ((quad << WEIGHT_BITS) // (2 * b**3) for quad in quads)
    return first, second, third, fourth


def _segments(glyph: Glyph) -> list[tuple[tuple[int, int, int, int], int]]:
    """Return each piece of curve as its four control indices and its chord's length; ends repeat their neighbour."""
    pieces = []
    for stroke in glyph.strokes:
        closed = stroke[0] == stroke[-1]
        before, after = (stroke[-2], stroke[1]) if closed else (stroke[0], stroke[-1])
        line = (before, *stroke, after)
        for k in range(1, len(line) - 2):
            (x0, y0), (x1, y1) = glyph.controls[line[k]], glyph.controls[line[k + 1]]
            length = isqrt(((x1 - x0) ** 2 + (y1 - y0) ** 2) * LENGTH_SCALE)
            pieces.append(((line[k - 1], line[k], line[k + 1], line[k + 2]), length))
    return pieces


def pen_weights(glyph: Glyph) -> NDArray[np.int64]:
    """Return int64[N_PEN_POINTS, N_CONTROLS]: the share of each control point in each pen point, times 2**WEIGHT_BITS.

    Pen points are spread evenly over the chords' total length.
    """
    pieces = _segments(glyph)
    total = sum(length for _, length in pieces)
    weights = np.zeros((N_PEN_POINTS, N_CONTROLS), np.int64)
    start, piece = 0, 0
    for k in range(N_PEN_POINTS):
        place = (2 * k + 1) * total  # in units of a length over 2 * N_PEN_POINTS
        while place > (start + pieces[piece][1]) * 2 * N_PEN_POINTS:
            start += pieces[piece][1]
            piece += 1
        indices, length = pieces[piece]
        part = place - start * 2 * N_PEN_POINTS
        for index, weight in zip(indices, _catmull_rom_weights(part, length * 2 * N_PEN_POINTS), strict=True):
            weights[k, index] += weight
    return weights


def glyph_controls(glyph: Glyph) -> NDArray[np.int64]:
    """Return int64[N_CONTROLS, 2]: control points about the box's centre; unused ones are 0."""
    controls = np.zeros((N_CONTROLS, 2), np.int64)
    controls[: len(glyph.controls)] = np.array(glyph.controls, np.int64) - 50
    return controls
