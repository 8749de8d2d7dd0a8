"""ONNX file -> TensorRT plan: parse, profiles, flags, build. Errors come from the log; TensorRT raises almost none."""

from __future__ import annotations

import ctypes
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.backends.trt.api import RANGES_RECIPE, LogLines, TrtApi, make_logger
from harness.backends.trt.axes import with_names_apart
from harness.backends.trt.calibrator import apply_ranges, read_ranges
from harness.backends.trt.options import TrtOptions
from harness.backends.trt.profiles import choose_profiles, describe_profiles, shape_profiles
from harness.errors import BuildError, HarnessError, Unsupported
from harness.models.onnx_graph import load_model
from harness.records import Artifact
from harness.specs import ModelTensors, Precision

HELD_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED")  # that have INT8 kernels on every GPU that has any


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A serialized engine and what was noted while it was built."""

    data: bytes
    build_ns: int
    options: dict[str, str] = field(default_factory=dict)  # as read back from the builder
    log_errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    timing_cache: bytes | None = None
    calibration_batch: int = 0  # images a batch that a calibrator was fed with; 0 without one
    calibration_method: str = ""  # "" = what the recipe says
    calibration_table: str = ""  # as the calibrator wrote it, or was given it


def check_batches(batch_sizes: tuple[int, ...], options: TrtOptions) -> None:
    """Refuse batch sizes that no profile asked for takes. Raises: BuildError."""
    if options.profiles:
        choose_profiles(batch_sizes, options.profiles)


class _PluginsOfProcess:
    """What this process has registered with one TensorRT module; its registry knows no other scope."""

    def __init__(self, api: TrtApi) -> None:
        # libnvinfer_plugin keeps a bare pointer to the logger it was given, so it lives as long as the process.
        self._logger = make_logger(api.trt, LogLines())
        self.notes: dict[str, str] = {}  # by resolved path
        if hasattr(api.trt, "init_libnvinfer_plugins"):
            api.trt.init_libnvinfer_plugins(self._logger, "")


_plugins: dict[Any, _PluginsOfProcess] = {}  # by TensorRT module


def load_plugins(api: TrtApi, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Load libraries of custom layers, each once in a process, and return a note on each.

    Parsing a model and deserializing a plan both need them. Raises: BuildError for one that cannot be loaded.
    """
    if api.trt not in _plugins:
        _plugins[api.trt] = _PluginsOfProcess(api)
    known = _plugins[api.trt].notes
    notes = []
    for path in paths:
        if not Path(path).is_file():
            raise BuildError(f"plug-in {path}: there is no such file; name a shared library with --trt-plugin")
        resolved = str(Path(path).resolve())
        if resolved not in known:
            n_layers = _load_library(api, path, resolved)
            known[resolved] = f"plug-in {Path(path).name}: {n_layers} layer types registered"
        notes.append(known[resolved])
    return tuple(notes)


