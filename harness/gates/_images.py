"""Which images two sides of a comparison have in common, and whether they are the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.gates._subjects import ScoredImages
from harness.records import BLOCK_IMAGES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedImages:
    """The images that both sides scored, as places in each side's arrays; `different` says why there are none."""

    ours: NDArray[np.int64]
    theirs: NDArray[np.int64]
    note: str = ""  # where not all images of both are compared
    different: str = ""  # the same images by name, other contents
    has_none: bool = False  # no image in common


NOTHING = np.empty(0, np.int64)


def shared_images(ours: ScoredImages, theirs: ScoredImages) -> SharedImages:
    """Find the images of one data set and split that both sides scored; those in whole blocks that agree in content.

    Images of another data set or split are never shared. Contents that differ are named and forbid the comparison.
    """
    if (ours.images.dataset, ours.images.split) != (theirs.images.dataset, theirs.images.split):
        return _none()
    if ours.images == theirs.images:
        places = np.arange(ours.images.n_images)
        if ours.fingerprint == theirs.fingerprint:
            return SharedImages(ours=places, theirs=places)
        contents = f"contents of {range_text(ours)} ({ours.fingerprint[:8]} and {theirs.fingerprint[:8]})"
        return SharedImages(ours=NOTHING, theirs=NOTHING, different=contents)
    if ours.block_digests is None or theirs.block_digests is None or not ours.images.overlap(theirs.images):
        return _none()
    return _in_blocks(ours, theirs)


def range_text(scores: ScoredImages) -> str:
    """Return a range of images in words."""
    images = scores.images
    return f"{images.dataset}/{images.split} {images.first}..{images.stop - 1}"


def _in_blocks(ours: ScoredImages, theirs: ScoredImages) -> SharedImages:
    here, there = _blocks(ours), _blocks(theirs)
    starts = sorted(here.keys() & there.keys())
    changed = [start for start in starts if here[start] != there[start]]
    if changed:
        contents = f"contents of images {changed[0]}..{changed[0] + BLOCK_IMAGES - 1} of {range_text(ours)}"
        return SharedImages(ours=NOTHING, theirs=NOTHING, different=contents)
    if not starts:
        return _none()
    indices = (np.asarray(starts)[:, None] + np.arange(BLOCK_IMAGES)).ravel()
    return SharedImages(
        ours=indices - ours.images.first,
        theirs=indices - theirs.images.first,
        note=f"on the {indices.size} images that {range_text(ours)} shares with {range_text(theirs)}",
    )


def _blocks(scores: ScoredImages) -> dict[int, int]:
    digests = scores.block_digests if scores.block_digests is not None else np.empty(0, np.uint64)
    return {scores.first_block + BLOCK_IMAGES * place: int(digest) for place, digest in enumerate(digests)}


def _none() -> SharedImages:
    return SharedImages(ours=NOTHING, theirs=NOTHING, has_none=True)
