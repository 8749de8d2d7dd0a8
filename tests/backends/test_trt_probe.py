import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.backends import PROBE_LIMIT_S, load_backend
from harness.backends._child import CHILD_LIMIT_S, run_child
from harness.backends.ort_cuda import probe as ort_cuda
from harness.backends.torch_cuda import probe as torch_cuda
from harness.backends.trt.api import LogLines
from harness.backends.trt.probe import probe_backend, probe_module
from harness.machine.cuda_driver import DriverProbe, probe_driver

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
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has process descriptors")
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


RTX = (
    GOOD
    + """
import enum
class IRuntimeCache: pass
class ILogger:
    class Severity(enum.IntEnum):
        ERROR = 1
        INFO = 3
class DataType: FLOAT = 0
class ActivationType: RELU = 0
class Layer:
    def get_output(self, index): return "y"
class Network:
    def add_input(self, *what): return "x"
    def add_activation(self, *what): return Layer()
    def mark_output(self, tensor): pass
class Builder(Builder):
    def create_network(self, flags): return Network()
    def create_builder_config(self): return None
    def build_serialized_network(self, network, config): return b"plan"
class Runtime:
    max_threads = 1
    def __init__(self, log): self.log = log
    def deserialize_cuda_engine(self, plan):
        if RUNS: return "engine"
        self.log.log(ILogger.Severity.INFO, "loading")
        self.log.log(ILogger.Severity.ERROR, "The engine cannot run on this GPU,\\nwhich has compute capability 9.0")
"""
)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (True, ""),
        (
            False,
            "trt_rtx_like fails on use when a small engine was built and loaded: RuntimeError: "
            "The engine cannot run on this GPU, which has compute capability 9.0",
        ),
    ],
)
def test_a_gpu_that_rtx_does_not_run_on_is_found_out(install, runs, reason):
    install("trt_rtx_like", RTX.replace("RUNS", str(runs)))
    assert probe_module("trt_rtx_like")[1] == reason


@pytest.fixture
def hang(tmp_path, monkeypatch):
    """Code that hangs; the limit passes as soon as the code does, and it may say something before."""
    os.mkfifo(tmp_path / "hangs")
    said = []

    class Child(subprocess.Popen):
        def communicate(self, input=None, timeout=None):
            if timeout == 1.0:
                said.append((tmp_path / "hangs").read_text())
                timeout = 0
            return super().communicate(input, timeout)

    monkeypatch.setattr("harness.backends._child.CHILD_LIMIT_S", 1.0)
    monkeypatch.setattr(subprocess, "Popen", Child)
    tell = f"import threading; open({str(tmp_path / 'hangs')!r}, 'w').write(str(%s)); threading.Event().wait()"
    return lambda word="''": tell % word, said


def is_over(pid, timeout_s=30):
    """Wait for the end of a process that need not be a child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


@on_linux
@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("HANG", "imported"),
        (GOOD.replace("def __init__(self, logger): pass", "def __init__(self, logger): HANG"), "Builder was made"),
        (
            GOOD.replace("class Runtime(Builder): pass", "class Runtime:\n    def __init__(self, logger): HANG"),
            "Runtime was made",
        ),
    ],
)
def test_a_module_that_hangs_is_named_with_the_step(install, hang, text, step):
    install("trt_hangs", text.replace("HANG", hang[0]()))
    assert probe_module("trt_hangs")[1] == f"trt_hangs hangs on use: no answer in 1 s when {step}"


@on_linux
def test_a_provider_that_hangs_is_named(hang, monkeypatch):
    before, after = ort_cuda.CHILD.split("session = ", 1)
    monkeypatch.setattr(ort_cuda, "CHILD", f"{before}{hang[0]()}\nsession = {after}")
    reason = "onnxruntime hangs on use: no answer in 1 s when a session was made"
    assert ort_cuda._probe_provider()[1] == reason


def test_a_provider_that_crashes_is_named(monkeypatch):
    crashes = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(ort_cuda, "CHILD", crashes)
    reason = "onnxruntime crashes on use: a process died of SIGSEGV when imported"
    assert ort_cuda._probe_provider()[1] == reason


def test_a_child_is_ended_before_its_worker_is():
    assert CHILD_LIMIT_S + 10 < PROBE_LIMIT_S


@on_linux
def test_what_a_hung_child_started_ends_with_it(hang):
    code, said = hang
    waits = "[sys.executable, '-c', 'import threading; threading.Event().wait()']"
    end = run_child(f"import subprocess, sys\nother = subprocess.Popen({waits})\n{code('other.pid')}")
    assert end.returncode is None
    assert is_over(int(said[0]))


@on_linux
def test_a_child_does_not_outlive_who_asked(tmp_path):
    os.mkfifo(tmp_path / "pid")
    code = "import os, sys, threading; open(sys.argv[1], 'w').write(str(os.getpid())); threading.Event().wait()"
    asks = "import sys; from harness.backends._child import run_child; run_child(*sys.argv[1:])"
    root = str(Path(__file__).parents[2])
    asker = subprocess.Popen(
        [sys.executable, "-c", asks, code, str(tmp_path / "pid")], env={**os.environ, "PYTHONPATH": root}
    )
    child = int((tmp_path / "pid").read_text())
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    assert is_over(child)


def test_a_provider_that_is_not_there_is_named():
    versions, reason = ort_cuda._probe_provider()
    if not reason:
        pytest.skip("this machine has the CUDA provider")
    assert reason.endswith("has no CUDAExecutionProvider that loads; is it onnxruntime-gpu?")
    assert versions["onnxruntime"] in reason


TORCH = """
import types
__version__, version = "2.13.0", types.SimpleNamespace(cuda=CUDA)
class Sum(int):
    def __add__(self, other): return self
    def sum(self): return self
    def item(self): return float(self)