def _load_library(api: TrtApi, path: str, resolved: str) -> int:
    """Load one library and return how many layer types it registered. Raises: BuildError."""
    before = _n_creators(api)
    try:
        library = ctypes.CDLL(resolved, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise BuildError(f"plug-in {path} cannot be loaded: {error}") from error
    # Libraries made for the registry's own loader export one of these; others register when they are loaded.
    if any(hasattr(library, name) for name in ("getPluginCreators", "getCreators")):
        registry = api.trt.get_plugin_registry()
        if registry.load_library(resolved) is None:
            raise BuildError(f"plug-in {path}: TensorRT refused it; are its layers already registered?")
    return _n_creators(api) - before


def _n_creators(api: TrtApi) -> int:
    registry = api.trt.get_plugin_registry()
    if registry is None:
        return 0
    # IPluginV3 creators are listed only by `all_creators`.
    return len(registry.all_creators if hasattr(registry, "all_creators") else registry.plugin_creator_list)


class FedCalibrator(Protocol):
    """A calibrator with its data, to be checked after the build."""

    calibrator: Any
    batch_size: int

    def check(self) -> tuple[str, ...]:
        """Raise what a callback met, else return what the user should hear of. Raises: BuildError."""


Calibrate = Callable[[TrtApi, tuple[int, ...]], FedCalibrator]  # (api, input shape with -1 for a free batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """What one build works with."""

    api: TrtApi
    artifact: Artifact
    options: TrtOptions
    lines: LogLines
    builder: Any
    network: Any
    config: Any


def build_plan(
    api: TrtApi,
    artifact: Artifact,
    *,
    batch_sizes: tuple[int, ...],
    options: TrtOptions,
    timing_cache: bytes = b"",
    other_timings: bytes = b"",
    calibrate: Calibrate | None = None,
    tensors: ModelTensors | None = None,
) -> Plan:
    """Build a plan; works without a GPU where the builder does (TensorRT for RTX).

    `tensors`: what goes in and out of a model of any graph, None for an image classifier.
    `timing_cache` is read; `other_timings` are not, but kept in the plan's timing cache where it has none of its own.
    Raises: BuildError with everything the parser or the builder said.
    """
    lines = LogLines()
    logger = make_logger(api.trt, lines)
    try:
        builder = api.trt.Builder(logger)
    except TypeError as error:  # the factory returned a null pointer
        raise BuildError(f"TensorRT {api.version} made no builder ({lines.reason()}): {error}") from error
    notes = load_plugins(api, options.plugins)
    network, parser = parse_onnx(
        api, builder, Path(artifact.onnx_path), lines=lines, logger=logger, recipe=artifact.recipe, tensors=tensors
    )
    network.name = artifact.model  # the default name counts builds, and would make equal plans differ
    config = builder.create_builder_config()
    site = _Site(
        api=api, artifact=artifact, options=options, lines=lines, builder=builder, network=network, config=config
    )
    profiles = _add_profiles(site, batch_sizes) if tensors is None else _add_shapes(site, tensors, batch_sizes)
    configure(api, config, artifact, options)
    fed = _quantize(site, calibrate)
    _keep_float(site)
    timings = _Timings(api, config, timing_cache)
    started = time.perf_counter_ns()
    data = builder.build_serialized_network(network, config)
    build_ns = time.perf_counter_ns() - started
    del parser  # it owns the weights until the build is done
    warned = fed.check() if fed is not None else ()
    if data is None:
        raise BuildError(f"{artifact.onnx_path}: TensorRT {api.version} built no engine: {lines.reason()}")
    return Plan(
        data=bytes(data),
        build_ns=build_ns,
        options=options_in_words(api, config, artifact, profiles),
        log_errors=tuple(lines.errors),
        notes=(*notes, *lines.notes()),
        timing_cache=timings.merged(other_timings),
        warnings=(*warned, *timings.warnings),
        calibration_batch=fed.batch_size if fed is not None else 0,
    )


def parse_onnx(
    api: TrtApi,
    builder: Any,
    path: Path,
    *,
    lines: LogLines,
    logger: Any,
    recipe: str,
    tensors: ModelTensors | None = None,
) -> tuple[Any, Any]:
    """Return the network and its parser, which owns the weights; `tensors`: of a model of any graph.

    Raises: BuildError with every error of the parser, or for an empty network or one that is no classifier.
    """
    network = builder.create_network(api.network_flags(recipe))
    if network is None:
        raise BuildError(f"TensorRT {api.version} made no network: {lines.reason()}")
    parser = api.trt.OnnxParser(network, logger)
    try:
        model = path.read_bytes()
    except OSError as error:
        raise BuildError(f"{path}: cannot be read ({error.strerror})") from error
    if tensors is not None:
        model = with_names_apart(model, tensors)
    if not parser.parse(model, path=str(path)) or parser.num_errors:
        found = [parser_error(parser.get_error(k), path) for k in range(parser.num_errors)]
        raise BuildError(f"{path}: TensorRT {api.version} cannot parse it: {'; '.join(found) or lines.reason()}")
    if network.num_inputs == 0 or network.num_outputs == 0:
        raise BuildError(
            f"{path}: the model is empty ({network.num_inputs} inputs, {network.num_outputs} outputs); is it ONNX?"
        )
    if tensors is None:
        _check_classifier(network, path)
    return network, parser


def _check_classifier(network: Any, path: Path) -> None:
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise BuildError(
            f"{path}: {network.num_inputs} inputs and {network.num_outputs} outputs; a classifier has one of each"
        )


def parser_error(error: Any, path: Path) -> str:
    """Return one parser error as `node 3 'name' (Op): text`."""
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else operator_of_node(path, error.node())
    text = " ".join(error.desc().split())
    if text in ("", "false"):  # all that TensorRT says of an operator it has no importer for
        text = "this operator is not supported"
    parts = (f"node {error.node()}", repr(name) if name else "", f"({operator})" if operator else "")
    where = " ".join(part for part in parts if part)
    return f"{where}: {text}" if error.node() >= 0 else text


def operator_of_node(path: Path, node: int) -> str:
    """Return the operator of a node of an ONNX file, "" without one; 8.6 gives only its index."""
    try:
        nodes = load_model(path, with_weights=False).graph.node if node >= 0 else ()
    except HarnessError:  # the onnx package is missing or finds the file bad: the parser's own words must do
        return ""
    return str(nodes[node].op_type) if node < len(nodes) else ""


def _add_profiles(site: _Site, batch_sizes: tuple[int, ...]) -> str:
    """Add the optimization profiles and return them in words.

    Raises: BuildError for a batch or shape that does not fit.
    """
    tensor, asked = site.network.get_input(0), site.options.profiles
    shape = tuple(tensor.shape)
    if any(size < 0 for size in shape[1:]):
        raise BuildError(f"input {tensor.name} has shape {shape}; only the first dimension, the batch, may be free")
    if shape[0] >= 0:
        fixed = ((shape[0], shape[0], shape[0]),)
        if asked and asked != fixed:
            raise BuildError(f"profiles {describe_profiles(asked)}: the model has a fixed batch of {shape[0]}")
        return describe_profiles(choose_profiles(batch_sizes, fixed))
    profiles = choose_profiles(batch_sizes, asked)
    for low, best, high in profiles:
        profile = site.builder.create_optimization_profile()
        profile.set_shape(tensor.name, (low, *shape[1:]), (best, *shape[1:]), (high, *shape[1:]))
        if site.config.add_optimization_profile(profile) < 0:
            raise BuildError(f"profile {low},{best},{high} was refused: {site.lines.reason()}")
    return describe_profiles(profiles)


def _add_shapes(site: _Site, tensors: ModelTensors, batch_sizes: tuple[int, ...]) -> str:
    """Add the profiles of named inputs and return them in words; an input without a free axis needs none.

    Raises: BuildError for shapes that are refused, Unsupported for an input whose values decide shapes.
    """
    inputs = [site.network.get_input(k) for k in range(site.network.num_inputs)]
    profiles = shape_profiles(tensors, batch_sizes, site.options.profiles)
    known = profiles[0].best
    for tensor in inputs:
        if tensor.name not in known:
            raise BuildError(f"input {tensor.name} of TensorRT is no input of the model, which has {', '.join(known)}")
        if tensor.is_shape_tensor:
            raise Unsupported(
                f"input {tensor.name} decides shapes by its values, which TensorRT wants to know when it builds; "
                "make it a constant of the model"
            )
    free = [tensor.name for tensor in inputs if any(size < 0 for size in tensor.shape)]
    for chosen in profiles if free else ():
        profile = site.builder.create_optimization_profile()
        for name in free:
            profile.set_shape(name, chosen.low[name], chosen.best[name], chosen.high[name])
        if site.config.add_optimization_profile(profile) < 0:
            raise BuildError(f"profile {chosen.text} was refused: {site.lines.reason()}")
    return ", ".join(chosen.text for chosen in profiles)


def configure(api: TrtApi, config: Any, artifact: Artifact, options: TrtOptions) -> None:
    """Set precision, TF32, limits and compatibility; what is None stays the library's default."""
    trt = api.trt
    if artifact.precision is Precision.BF16 and (refusal := api.bf16_refusal(artifact.recipe)):
        raise BuildError(refusal)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if not api.is_strong(artifact.recipe) and api.has_weak_typing:
        if artifact.precision is Precision.BF16:
            config.set_flag(trt.BuilderFlag.BF16)
        elif artifact.precision is Precision.FP16 or (artifact.precision is Precision.INT8 and not options.int8_only):
            config.set_flag(trt.BuilderFlag.FP16)  # INT8 without it falls back to FP32 where no INT8 kernel exists
        if artifact.precision is Precision.INT8:
            config.set_flag(trt.BuilderFlag.INT8)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.tactic_sources is not None and not config.set_tactic_sources(api.tactic_mask(options.tactic_sources)):
        raise BuildError(f"tactic sources {', '.join(options.tactic_sources)} were refused")
    if api.is_rtx and (options.version_compatible or options.hardware_compatible):
        raise BuildError("TensorRT for RTX has no version or hardware compatibility; leave both options out")
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _quantize(site: _Site, calibrate: Calibrate | None) -> FedCalibrator | None:
    """Set dynamic ranges or a calibrator where the recipe asks for them; return what to check after the build."""
    api, network, options = site.api, site.network, site.options
    if site.artifact.recipe == RANGES_RECIPE:
        if not api.has_calibrator(RANGES_RECIPE):
            raise BuildError(f"TensorRT {api.version} has no dynamic ranges; use the recipe qdq-minmax")
        if options.ranges_file is None:
            raise BuildError(f"recipe {RANGES_RECIPE} needs a file of ranges; name one with --trt-ranges")
        apply_ranges(api, network, read_ranges(Path(options.ranges_file)))
        _hold_to_int8(site)
    if calibrate is None:
        return None
    kinds = {network.get_layer(k).type for k in range(network.num_layers)}
    if kinds & {api.trt.LayerType.QUANTIZE, api.trt.LayerType.DEQUANTIZE}:
        raise BuildError(f"{site.artifact.onnx_path}: it holds Q/DQ nodes, and TensorRT would ignore the calibrator")
    fed = calibrate(api, tuple(network.get_input(0).shape))
    _hold_to_int8(site)
    with warnings.catch_warnings():  # 10.x calls calibrators deprecated; there is nothing else for this recipe
        warnings.simplefilter("ignore", DeprecationWarning)
        site.config.int8_calibrator = fed.calibrator
        _set_calibration_profile(site, fed.batch_size)
    return fed


def _hold_to_int8(site: _Site) -> None:
    """Constrain convolutions to INT8 where that was asked: TensorRT else takes what is fastest, FP32 among it."""
    flags, trt = site.api.trt.BuilderFlag, site.api.trt
    if not site.options.int8_only or not hasattr(flags, "OBEY_PRECISION_CONSTRAINTS"):
        return
    site.config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)
    held = {getattr(trt.LayerType, name) for name in HELD_LAYERS if hasattr(trt.LayerType, name)}
    for layer in (site.network.get_layer(k) for k in range(site.network.num_layers)):
        if layer.type in held and hasattr(layer, "precision"):  # TensorRT 11 has none
            layer.precision = trt.DataType.INT8


