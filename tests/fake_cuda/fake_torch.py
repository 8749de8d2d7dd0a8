"""PyTorch as far as `torch-cuda` uses it, on the fake driver; every tensor is on `cuda:0` or on the host.

An operation on the device allocates at once and computes when its stream comes to it, as often as a captured graph is
launched. What PyTorch would not take, or would answer with what lay in memory, fails here: tensors of two devices, the
default stream, memory that was not allocated from the pool of the engine, a kernel after its memory is gone.
"""

import contextlib
import ctypes
import types

import numpy as np


class TorchVersion(str):
    """As PyTorch's: a str that msgspec does not take for one."""


__version__ = TorchVersion("2.13.0+fake")
version = types.SimpleNamespace(cuda="13.0")
OPERATION_US, COPY_US = 20, 10
driver = ctypes.CDLL("libcuda.so.1")
work, problems, scopes = [], [], []  # what streams call back; what went wrong there; what is entered
state = types.SimpleNamespace(stream=None, pool=None, device=None, freed=(), breaks="")


class Dtype(str):
    def __repr__(self):
        return f"torch.{str.__str__(self)}"

    __str__ = __repr__


export = types.SimpleNamespace(
    Dim=lambda name, **ends: (name, ends),
    export=lambda module, example, dynamic_shapes=None: types.SimpleNamespace(module=module, sizes=dynamic_shapes),
)
float32, float16, bfloat16, int32 = map(Dtype, ("float32", "float16", "bfloat16", "int32"))


def device(kind, index):
    return f"{kind}:{index}"


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _called(number):
    try:
        work[number]()
    except BaseException as error:  # would be lost in the driver
        problems.append(repr(error))


def _enqueue(stream, action, us):
    if stream is None:
        raise RuntimeError("a kernel on the default stream")
    work.append(action)
    status = driver.fake_call(ctypes.c_void_p(stream.handle), _called, len(work) - 1, us)
    if status:
        raise RuntimeError(f"CUDA error: {status}")


class Tensor:
    def __init__(self, array, place="cpu", memory=None):
        self.array, self.device, self.memory = array, place, memory

    shape = property(lambda self: tuple(self.array.shape))
    dtype = property(lambda self: Dtype(self.array.dtype.name))

    def __len__(self):
        return len(self.array)

    def dim(self):
        return self.array.ndim

    def t(self):
        return _operation(lambda value: value.T)(self)

    def to(self, place):
        assert place == "cuda:0", place
        return _made(self.array.copy, place)

    def copy_(self, other):
        assert self.device == other.device == "cuda:0"
        _enqueue(state.stream, lambda: np.copyto(self.array, _read(other)), COPY_US)


def _read(tensor):
    if tensor.memory is not None and not tensor.memory.is_open:
        raise AssertionError("a kernel after its memory is gone")
    return tensor.array


def _made(compute, place):
    """Return a tensor of what a function computes, now and whenever the stream comes to it."""
    if place == "cpu":
        return Tensor(compute())
    if state.pool is None:
        raise AssertionError("memory of no pool")
    array = np.full_like(compute(), np.nan)
    made = Tensor(array, place, state.pool.memory)
    _enqueue(state.stream, lambda: np.copyto(_read(made), compute()), OPERATION_US)
    return made


def _operation(function):
    def apply(*tensors):
        places = {tensor.device for tensor in tensors if isinstance(tensor, Tensor)}
        if len(places) != 1:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {sorted(places)}")
        if state.breaks == "operation":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        def compute():
            with np.errstate(invalid="ignore"):
                return function(*(_read(one) if isinstance(one, Tensor) else one for one in tensors))

        return _made(compute, *places)

    return apply


flatten = _operation(lambda value, axis: value.reshape(*value.shape[:axis], -1))
matmul = _operation(lambda left, right: left @ right)
relu = _operation(lambda value: np.maximum(value, 0))


