"""Folders of pictures for tests, drawn from the bundled strokes data."""

from PIL import Image

from harness.datasets import open_dataset


def strokes(first, stop, split="test"):
    return open_dataset("strokes", split=split).read(first, stop)


def write_folder(folder, pixels, labels, *, names=str, suffix=".png"):
    """Write images as FOLDER/class/index.png."""
    for index, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        place = folder / names(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index}{suffix}")
    return folder
