"""The examples of docs/extending/, taken from the pages, join in each of the three ways and run end to end."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from harness.datasets import OpenRequest, open_dataset
from harness.models import load_card
from harness.protocols import SampleSet

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "extending"
EXAMPLE = re.compile(r"^```python\n# (?P<path>\S+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
ROOMS = {room: f"harness/{room}" for room in ("backends", "datasets", "gates", "tasks")}
ROOMS |= {"recipes": "harness/precision/recipes", "importers": "harness/models/importers"}
OFFERS = {"backends": "BACKEND", "datasets": "DATASETS", "gates": "GATE", "importers": "IMPORTER"}
OFFERS |= {"recipes": "RECIPES", "tasks": "TASK"}
N_IMAGES = 200


def examples():
    """Return path -> code of every example, as the pages print them."""
    found = {}
    for page in sorted(PAGES.glob("*.md")):
        for example in EXAMPLE.finditer(page.read_text()):
            found[example["path"]] = example["code"]
    return found


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def extension_files():
    return {path: code for path, code in examples().items() if not path.startswith("suites/")}


def by_folder(tmp_path):
    for path, code in extension_files().items():
        write(tmp_path / "mine" / path, code)
    return [f"--extension-dir={tmp_path / 'mine'}"], None


def by_entry_point(tmp_path):
    site, declared = tmp_path / "site", []
    for path, code in extension_files().items():
        room, name = Path(path).parent.name, Path(path).stem
        write(site / "my_package" / room / f"{name}.py", code)
        # one of an object, the others of a module
        offered = ":BACKEND" if room == "backends" else ""
        declared.append(f"[harness.{room}]\n{name.replace('_', '-')} = my_package.{room}.{name}{offered}\n")
    info = site / "my_package-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    write(info / "entry_points.txt", "\n".join(declared))
    return [], site


def by_file_in_its_room(tmp_path):
    shutil.copytree(ROOT / "harness", tmp_path / "copy" / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in extension_files().items():
        room, name = path.split("/")
        write(tmp_path / "copy" / ROOMS[room] / name, code)
    return [], tmp_path / "copy"


def write_distance_model(folder):
    """Write mlp with its output negated and a card of the task `nearest`: the same hits, by another meaning."""
    model = onnx.load(ROOT / "models" / "mlp.onnx")
    output = model.graph.output[0]
    model.graph.node.append(onnx.helper.make_node("Neg", [output.name], ["distances"]))
    output.name = "distances"
    onnx.save(model, folder / "distances.onnx")
    digest = hashlib.sha256((folder / "distances.onnx").read_bytes()).hexdigest()
    (folder / "distances.toml").write_text(
        f'[model]\nfile = "distances.onnx"\nsha256 = "{digest}"\n'
        '[input]\nname = "image"\nshape = [1, 28, 28]\nscale = 0.00392156862745098\n'
        '[output]\nname = "distances"\nclasses = 10\ntask = "nearest"\n'
    )
    return folder / "distances.toml"


def environment_with(path):
    known = [str(path)] if path else []
    known += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return dict(own, PYTHONPATH=os.pathsep.join(known))


def test_the_samples_of_the_page_are_samples():
    found = {}
    exec(examples()["datasets/tones.py"], found)
    tones = found["DATASETS"].open_samples(OpenRequest(name="tones", split="test"))
    assert isinstance(tones, SampleSet)
    assert tones.sample(3).inputs["audio"].shape == (1_600,)
    assert tones.sample(3).target == 103


@pytest.fixture
def run_suites(tmp_path):
    """Return a function that runs the suites with arguments, and returns the summary's cases and all the output."""
    images, labels = open_dataset("strokes", split="test").read(0, N_IMAGES)
    rows = np.concatenate([labels[:, None], images.reshape(N_IMAGES, -1)], axis=1)
    rows.astype(np.uint8).tofile(tmp_path / "photos.bin")
    write(tmp_path / "my_suites" / "test_size.py", examples()["suites/test_size.py"])
    card = write_distance_model(tmp_path)

    def run(arguments, path):
        command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), str(tmp_path / "my_suites"), "-q"]
        command += [f"--rootdir={ROOT}", f"--report-dir={tmp_path / 'reports'}", f"--engine-cache={tmp_path / 'cache'}"]
        command += ["--backend=onnx-reference,ort", "--precision=fp32,fp16", "--recipe=weights", "--baseline=ignore"]
        command += [f"--model=mlp,{card}", f"--dataset={tmp_path / 'photos.bin'}", f"--score-images={N_IMAGES}"]
        command += ["-m", "not latency", "-p", "no:cacheprovider", *arguments]
        child = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment_with(path), timeout=200
        )
        told = child.stdout + child.stderr
        summaries = list((tmp_path / "reports").glob("2*/summary.json"))
        assert summaries, told
        return {case["id"]: case for case in json.loads(summaries[0].read_text())["cases"]}, told

    return run