@_operation
def softmax(value, axis):
    powers = np.exp(value - value.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def _windows(image, sides, strides):
    """Return a view: [N, C, rows, columns, height, width]."""
    found = np.lib.stride_tricks.sliding_window_view(image, sides, (2, 3))
    return found[:, :, :: strides[0], :: strides[1]]


@_operation
def _conv2d(image, weights, bias, strides, padding, dilations, group):
    assert (list(padding), list(dilations), group) == ([0, 0], [1, 1], 1)
    made = np.einsum("ncyxhw,ochw->noyx", _windows(image, weights.shape[2:], strides), weights, dtype=np.float32)
    return made + bias[:, None, None]


@_operation
def _max_pool2d(image, sides, strides, padding, dilations, ceil):
    assert (list(padding), list(dilations), ceil) == ([0, 0], [1, 1], False)
    return _windows(image, tuple(sides), strides).max((4, 5))


def from_numpy(array):
    return Tensor(array)


def zeros(shape, *, device):
    return _made(lambda: np.zeros(shape, np.float32), device)


def rand(*shape, device="cpu"):
    return _made(lambda: np.full(shape, 0.5, np.float32), device)


def as_tensor(thing, *, device):
    found = thing.__cuda_array_interface__
    (address, is_read_only), n = found["data"], int(np.prod(found["shape"]))
    assert (found["typestr"], found["version"], is_read_only, device) == ("<f4", 2, False, "cuda:0")
    raw = (ctypes.c_float * n).from_address(address)
    return Tensor(np.ctypeslib.as_array(raw).reshape(found["shape"]), device)


class Module:
    def __init__(self):
        self.buffers = []

    def register_buffer(self, name, tensor):
        self.buffers.append(name)
        setattr(self, name, tensor)

    def eval(self):
        return self

    def to(self, place):
        if state.breaks == "to":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        for name in self.buffers:
            setattr(self, name, getattr(self, name).to(place))
        return self

    def __call__(self, *given):
        return self.forward(*given)


class MemPool:
    def __init__(self):
        assert state.device == "cuda:0", "a pool is of the current device"
        self.memory = types.SimpleNamespace(is_open=True)

    def __del__(self):
        self.memory.is_open = False
        state.freed += (driver.fake_depth(),)


class ExternalStream:
    def __init__(self, handle, device):
        assert device == "cuda:0"
        self.handle = handle


@contextlib.contextmanager
def _as_current(name, value):
    before = getattr(state, name)
    setattr(state, name, value)
    try:
        yield
    finally:
        setattr(state, name, before)


@contextlib.contextmanager
def _scope(name):
    scopes.append(name)
    try:
        yield
    finally:
        assert scopes.pop() == name


def set_device(index):
    state.device = f"cuda:{index}"


def use_mem_pool(pool, device):
    assert device == "cuda:0"
    return _as_current("pool", pool)


def inference_mode():
    return _scope("inference")


def no_grad():
    return _scope("no_grad")


def autocast(kind, dtype):
    return _scope(f"autocast {kind} {dtype}")


def trace(module, example):
    assert example.device == "cuda:0"
    module(example)
    return module


nn = types.SimpleNamespace(
    Module=Module,
    functional=types.SimpleNamespace(
        conv2d=_conv2d,
        max_pool2d=_max_pool2d,
        linear=_operation(lambda value, weights, bias: value @ weights.T + bias),
    ),
)
jit = types.SimpleNamespace(trace=trace, freeze=lambda traced: traced)
cuda = types.SimpleNamespace(
    ExternalStream=ExternalStream,
    MemPool=MemPool,
    set_device=set_device,
    stream=lambda stream: _as_current("stream", stream),
    use_mem_pool=use_mem_pool,
    empty_cache=lambda: None,
)
_C = types.SimpleNamespace(_cuda_clearCublasWorkspaces=lambda: None)
backends = types.SimpleNamespace(
    cuda=types.SimpleNamespace(
        matmul=types.SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=True)
    ),
    cudnn=types.SimpleNamespace(allow_tf32=True, benchmark=False, version=lambda: 91000),
)