def ones(n, device): KERNEL
"""


@pytest.mark.parametrize(
    ("cuda", "kernel", "reason"),
    [
        (None, "raise AssertionError", "torch 2.13.0 is a build without CUDA"),
        ("13.0", "return Sum(4)", ""),
        ("13.0", "return Sum(3)", "torch fails on use when it computed on cuda:0: RuntimeError: 1 . 1 is not 2"),
        ("13.0", "raise RuntimeError('no kernel image')", "torch fails on use when .*: no kernel image"),
        ("13.0", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "torch crashes on use: .* SIGSEGV when it"),
    ],
)
def test_a_pytorch_that_cannot_compute_on_a_gpu_is_named(install, monkeypatch, cuda, kernel, reason):
    install("torch", TORCH.replace("CUDA", repr(cuda)).replace("KERNEL", kernel))
    versions, found = torch_cuda.probe_torch()
    assert re.match(reason, found) if reason else found == ""
    assert versions == {"torch": "2.13.0", "cuda": cuda or "none"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("__version__ = '2.13.0'", ""),
        ("raise OSError('libnvinfer.so.11: cannot open')", "torch_trt_made fails on use when imported: OSError: libnv"),
    ],
)
def test_a_module_on_top_of_pytorch_is_imported_after_it(install, text, reason):
    install("torch", TORCH.replace("CUDA", "'13.0'").replace("KERNEL", "return Sum(4)"))
    install("torch_trt_made", text)
    versions, found = torch_cuda.probe_torch(("torch_trt_made",))
    assert re.match(reason, found) if reason else found == ""
    assert versions.get("torch_trt_made", "") == ("" if reason else "2.13.0")
    assert torch_cuda.probe_torch(("nowhere",))[1] == "the Python module nowhere is not installed"


def test_a_missing_pytorch_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert torch_cuda.probe_torch() == ({}, "the Python module torch is not installed")


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
        names=("H200", "H200"),
        driver="580.65.06",
        cuda_version="13.0",
        compute_capabilities=("9.0", "9.0"),
        uuids=("GPU-a", "GPU-b"),
    )
    found = probe_backend("trt", "trt_good", install_hint="pip install it", needs=("json",), driver=lambda: driver)
    assert (found.usable, found.reason, found.devices) == (True, "", ("cuda:0", "cuda:1"))
    assert (found.driver, found.cuda_version, found.versions["trt_good"]) == ("580.65.06", "13.0", "9.9")
    assert found.compute_capabilities == ("9.0", "9.0")
    assert found.device_uuids == ("GPU-a", "GPU-b")


@pytest.mark.parametrize("name", ["trt", "trt-rtx", "ort-cuda", "ort-trt", "torch-cuda", "torch-trt"])
def test_without_a_gpu_the_real_backends_say_why(name):
    if not probe_driver().reason:
        pytest.skip("this machine has a GPU")
    found = load_backend(name).probe()
    assert not found.usable
    assert found.reason.startswith("no CUDA d")
    assert found.install_hint.startswith("pip install")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["1:", "1: [alloc] out of memory", "noise"], "1: [alloc] out of memory"),
        (["1:"], "1:"),
        ([], "TensorRT logged no error"),
    ],
)
def test_the_reason_is_the_first_error_in_words(lines, reason):
    log = LogLines()
    for line in lines:
        log.take(True, line)
    assert log.reason() == reason
