"""What lies in examples/ runs, at a small size, as its README says."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from render_records import make_run

from harness.store.runs import RunStore, load_run

ROOT = Path(__file__).parents[1]
OWN = ROOT / "examples" / "own_backend"


def declared(project):
    """Return entry_points.txt of a project, as an installer writes it."""
    found = re.findall(r'^\[project.entry-points."(.+)"\]\n((?:.+\n)+)', (project / "pyproject.toml").read_text(), re.M)
    return "".join(f"[{group}]\n{lines.replace(chr(34), '')}\n" for group, lines in found)


@pytest.fixture
def call(tmp_path):
    """Return a function that runs Python in an empty folder, with the example package installed or not."""
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    site = tmp_path / "site"
    info = site / "my_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_backend").symlink_to(OWN / "my_backend", target_is_directory=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(declared(OWN))
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

    def run(*words, path=(site, ROOT)):
        environment = {**own, "PYTHONPATH": os.pathsep.join(map(str, path))}
        environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
        end = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return end.returncode, end.stdout + end.stderr

    return run


def test_the_backend_of_ones_own_keeps_the_contract(call):
    code, told = call(
        "-m", "pytest", str(OWN / "test_contract.py"), "-q", "-p", "no:cacheprovider", "-p", "no:pytester"
    )
    assert code == 0, told
    assert re.search(r"\b3\d passed", told)


def test_it_runs_in_the_suites_with_an_option_of_its_own(call, tmp_path):
    words = ("--backend=my-backend", "--model=mlp", "--precision=fp32", "--my-bits=12", "--score-images=300")
    suites = ("-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider", f"--report-dir={tmp_path / 'reports'}")
    code, told = call(*suites, *words, "--floor=0", "-m", "accuracy")
    assert code == 0, told
    run, records = load_run(tmp_path / "reports" / "latest")
    record = next(record for record in records if record.case.backend == "my-backend")
    assert run.options["--my-bits"] == "12"
    assert "--my-bits=12" in record.command
    assert record.accuracy.top1 > 0.9
    assert record.engine.options == {"bits": "12"}
    code, told = call(*suites, *words, "--my-bits=40")
    assert (code, "ERROR: --my-bits=40: expected 1 to 23" in told) == (4, True), told


@pytest.mark.parametrize(
    ("offered", "says"),
    [
        ("my_backend.absent:GROUP", "cannot be imported: ModuleNotFoundError"),
        ("my_backend.backend:BACKEND", "offers no OptionGroup"),
        ("harness.backends.opencv.options:GROUP", "options called opencv, or one of their flags, are there already"),
    ],
)
def test_options_that_cannot_be_used_are_one_line_that_names_their_package(call, tmp_path, offered, says):
    points = tmp_path / "site" / "my_backend-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[harness.options]\nbad = {offered}\n")
    code, told = call("-m", "pytest", str(ROOT / "suites"), "--collect-only", "-p", "no:cacheprovider")
    (line,) = [line for line in told.splitlines() if "ERROR" in line]
    assert code == 4
    assert "entry point bad of harness.options in the package my-backend" in line
    assert says in line
    assert "Traceback" not in told


def test_the_notebook_runs_on_two_runs(call, tmp_path):
    run, records = make_run(6)
    folders = []
    for name in ("monday", "tuesday"):
        store = RunStore(tmp_path / "reports", replace(run, id=name))
        store.finish(replace(run, id=name), records, summary=b"{}")
        folders.append(str(store.folder))
    code, told = call(str(ROOT / "examples" / "notebook.py"), *folders)
    assert code == 0, told
    assert "nothing worse" in told
    assert re.search(r"^mlp on ort, batch 1: [\d.]+ us$", told, re.MULTILINE)


@pytest.fixture
def example(call, tmp_path):
    """Return a function that makes an example in an empty folder and runs the suites on it; it returns the record."""

    def run(name, *words):
        folder = ROOT / "examples" / name
        for card in folder.glob("*.toml"):
            (tmp_path / card.name).write_bytes(card.read_bytes())
        code, told = call(str(folder / "make.py"))
        assert code == 0, told
        suites = (
            "-m",
            "pytest",
            str(ROOT / "suites"),
            "-p",
            "no:cacheprovider",
            f"--report-dir={tmp_path / 'reports'}",
        )
        code, told = call(*suites, "--backend=ort", "--precision=fp32", *words)
        assert code == 0, told
        (record,) = load_run(tmp_path / "reports" / "latest")[1]
        return record

    return run


def told_in_readme(name):
    """Return the options of a run that an example's README names, but for those that say what is run."""
    text = (ROOT / "examples" / name / "README.md").read_text()
    (line,) = re.findall(r"^    harness run (.+)$", text, re.MULTILINE)
    return line.split()


def test_the_text_model_takes_two_inputs_of_whole_numbers(example):
    record = example("text_model", *told_in_readme("text_model"), "-m", "accuracy")
    assert record.samples.n_samples == 300
    assert record.samples.leading.name == "top-1"
    assert 0.75 < record.samples.leading.value < 0.95


def test_the_recognizer_is_scored_by_its_character_error_rate(example):
    pytest.importorskip("PIL", reason="needs Pillow")
    record = example("ocr", *told_in_readme("ocr"), "-m", "accuracy")
    assert record.samples.n_samples == 90
    assert record.samples.leading.name == "CER"
    assert 0 < record.samples.leading.value < 0.03


def test_the_folder_of_pictures_is_classified(example):
    pytest.importorskip("PIL", reason="needs Pillow")
    record = example("image_folder", *told_in_readme("image_folder"), "-m", "accuracy")
    assert record.accuracy.n_images == 120
    assert record.accuracy.top1 > 0.95
    assert record.accuracy.n_trained_on == 0
