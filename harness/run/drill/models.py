"""Plants in copies of a model, of its card and of the images."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.datasets import open_dataset
from harness.models import load_card
from harness.models.onnx_graph import load_model
from harness.run.drill.bench import FAULTY, MODEL, N_SCORED, SOUND, Bench, Night
from harness.run.drill.plant import Alarm, Plant, alarms_of
from harness.specs import DatasetRequest, ModelSpec, Precision

IDX_UBYTE = 0x0800  # an IDX file's magic number, less its number of dimensions
X10 = "drill-x10"  # the recipe of planted/recipes/
SWAPPED = (3, 8)  # classes
Weights = NDArray[np.float32]


def altered(bench: Bench, name: str, *, weights: Callable[[Any], None] | None = None, card: str = "") -> ModelSpec:
    """Return the drill's model from a copy of its files with other weights, or with another line in its card."""
    folder = bench.copied(name, "models")
    path = folder / f"{MODEL}.onnx"
    if weights is not None:
        model = load_model(path)
        weights(model)
        path.write_bytes(model.SerializeToString())
    place = folder / f"{MODEL}.toml"
    text = re.sub(r"^sha256 = .*\n", "", place.read_text(), flags=re.MULTILINE)
    if card:
        key = card.partition(" = ")[0]
        text = re.sub(rf"^{key} = .*$", card, text, flags=re.MULTILINE)
    place.write_text(text)
    return load_card(place)


def changed_tensor(n_dims: int, change: Callable[[Weights], Weights]) -> Callable[[Any], None]:
    """Return what changes the first weights of so many dimensions, float32 in the file's own order."""

    def act(model: Any) -> None:
        tensor = next(t for t in model.graph.initializer if len(t.dims) == n_dims)
        before = np.frombuffer(tensor.raw_data, "<f4").reshape(tuple(tensor.dims))
        tensor.raw_data = np.ascontiguousarray(change(before), "<f4").tobytes()

    return act


def _swapped(weights: Weights) -> Weights:
    rows = np.arange(len(weights))
    rows[list(SWAPPED)] = rows[list(SWAPPED[::-1])]
    return weights[rows]


def _of_model(name: str, *, weights: Callable[[Any], None] | None = None, card: str = "") -> Callable[[Bench], Any]:
    def act(bench: Bench) -> Sequence[Alarm]:
        spec = altered(bench, name, weights=weights, card=card)
        assert bench.accepted  # the baselines are there
        cases = (bench.case(SOUND, Precision.FP32),)
        return alarms_of(bench.night(Night(cases=cases, gates=("chance", "floor", "baseline"), models={MODEL: spec})))

    return act


def _wide_calibration(bench: Bench) -> Sequence[Alarm]:
    case = replace(bench.case(FAULTY, Precision.INT8), recipe=X10)
    return alarms_of(bench.night(Night(cases=(case,), gates=("fp32",)), recipes=(X10,)))


def _shifted_labels(bench: Bench) -> Sequence[Alarm]:
    images, labels = open_dataset(bench.options.data.name, split="test").read(0, N_SCORED)
    path = bench.folder / "shifted-images-idx3-ubyte"
    _write_idx(path, images.astype(np.uint8))
    _write_idx(bench.folder / "shifted-labels-idx1-ubyte", np.roll(labels, 1).astype(np.uint8))
    data = DatasetRequest(name=str(path), split="all", score_images=N_SCORED)
    cases = (bench.case(SOUND, Precision.FP32),)
    return alarms_of(bench.night(Night(cases=cases, gates=("chance",)), data=data))


def _write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    path.write_bytes(struct.pack(f">{1 + array.ndim}I", IDX_UBYTE + array.ndim, *array.shape) + array.tobytes())


PLANTS = (
    Plant(
        name="weights_flipped",
        planted="the first layer's weights in reverse order",
        red_by=("baseline",),
        act=_of_model("weights_flipped", weights=changed_tensor(4, lambda w: w[..., ::-1, ::-1])),
    ),
    Plant(
        name="layer_sign",
        planted="the last layer's weights with the other sign",
        red_by=("floor",),
        act=_of_model("layer_sign", weights=changed_tensor(2, np.negative)),
    ),
    Plant(
        name="classes_swapped",
        planted=f"the classes {SWAPPED[0]} and {SWAPPED[1]} swapped",
        red_by=("baseline",),
        act=_of_model("classes_swapped", weights=changed_tensor(2, _swapped)),
    ),
    Plant(
        name="wrong_normalisation",
        planted="mean 0.5 in the card instead of 0",
        red_by=("baseline",),
        told="mean 0 -> 0.5",
        act=_of_model("wrong_normalisation", card="mean = [0.5]"),
    ),
    Plant(
        name="wrong_scale",
        planted="scale 1 in the card instead of 1/255",
        red_by=("baseline",),
        told="scale 0.00392156863 -> 1",
        act=_of_model("wrong_scale", card="scale = 1.0"),
    ),
    Plant(
        name="calibration_scale",
        planted="calibration ranges ten times too wide",
        red_by=("fp32",),
        act=_wide_calibration,
    ),
    Plant(
        name="labels_shifted",
        planted="every label that of the image before",
        red_by=("chance",),
        act=_shifted_labels,
    ),
)
