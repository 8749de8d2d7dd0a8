"""Planted faults against the rules of accuracy gates: the smallest fault each rule sees, and its false alarms.

    python benchmarks/accuracy_verdicts.py [--models lenet5 mlp] [--repeats 1000] [--json out.json]

Clean repeats: pairs of engines whose weights differ by noise of the size of FP16 rounding, or of INT8 rounding, on
bootstrap resamples of the scored images. Faults: each is planted in growing strength; a rule sees a strength when it
alarms for most seeds there and at every stronger one. Tables go to standard output as Markdown; docs/accuracy.md quotes
them. Takes about five minutes on two cores.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from scipy import stats

from harness.datasets import open_dataset
from harness.gates._paired import Changes, changes_between, judge_identity
from harness.models import find_model
from harness.models.preprocess import images_from_pixels
from harness.precision import prepare_artifact
from harness.records import Outcome
from harness.specs import DEFAULT_INT8_RECIPE, DatasetRequest, ModelSpec, Precision
from harness.stats import low_margin_images, wilson_interval
from harness.tasks.classification import score_top_k
from harness.worker.images import DatasetCalibration

ROOT = Path(__file__).parents[1]
N_IMAGES = 10_000
BATCH = 500
N_VARIANTS = 24  # clean engines; their pairs are the clean repeats
FP16_UNIT = 2.0**-11  # largest relative error of rounding to FP16
INT8_STEPS = 127
N_CALIBRATION = 1_000
N_SINGLE = 20  # single faults tried
ALPHA = 0.001
POINT = 0.01


@dataclass(frozen=True)
class Scores:
    """What one engine gave on the images."""

    predictions: np.ndarray
    hits: np.ndarray
    top5: np.ndarray
    margins: np.ndarray
    outputs: np.ndarray

    def taken(self, images: np.ndarray) -> "Scores":
        return Scores(**{name: getattr(self, name)[images] for name in self.__dataclass_fields__})


class Network:
    """A bundled model whose weights and input can be damaged before it is scored."""

    def __init__(self, spec: ModelSpec, threads: int, onnx_path: str = "") -> None:
        self._model = onnx.load(onnx_path or spec.onnx_path)
        self.spec, self._threads = spec, threads
        self.weights = {t.name: numpy_helper.to_array(t) for t in self._model.graph.initializer}
        self.trained = {n: w for n, w in self.weights.items() if w.dtype == np.float32 and w.size > 1}
        pixels, labels = open_dataset("strokes", split="test").read(0, N_IMAGES)
        self.inputs, self.labels = images_from_pixels(pixels, spec), labels + spec.label_offset

    def scores(self, changed=None, inputs=None, labels=None) -> Scores:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        for tensor in model.graph.initializer:
            if changed and tensor.name in changed:
                tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name].astype(np.float32), tensor.name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        images = self.inputs if inputs is None else inputs
        outputs = np.concatenate(
            [session.run(None, {self.spec.input_name: images[i : i + BATCH]})[0] for i in range(0, len(images), BATCH)]
        )
        top = score_top_k(outputs, self.labels if labels is None else labels)
        return Scores(top.predictions, top.top1, top.top5, top.margins, outputs)

    def matrices(self) -> list[str]:
        """Return the names of the weights of layers, first to last in the graph."""
        used = [name for node in self._model.graph.node for name in node.input]
        return [name for name in dict.fromkeys(used) if name in self.trained and self.trained[name].ndim >= 2]

    def noisy(self, sigma: float, seed: int) -> dict[str, np.ndarray]:
        """Multiply every weight by 1 + sigma * normal noise."""
        generator = np.random.default_rng(seed)
        return {n: w * (1 + sigma * generator.standard_normal(w.shape)) for n, w in self.trained.items()}

    def rounded(self, kind: str, seed: int) -> dict[str, np.ndarray]:
        """Add noise to every weight of the size that rounding to fp16 or int8 (one scale a tensor) would add."""
        generator = np.random.default_rng(seed)
        noise = {n: generator.uniform(-1, 1, w.shape) for n, w in self.trained.items()}
        if kind == "fp16":
            return {n: w * (1 + FP16_UNIT * noise[n]) for n, w in self.trained.items()}
        return {n: w + np.abs(w).max() / INT8_STEPS / 2 * noise[n] for n, w in self.trained.items()}

    def activation_scales(self) -> list[str]:
        """Return the scales of the activations of a Q/DQ file, in the order of its nodes."""
        nodes = [node for node in self._model.graph.node if node.op_type == "QuantizeLinear"]
        return [node.input[1] for node in nodes if node.input[0] not in self.weights]

    def output_bias(self) -> str:
        """Return the name of the last layer's bias."""
        sizes = [n for n, w in self.trained.items() if w.shape == (self.spec.num_classes,)]
        return sizes[-1]


