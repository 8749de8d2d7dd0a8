"""The package as the wheel lays it out, in an empty folder: nothing of the checkout is there."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import __version__
from harness.run import folders

ROOT = Path(__file__).parents[1]
SMALL = ("--backend=ort", "--model=mlp", "--precision=fp32", "--score-images=300", "--floor=0", "-m", "accuracy")


def bundled():
    """Return package -> folder of what setup.py maps into the wheel."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "BUNDLED":
            return ast.literal_eval(node.value)
    raise LookupError("setup.py: BUNDLED")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Return a folder that holds the package as an installed wheel does."""
    site = tmp_path_factory.mktemp("site")
    nothing = shutil.ignore_patterns("__pycache__", "baselines", "cache")
    shutil.copytree(ROOT / "harness", site / "harness", ignore=nothing)
    for package, folder in bundled().items():
        shutil.copytree(ROOT / folder, site / package.replace(".", "/"), ignore=nothing)
    return site


@pytest.fixture
def call(site, tmp_path):
    """Return a function that runs a Python module in an empty folder with the installed package."""
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**own, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def run(*words):
        command = [sys.executable, "-m", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    return run


def files_of(site):
    return {path.relative_to(site) for path in site.rglob("*") if "__pycache__" not in path.parts}


def test_the_suites_run_in_an_empty_folder_and_write_there(call, tmp_path, site):
    before = files_of(site)
    end = call("harness", "run", *SMALL, f"--engine-cache={tmp_path / 'cache'}", "-p", "no:cacheprovider")
    assert end.returncode == 0, end.stdout + end.stderr
    assert f"rootdir: {tmp_path}\n" in end.stdout
    assert (tmp_path / "reports" / "latest" / "index.html").is_file()
    assert files_of(site) == before


def test_pytest_finds_the_suites_by_their_package(call, tmp_path):
    words = ("pytest", "-p", "harness.plugin", "-p", "no:cacheprovider", "--pyargs", "harness.suites", *SMALL)
    end = call(*words, f"--engine-cache={tmp_path / 'cache'}")
    assert end.returncode == 0, end.stdout + end.stderr
    assert (tmp_path / "reports" / "latest" / "summary.json").is_file()


def test_the_exit_code_is_that_of_pytest(call):
    end = call("harness", "run", "--backend=opnvino")
    assert (end.returncode, "did you mean openvino" in end.stderr) == (4, True)


def test_the_doctor_and_the_version_need_no_checkout(call):
    assert call("harness", "--version").stdout == f"nn-engine-harness {__version__}\n"
    end = call("harness", "doctor")
    assert end.returncode == 0, end.stdout + end.stderr
    assert "mobilenet_digits" in end.stdout


def test_a_folder_of_ones_own_goes_before_the_bundled_one(tmp_path):
    assert folders.suites_of(tmp_path) == folders.bundled_suites() == ROOT / "suites"
    assert folders.models_folder(tmp_path) == ROOT / "models"
    for name in ("suites", "models"):
        (tmp_path / name).mkdir()
    (tmp_path / "models" / "notes.txt").write_text("no card")
    assert folders.suites_of(tmp_path) == ROOT / "suites", "some other project's folder of that name"
    assert folders.models_folder(tmp_path) == ROOT / "models"
    (tmp_path / "harness.toml").write_text("")
    (tmp_path / "models" / "mine.toml").write_text("")
    assert folders.suites_of(tmp_path) == tmp_path / "suites"
    assert folders.models_folder(tmp_path) == tmp_path / "models"


def test_the_root_of_a_run_is_never_the_installed_package(tmp_path):
    (tmp_path / "night").mkdir()
    (tmp_path / "harness.toml").write_text("")
    for rootdir in (folders.PACKAGE, folders.PACKAGE / "suites", folders.PACKAGE.parents[1]):
        assert folders.root_of_run(rootdir, tmp_path / "night") == tmp_path
    assert folders.root_of_run(tmp_path / "other", tmp_path / "night") == tmp_path / "other"
