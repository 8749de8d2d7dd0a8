"""Every CUDA call of the harness: context, memory, copies, streams, events, graphs and the gate.

PyCUDA does what it can do; NVIDIA's cuda-bindings does what PyCUDA lacks (graphs, waiting on a value), and stands in
for PyCUDA where that is not installed. Only worker processes use this module; nothing is imported until `Gpu(...)`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from harness.errors import BackendUnavailable, ConfigError, HarnessError, MeasurementError
from harness.machine.cuda_driver import LIBRARY, probe_driver

STREAM_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: never waits for the legacy default stream
HOST_ALLOC_DEVICEMAP = 2  # CU_MEMHOSTALLOC_DEVICEMAP
GATE_TIMEOUT_S = 10.0  # a closed gate is opened by force after this, so that a blocked enqueue cannot hang a case
FORCED_OPEN = 1 << 30  # ahead of every ticket the gate will issue; the wait compares cyclically


class CudaError(HarnessError):
    """A CUDA call failed; the message names it."""


class NotCapturable(CudaError):
    """The work put on a stream could not be captured as a graph."""


def checked(call: str, result: tuple[Any, ...]) -> Any:
    """Return the values of a cuda-bindings call, one bare, several as a tuple."""
    if int(result[0]) != 0:
        raise CudaError(f"{call} failed: {getattr(result[0], 'name', result[0])}")
    return result[1] if len(result) == 2 else result[1:]


class _Allocation:
    """Device memory of the stand-in, as `pycuda.driver.DeviceAllocation`."""

    def __init__(self, api: Any, n_bytes: int) -> None:
        self._api, self._address = api, int(checked("cuMemAlloc", api.cuMemAlloc(n_bytes)))

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        checked("cuMemFree", self._api.cuMemFree(self._address))


class _Stream:
    """A stream of the stand-in, as `pycuda.driver.Stream`."""

    def __init__(self, api: Any, flags: int) -> None:
        self._api, self._stream = api, checked("cuStreamCreate", api.cuStreamCreate(flags))
        self.handle = int(self._stream)

    def synchronize(self) -> None:
        checked("cuStreamSynchronize", self._api.cuStreamSynchronize(self._stream))

    def wait_for_event(self, event: _Event) -> None:
        checked("cuStreamWaitEvent", self._api.cuStreamWaitEvent(self._stream, event.event, 0))

    def free(self) -> None:
        checked("cuStreamDestroy", self._api.cuStreamDestroy(self._stream))


class _Event:
    """An event of the stand-in, as `pycuda.driver.Event`."""

    def __init__(self, api: Any) -> None:
        self._api, self.event = api, checked("cuEventCreate", api.cuEventCreate(0))

    def record(self, stream: _Stream) -> None:
        checked("cuEventRecord", self._api.cuEventRecord(self.event, stream.handle))

    def synchronize(self) -> None:
        checked("cuEventSynchronize", self._api.cuEventSynchronize(self.event))

    def time_since(self, start: _Event) -> float:
        return float(checked("cuEventElapsedTime", self._api.cuEventElapsedTime(start.event, self.event)))

    def free(self) -> None:
        checked("cuEventDestroy", self._api.cuEventDestroy(self.event))


class _BindingsDriver:
    """The part of `pycuda.driver` that the harness uses, on cuda-bindings alone."""

    def __init__(self, api: Any) -> None:
        self._api = api

    def retain(self, index: int) -> tuple[str, str, Callable[[], None]]:
        api = self._api
        checked("cuInit", api.cuInit(0))
        device = checked("cuDeviceGet", api.cuDeviceGet(index))
        name = checked("cuDeviceGetName", api.cuDeviceGetName(256, device)).split(b"\0")[0].decode()
        part = api.CUdevice_attribute
        kinds = (part.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, part.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
        capability = ".".join(str(checked("cuDeviceGetAttribute", api.cuDeviceGetAttribute(k, device))) for k in kinds)
        context = checked("cuDevicePrimaryCtxRetain", api.cuDevicePrimaryCtxRetain(device))
        checked("cuCtxPushCurrent", api.cuCtxPushCurrent(context))

        def release() -> None:
            checked("cuCtxPopCurrent", api.cuCtxPopCurrent())
            checked("cuDevicePrimaryCtxRelease", api.cuDevicePrimaryCtxRelease(device))

        return name, capability, release

    def mem_alloc(self, n_bytes: int) -> _Allocation:
        return _Allocation(self._api, n_bytes)

    def Stream(self, flags: int) -> _Stream:
        return _Stream(self._api, flags)

    def Event(self) -> _Event:
        return _Event(self._api)

    def pagelocked(self, n_bytes: int, flags: int) -> tuple[NDArray[np.uint8], Callable[[], None]]:
        address = int(checked("cuMemHostAlloc", self._api.cuMemHostAlloc(n_bytes, flags)))
        raw = (ctypes.c_uint8 * n_bytes).from_address(address)
        return np.ctypeslib.as_array(raw), lambda: checked("cuMemFreeHost", self._api.cuMemFreeHost(address))

    def memcpy_htod_async(self, target: int, source: NDArray[Any], stream: _Stream) -> None:
        result = self._api.cuMemcpyHtoDAsync(int(target), source.ctypes.data, source.nbytes, stream.handle)
        checked("cuMemcpyHtoDAsync", result)

    def memcpy_dtoh_async(self, target: NDArray[Any], source: int, stream: _Stream) -> None:
        result = self._api.cuMemcpyDtoHAsync(target.ctypes.data, int(source), target.nbytes, stream.handle)
        checked("cuMemcpyDtoHAsync", result)

    def synchronize(self) -> None:
        checked("cuCtxSynchronize", self._api.cuCtxSynchronize())


# PyCUDA's contexts form a stack per thread, and only its top can be popped: all users of a device in a thread share one
# entry, (thread, device) -> [context, users].
_PUSHED: dict[tuple[int, int], list[Any]] = {}


class _PycudaDriver:
    """`pycuda.driver` with the primary context retained and pushed."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.mem_alloc, self.Stream, self.Event = driver.mem_alloc, driver.Stream, driver.Event
        self.memcpy_htod_async, self.memcpy_dtoh_async = driver.memcpy_htod_async, driver.memcpy_dtoh_async

    def retain(self, index: int) -> tuple[str, str, Callable[[], None]]:
        driver = self._driver
        driver.init()
        device = driver.Device(index)
        place = (threading.get_ident(), index)
        if place not in _PUSHED:
            context = device.retain_primary_context()
            context.push()
            _PUSHED[place] = [context, 0]
        _PUSHED[place][1] += 1
        return device.name(), ".".join(map(str, device.compute_capability())), lambda: self._release(place)

    def _release(self, place: tuple[int, int]) -> None:
        _PUSHED[place][1] -= 1
        if _PUSHED[place][1]:
            return
        context, _ = _PUSHED.pop(place)
        self._driver.Context.pop()
        # PyCUDA 2026.1 detaches a popped context by pushing it and "popping by detaching"; a primary context is only
        # released by that, and would stay on the driver's stack (src/cpp/cuda.hpp, context::detach).
        context.detach()
        ctypes.CDLL(LIBRARY).cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def pagelocked(self, n_bytes: int, flags: int) -> tuple[NDArray[np.uint8], Callable[[], None]]:
        array = self._driver.pagelocked_empty(n_bytes, np.uint8, mem_flags=flags)
        return array, array.base.free

    def synchronize(self) -> None:
        self._driver.Context.synchronize()