@pytest.mark.parametrize("join", [by_folder, by_entry_point, by_file_in_its_room])
def test_one_of_each_joins_and_runs(tmp_path, run_suites, join):
    cases, told = run_suites(*join(tmp_path))
    assert {name: case["status"] for name, case in cases.items() if case["status"] != "unsupported"} == {
        f"{model}-{asked}": "passed"
        for model in ("mlp", "distances")
        for asked in ("onnx-reference-fp32", "ort-fp32", "ort-fp16-weights")
    }, told
    assert {case["reason"] for case in cases.values() if case["status"] == "unsupported"} == {
        "it is asked for the exact result only"
    }
    # the data set, the task and both backends agree: a negated output, scored as distances, has the same hits
    top1 = {case["accuracy"]["top1"] for case in cases.values() if case["status"] == "passed"}
    assert len(top1) == 1
    assert top1.pop() > 0.9
    # the gate judged what it applies to, and only that
    sizes = {
        name: [verdict["message"] for verdict in case["verdicts"] if verdict["gate"] == "size"]
        for name, case in cases.items()
    }
    assert all(
        re.fullmatch(r"\d+ bytes against \d+ of FP32", sizes[f"{model}-ort-fp16-weights"][0])
        for model in ("mlp", "distances")
    )
    assert not any(found for name, found in sizes.items() if name.endswith("fp32"))


@pytest.mark.parametrize("join", [by_folder, by_entry_point, by_file_in_its_room])
def test_the_importer_joins_and_imports(tmp_path, join):
    arguments, path = join(tmp_path)
    np.savetxt(tmp_path / "weights.txt", np.eye(3, 12))
    command = [sys.executable, "-c", "from harness.cli import main; main()", "import", "rows", "weights.txt"]
    child = subprocess.run(
        [*command, "-o", "imported", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment_with(path),
        timeout=100,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert "input image: 12 (flat), scale 0.00392157; output scores: 3 classes, logits" in child.stdout
    assert load_card(tmp_path / "imported" / "weights.toml").description == "linear classifier, imported from rows"


def test_every_room_has_an_example():
    assert {path.split("/")[0] for path in examples()} == {*ROOMS, "suites"}
    assert all(OFFERS[path.split("/")[0]] in code for path, code in extension_files().items())


@pytest.mark.parametrize("join", [by_folder, by_entry_point, by_file_in_its_room])
def test_the_task_of_samples_joins_and_scores(tmp_path, join):
    arguments, path = join(tmp_path)
    folders = [argument.partition("=")[2] for argument in arguments]
    script = (
        "import sys\nimport numpy as np\n"
        "from harness.options.discovery import add_extension_dir\n"
        "for folder in sys.argv[1:]: add_extension_dir(folder)\n"
        "from harness.protocols import Sample\nfrom harness.tasks import find_sample_task\n"
        "collector = find_sample_task('within').collector({'share': 0.2})\n"
        "for i, value in enumerate((1.1, 1.3, 0.9)):\n"
        "    collector.add({'y': np.asarray([value])}, Sample(id=str(i), inputs={}, target=1.0))\n"
        "score = collector.scores()[0]\nprint(score.name, round(score.value, 4), score.n_samples)\n"
        "try: find_sample_task('within').collector({'shares': 1.0})\nexcept Exception as error: print(error)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, *folders],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment_with(path),
        timeout=100,
    )
    assert child.stdout.splitlines() == [
        "within 0.6667 3",
        "[task] shares: task within has no such key; it has: output, metric, share",
    ], child.stderr
