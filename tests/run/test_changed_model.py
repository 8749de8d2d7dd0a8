"""The user's main case: a layer was changed, the baseline is there, and the night says what the change did."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

ROOT = Path(__file__).parents[2]
N_IMAGES = 2_000


def write_card(folder):
    card = (ROOT / "models" / "mlp.toml").read_text()
    digest = hashlib.sha256((folder / "mlp.onnx").read_bytes()).hexdigest()
    card = re.sub(r'sha256 = "\w+"', f'sha256 = "{digest}"', card)
    (folder / "mlp.toml").write_text(card[: card.index("[floors]")])


def damage(folder, share):
    """Set a share of the first layer's weights to 0, as a mistake in pruning would, and renew the card."""
    model = onnx.load(folder / "mlp.onnx")
    weights = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    values = numpy_helper.to_array(weights).copy()
    values[np.random.default_rng(0).random(values.shape) < share] = 0
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, folder / "mlp.onnx")
    write_card(folder)


@pytest.fixture
def night(tmp_path):
    """Return a function that runs a night on a model of one's own: its exit code and what the terminal says."""
    shutil.copy(ROOT / "models" / "mlp.onnx", tmp_path)
    write_card(tmp_path)

    def run(*words):
        command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), f"--rootdir={ROOT}", "-q", *words]
        command += [
            f"--model={tmp_path / 'mlp.toml'}",
            "--backend=ort",
            "--precision=fp32",
            f"--score-images={N_IMAGES}",
        ]
        command += [f"--baseline-dir={tmp_path / 'baselines'}", f"--engine-cache={tmp_path / 'cache'}"]
        command += [
            f"--report-dir={tmp_path / 'reports'}",
            "--timing-rounds=3",
            "--batch-size=1",
            "-p",
            "no:cacheprovider",
        ]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        return ended.returncode, " ".join((ended.stdout + ended.stderr).split())  # of wrapped lines

    return run


def accept(folder, *words):
    """Accept the newest run by `harness baseline accept`, and return what it says."""
    command = [sys.executable, "-m", "harness", "baseline", "accept", str(folder / "reports" / "latest")]
    command += ["--case=mlp-ort-fp32", *words, f"--baseline-dir={folder / 'baselines'}"]
    end = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stdout + end.stderr
    return end.stdout


def test_a_damaged_model_is_red_and_replaces_its_baseline_only_on_purpose(night, tmp_path):
    code, told = night("--update-baselines")
    assert code == 0, told
    (stored,) = (tmp_path / "baselines" / "predictions").glob("*/*/*.json")
    accepted = stored.read_bytes()
    damage(tmp_path, 0.7)
    code, told = night()
    assert code == 1
    assert "mlp-ort-fp32 regressed: top-1 98." in told
    assert re.search(r"mlp changed \(\w{4} -> \w{4}\)\.", told), told
    assert "No regression" not in told
    code, told = night("--update-baselines")
    assert (code, stored.read_bytes() == accepted) == (1, True)
    assert "baselines: none written, run not clean (regressed, or not comparable: --accept-regressions" in told
    code, told = night("--accept-regressions")
    assert "baselines: not written: mlp-ort-fp32: accepted changes add up to a loss of" in told  # beyond the budget
    assert stored.read_bytes() == accepted
    told = accept(tmp_path, "--new-budget", "--reason=pruned on purpose")
    assert re.search(r"mlp-ort-fp32: top-1 98\.\d+ % -> \d\d\.\d+ % \(\d+ lost, \d+ gained\)", told), told
    assert stored.read_bytes() != accepted
    code, told = night()
    assert code == 0, told


def test_a_model_that_was_changed_without_harm_is_green_and_named(night, tmp_path):
    assert night("--update-baselines")[0] == 0
    damage(tmp_path, 0.001)
    code, told = night("--max-drop=2%")
    assert code == 0, told
    assert re.search(r"No regression: .*mlp changed \(\w{4} -> \w{4}\): top-1", told), told
