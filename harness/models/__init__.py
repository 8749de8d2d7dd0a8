"""Models: which there are, what their cards say, and what an ONNX file says of itself. Runs nothing."""

from harness.models.cards import bundled_models, find_model, load_card, load_engine
from harness.models.heavy import HEAVY_MODEL, heavy_model_path, resnet101_112
from harness.models.inspection import check_onnx_file, inspect_onnx

__all__ = [
    "HEAVY_MODEL",
    "bundled_models",
    "check_onnx_file",
    "find_model",
    "heavy_model_path",
    "inspect_onnx",
    "load_card",
    "load_engine",
    "resnet101_112",
]
