"""Fixtures shared by the harness's own tests."""

from pathlib import Path

import pytest
import scipy.optimize
import scipy.stats  # noqa: F401 - pytester forgets what a run imports first, and parts of NumPy load once a process

from harness.models import load_card
from harness.specs import ModelSpec

ROOT = Path(__file__).parents[1]


@pytest.fixture
def spec():
    """A card for 4x4 one-channel images of ten classes; its file is never opened."""
    return ModelSpec(
        name="tiny",
        onnx_path="tiny.onnx",
        sha256="0" * 64,
        input_name="images",
        input_shape=(1, 4, 4),
        output_name="probabilities",
        num_classes=10,
    )


@pytest.fixture(scope="session")
def bundled():
    """Return bundled models by name."""
    return lambda name: load_card(ROOT / "models" / f"{name}.toml")
