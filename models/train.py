"""Train the bundled models and write their ONNX files and cards.

    python models/train.py --mnist-dir DIR              # all four, a quarter of an hour on two cores
    python models/train.py --mnist-dir DIR lenet5_hard  # only the named ones

Every model sees the 60,000 first training images of `strokes` and MNIST's training images 0..49,999; MNIST's
50,000..59,999 are held out. Images are shifted by up to 2 px, no more. A run is seeded and goes on from its last
finished epoch (checkpoints in models/cache/). Accuracies in the cards are measured afterwards by ONNX
Runtime on the exported file. Needs `pip install 'nn-engine-harness[cpu,train]'`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

MODELS_DIR = Path(__file__).resolve().parent
sys.path[:0] = [str(MODELS_DIR.parent), str(MODELS_DIR)]

from nets import NETS, rescale_lenet5  # noqa: E402

from harness.datasets import open_dataset  # noqa: E402

STROKES_IMAGES = 60_000
MNIST_IMAGES = 50_000
HOLD_OUT = (50_000, 60_000)
TEST_IMAGES = 10_000
BATCH = 128
SHIFT = 2  # pixels
OPSET, IR_VERSION = 17, 8  # readable by every runtime in use; newer defaults are not
HARD_OCTAVES, HARD_SEED = 8.0, 6
FLOOR_MARGIN = 0.005  # five standard deviations of a 99 % rate over 10,000 images


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained and what its card says."""

    epochs: int
    peak_rate: float
    description: str
    max_drop_int8: float


RECIPES = {
    "lenet5": Recipe(
        epochs=6,
        peak_rate=2e-3,
        max_drop_int8=0.005,
        description="Caffe's LeNet, the network of TensorRT's sampleINT8",
    ),
    "mlp": Recipe(epochs=12, peak_rate=2e-3, max_drop_int8=0.01, description="perceptron 784-512-10 with one ReLU"),
    "mobilenet_digits": Recipe(
        epochs=6,
        peak_rate=6e-3,
        max_drop_int8=0.01,
        description="depthwise-separable convolutions with batch norm (folded) and ReLU6",
    ),
}
HARD_DESCRIPTION = f"lenet5 with its channels rescaled over {HARD_OCTAVES:g} octaves: same FP32 function, INT8 victim"


def main() -> None:
    """Read the command line, train what was asked, export and measure it."""
    options = read_options()
    torch.set_num_threads(options.threads)
    pixels, labels = load_training_images(options.mnist_dir)
    tests = load_test_images(options.mnist_dir)
    names = options.models or [*NETS, "lenet5_hard"]
    for name in names:
        base = "lenet5" if name == "lenet5_hard" else name
        net = train(base, pixels, labels, seed=options.seed, cache_dir=options.cache_dir)
        if name == "lenet5_hard":
            net = rescale_lenet5(net, octaves=HARD_OCTAVES, seed=HARD_SEED)
        path = MODELS_DIR / f"{name}.onnx"
        export(net, path)
        accuracy = {dataset: measure_top1(path, *test) for dataset, test in tests.items()}
        write_card(name, path, accuracy, seed=options.seed)
        print(f"{name}: {path.stat().st_size:,} bytes, " + ", ".join(f"{k} {v:.4f}" for k, v in accuracy.items()))


def read_options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"one of {', '.join(NETS)}, lenet5_hard; all")
    parser.add_argument("--mnist-dir", required=True, help="folder of MNIST's IDX files, raw or gzip")
    parser.add_argument("--cache-dir", type=Path, default=MODELS_DIR / "cache", help="checkpoints (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of initial weights, order and shifts (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch (%(default)s)")
    options = parser.parse_args()
    unknown = sorted(set(options.models) - {*NETS, "lenet5_hard"})
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(NETS)}, lenet5_hard")
    return options


