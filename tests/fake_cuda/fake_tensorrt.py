"""A TensorRT of 8.6's shape whose kernels run on the fake driver, for the adapter's logic.

A "model" is a JSON file; a "plan" is JSON too. A classifier's one kernel gives out[i, c] = (c + 1) * mean(in[i]) + c;
a model of any graph, with "inputs" (name -> type and shape) and "outputs" (name -> type and two inputs), adds. It keeps
the habits of the real one: nothing raises, callbacks' exceptions are swallowed, a second context on one profile is a
crash (here an AssertionError) unless the plan lets contexts share profiles (10 and
later), a context runs only what was bound.
"""

import ctypes
import enum
import json
import os
import weakref
from pathlib import Path

import numpy as np

__version__ = "8.6.0"
_driver = ctypes.CDLL("libcuda.so.1")
built = []  # names of what was built, in order
networks = []  # of what was built, the last one
contexts_made = []
contexts = weakref.WeakSet()  # of all engines, alive
engines_made = []
shape_versions = []
freed = []  # (class, CUDA contexts on the stack then)
plugin_layers = []  # names of the plug-in layers that the registry holds


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0


class BuilderFlag(enum.IntEnum):
    FP16 = 0
    INT8 = 1
    TF32 = 7
    OBEY_PRECISION_CONSTRAINTS = 9
    VERSION_COMPATIBLE = 15


class PreviewFeature(enum.IntEnum):
    PROFILE_SHARING_0806 = 2


class TacticSource(enum.IntEnum):
    CUBLAS = 0
    EDGE_MASK_CONVOLUTIONS = 3
    JIT_CONVOLUTIONS = 4


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class HardwareCompatibilityLevel(enum.IntEnum):
    NONE = 0
    AMPERE_PLUS = 1


class ProfilingVerbosity(enum.IntEnum):
    DETAILED = 2


class TensorIOMode(enum.IntEnum):
    INPUT = 1
    OUTPUT = 2


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    BF16 = 7


class LayerType(enum.IntEnum):
    CONSTANT = 1
    SHUFFLE = 2
    CONVOLUTION = 3
    QUANTIZE = 4
    DEQUANTIZE = 5
    SOFTMAX = 6


class LayerInformationFormat(enum.IntEnum):
    JSON = 1


def nptype(dtype):
    known = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT32: np.int32}
    known |= {DataType.BOOL: np.bool_, DataType.UINT8: np.uint8}
    if dtype not in known:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return known[dtype]


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3


class IProfiler:
    pass


class _Calibrator:
    def __init__(self):
        self.is_initialized = True


class IInt8EntropyCalibrator(_Calibrator):
    pass


class IInt8EntropyCalibrator2(_Calibrator):
    pass


class IInt8LegacyCalibrator(_Calibrator):
    pass


class IConstantLayer:
    pass


class ITensor:
    dynamic_range = None

    def __init__(self, name, shape):
        self.name, self.shape, self.dtype = name, tuple(shape), DataType.FLOAT
        self.is_shape_tensor = False


class _Layer:
    precision = None

    def __init__(self, kind, inputs=(), outputs=(), weights=None):
        self.name = f"/{kind.name.lower()}/Node"
        self.type, self._inputs, self._outputs, self.weights = kind, inputs, outputs, weights
        self.num_outputs = len(outputs)

    def get_input(self, index):
        return self._inputs[index]

    def get_output(self, index):
        return self._outputs[index]


class INetworkDefinition:
    name = "Unnamed Network 0"

    def __init__(self):
        self.model, self._layers = None, []
        self.num_inputs = self.num_outputs = 0

    @property
    def num_layers(self):
        return len(self._layers)

    def get_layer(self, index):
        return self._layers[index]

    def get_input(self, index):
        return self._inputs[index]


class _ParserError:
    def __init__(self, text):
        self._text = text

    def node(self):
        return 3

    def desc(self):
        return self._text


