"""Peak memory of INT8 calibration with 1,000 and with 10,000 images, per recipe; each in a process of its own.

    python benchmarks/calibration_memory.py [--model mobilenet_digits] [--images 1000,10000]

Images are seeded noise made a batch at a time, so that what grows is the calibrator's. The aim is +500 MB at most.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.models import load_card
from harness.precision import prepare_artifact, recipe_names
from harness.specs import ModelSpec, Precision

MODELS = Path(__file__).parents[1] / "models"
KIB_PER_MB = 1e6 / 1024  # ru_maxrss counts KiB on Linux
AIM_MB = 500


class NoiseSet:
    """Seeded noise in 0..1, most of it dark."""

    def __init__(self, spec: ModelSpec, n_images: int) -> None:
        self.spec, self.n_images, self.fingerprint = spec, n_images, f"noise {n_images}"

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        generator = np.random.default_rng(0)
        for first in range(0, self.n_images, batch_size):
            n = min(batch_size, self.n_images - first)
            yield generator.random((n, *self.spec.input_shape), dtype=np.float32) ** 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_digits")
    parser.add_argument("--images", default="1000,10000")
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "IMAGES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        calibrate(options.model, options.one[0], int(options.one[1]))
        return
    few, many = options.images.split(",")
    print(f"{options.model}: peak RSS [MB] and time [s] with {few} and {many} images, growth (aim: {AIM_MB} MB)")
    for recipe in ("none", *recipe_names(Precision.INT8)):
        if recipe.startswith("trt-"):  # calibrated inside TensorRT, on a GPU
            continue
        (few_mb, few_s), (many_mb, many_s) = (measured(options.model, recipe, n) for n in (few, many))
        verdict = "ok" if many_mb - few_mb <= AIM_MB else "TOO MUCH"
        print(
            f"  {recipe:15} {few_mb:6.0f} MB {few_s:5.1f} s   {many_mb:6.0f} MB {many_s:5.1f} s   "
            f"{many_mb - few_mb:+6.0f} MB  {verdict}",
            flush=True,
        )


def measured(model: str, recipe: str, n_images: str) -> tuple[float, float]:
    command = [sys.executable, __file__, "--model", model, "--one", recipe, n_images]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(answer[-2]), float(answer[-1])


def calibrate(model: str, recipe: str, n_images: int) -> None:
    """Prepare one artifact in this process and print its peak RSS [MB] and the time [s]."""
    spec = load_card(MODELS / f"{model}.toml")
    precision = Precision.FP32 if recipe == "none" else Precision.INT8
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepare_artifact(spec, precision, recipe, calibration=NoiseSet(spec, n_images), cache_dir=folder)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MB
    print(f"{peak_mb:.1f} {time.perf_counter() - started:.2f}")


if __name__ == "__main__":
    main()
