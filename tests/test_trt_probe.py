import json
import re

import pytest

from harness.backends import load_backend
from harness.backends._trt_probe import probe_backend, probe_module
from harness.cuda import DriverProbe, probe_driver

GOOD = """
__version__ = "9.9"
class Logger:
    ERROR = 1
    def __init__(self, severity): pass
class Builder:
    max_threads = 1
    def __init__(self, logger): pass
class Runtime(Builder): pass
"""
CRASH = "def __init__(self, logger): import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a module where this process and its children find it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)

    def put(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    return put


def test_a_missing_driver_is_a_reason_not_a_crash():
    assert probe_driver("libcuda_that_is_not_there.so.1").reason.startswith("no CUDA driver: ")


def test_a_good_module_gives_versions(install):
    install("trt_good", GOOD)
    assert probe_module("trt_good", others=("json", "not_there")) == ({"trt_good": "9.9", "json": json.__version__}, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            GOOD.replace("class Runtime(Builder): pass", f"class Runtime:\n    {CRASH}"),
            "crashes on use: .* SIGSEGV when",
        ),
        (GOOD.replace("max_threads = 1", "max_threads = property(lambda self: 1 / 0)"), "fails on use .*ZeroDivision"),
        (
            "raise ImportError('libnvinfer.so.8: cannot open shared object file')",
            "fails on use when imported: .*libnvinfer",
        ),
    ],
)
def test_a_bad_module_gives_one_line(install, text, reason):
    install("trt_bad", text)
    found = probe_module("trt_bad")[1]
    assert "\n" not in found
    assert re.search(reason, found), found


def test_no_cuda_for_python_is_named(install):
    install("trt_alone", GOOD)
    assert "no CUDA for Python (not_there" in probe_module("trt_alone", others=("not_there",))[1]


@pytest.mark.parametrize(
    ("driver", "module", "reason"),
    [
        (DriverProbe(reason="no CUDA driver: x"), "json", "no CUDA driver: x; engines of trt run on NVIDIA GPUs only"),
        (DriverProbe(reason="no CUDA device: x"), "nowhere", "no CUDA device: x; nor is the Python module nowhere"),
        (DriverProbe(names=("H200",), cuda_version="13.0"), "nowhere", "the Python module nowhere is not installed"),
    ],
)
def test_why_a_backend_cannot_be_used(driver, module, reason):
    found = probe_backend("trt", module, install_hint="pip install it", needs=(), driver=lambda: driver)
    assert not found.usable
    assert found.reason.startswith(reason)
    assert found.install_hint == "pip install it"


def test_a_usable_backend(install):
    install("trt_good", GOOD)
    driver = DriverProbe(
        names=("H200", "H200"), driver="580.65.06", cuda_version="13.0", compute_capabilities=("9.0", "9.0")
    )
    found = probe_backend("trt", "trt_good", install_hint="pip install it", needs=("json",), driver=lambda: driver)
    assert (found.usable, found.reason, found.devices) == (True, "", ("cuda:0", "cuda:1"))
    assert (found.driver, found.cuda_version, found.versions["trt_good"]) == ("580.65.06", "13.0", "9.9")
    assert found.compute_capabilities == ("9.0", "9.0")


@pytest.mark.parametrize("name", ["trt", "trt-rtx", "ort-cuda"])
def test_without_a_gpu_the_real_backends_say_why(name):
    if not probe_driver().reason:
        pytest.skip("this machine has a GPU")
    found = load_backend(name).probe()
    assert not found.usable
    assert found.reason.startswith("no CUDA d")
    assert found.install_hint.startswith("pip install")