class OnnxParser:
    num_errors = 0

    def __init__(self, network, logger):
        self._network, self._logger = network, logger

    def parse(self, data, path=None):
        model = json.loads(data)
        if "error" in model:
            self._error, self.num_errors = _ParserError(model["error"]), 1
            return False
        if not _has_plugin(model):
            self._error, self.num_errors = _ParserError(f"Plugin not found: {model['plugin']}"), 1
            return False
        net = self._network
        if model.get("empty"):
            return True
        net.model = model
        inputs, outputs = tensors_of(model)
        net.num_inputs, net.num_outputs = len(inputs), len(outputs)
        net._inputs = [ITensor(name, shape) for name, (_, shape) in inputs.items()]
        for tensor in net._inputs:
            tensor.is_shape_tensor = tensor.name in model.get("shape_tensors", ())
        net.tensors = net._inputs
        if "inputs" in model:
            net._layers = [_Layer(LayerType.SHUFFLE, tuple(net._inputs), ()) for _ in outputs]
            return True
        (net._input,) = net._inputs
        weights, shuffled, out = ITensor("w", (1,)), ITensor("s", (1,)), ITensor("out", (-1, model["classes"]))
        softmax = ITensor("p", (1,))
        kinds = [LayerType.QUANTIZE] if model.get("qdq") else []
        net._layers = [
            _Layer(LayerType.CONSTANT, (), (weights,), np.array([0.5, -2.0], np.float32)),
            _Layer(LayerType.SHUFFLE, (net._input,), (shuffled,)),
            _Layer(LayerType.CONVOLUTION, (shuffled,), (out,)),
            _Layer(LayerType.SOFTMAX, (out,), (softmax,)),
            *(_Layer(kind) for kind in kinds),
        ]
        net.tensors = [net._input, weights, shuffled, out, softmax]
        return True

    def get_error(self, index):
        return self._error


def tensors_of(model):
    """Return inputs (name -> type, shape) and outputs (name -> type, operands) of a model."""
    if "inputs" in model:
        return model["inputs"], model["outputs"]
    return {"in": ["FLOAT", model["shape"]]}, {"out": ["FLOAT", "in"]}


class _Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, low, best, high):
        self.shapes[name] = [list(low), list(best), list(high)]


class _TimingCache:
    """Lines `tactic`; a build adds one, `foreign` is of another GPU."""

    def __init__(self, data):
        self.lines = bytes(data).split()

    def serialize(self):
        return b" ".join(self.lines)

    def combine(self, other, ignore_mismatch):
        assert not ignore_mismatch, "timings of another GPU"
        if b"foreign" in other.lines:
            return False
        self.lines += [line for line in other.lines if line not in self.lines]
        return True