# -- the rules


def changes_of(reference: Scores, ours: Scores) -> Changes:
    return changes_between(reference.hits, ours.hits, reference.predictions != ours.predictions)


def harness_rule(reference: Scores, ours: Scores) -> bool:
    verdict = judge_identity(
        "baseline", changes_of(reference, ours), margin=0.0, margin_same=0.005, alpha=ALPHA, against="the clean engine"
    )
    return verdict.outcome is Outcome.REGRESSED


def one_point_rule(reference: Scores, ours: Scores) -> bool:
    return reference.hits.mean() - ours.hits.mean() > POINT


def share_rule(reference: Scores, ours: Scores) -> bool:
    return ours.hits.mean() < 0.99 * reference.hits.mean()


def sample_int8_rule(reference: Scores, ours: Scores) -> bool:
    gaps = (reference.hits.mean() - ours.hits.mean(), reference.top5.mean() - ours.top5.mean())
    return max(map(abs, gaps)) > POINT


def unpaired_rule(reference: Scores, ours: Scores) -> bool:
    n, a, b = len(ours.hits), reference.hits.mean(), ours.hits.mean()
    pooled = (a + b) / 2
    return (a - b) / np.sqrt(2 * pooled * (1 - pooled) / n + 1e-30) > stats.norm.isf(ALPHA / 2)


RULES: dict[str, Callable[[Scores, Scores], bool]] = {
    "harness (exact paired, 0.001)": harness_rule,
    "1 point": one_point_rule,
    "99 % of FP32": share_rule,
    "0.01 absolute (sampleINT8)": sample_int8_rule,
    "unpaired z test, 0.001": unpaired_rule,
}


def net_loss(reference: Scores, ours: Scores) -> int:
    return int(reference.hits.sum() - ours.hits.sum())


def probe_changes(reference: Scores, ours: Scores) -> int:
    """Return how many predictions change among the tenth of images with the smallest reference margin."""
    chosen = low_margin_images(reference.margins)
    return int((reference.predictions[chosen] != ours.predictions[chosen]).sum())


def rmse(reference: Scores, ours: Scores) -> float:
    return float(np.sqrt(np.mean((reference.outputs - ours.outputs) ** 2, dtype=np.float64)))


MEASURES: dict[str, Callable[[Scores, Scores], float]] = {
    "net loss": net_loss,
    "changes in the lowest-margin tenth": probe_changes,
    "RMSE of the outputs": rmse,
}


# -- clean repeats


@dataclass(frozen=True)
class Clean:
    """What the rules did on clean repeats, and the thresholds that would have had no more false alarms than alpha."""

    n: int
    alarms: dict[str, int]
    thresholds: dict[str, float]
    changed: float  # mean number of changed predictions


def clean_repeats(network: Network, n_repeats: int, kind: str) -> Clean:
    variants = [network.scores(network.rounded(kind, 1_000 + i)) for i in range(N_VARIANTS)]
    generator = np.random.default_rng(7)
    alarms = dict.fromkeys(RULES, 0)
    measured = {name: [] for name in MEASURES}
    changed = []
    for _ in range(n_repeats):
        a, b = generator.choice(N_VARIANTS, 2, replace=False)
        images = generator.integers(0, N_IMAGES, N_IMAGES)
        reference, ours = variants[a].taken(images), variants[b].taken(images)
        for name, rule in RULES.items():
            alarms[name] += bool(rule(reference, ours))
        for name, measure in MEASURES.items():
            measured[name].append(float(measure(reference, ours)))
        changed.append(changes_of(reference, ours).n_changed)
    allowed = int(n_repeats * ALPHA)  # a threshold is exceeded by at most so many repeats
    return Clean(
        n=n_repeats,
        alarms=alarms,
        thresholds={name: sorted(values)[-1 - allowed] for name, values in measured.items()},
        changed=float(np.mean(changed)),
    )