def _keep_float(site: _Site) -> None:
    """Hold the layers of kept nodes to FP32, where types are the builder's choice; elsewhere the file says all.

    A layer has its node's name, or one that begins with it.
    """
    api, flags, kept = site.api, site.api.trt.BuilderFlag, site.artifact.kept_float
    if not kept or api.is_strong(site.artifact.recipe) or not hasattr(flags, "OBEY_PRECISION_CONSTRAINTS"):
        return
    site.config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)
    for layer in (site.network.get_layer(k) for k in range(site.network.num_layers)):
        if any(layer.name == name or layer.name.startswith(f"{name}/") for name in kept):
            layer.precision = api.trt.DataType.FLOAT


def _set_calibration_profile(site: _Site, batch_size: int) -> None:
    tensor = site.network.get_input(0)
    shape = (batch_size, *tuple(tensor.shape)[1:])
    if tensor.shape[0] >= 0:
        if tensor.shape[0] != batch_size:
            raise BuildError(f"the model's fixed batch {tensor.shape[0]} is not the calibration batch {batch_size}")
        return
    profile = site.builder.create_optimization_profile()
    profile.set_shape(tensor.name, shape, shape, shape)
    if not site.config.set_calibration_profile(profile):
        raise BuildError(f"calibration profile {shape} was refused: {site.lines.reason()}")


