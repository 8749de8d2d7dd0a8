"""Drift of outputs: against direct formulas, independent of batching, and its edges."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from harness.errors import MeasurementError
from harness.measure.drift import DriftAccumulator


def outputs(n=1000, noise=0.05):
    generator = np.random.default_rng(11)
    logits = generator.normal(size=(n, 10)).astype(np.float32)
    return logits, (logits + noise * generator.normal(size=(n, 10))).astype(np.float32)


def accumulated(reference, ours, batch=100, **options):
    drift = DriftAccumulator(**options)
    for first in range(0, len(ours), batch):
        drift.update(reference[first : first + batch], ours[first : first + batch])
    return drift.drift("lenet5-ort-fp32")


def test_drift_agrees_with_the_formulas():
    reference, ours = outputs()
    drift = accumulated(reference, ours, output_kind="logits")
    a, b = reference.astype(np.float64), ours.astype(np.float64)
    assert drift.max_abs == np.abs(a - b).max()
    assert drift.rmse == pytest.approx(np.sqrt(((a - b) ** 2).mean()))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert drift.cosine == pytest.approx(cosines.mean())
    assert drift.sqnr_db == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()))
    divergence = scipy.stats.entropy(scipy.special.softmax(a, 1), scipy.special.softmax(b, 1), axis=1).mean()
    assert drift.kl_divergence == pytest.approx(divergence, rel=1e-4)
    changed = a.argmax(1) != b.argmax(1)
    assert drift.n_changed == changed.sum() > 0
    top = np.sort(a, axis=1)
    lowest = np.argsort(top[:, -1] - top[:, -2])[:100]
    assert drift.low_margin_agreement == pytest.approx(1 - changed[lowest].mean())
    assert drift.low_margin_agreement < 1 - changed.mean()


def test_batching_does_not_matter():
    reference, ours = outputs()
    whole, parts = accumulated(reference, ours, batch=1000), accumulated(reference, ours, batch=7)
    assert whole.n_changed == parts.n_changed
    assert whole.low_margin_agreement == parts.low_margin_agreement
    assert whole.rmse == pytest.approx(parts.rmse, rel=1e-12)


def test_equal_outputs_have_no_noise():
    reference, _ = outputs()
    drift = accumulated(reference, reference, output_kind="logits")
    assert (drift.max_abs, drift.rmse, drift.sqnr_db, drift.kl_divergence, drift.n_changed) == (0, 0, None, 0, 0)
    assert drift.cosine == pytest.approx(1)
    assert drift.low_margin_agreement == 1


def test_zeros_of_int8_probabilities_stay_finite():
    reference = np.array([[0.9, 0.1, 0.0], [0.0, 0.0, 0.0]], np.float32)
    ours = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    drift = accumulated(reference, ours)
    assert np.isfinite(drift.kl_divergence)
    assert drift.kl_divergence > 0
    assert drift.cosine == pytest.approx((0.9 / np.hypot(0.9, 0.1) + 1) / 2)


@pytest.mark.parametrize(
    ("reference", "ours"),
    [
        (np.ones((2, 3)), np.ones((3, 3))),
        (np.ones((2, 1)), np.ones((2, 1))),
        (np.ones((2, 3)), np.array([[1, 2, np.nan], [1, 2, 3]])),
        (np.array([[1, 2, np.inf], [1, 2, 3]]), np.ones((2, 3))),
    ],
)
def test_outputs_that_cannot_be_compared_are_an_error(reference, ours):
    with pytest.raises(MeasurementError):
        DriftAccumulator().update(reference, ours)


def test_no_images_or_no_signal_is_an_error():
    with pytest.raises(MeasurementError, match="no outputs"):
        accumulated(np.empty((0, 3)), np.empty((0, 3)), batch=1)
    with pytest.raises(MeasurementError, match="no signal"):
        accumulated(np.zeros((2, 3)), np.ones((2, 3)))
    with pytest.raises(MeasurementError, match="logits"):
        DriftAccumulator(output_kind="scores")


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_classes_that_one_side_rules_out_are_no_distance(kind):
    reference, ours = outputs()
    noise = accumulated(reference, ours, output_kind=kind)
    reference[:, 9], ours[:500, 9] = -np.inf, -np.inf
    drift = accumulated(reference, ours, output_kind=kind)
    assert np.isfinite([drift.max_abs, drift.rmse, drift.cosine, drift.sqnr_db, drift.kl_divergence]).all()
    assert 0 < drift.rmse <= noise.max_abs
    same = accumulated(reference, reference, output_kind=kind)
    assert (same.rmse, same.n_changed) == (0.0, 0)
