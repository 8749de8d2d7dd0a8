"""The CUDA module and the TensorRT adapter on a fake CUDA driver, with real cuda-bindings and, where built, PyCUDA.

The checks run in a process of their own for each mode of the driver: a process keeps the libcuda it first loaded.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
ROOT = HERE.parent


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory):
    """A folder that holds the fake libcuda.so.1 and libnvidia-ml.so.1."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: the fake CUDA driver cannot be built")
    if importlib.util.find_spec("cuda") is None:
        pytest.skip("cuda-bindings is not installed: pip install cuda-bindings")
    folder = tmp_path_factory.mktemp("driver")
    for name, source in (("libcuda.so.1", "driver.c"), ("libnvidia-ml.so.1", "nvml.c")):
        command = ["gcc", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        subprocess.run([*command, str(HERE / "fake_cuda" / source), "-ldl"], check=True)
    return folder


@pytest.mark.parametrize(("mode", "checks"), [("lazy", "*"), ("eager", "graph"), ("eager", "engine")])
def test_on_the_fake_driver(fake_driver, mode, checks):
    environment = dict(os.environ, LD_LIBRARY_PATH=str(fake_driver), FAKE_CUDA_MODE=mode, PYTHONPATH=str(ROOT))
    environment.pop("PYTEST_ADDOPTS", None)
    plain = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:benchmark", "-c", os.devnull]
    targets = sorted(map(str, (HERE / "fake_cuda").glob(f"checks_{checks}.py")))
    child = subprocess.run(
        [sys.executable, "-m", "pytest", *plain, "--rootdir", str(HERE / "fake_cuda"), *targets],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout[-6000:] + child.stderr[-2000:]
    assert " passed" in child.stdout
