"""INT8 of ExecuTorch, made by PyTorch's quantizer for XNNPACK: the artifact is the FP32 file."""

from __future__ import annotations

from harness.precision.recipe import EXECUTORCH, NOTHING, Recipe
from harness.specs import Precision

RECIPES = (
    Recipe(
        name="executorch-int8",
        precision=Precision.INT8,
        summary="ExecuTorch's PT2E quantizer for XNNPACK: weights and activations, ranges of least squared error",
        writes=NOTHING,
        quantizes_in=EXECUTORCH,
    ),
)
