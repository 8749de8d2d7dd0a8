"""Small labelled sets, drawn or gathered on the spot, for the models of `real_models.py`.

Everything drawn is seeded: the same count and seed give the same set. Text is set in the font that Pillow brings.
"""

from __future__ import annotations

import builtins
import csv
import gzip
import io
import json
import keyword
import os
import pickle
import sqlite3
import sysconfig
import tempfile
import wave
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float32]
BOX = tuple[int, int, int, int]  # left, top, right, bottom [pixels]

WORDS = tuple(sorted({*keyword.kwlist, *(name.strip("_") for name in dir(builtins))}))
LETTERS = "ABCDEFGHKLMNPRSTUVWXYZ23456789"
TEXT_HEIGHT, ANGLE_WIDTH, LINE_WIDTH = 48, 192, 320  # of pictures of a line [pixels]
SHRUNK = 0.4  # how far a text region is shrunk: M. Liao et al., AAAI 2020, section 3.4 (DB)
SUFFIXES = {  # of files that lie about -> what they are
    ".c": "c", ".css": "css", ".html": "html", ".js": "javascript", ".json": "json", ".md": "markdown", ".py": "python",
    ".sh": "shell", ".so": "elf", ".toml": "toml", ".xml": "xml",
}  # fmt: skip
PASSED_OVER = ("site-packages", "dist-packages", "reports")
MIN_BYTES = 200  # smaller files say little


# -- pictures


