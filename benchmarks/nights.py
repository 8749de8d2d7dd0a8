"""Five nights that a user meets, each as the terminal and the page tell it: a report is judged by looking at it.

    python benchmarks/nights.py OUT [--width 120] [--only changed gone ...]

clean: nothing changed. changed: weights of a layer set to 0 and the card renewed. gone: a backend cannot be imported
any more. fp32: INT8 was asked, and the engine is FP32. after-loss: an engine loses images, then its clock breaks.
Writes OUT/NIGHT.txt, and OUT/NIGHT.png and OUT/NIGHT-phone.png by a Chromium on PATH (extra `browser`). Two minutes.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = Path(__file__).parents[1]
MODEL = "mlp"
PAGE, PHONE = (1400, 900), (390, 900)
SHIPPED = """
from dataclasses import replace

from harness.backends.openvino.adapter import OpenvinoBackend
from harness.specs import Precision


class Shipped(OpenvinoBackend):
    name = "shipped"

    def probe(self):
        return replace(super().probe(), backend=self.name)

    def build(self, artifact, **others):
        if {falls_back} and artifact.precision is Precision.INT8:
            artifact = replace(artifact, onnx_path={source!r})
        return super().build(artifact, **others)


BACKEND = Shipped()
"""


class Nights:
    """A folder with a model, its baselines and its runs."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "models" / f"{MODEL}.onnx", folder)
        self.renew_card()

    def renew_card(self) -> None:
        """Write the card with the sha256 of the model as it is now."""
        card = (ROOT / "models" / f"{MODEL}.toml").read_text()
        digest = hashlib.sha256((self.folder / f"{MODEL}.onnx").read_bytes()).hexdigest()
        card = re.sub(r'sha256 = "\w+"', f'sha256 = "{digest}"', card)
        (self.folder / f"{MODEL}.toml").write_text(card[: card.index("[floors]")])

    def damage(self, share: float) -> None:
        """Set a share of the largest weight's values to 0."""
        path = self.folder / f"{MODEL}.onnx"
        model = onnx.load(path)
        weight = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
        values = numpy_helper.to_array(weight).copy()
        values[np.random.default_rng(0).random(values.shape) < share] = 0
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        onnx.save(model, path)
        self.renew_card()

    def run(self, *words: str, without: str = "") -> str:
        """Run the suites and return what the terminal says; `without`: a module that cannot be imported."""
        command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), f"--rootdir={ROOT}", "-p", "no:cacheprovider"]
        command += [
            f"--model={self.folder / f'{MODEL}.toml'}",
            "--score-images=5000",
            "--batch-size=1",
            "--timing-rounds=6",
        ]
        command += [
            f"--{name}={self.folder / path}" for name, path in (("report-dir", "reports"), ("engine-cache", "cache"))
        ]
        command += [f"--baseline-dir={self.folder / 'baselines'}", *words]
        environment = {**os.environ, "COLUMNS": str(self.width)}
        if without:
            broken = self.folder / "broken"
            broken.mkdir(exist_ok=True)
            (broken / f"{without}.py").write_text('raise ImportError("libtbb.so.12: cannot open shared object file")\n')
            environment["PYTHONPATH"] = str(broken)
        ended = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        return f"{ended.stdout}{ended.stderr}\nexit status {ended.returncode}\n"

    def ship(self, *, falls_back: bool) -> str:
        """Write a backend of one's own, and return the option that finds it."""
        backends = self.folder / "own" / "backends"
        backends.mkdir(parents=True, exist_ok=True)
        source = str(ROOT / "models" / f"{MODEL}.onnx")
        (backends / "shipped.py").write_text(SHIPPED.format(falls_back=falls_back, source=source))
        return f"--extension-dir={self.folder / 'own'}"


def clean(nights: Nights) -> str:
    nights.run("--backend=ort,openvino", "--update-baselines")
    return nights.run("--backend=ort,openvino")


def changed(nights: Nights) -> str:
    nights.run("--backend=ort,openvino", "--update-baselines")
    nights.damage(0.55)
    return nights.run("--backend=ort,openvino")


def gone(nights: Nights) -> str:
    nights.run("--backend=ort,openvino", "--update-baselines")
    return nights.run(without="openvino")


def fp32(nights: Nights) -> str:
    nights.run("--backend=shipped", nights.ship(falls_back=False), "--update-baselines")
    return nights.run("--backend=shipped", nights.ship(falls_back=True))


def after_loss(nights: Nights) -> str:
    return nights.run("--backend=fake-loses,ort", "--precision=fp32", f"--extension-dir={ROOT / 'tests' / 'fakes'}")


NIGHTS = {"clean": clean, "changed": changed, "gone": gone, "fp32": fp32, "after-loss": after_loss}


def photograph(page_file: Path, target: Path) -> None:
    """Write target.png and target-phone.png. Needs playwright and a Chromium on PATH."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for suffix, (width, height) in (("", PAGE), ("-phone", PHONE)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(page_file.as_uri())
            page.screenshot(path=f"{target}{suffix}.png")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=120, help="columns of the terminal (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=NIGHTS, default=list(NIGHTS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        nights = Nights(arguments.out.resolve() / f"{name}-run", arguments.width)
        told = NIGHTS[name](nights)
        (arguments.out / f"{name}.txt").write_text(told)
        print(f"== {name}\n{told}")
        photograph(nights.folder / "reports" / "latest" / "index.html", arguments.out / name)


if __name__ == "__main__":
    main()