class IBuilderConfig:
    int8_calibrator = None
    builder_optimization_level = 3
    hardware_compatibility_level = HardwareCompatibilityLevel.NONE

    def __init__(self):
        self.flags, self.profiles, self.pools = {BuilderFlag.TF32}, [], {MemoryPoolType.WORKSPACE: 1 << 30}
        self.sources, self.calibration_profile = 0b11001, None
        self.previews = {PreviewFeature.PROFILE_SHARING_0806: os.environ.get("FAKE_TRT_SHARES") == "yes"}

    def get_preview_feature(self, feature):
        return self.previews[feature]

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def get_flag(self, flag):
        return flag in self.flags

    def set_memory_pool_limit(self, pool, size):
        self.pools[pool] = size

    def get_memory_pool_limit(self, pool):
        return self.pools[pool]

    def set_tactic_sources(self, mask):
        self.sources = mask
        return True

    def get_tactic_sources(self):
        return self.sources

    def add_optimization_profile(self, profile):
        if any(
            low > high for shapes in profile.shapes.values() for low, high in zip(shapes[0], shapes[2], strict=True)
        ):
            return -1
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile):
        self.calibration_profile = profile.shapes["in"][0]
        return True

    def create_timing_cache(self, data):
        return _TimingCache(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        self.timing_cache = cache
        return b"foreign" not in cache.lines


class Builder:
    refuses_tables = False  # calibrates though there is a calibration cache
    table_header = "TRT-8600-Fake"  # of calibrators other than the legacy one
    n_batches_read = None  # ends calibration after so many batches
    overlooked = None  # (quantile, cutoff) -> pixels that a calibrated engine overlooks

    def __init__(self, logger):
        self._logger = logger

    def create_network(self, flags=0):
        assert flags == 1, "8.6 needs EXPLICIT_BATCH"
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        if network.model.get("unbuildable"):
            self._logger.log(ILogger.Severity.ERROR, "out of memory")
            self._logger.log(ILogger.Severity.ERROR, "noise")
            return None
        if config.int8_calibrator is not None:
            self._calibrate(network, config)
        if "complaint" in network.model:
            self._logger.log(ILogger.Severity.ERROR, network.model["complaint"])
        built.append(network.name)
        networks[:] = [network]
        config.timing_cache.lines.append(f"tactic{len(built)}".encode())
        shapes = {name: [shape] * 3 for name, (_, shape) in tensors_of(network.model)[0].items()}
        is_free = any(size < 0 for three in shapes.values() for size in three[0])
        if is_free and not config.profiles:
            self._logger.log(ILogger.Severity.ERROR, "Network has dynamic inputs, but no optimization profile")
            return None
        plan = {
            "maker": "fake",
            "model": network.model,
            "profiles": config.profiles or [shapes],
            "flags": sorted(flag.name for flag in config.flags),
            "shares_profiles": config.previews[PreviewFeature.PROFILE_SHARING_0806],
            "ranges": {t.name: t.dynamic_range for t in network.tensors if t.dynamic_range},
            "overlooked": 0,
        }
        if config.int8_calibrator is not None and self.overlooked is not None:
            numbers = config.int8_calibrator.get_quantile(), config.int8_calibrator.get_regression_cutoff()
            plan["overlooked"] = self.overlooked(*numbers)
        return memoryview(json.dumps(plan).encode())

    def _calibrate(self, network, config):
        calibrator = config.int8_calibrator
        assert calibrator.is_initialized, "base __init__ was not called"
        batch = config.calibration_profile[0] if config.calibration_profile else network.model["shape"][0]
        size = int(np.prod(network.model["shape"][1:]))
        if calibrator.read_calibration_cache() is not None and not self.refuses_tables:
            return
        largest, n_read = 0.0, 0
        while n_read != self.n_batches_read:
            n_read += 1
            try:
                addresses = calibrator.get_batch(["in"])
            except Exception as error:
                print("swallowed", error)
                addresses = None
            if not addresses:
                break
            values = np.ctypeslib.as_array((ctypes.c_float * (batch * size)).from_address(addresses[0]))
            largest = max(largest, float(np.abs(values).max()))
        scale = np.array([largest / 127], ">f4").tobytes().hex()
        header = self.table_header
        if isinstance(calibrator, IInt8LegacyCalibrator):  # as TensorRT 8.6.0 does
            numbers = calibrator.get_regression_cutoff(), calibrator.get_quantile()
            header = f"0 {' '.join(np.array([number], '>f8').tobytes().hex() for number in numbers)}"
        calibrator.write_calibration_cache(memoryview(f"{header}\nin: {scale}\nout: 3f800000\n".encode()))


class _Freed:
    """Notes when an object goes, and whether CUDA was still there."""

    def __del__(self):
        freed.append((type(self).__name__, _driver.fake_depth()))


class ICudaEngine(_Freed):
    num_layers = 3
    device_memory_size = 4096

    def __init__(self, plan, logger):
        self.plan, self.logger = plan, logger
        self.num_optimization_profiles = len(plan["profiles"])
        self.contexts = weakref.WeakSet()
        self.inputs, self.outputs = tensors_of(plan["model"])
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index):
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return DataType[{**self.inputs, **self.outputs}[name][0]]

    def is_shape_inference_io(self, name):
        return name in self.plan["model"].get("host_tensors", ())

    def get_tensor_shape(self, name, shapes=None):
        model = self.plan["model"]
        shapes = shapes or {key: tuple(shape) for key, (_, shape) in self.inputs.items()}
        if name in self.inputs:
            return shapes[name]
        if name in model.get("unsized", ()):
            return (-1,)
        return (shapes["in"][0], model["classes"]) if name == "out" else shapes[self.outputs[name][1]]

    def get_tensor_profile_shape(self, name, profile):
        return [tuple(shape) for shape in self.plan["profiles"][profile][name]]

    def create_execution_context(self):
        if len(contexts) >= int(os.environ.get("FAKE_TRT_CONTEXTS", "100")):
            self.logger.log(ILogger.Severity.ERROR, "out of memory for a context")
            return None
        contexts_made.append(1)
        context = IExecutionContext(self)
        if self.plan["shares_profiles"]:
            context.take(0)
        elif 0 in self.taken():
            assert len(self.plan["profiles"]) > 1, "SIGSEGV: two contexts on one profile"
        else:
            context.take(0)
        self.contexts.add(context)
        contexts.add(context)
        return context

    def taken(self):
        return {context.active_optimization_profile for context in self.contexts}

    def create_engine_inspector(self):
        return EngineInspector(self)


