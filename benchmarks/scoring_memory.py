"""Does memory grow with the number of images? Peak RSS of scoring N and 100 N images, each in a process of its own.

    python benchmarks/scoring_memory.py [--small 10000] [--large 1000000] [--backend ort] [--model mlp]

Target: scoring 1,000,000 images takes at most 150 MB more than scoring 10,000.
"""

import argparse
import multiprocessing
import resource
import tempfile
from pathlib import Path

TARGET_MB = 150
KIB_PER_MB = 1e6 / 1024


def peak_kib(backend: str, model: str, n_images: int, results: "multiprocessing.Queue[tuple[int, float]]") -> None:
    from harness.backends import load_backend
    from harness.datasets import open_dataset
    from harness.measure.scoring import score_engine
    from harness.models import load_card
    from harness.precision import prepare_artifact
    from harness.specs import BuildOptions, ImageRange, Precision

    spec = load_card(Path(__file__).parents[1] / "models" / f"{model}.toml")
    with tempfile.TemporaryDirectory() as folder:
        artifact = prepare_artifact(spec, Precision.FP32, "none", calibration=None, cache_dir=folder)
        with load_backend(backend).build(
            artifact, device="cpu", batch_sizes=(100,), options=BuildOptions(cache_dir=folder)
        ) as engine:
            accuracy = score_engine(
                engine,
                open_dataset("strokes", split="test"),
                spec,
                ImageRange(dataset="strokes", split="test", first=0, stop=n_images),
                batch_size=100,
                outputs_path=Path(folder) / "outputs.f32",
            )
    results.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, accuracy.top1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--backend", default="ort")
    parser.add_argument("--model", default="mlp")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    peaks = []
    for n_images in (options.small, options.large):
        results = context.Queue()
        process = context.Process(target=peak_kib, args=(options.backend, options.model, n_images, results))
        process.start()
        peak, top1 = results.get()
        process.join()
        peaks.append(peak / KIB_PER_MB)
        print(f"{n_images:>9,} images: peak {peaks[-1]:.0f} MB, top-1 {100 * top1:.2f} %", flush=True)
    print(f"grew by {peaks[1] - peaks[0]:.0f} MB (target: at most {TARGET_MB} MB)")


if __name__ == "__main__":
    main()