class Gpu:
    """The retained primary context of one GPU and everything allocated in it; `close` frees all of it, then pops.

    The primary context is the one that torch and ONNX Runtime's CUDA provider use, so they can share the GPU.
    Raises: BackendUnavailable when neither PyCUDA nor cuda-bindings can open the device.
    """

    def __init__(self, index: int = 0, *, provider: str = "auto") -> None:
        self.api = _bindings()  # cuda.bindings.driver, or None
        self.provider, self._driver = _open_driver(provider, self.api)
        failure: tuple[type[BaseException], ...] = (CudaError, *_pycuda_errors(self._driver))
        try:
            self.name, self.compute_capability, self._release = self._driver.retain(index)
        except failure as error:
            raise BackendUnavailable(f"cuda:{index} cannot be opened with {self.provider}: {error}") from error
        self.errors = failure
        found = probe_driver()
        self.driver, self.cuda_version = found.driver, found.cuda_version
        self._owned: list[Any] = []
        self._frees: list[Callable[[], None]] = []
        self.closed = False

    def stream(self) -> Any:
        """Create a stream that does not wait for the default stream; has `handle` and `synchronize()`."""
        return self.own(self._driver.Stream(STREAM_NON_BLOCKING))

    def event(self) -> Any:
        """Create a timing event; has `record(stream)`, `synchronize()` and `time_since(start)` [ms]."""
        return self.own(self._driver.Event())

    def device_memory(self, n_bytes: int) -> Any:
        """Allocate device memory; `int()` of it is its address. Raises: CudaError that names the bytes."""
        try:
            return self.own(self._driver.mem_alloc(max(1, int(n_bytes))))
        except self.errors as error:
            raise CudaError(f"{int(n_bytes):,} bytes of device memory could not be had: {error}") from error

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike, *, mapped: bool = False) -> NDArray[Any]:
        """Allocate a page-locked array; it may not be touched after `close`.

        Raises: CudaError that names the bytes.
        """
        wanted = np.dtype(dtype)
        n_bytes = int(np.prod(shape)) * wanted.itemsize
        try:
            flat, free = self._driver.pagelocked(max(1, n_bytes), HOST_ALLOC_DEVICEMAP if mapped else 0)
        except self.errors as error:
            raise CudaError(f"{n_bytes:,} bytes of page-locked memory could not be had: {error}") from error
        self._frees.append(free)
        return cast(NDArray[Any], flat[:n_bytes].view(wanted).reshape(shape))

    def copy_in(self, target: Any, source: NDArray[Any], stream: Any) -> None:
        """Enqueue a copy from a page-locked array to device memory."""
        self._driver.memcpy_htod_async(int(target), source, stream)

    def copy_out(self, target: NDArray[Any], source: Any, stream: Any) -> None:
        """Enqueue a copy from device memory to a page-locked array."""
        self._driver.memcpy_dtoh_async(target, int(source), stream)

    def synchronize(self) -> None:
        """Wait until everything enqueued in the context is done."""
        self._driver.synchronize()

    def close(self) -> None:
        """Free memory, streams and events, then pop the context; a second call does nothing.

        Raises: CudaError when a fault on the device has broken the context: this process cannot use it again.
        """
        if self.closed:
            return
        self.closed = True
        try:
            self._driver.synchronize()
        except self.errors as error:
            self._release()
            raise CudaError(f"{self.name}: the CUDA context is broken ({error}); go on in a new process") from error
        self._free()
        self._release()

    def _free(self) -> None:
        for free in reversed(self._frees):
            free()
        self._frees.clear()
        while self._owned:
            owned = self._owned.pop()
            if hasattr(owned, "free"):
                owned.free()
            del owned  # PyCUDA frees streams and events when the last reference goes

    def own(self, thing: Any) -> Any:
        """Keep what must go before the context does; it is freed by its `free` where it has one."""
        self._owned.append(thing)
        return thing