def picture(size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """Return a light, slightly uneven background; `size`: (width, height)."""
    low = random.integers(170, 240, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


def ink(random: np.random.Generator) -> tuple[int, ...]:
    """Return a dark colour."""
    return tuple(int(value) for value in random.integers(0, 90, 3))


def line_of_text(text: str, random: np.random.Generator) -> Image.Image:
    """Return a picture of one line of text with a small margin."""
    font = ImageFont.load_default(size=int(random.integers(22, 40)))
    left, top, right, bottom = font.getbbox(text)
    margin = [int(value) for value in random.integers(3, 9, 2)]
    image = picture((int(right - left) + 2 * margin[0], int(bottom - top) + 2 * margin[1]), random)
    ImageDraw.Draw(image).text((margin[0] - left, margin[1] - top), text, font=font, fill=ink(random))
    return image


def scaled_line(image: Image.Image, width: int) -> Floats:
    """Return float32[3, 48, width] in -1..1, blue first: height 48, the rest of the width 0, as RapidOCR does it."""
    own = min(width, -(-TEXT_HEIGHT * image.width // image.height))
    small = np.asarray(image.resize((own, TEXT_HEIGHT), Image.Resampling.BILINEAR), np.float32)
    padded = np.zeros((3, TEXT_HEIGHT, width), np.float32)
    padded[:, :, :own] = (small[:, :, ::-1].transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return padded


def placed_boxes(
    sizes: Sequence[tuple[int, int]], size: tuple[int, int], random: np.random.Generator, *, gap: int
) -> list[BOX]:
    """Return a place for each (width, height), `gap` pixels apart; one that finds none within 50 tries is left out."""
    found: list[BOX] = []
    for width, height in sizes:
        for _ in range(50):
            if width >= size[0] - 8 or height >= size[1] - 8:
                break
            left, top = (
                int(random.integers(4, whole - own - 3)) for whole, own in zip(size, (width, height), strict=True)
            )
            box = (left, top, left + width, top + height)
            if not any(_are_near(box, other, gap) for other in found):
                found.append(box)
                break
    return found


def _are_near(one: BOX, other: BOX, gap: int) -> bool:
    return all(one[axis] < other[axis + 2] + gap and other[axis] < one[axis + 2] + gap for axis in (0, 1))


# -- sets


def write_angles(path: Path, n_samples: int, seed: int) -> None:
    """Write lines of text, every other one turned by 180 degrees: class 1."""
    random = np.random.default_rng(seed)
    labels = np.arange(n_samples) % 2
    lines = [line_of_text(" ".join(random.choice(WORDS, 2)), random) for _ in labels]
    turned = [
        image.transpose(Image.Transpose.ROTATE_180) if label else image
        for image, label in zip(lines, labels, strict=True)
    ]
    np.savez(path, x=np.stack([scaled_line(image, ANGLE_WIDTH) for image in turned]), labels=labels)


def write_words(path: Path, n_samples: int, seed: int) -> None:
    """Write single words and their text."""
    random = np.random.default_rng(seed)
    texts = [str(text) for text in random.choice(WORDS, n_samples)]
    arrays = [scaled_line(line_of_text(text, random), LINE_WIDTH) for text in texts]
    np.savez(path, x=np.stack(arrays), labels=np.array(texts))


def write_regions(path: Path, n_samples: int, seed: int, *, side: int = 320) -> None:
    """Write pictures with words, and masks of their shrunk regions: what a detector of that kind is trained on."""
    random = np.random.default_rng(seed)
    pictures, masks = [], []
    for _ in range(n_samples):
        image, mask = picture((side, side), random), np.zeros((side, side), np.int64)
        font = ImageFont.load_default(size=int(random.integers(20, 34)))
        texts = [str(text) for text in random.choice(WORDS, 6)]
        shapes = [font.getbbox(text) for text in texts]
        sizes = [(int(right - left), int(bottom - top)) for left, top, right, bottom in shapes]
        keys = dict(zip(sizes, zip(texts, shapes, strict=True), strict=True))
        for box in placed_boxes(sizes, (side, side), random, gap=10):
            text, shape = keys[box[2] - box[0], box[3] - box[1]]
            ImageDraw.Draw(image).text((box[0] - shape[0], box[1] - shape[1]), text, font=font, fill=ink(random))
            left, top, right, bottom = shrunk(box)
            mask[top:bottom, left:right] = 1
        pixels = np.asarray(image, np.float32)[:, :, ::-1].transpose(2, 0, 1)
        pictures.append((pixels / 255 - 0.5) / 0.5)
        masks.append(mask)
    np.savez(path, x=np.stack(pictures), labels=np.stack(masks))


def shrunk(box: BOX) -> BOX:
    """Return a box moved inwards by area * (1 - ratio^2) / perimeter on every side."""
    width, height = box[2] - box[0], box[3] - box[1]
    by = round(width * height * (1 - SHRUNK**2) / (2 * (width + height)))
    return box[0] + by, box[1] + by, box[2] - by, box[3] - by


def write_characters(path: Path, n_samples: int, seed: int) -> None:
    """Write COCO's JSON and beside it pictures of unlike sizes with three to five large characters, turned a little."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, n_samples + 1):
        width, height = (int(side) for side in random.integers(260, 420, 2))
        image = picture((width, height), random)
        glyphs = [character(random) for _ in range(int(random.integers(3, 6)))]
        keys = {glyph.size: glyph for glyph in glyphs}
        for left, top, right, bottom in placed_boxes(list(keys), (width, height), random, gap=6):
            image.paste(ink(random), (left, top), keys[right - left, bottom - top])
            size = [right - left, bottom - top]
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
                                "bbox": [left, top, *size], "area": size[0] * size[1]})  # fmt: skip
        name = f"{number:03d}.png"
        image.save(path.parent / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    found = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "character"}]}
    path.write_text(json.dumps(found))


def character(random: np.random.Generator) -> Image.Image:
    """Return the ink of one character, cut to it: a picture in grey."""
    font = ImageFont.load_default(size=int(random.integers(44, 76)))
    whole = Image.new("L", (160, 160))
    ImageDraw.Draw(whole).text((40, 30), str(random.choice(list(LETTERS))), font=font, fill=255)
    turned = whole.rotate(float(random.uniform(-25, 25)), Image.Resampling.BICUBIC)
    return turned.crop(turned.point(lambda value: 255 * (value > 64)).getbbox())


# -- files of known types


def write_files(path: Path, n_samples: int, seed: int, *, labels: Sequence[str], roots: Sequence[Path]) -> None:
    """Write what magika's model reads of files of known types, type after type in turn, and their classes.

    An even and an odd seed take other files. Raises: ValueError where no kind is among the labels.
    """
    random = np.random.default_rng(seed)
    found = kinds_of_files(roots, seed % 2) | {kind: [] for kind in MADE}
    if not set(found) & set(labels):
        raise ValueError("no kind of file is among the labels")
    rows, classes = [], []
    while len(rows) < n_samples:
        for kind in sorted(found):
            if len(rows) == n_samples or kind not in labels:
                continue
            files = found[kind]
            content = MADE[kind](random) if kind in MADE else files[int(random.integers(len(files)))].read_bytes()
            rows.append(ends_of(content))
            classes.append(labels.index(kind))
    np.savez(path, bytes=np.stack(rows), labels=np.array(classes))


def kinds_of_files(roots: Sequence[Path], part: int) -> dict[str, list[Path]]:
    """Return the files of each kind in the folders, by name: every other one, from `part` 0 or 1 on."""
    found: dict[str, list[Path]] = {}
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in PASSED_OVER and not name.startswith("."))
            files = [Path(folder, name) for name in sorted(names) if Path(name).suffix in SUFFIXES]
            for file in files:
                if file.stat().st_size >= MIN_BYTES:
                    found.setdefault(SUFFIXES[file.suffix], []).append(file)
    return {kind: files[part::2] for kind, files in found.items() if len(files) > 1}


def folders_at_hand() -> list[Path]:
    """Return the standard library and the folder of this repository."""
    return [Path(sysconfig.get_paths()["stdlib"]), Path(__file__).parents[1]]


def ends_of(content: bytes, *, n_bytes: int = 1024, block: int = 4096, padding: int = 256) -> NDArray[np.int32]:
    """Return int32[2048]: the first and the last bytes, white space at the ends stripped, 256 where there are none.

    Source: magika 1.0.3, Magika._extract_features_from_seekable.
    """
    first, last = content[:block].lstrip()[:n_bytes], content[-block:].rstrip()[-n_bytes:]
    row = np.full(2 * n_bytes, padding, np.int32)
    row[: len(first)] = list(first)
    row[2 * n_bytes - len(last) :] = list(last)
    return row


def _drawn(kind: str, random: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    line_of_text(" ".join(random.choice(WORDS, 4)), random).save(stream, kind)
    return stream.getvalue()


def _text(random: np.random.Generator) -> bytes:
    return " ".join(random.choice(WORDS, 600)).encode()


def _zip(random: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("words.txt", _text(random))
    return stream.getvalue()


def _npy(random: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    np.save(stream, random.normal(size=(16, 32)))
    return stream.getvalue()


def _wav(random: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(random.integers(-9000, 9000, 4000, dtype=np.int16).tobytes())
    return stream.getvalue()


def _csv(random: np.random.Generator) -> bytes:
    stream = io.StringIO()
    rows = [[i, *random.choice(WORDS, 2), *map(int, random.integers(0, 99, 3))] for i in range(60)]
    csv.writer(stream).writerows([["id", "name", "kind", "count", "price", "stock"], *rows])
    return stream.getvalue().encode()


def _sqlite(random: np.random.Generator) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "words.db"
        with sqlite3.connect(path) as connection:
            connection.execute("create table words (name text, count integer)")
            rows = [(str(word), int(random.integers(99))) for word in random.choice(WORDS, 50)]
            connection.executemany("insert into words values (?, ?)", rows)
        connection.close()
        return path.read_bytes()


MADE = {  # kinds of files that are made on the spot
    "bmp": lambda random: _drawn("bmp", random),
    "csv": _csv,
    "gif": lambda random: _drawn("gif", random),
    "gzip": lambda random: gzip.compress(_text(random), mtime=0),
    "jpeg": lambda random: _drawn("jpeg", random),
    "npy": _npy,
    "pdf": lambda random: _drawn("pdf", random),
    "pickle": lambda random: pickle.dumps({str(word): int(random.integers(99)) for word in random.choice(WORDS, 80)}),
    "png": lambda random: _drawn("png", random),
    "sqlite": _sqlite,
    "tiff": lambda random: _drawn("tiff", random),
    "wav": _wav,
    "webp": lambda random: _drawn("webp", random),
    "zip": _zip,
}