def load_training_images(mnist_dir: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8[N, 28, 28] and int64[N]: strokes, then MNIST without the hold-out."""
    parts = [
        open_dataset("strokes", split="train").read(0, STROKES_IMAGES),
        open_dataset("mnist", split="train", data_dir=mnist_dir).read(0, MNIST_IMAGES),
    ]
    pixels, labels = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def load_test_images(mnist_dir: str) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Return the images that no model is trained on, by data set."""
    return {
        "strokes": open_dataset("strokes", split="test").read(0, TEST_IMAGES),
        "mnist": open_dataset("mnist", split="train", data_dir=mnist_dir).read(*HOLD_OUT),
    }


def train(name: str, pixels: torch.Tensor, labels: torch.Tensor, *, seed: int, cache_dir: Path) -> nn.Sequential:
    """Return the trained net in eval mode, going on from the last checkpoint of the same recipe."""
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    net = NETS[name]()
    steps = recipe.epochs * (len(labels) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.peak_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_rate, total_steps=steps)
    parts = {"net": net, "optimizer": optimizer, "schedule": schedule}
    plan = f"{name}-{recipe.epochs}x{recipe.peak_rate:g}-seed{seed}-{data_digest(pixels, labels)}"
    checkpoint = cache_dir / f"{plan}.pt"
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        done = state.pop("epochs_done")
        for key, part in parts.items():
            part.load_state_dict(state[key])
        print(f"{name}: {done} epochs found in {checkpoint}")
    for epoch in range(done, recipe.epochs):
        started = time.monotonic()
        loss = run_epoch(net, optimizer, schedule, pixels, labels, seed=seed * 1000 + epoch)
        save_checkpoint(checkpoint, {"epochs_done": epoch + 1, **{k: p.state_dict() for k, p in parts.items()}})
        print(
            f"{name}: epoch {epoch + 1}/{recipe.epochs}, loss {loss:.4f}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    return net.eval()


def run_epoch(
    net: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    seed: int,
) -> float:
    """Train on every image once, in an order and with shifts of this epoch's own seed; return the mean loss."""
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=random)
    total = 0.0
    n_batches = len(labels) // BATCH
    net.train()
    for batch in range(n_batches):
        index = order[batch * BATCH : (batch + 1) * BATCH]
        loss = nn.functional.cross_entropy(net(shift_images(pixels[index], random)), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
    return total / n_batches


def shift_images(pixels: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Return float32[N, 1, 28, 28] in 0..1, each image moved by up to SHIFT pixels each way."""
    side = pixels.shape[1]
    padded = nn.functional.pad(pixels, (SHIFT,) * 4)
    offsets = torch.randint(0, 2 * SHIFT + 1, (2, len(pixels), 1), generator=random)
    rows, columns = offsets + torch.arange(side)
    moved = padded[torch.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved[:, None].float() / 255


def data_digest(pixels: torch.Tensor, labels: torch.Tensor) -> str:
    """Return a short sha256 of the training images, so that no checkpoint outlives its data."""
    digest = hashlib.sha256(pixels.numpy().tobytes())
    digest.update(labels.numpy().tobytes())
    return digest.hexdigest()[:12]


def save_checkpoint(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(path)


def export(net: nn.Sequential, path: Path) -> None:
    """Write an ONNX file with softmax output, dynamic batch "N", and batch norm folded."""
    with warnings.catch_warnings():
        # dynamo=True needs onnxscript and leaves opset 18 for some nets when asked for 17 (torch 2.13).
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            nn.Sequential(*net, nn.Softmax(dim=1)).eval(),
            (torch.zeros(1, 1, 28, 28),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_axes={"image": {0: "N"}, "probabilities": {0: "N"}},
        )
    model = onnx.load(path)
    model.ir_version = IR_VERSION
    model.producer_version = ""  # the same net gives the same bytes whatever the patch release
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def measure_top1(path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return the top-1 rate [fraction] of a file on ONNX Runtime, with nothing of the harness in between."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    n_hits = 0
    for start in range(0, len(labels), 500):
        images = pixels[start : start + 500, None].astype(np.float32) * np.float32(1 / 255)
        outputs = session.run(None, {"image": images})[0]
        n_hits += int((outputs.argmax(axis=1) == labels[start : start + 500]).sum())
    return n_hits / len(labels)


def write_card(name: str, path: Path, accuracy: dict[str, float], *, seed: int) -> None:
    """Write the card beside the ONNX file."""
    base = RECIPES["lenet5" if name == "lenet5_hard" else name]
    hard = name == "lenet5_hard"
    how = (
        f"models/train.py: AdamW, one cycle to {base.peak_rate:g}, {base.epochs} epochs, batch {BATCH}, "
        f"shifts up to {SHIFT} px, seed {seed}"
    )
    lines = [
        "[model]",
        f'file = "{path.name}"',
        f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"',
        f'description = "{HARD_DESCRIPTION if hard else base.description}"',
        f'how_trained = "{how + ("; then rescaled" if hard else "")}"',
        *(["expects_int8_loss = true"] if hard else []),
        "",
        "[input]",
        'name = "image"',
        "shape = [1, 28, 28]  # C, H, W [px]",
        'layout = "NCHW"',
        "scale = 0.00392156862745098  # 1/255: pixels 0..255 become 0..1",
        "mean = [0.0]",
        "std = [1.0]",
        "",
        "[output]",
        'name = "probabilities"',
        "classes = 10",
        "label_offset = 0",
        'kind = "probabilities"',
        "",
        "[[trained_on]]",
        f'dataset = "strokes"\nsplit = "train"\nfirst = 0\nstop = {STROKES_IMAGES}',
        "",
        "[[trained_on]]",
        f'dataset = "mnist"\nsplit = "train"\nfirst = 0\nstop = {MNIST_IMAGES}',
        "",
        "[accuracy]  # top-1 [fraction]: strokes/test 0..9999, mnist/train 50000..59999 (held out)",
        *(f"{dataset} = {top1:.4f}" for dataset, top1 in accuracy.items()),
        "",
        "[floors]  # lowest accepted FP32 top-1 [fraction]",
        *(f"{dataset} = {top1 - FLOOR_MARGIN:.4f}" for dataset, top1 in accuracy.items()),
        "",
        "[max_drop]  # accepted loss of top-1 against FP32 [fraction]",
        "fp16 = 0.002",
        f"int8 = {base.max_drop_int8}",
    ]
    (MODELS_DIR / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