class EngineInspector:
    execution_context = None

    def __init__(self, engine):
        self._engine = engine

    def get_engine_information(self, format):
        layers = []
        for index in range(len(self._engine.plan["profiles"])):
            suffix = f" [profile {index}]" if index else ""
            layers.append({"Name": "conv" + suffix, "LayerType": "CaskConvolution", "TacticName": "x_f16f16_y"})
        return json.dumps({"Layers": layers, "Bindings": ["in", "out"]}).replace("conv", "conv\x1e")


class IExecutionContext(_Freed):
    profiler = None

    def __init__(self, engine):
        self._engine, self.active_optimization_profile = engine, -1
        self._shapes, self._addresses, self._must_infer = {}, {}, True
        self._version = ctypes.c_int(0)  # a graph of an earlier one gives NaN
        shape_versions.append(self._version)  # the driver reads it after the context is gone

    def take(self, index):
        is_free = self._engine.plan["shares_profiles"] or index not in self._engine.taken()
        assert is_free, "SIGSEGV: two contexts on one profile"
        self.active_optimization_profile = index

    def set_optimization_profile_async(self, index, stream):
        self.take(index)
        return True

    def set_input_shape(self, name, shape):
        low, _, high = self._engine.plan["profiles"][self.active_optimization_profile][name]
        if not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name], self._must_infer = tuple(shape), True
        self._version.value += 1
        return True

    def infer_shapes(self):
        free = [name for name, (_, shape) in self._engine.inputs.items() if -1 in shape and name not in self._shapes]
        self._must_infer = bool(free)
        return free

    def get_tensor_shape(self, name):
        return self._engine.get_tensor_shape(name, self._all_shapes())

    def _all_shapes(self):
        return {name: self._shapes.get(name, tuple(shape)) for name, (_, shape) in self._engine.inputs.items()}

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        if self._must_infer or len(self._addresses) < self._engine.num_io_tensors:
            return False
        stream = ctypes.c_void_p(stream_handle)
        status = self._add(stream) if "inputs" in self._engine.plan["model"] else self._classify(stream)
        if self.profiler is not None:
            suffix = f" [profile {self.active_optimization_profile}]" if self.active_optimization_profile else ""
            self.profiler.report_layer_time(f"conv\x1e{suffix}", 0.05)
        return status == 0

    def _classify(self, stream):
        batch, *sizes = self._all_shapes()["in"]
        classes, overlooked = self._engine.plan["model"]["classes"], self._engine.plan["overlooked"]
        ends = ctypes.c_uint64(self._addresses["in"]), ctypes.c_uint64(self._addresses["out"])
        size, version = int(np.prod(sizes)) - overlooked, ctypes.byref(self._version)
        return _driver.fake_kernel(stream, *ends, batch, size, classes, version)

    def _add(self, stream):
        shapes, status = self._all_shapes(), 0
        for name, (kind, one, other) in self._engine.outputs.items():
            ends = [ctypes.c_uint64(self._addresses[tensor]) for tensor in (one, other, name)]
            types = [int(self._engine.get_tensor_dtype(tensor)) for tensor in (one, other)]
            sizes = [int(np.prod(shapes[tensor])) for tensor in (one, other)]
            status |= _driver.fake_add(stream, *ends, *sizes, *types, int(DataType[kind]), ctypes.byref(self._version))
        return status


class Runtime(_Freed):
    max_threads = 1

    def __init__(self, logger):
        self._logger = logger

    def deserialize_cuda_engine(self, data):
        try:
            plan = json.loads(data)
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion magicTag failed")
            return None
        if not _has_plugin(plan["model"]):
            self._logger.log(ILogger.Severity.ERROR, f"getPluginCreator could not find {plan['model']['plugin']}")
            return None
        engines_made.append(1)
        return ICudaEngine(plan, self._logger)


def _has_plugin(model):
    return model.get("plugin", "") in ("", *plugin_layers)


class _Registry:
    """Takes one layer from a library, named after the file, and refuses what it holds already, as the real one does."""

    @property
    def plugin_creator_list(self):
        return tuple(plugin_layers)

    def load_library(self, path):
        name = Path(path).stem.removeprefix("lib")
        if name in plugin_layers:
            return None
        plugin_layers.append(name)
        return object()


def get_plugin_registry():
    return _Registry()