class _Timings:
    """The timing cache of one build, where TensorRT has one."""

    def __init__(self, api: TrtApi, config: Any, data: bytes) -> None:
        self.warnings: tuple[str, ...] = ()
        self._config, self._cache = config, None
        if not api.has_timing_cache:
            return
        self._cache = config.create_timing_cache(data)
        if not config.set_timing_cache(self._cache, ignore_mismatch=False):
            self._cache = config.create_timing_cache(b"")
            config.set_timing_cache(self._cache, ignore_mismatch=False)
            self._warn()

    def merged(self, others: bytes) -> bytes | None:
        """Return the timings after the build, with those of others that it has not measured itself."""
        if self._cache is None:
            return None
        if others and not self._cache.combine(self._config.create_timing_cache(others), ignore_mismatch=False):
            self._warn()
        return bytes(self._cache.serialize())

    def _warn(self) -> None:
        self.warnings += ("TensorRT refused the stored timing cache (of another version or GPU); it is replaced",)


def options_in_words(api: TrtApi, config: Any, artifact: Artifact, profiles: str) -> dict[str, str]:
    """Return the builder's settings as read back from it."""
    flags = api.trt.BuilderFlag
    known = [
        n for n in ("FP16", "BF16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "VERSION_COMPATIBLE") if hasattr(flags, n)
    ]
    names = [n for n in known if config.get_flag(getattr(flags, n))]
    return {
        "typing": "strong" if api.is_strong(artifact.recipe) or not api.has_weak_typing else "weak",
        "flags": "|".join(names) or "none",
        "tf32": "on" if config.get_flag(flags.TF32) else "off",
        "workspace_bytes": str(config.get_memory_pool_limit(api.trt.MemoryPoolType.WORKSPACE)),
        "optimization_level": str(config.builder_optimization_level),
        "tactic_sources": api.tactic_names(config.get_tactic_sources()),
        # TensorRT for RTX logs an error when this is only read.
        "hardware_compatibility": "none" if api.is_rtx else config.hardware_compatibility_level.name.lower(),
        "profiles": profiles,
        "profile_sharing": "on" if api.shares_profiles(config) else "off",
    }
