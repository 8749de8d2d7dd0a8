"""Samples that are one picture file each: decoded when asked, or found as a model is shown them, decoded before."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.datasets._decode import decode_image
from harness.errors import DataError
from harness.protocols import IMAGE, FitsImages, Sample
from harness.store.pictures import PictureStore

DECODER = 1  # another one decodes otherwise: raised with every change of `_decode` or of how images are fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPicture:
    """One sample whose only input is a picture, as its file holds it."""

    id: str
    data: bytes  # of the file
    name: object  # of the file, for messages
    target: object = None
    size: tuple[int, int] | None = None  # (height, width) that its set says it has
    of: str = ""  # the set

    def decoded(self) -> NDArray[np.uint8]:
        """Return uint8[H, W, C]. Raises: DataError for a damaged file, or one of another size than the set says."""
        pixels = decode_image(self.data, self.name)
        if self.size is not None and pixels.shape[:2] != self.size:
            height, width = self.size
            raise DataError(
                f"{self.name}: {pixels.shape[1]} x {pixels.shape[0]} pixels, {self.of} says {width} x {height}"
            )
        return pixels

    def sample(self) -> Sample:
        """Return it decoded. Raises: DataError."""
        return Sample(id=self.id, inputs={IMAGE: self.decoded()}, target=self.target)

    def fitted(self, fit: FitsImages, store: PictureStore | None, name: object) -> NDArray[np.uint8]:
        """Return uint8[C, H, W] as a model is shown it, kept in a store. Raises: DataError, naming the image."""
        if store is None:
            return fit(self.decoded(), name)
        key = hashlib.sha256(f"{fit.text} {self.size} {_decoder()} ".encode() + self.data).hexdigest()
        found = store.find(key)
        if found is None:
            found = fit(self.decoded(), name)
            store.keep(key, found)
        return found


@runtime_checkable
class StoresPictures(Protocol):
    """What a set of picture files may offer beside `SampleSet`: its samples without decoding them."""

    def stored(self, index: int) -> StoredPicture | None:
        """Return one sample as it is stored; None where it is no picture. Raises: DataError for an unreadable file."""
        ...


def _decoder() -> str:
    from PIL import __version__

    return f"{DECODER} pillow {__version__}"
