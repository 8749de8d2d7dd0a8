"""Outputs of another rank than the file names: ONNX Runtime takes no buffer for them, and finds the memory itself.

What it found for one run counts as a buffer in the next and is refused, so such an output is bound anew for every call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ReboundOutputs(Mapping[str, NDArray[Any]]):
    """The outputs of a binding by name: buffers of ours, and copies of what ONNX Runtime found for the others."""

    def __init__(self, session: Any, binding: Any, buffers: dict[str, NDArray[Any]], others: Sequence[str]) -> None:
        """`buffers`: bound already, and before `others`."""
        self._session, self._binding, self._others = session, binding, tuple(others)
        self._arrays, self._has_run = buffers, False

    def run(self) -> None:
        """Run once."""
        for name in self._others:
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding)
        self._has_run = True

    def __getitem__(self, name: str) -> NDArray[Any]:
        self._take()
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        self._take()
        return iter(self._arrays)

    def __len__(self) -> int:
        self._take()
        return len(self._arrays)

    def _take(self) -> None:
        """Copy what the last run gave, once: who spoils an array finds it spoiled until the next run."""
        if self._has_run:
            self._has_run = False
            found = self._binding.copy_outputs_to_cpu()[-len(self._others) :]
            self._arrays |= {name: np.array(array) for name, array in zip(self._others, found, strict=True)}
