"""How far one engine's outputs are from another's, batch by batch. Pure; memory: 5 bytes an image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.records import OutputDrift
from harness.stats import low_margin_images

PROBABILITY_FLOOR = float(np.finfo(np.float32).eps)  # a float32 softmax resolves nothing smaller beside a 1


class DriftAccumulator:
    """Collects pairs of outputs of the same images in the same order; `drift` sums them up."""

    def __init__(self, *, output_kind: str = "probabilities") -> None:
        """Take `probabilities` or `logits`, the kind of both engines' outputs."""
        if output_kind not in ("probabilities", "logits"):
            raise MeasurementError(f"outputs are {output_kind!r}; expected probabilities or logits")
        self._is_logits = output_kind == "logits"
        self._max_abs = 0.0
        self._error_squares = self._signal_squares = self._n_values = 0.0
        self._cosines = self._divergences = 0.0
        self._margins: list[NDArray[np.float32]] = []
        self._agreed: list[NDArray[np.bool_]] = []

    def update(self, reference_outputs: NDArray[np.floating], outputs: NDArray[np.floating]) -> None:
        """Add one batch: float[N, K] of the reference, and of this engine, for the same images.

        Raises: MeasurementError for different shapes, fewer than two classes, NaN or +inf.
        """
        reference = np.asarray(reference_outputs, np.float64)
        ours = np.asarray(outputs, np.float64)
        if reference.shape != ours.shape or ours.ndim != 2 or ours.shape[1] < 2:
            raise MeasurementError(
                f"outputs of {reference.shape} and {ours.shape} cannot be compared; expected one [N, K]"
            )
        if any(np.isnan(side).any() or np.isposinf(side).any() for side in (reference, ours)):
            raise MeasurementError("outputs hold NaN or infinity: no drift can be stated")
        if len(ours) == 0:
            return
        # A class that either side rules out (-inf) has no distance; its probability, 0, still counts below.
        is_score = np.isfinite(reference) & np.isfinite(ours)
        signal, found = np.where(is_score, reference, 0.0), np.where(is_score, ours, 0.0)
        error = found - signal
        self._max_abs = max(self._max_abs, float(np.abs(error).max()))
        self._error_squares += float((error**2).sum())
        self._signal_squares += float((signal**2).sum())
        self._n_values += int(is_score.sum())
        self._cosines += float(_cosines(signal, found).sum())
        self._divergences += float(_divergences(self._probabilities(reference), self._probabilities(ours)).sum())
        top_two = np.partition(reference, -2, axis=1)[:, -2:]
        margins = np.minimum(top_two[:, 1] - top_two[:, 0], np.finfo(np.float32).max)
        self._margins.append(margins.astype(np.float32))
        self._agreed.append(reference.argmax(axis=1) == ours.argmax(axis=1))

    def drift(self, reference_case: str) -> OutputDrift:
        """Return the drift of all batches so far, against the case named.

        SQNR is 10 log10(sum reference^2 / sum error^2), None when the outputs are equal. KL(reference || this) is the
        mean over images; probabilities are floored at 2^-23 and renormalised, as INT8 outputs hold zeros.
        Raises: MeasurementError when no image was added.
        """
        if not self._margins:
            raise MeasurementError(f"no outputs were compared with {reference_case}")
        margins, agreed = np.concatenate(self._margins), np.concatenate(self._agreed)
        return OutputDrift(
            reference_case=reference_case,
            n_images=len(agreed),
            max_abs=self._max_abs,
            rmse=math.sqrt(self._error_squares / max(self._n_values, 1)),
            cosine=self._cosines / len(agreed),
            sqnr_db=self._sqnr_db(),
            kl_divergence=max(0.0, self._divergences / len(agreed)),
            n_changed=int((~agreed).sum()),
            low_margin_agreement=float(agreed[low_margin_images(margins)].mean()),
        )

    def _sqnr_db(self) -> float | None:
        if self._error_squares == 0:
            return None
        if self._signal_squares == 0:
            raise MeasurementError("every output of the reference is 0: there is no signal to compare noise with")
        return 10 * (math.log10(self._signal_squares) - math.log10(self._error_squares))

    def _probabilities(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._is_logits:
            shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            outputs = shifted / shifted.sum(axis=1, keepdims=True)
        floored = np.maximum(outputs, PROBABILITY_FLOOR)
        return np.asarray(floored / floored.sum(axis=1, keepdims=True))


def _cosines(reference: NDArray[np.float64], ours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine of each image's outputs; two zero vectors are alike, one zero vector is not."""
    norms, our_norms = np.linalg.norm(reference, axis=1), np.linalg.norm(ours, axis=1)
    product = norms * our_norms
    cosines = np.divide((reference * ours).sum(axis=1), product, out=np.zeros(len(ours)), where=product > 0)
    return np.asarray(np.where((norms == 0) & (our_norms == 0), 1.0, np.clip(cosines, -1, 1)))


def _divergences(reference: NDArray[np.float64], ours: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((reference * np.log(reference / ours)).sum(axis=1))