def _bindings() -> Any:
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError:
        return None


def _open_driver(provider: str, api: Any) -> tuple[str, Any]:
    reasons = []
    if provider in ("auto", "pycuda"):
        try:
            return "pycuda", _PycudaDriver(importlib.import_module("pycuda.driver"))
        except ImportError as error:
            reasons.append(f"pycuda: {error}")
    if provider in ("auto", "cuda-bindings"):
        if api is not None:
            return "cuda-bindings", _BindingsDriver(api)
        reasons.append("cuda-bindings: not installed")
    raise BackendUnavailable(f"no CUDA for Python ({'; '.join(reasons)}); pip install pycuda cuda-bindings")


def _pycuda_errors(driver: Any) -> tuple[type[BaseException], ...]:
    # pycuda._driver.RuntimeError is not the builtin one; pycuda.driver.Error is the root of them all.
    return (cast(type[BaseException], driver._driver.Error),) if isinstance(driver, _PycudaDriver) else (RuntimeError,)


class Graph:
    """One piece of work captured from a stream, launched as one CUDA graph on that stream.

    Raises: NotCapturable when the work cannot be captured; the stream is usable again afterwards.
    """

    def __init__(self, gpu: Gpu, stream: Any, work: Callable[[], object]) -> None:
        if gpu.api is None:
            raise NotCapturable("CUDA graphs need cuda-bindings: pip install cuda-bindings")
        self._api, self._stream = gpu.api, gpu.api.CUstream(stream.handle)
        self._launch = gpu.api.cuGraphLaunch
        self._exec: Any = None
        failures: tuple[type[BaseException], ...] = (HarnessError, *gpu.errors)
        try:
            graph = self._captured(gpu, work)
            try:
                self._exec = checked("cuGraphInstantiate", self._api.cuGraphInstantiate(graph, 0))
            finally:
                checked("cuGraphDestroy", self._api.cuGraphDestroy(graph))
        except failures as error:
            raise NotCapturable(f"CUDA graph capture: {error}") from error

    def _captured(self, gpu: Gpu, work: Callable[[], object]) -> Any:
        mode = self._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        checked("cuStreamBeginCapture", self._api.cuStreamBeginCapture(self._stream, mode))
        is_done = False
        try:
            work()
            is_done = True
        finally:  # a stream left capturing could not be used again
            status, graph = self._api.cuStreamEndCapture(self._stream)
            if not is_done and int(status) == 0:
                self._api.cuGraphDestroy(graph)
        return checked("cuStreamEndCapture", (status, graph))

    def launch(self) -> None:
        """Enqueue the graph on the stream it was captured from."""
        (status,) = self._launch(self._exec, self._stream)
        if int(status) != 0:
            raise CudaError(f"cuGraphLaunch failed: {getattr(status, 'name', status)}")

    def close(self) -> None:
        """Destroy the graph; the work launched so far must be done. A second call does nothing."""
        if self._exec is not None:
            checked("cuGraphExecDestroy", self._api.cuGraphExecDestroy(self._exec))
            self._exec = None


