"""harness.backends._cuda.device on the fake driver: copies, graphs, the gate, freeing, probing."""

import ctypes
import importlib.util

import numpy as np
import pytest

from harness.backends._cuda.device import CudaError, Gate, Gpu, Graph, NotCapturable
from harness.errors import BackendUnavailable, MeasurementError
from harness.machine.cuda_driver import driver_version, probe_driver

PROVIDERS = ["cuda-bindings", *(["pycuda"] if importlib.util.find_spec("pycuda") else [])]


@pytest.fixture(params=PROVIDERS)
def gpu(request, driver):
    before = [driver.fake_live(kind) for kind in range(5)]
    device = Gpu(0, provider=request.param)
    yield device
    device.close()
    device.close()
    assert driver.fake_depth() == 0
    # PyCUDA frees streams and events when the last reference goes, which may be a frame of a failed call.
    now = [driver.fake_live(kind) for kind in range(5)]
    assert now[:2] == before[:2]
    assert now[4] == before[4]
    if request.param == "cuda-bindings":
        assert now == before


@pytest.fixture
def copies(gpu):
    """A stream, work that copies in and out on it, and the two ends."""
    stream = gpu.stream()
    source, target = gpu.pinned((4, 8), np.float32), gpu.pinned((4, 8), np.float32)
    memory = gpu.device_memory(source.nbytes)
    source[:], target[:] = np.arange(32).reshape(4, 8), 0

    def work():
        gpu.copy_in(memory, source, stream)
        gpu.copy_out(target, memory, stream)

    return stream, work, source, target


def test_the_device_is_named(gpu):
    assert (gpu.name, gpu.compute_capability) == ("Fake GPU", "9.0")
    assert (gpu.driver, gpu.cuda_version) == ("580.65.06", "13.0")


def test_probing_needs_no_library():
    found = probe_driver()
    assert (found.reason, found.names, found.compute_capabilities) == ("", ("Fake GPU",), ("9.0",))
    assert (found.driver, found.cuda_version) == ("580.65.06", "13.0")


def test_a_captured_graph_that_cannot_be_instantiated_is_freed(gpu, copies, environment, driver):
    stream, work, _, _ = copies
    environment("FAKE_CUDA_INSTANTIATE", "no")
    before = driver.fake_live(4)
    with pytest.raises(NotCapturable, match="cuGraphInstantiate failed"):
        Graph(gpu, stream, work)
    assert driver.fake_live(4) == before


def test_every_device_has_its_own_compute_capability(environment):
    environment("FAKE_CUDA_DEVICES", "2")
    assert probe_driver().compute_capabilities == ("9.0", "10.0")
    assert probe_driver().uuids == (
        "GPU-abababab-abab-abab-abab-ababababab00",
        "GPU-abababab-abab-abab-abab-ababababab01",
    )


def test_the_management_library_is_asked_and_let_go():
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    assert driver_version() == "580.65.06"
    assert nvml.fake_nvml_users() == 0


NVRM = "NVRM version: NVIDIA UNIX {}  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc version 12.2.0\n"


@pytest.mark.parametrize("kernel", ["x86_64 Kernel Module", "Open Kernel Module for x86_64"])
@pytest.mark.parametrize("nvml", ["libnvidia-ml.so.1", "libnvidia-ml_that_is_not_there.so.1"])
def test_without_the_management_library_the_kernel_says_the_version(environment, tmp_path, capfd, kernel, nvml):
    environment("FAKE_DRIVER", "")
    (tmp_path / "version").write_text(NVRM.format(kernel))
    assert driver_version(nvml, tmp_path / "version") == "535.104.05"
    assert driver_version(nvml, tmp_path / "none") == ""
    assert capfd.readouterr() == ("", "")


def test_copies_and_events(gpu, copies):
    stream, work, source, target = copies
    start, end = gpu.event(), gpu.event()
    start.record(stream)
    work()
    end.record(stream)
    stream.synchronize()
    assert np.array_equal(source, target)
    assert end.time_since(start) == pytest.approx(0.02)


def test_a_graph_replays(gpu, copies):
    stream, work, source, target = copies
    graph = Graph(gpu, stream, work)
    stream.synchronize()
    assert not target.any()
    graph.launch()
    stream.synchronize()
    assert np.array_equal(source, target)
    graph.close()
    graph.close()


def test_what_waits_cannot_be_captured_and_the_stream_lives_on(gpu, copies):
    stream, work, source, target = copies
    with pytest.raises(NotCapturable, match="capture"):
        Graph(gpu, stream, stream.synchronize)
    work()
    stream.synchronize()
    assert np.array_equal(source, target)


def test_nothing_passes_a_shut_gate(gpu, copies, environment):
    environment("FAKE_CUDA_MODE", "eager")
    stream, work, source, target = copies
    gate = Gate(gpu, stream)
    with gate.watched():
        for _ in range(3):
            target[:] = 0
            gate.shut()
            work()
            assert not target.any()
            gate.open()
            stream.synchronize()
            assert np.array_equal(source, target)


def test_a_gate_left_shut_is_opened_by_force(gpu, copies):
    stream, work, source, target = copies
    gate = Gate(gpu, stream, timeout_s=0.05)
    with gate.watched():
        gate.shut()
        work()
        stream.synchronize()
        with pytest.raises(MeasurementError, match=r"still held after 0\.05 s"):
            gate.open()
    with gate.watched():  # and it can be used again
        gate.shut()
        gate.open()
    assert np.array_equal(source, target)


def test_an_error_behind_a_shut_gate_opens_it(gpu, copies):
    stream, work, source, target = copies
    gate = Gate(gpu, stream)

    def fail_behind_the_gate():
        with gate.watched():
            gate.shut()
            work()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_behind_the_gate()
    stream.synchronize()
    assert np.array_equal(source, target)


def test_a_device_that_cannot_wait_says_so(gpu, environment):
    environment("FAKE_CUDA_WAIT", "no")
    gate = Gate(gpu, gpu.stream())
    with pytest.raises(CudaError, match="NOT_SUPPORTED"):
        gate.shut()


def test_too_much_memory_is_an_error_of_cuda(gpu):
    with pytest.raises(gpu.errors):
        gpu.device_memory(1 << 40)


def test_a_device_that_is_not_there_is_named():
    for provider in PROVIDERS:
        with pytest.raises(BackendUnavailable, match="cuda:7 cannot be opened"):
            Gpu(7, provider=provider)