# -- faults: (strength, seed) -> scores


Fault = tuple[str, str, Network, list[float], int, Callable[[float, int], Scores]]
# name, unit of the strength, network that is damaged, strengths, seeds, plant(strength, seed)


def faults(network: Network, int8: Network) -> Iterator[Fault]:
    first, last = network.matrices()[0], network.matrices()[-1]
    scales = int8.activation_scales()
    scale_name = scales[len(scales) // 2]

    def noise(sigma: float, seed: int) -> Scores:
        return network.scores(network.noisy(sigma, seed))

    def signs(count: float, seed: int) -> Scores:
        weights = network.trained[last].copy()
        places = np.random.default_rng(seed).choice(weights.size, min(int(count), weights.size), replace=False)
        weights.flat[places] *= -1
        return network.scores({last: weights})

    def one_sign(count: float, seed: int) -> Scores:
        weights = network.trained[first].copy()
        largest = np.argsort(-np.abs(weights), axis=None)[: max(N_SINGLE, weights.size // 10)]
        weights.flat[np.random.default_rng(seed).choice(largest)] *= -1
        return network.scores({first: weights})

    def scale(factor: float, seed: int) -> Scores:
        return int8.scores({scale_name: int8.weights[scale_name] / factor})

    def labels(share: float, seed: int) -> Scores:
        changed = network.labels.copy()
        threes = np.flatnonzero(changed == 3)
        changed[threes[: round(share * len(threes))]] = 8
        return network.scores(labels=changed)

    def normalisation(shift: float, seed: int) -> Scores:
        return network.scores(inputs=(network.inputs - np.float32(shift)))

    def dropped(strength: float, seed: int) -> Scores:
        bias = network.trained[network.output_bias()].copy()
        bias[5] -= strength
        return network.scores({network.output_bias(): bias})

    noises = [float(x) for x in 2.0 ** np.arange(-10, 0.51, 0.5)]
    counts = [float(2**k) for k in range(11)]
    factors = [1.1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4, 6, 8, 16]
    shares = [0.001, 0.005, 0.0105, 0.02, 0.05, 0.1, 0.2, 1.0]
    shifts = [0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5]
    biases = [0.1, 0.2, 0.5, 1, 2, 3, 4, 6, 8, 12, 100]
    yield "weight noise", "relative sigma", network, noises, 5, noise
    yield "flipped signs, last layer", "weights", network, counts, 5, signs
    yield "one flipped sign among the largest tenth, first layer", "share seen", network, [1.0], N_SINGLE, one_sign
    yield "wrong INT8 scale of one tensor", "times too small", int8, factors, 1, scale
    yield "swapped labels, 3 -> 8", "share of the 3s", network, shares, 1, labels
    yield "wrong normalisation", "shift of the input", network, shifts, 1, normalisation
    yield "class dropped", "bias of class 5", network, biases, 1, dropped


def seen_from(strengths: list[float], shares: list[float]) -> int | None:
    """Return the index of the first strength from which on most seeds alarm."""
    first = None
    for index in range(len(strengths) - 1, -1, -1):
        if shares[index] <= 0.5:
            break
        first = index
    return first


def tuned_rules(clean: dict[str, Clean]) -> dict[str, Callable[[Scores, Scores], bool]]:
    """Return a rule for every measure and kind of clean repeat: alarm above its threshold."""

    def rule(measure: Callable[[Scores, Scores], float], threshold: float) -> Callable[[Scores, Scores], bool]:
        return lambda reference, ours: measure(reference, ours) > threshold

    return {
        f"{name}, tuned on {kind} rebuilds": rule(measure, c.thresholds[name])
        for name, measure in MEASURES.items()
        for kind, c in clean.items()
    }


def planted(network: Network, int8: Network, clean: dict[str, Clean]) -> list[dict]:
    references = {id(n): n.scores() for n in (network, int8)}
    detectors = {**RULES, **tuned_rules(clean)}
    rows = []
    for name, unit, damaged, strengths, n_seeds, plant in faults(network, int8):
        reference = references[id(damaged)]
        shares = {rule: [] for rule in detectors}
        losses = []
        for strength in strengths:
            found = [plant(strength, seed) for seed in range(n_seeds)]
            for rule, alarms in detectors.items():
                shares[rule].append(float(np.mean([alarms(reference, ours) for ours in found])))
            losses.append(float(np.median([net_loss(reference, ours) for ours in found])))
        smallest = {}
        for rule, alarms in shares.items():
            if len(strengths) == 1:
                smallest[rule] = {"share": alarms[0]}
                continue
            index = seen_from(strengths, alarms)
            smallest[rule] = None if index is None else {"strength": strengths[index], "net_loss": losses[index]}
        rows.append({"fault": name, "unit": unit, "strengths": strengths, "net_loss": losses, "smallest": smallest})
    return rows


# -- telling


def told(cell: dict | None) -> str:
    if cell is None:
        return "never"
    if "share" in cell:
        return f"{100 * cell['share']:.0f} %"
    return f"{cell['strength']:.3g} ({cell['net_loss'] / N_IMAGES * 100:+.2f})"


def print_model(name: str, clean: dict[str, Clean], rows: list[dict]) -> None:
    changed = ", ".join(f"{kind} {c.changed:.2f}" for kind, c in clean.items())
    print(f"\n### {name}\n\nPredictions changed by clean rebuilds, in the mean: {changed}.\n")
    print(
        f"| rule | {' | '.join(f'false alarms, {kind} rebuilds' for kind in clean)} |\n|{' --- |' * (len(clean) + 1)}"
    )
    for rule in RULES:
        cells = []
        for c in clean.values():
            high = wilson_interval(c.alarms[rule], c.n)[1]
            cells.append(f"{c.alarms[rule]} of {c.n} (below {100 * high:.2f} %)")
        print(f"| {rule} | {' | '.join(cells)} |")
    print(f"\nThresholds exceeded by at most {ALPHA:.1%} of the repeats:\n")
    print(f"| measure | {' | '.join(f'{kind} rebuilds' for kind in clean)} |\n|{' --- |' * (len(clean) + 1)}")
    for measure in MEASURES:
        print(f"| {measure} | {' | '.join(f'{c.thresholds[measure]:.3g}' for c in clean.values())} |")
    faults_told = [f"{row['fault']} ({row['unit']})" for row in rows]
    print("\nSmallest fault seen: strength (loss of top-1 there [points]).\n")
    print(f"| rule | {' | '.join(faults_told)} |\n|{' --- |' * (len(rows) + 1)}")
    for rule in rows[0]["smallest"]:
        print(f"| {rule} | {' | '.join(told(row['smallest'][rule]) for row in rows)} |")


def int8_path(spec: ModelSpec) -> str:
    """Return the Q/DQ file of a model, calibrated on strokes/train."""
    request = DatasetRequest(calibration_images=N_CALIBRATION)
    train = open_dataset("strokes", split="train")
    calibration = DatasetCalibration(train, spec, request)
    artifact = prepare_artifact(
        spec,
        Precision.INT8,
        DEFAULT_INT8_RECIPE,
        calibration=calibration,
        cache_dir=tempfile.mkdtemp(),
        calibration_range=request.calibration,
    )
    return artifact.onnx_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lenet5", "mlp"])
    parser.add_argument("--repeats", type=int, default=1_000, help="clean repeats of each kind (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    print(f"{N_IMAGES} images of strokes/test, onnxruntime {onnxruntime.__version__}, {platform.machine()}")
    results = {}
    for name in arguments.models:
        spec = find_model(name, ROOT / "models")
        network, int8 = Network(spec, arguments.threads), Network(spec, arguments.threads, int8_path(spec))
        clean = {kind: clean_repeats(network, arguments.repeats, kind) for kind in ("fp16", "int8")}
        rows = planted(network, int8, clean)
        print_model(name, clean, rows)
        results[name] = {"clean": {kind: vars(c) for kind, c in clean.items()}, "faults": rows}
    print(f"\n{time.perf_counter() - started:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