class Gate:
    """Holds a stream until the host opens it, so that work enqueued behind it runs without host gaps.

    The stream waits for a page-locked word to reach a ticket; the host writes the word. While `watched` is active a
    thread opens a gate that stays closed too long, and `open` then raises MeasurementError.
    Raises: CudaError when the device cannot wait on memory, or cuda-bindings is missing.
    """

    def __init__(self, gpu: Gpu, stream: Any, *, timeout_s: float = GATE_TIMEOUT_S) -> None:
        if gpu.api is None:
            raise CudaError("gated timing needs cuda-bindings: pip install cuda-bindings")
        self._api, self._stream = gpu.api, gpu.api.CUstream(stream.handle)
        self._word = gpu.pinned((1,), np.uint32, mapped=True)
        self._word[0] = 0
        pointer = checked("cuMemHostGetDevicePointer", gpu.api.cuMemHostGetDevicePointer(self._word.ctypes.data, 0))
        self._address = gpu.api.CUdeviceptr(int(pointer))
        self._reached = int(gpu.api.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ)
        self._ticket, self.timeout_s = 0, timeout_s
        self._deadline: float | None = None
        self._forced = False

    def shut(self) -> None:
        """Make the stream wait here until `open`."""
        self._ticket += 1
        self._deadline = time.monotonic() + self.timeout_s
        (status,) = self._api.cuStreamWaitValue32(self._stream, self._address, self._ticket, self._reached)
        if int(status) != 0:
            self._deadline = None
            raise CudaError(f"cuStreamWaitValue32 failed: {getattr(status, 'name', status)}")

    def open(self) -> None:
        """Let the stream go on. Raises MeasurementError when the watch had to open the gate."""
        self._deadline = None
        self._word[0] = self._ticket
        if self._forced:
            raise MeasurementError(
                f"the gated stream was still held after {self.timeout_s:g} s: its queue is full or the work waits for "
                "the host; choose the launch 'graph' or 'enqueue'"
            )

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for a gate that stays shut while the host is blocked."""
        done = threading.Event()
        self._forced = False
        guard = threading.Thread(target=self._watch, args=(done,), daemon=True, name="gate-watch")
        guard.start()
        try:
            yield
        finally:
            self._deadline = None
            self._word[0] = self._ticket
            done.set()
            guard.join()

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(self.timeout_s / 10):
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self._forced = True
                self._word[0] = (self._ticket + FORCED_OPEN) & 0xFFFFFFFF
                return


class EventPool:
    """Pairs of pre-made events, reused from call to call."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._pairs: list[tuple[Any, Any]] = []

    def pairs(self, n_pairs: int) -> list[tuple[Any, Any]]:
        """Return n_pairs (start, end) events, making what is missing."""
        while len(self._pairs) < n_pairs:
            self._pairs.append((self._gpu.event(), self._gpu.event()))
        return self._pairs[:n_pairs]


def device_index(device: str) -> int:
    """Return 1 for `cuda:1`. Raises: ConfigError for what is no CUDA device."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number.isdecimal():
        raise ConfigError(f"device {device!r} is no CUDA device; expected cuda:0, cuda:1, ...")
    return int(number)
