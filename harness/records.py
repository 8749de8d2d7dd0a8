"""What was found: frozen records that go to disk as they are; summaries are derived on reading.

Units: ns, bytes, fractions. Arrays travel as `PackedArray`. `harness.store.runs` reads and writes them.
"""

from __future__ import annotations

import enum
import math
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.specs import KNOWN_ERROR, Case, ImageRange, Precision, Tolerance, Waiver

RECORD_SCHEMA = 3
BLOCK_IMAGES = 100  # of a data set, that share a digest: ranges are compared on the blocks they share
SHUFFLED, MIN_SHUFFLED = "shuffled ", 4  # of a packed array's dtype; bytes of a number
ZLIB_LEVEL = 1  # margins and times hardly shrink: level 6 gains 1 % of their bytes for three times the time
ROUNDING_STEP = 1e-6  # of float inputs, relative: some eight steps of float32, as other orders of addition make
MANY_TIES = 0.005  # of the scored images; as much as a loss that is accepted by default
N_UNPACKED = 32  # arrays kept unpacked: the gates of one case read the same ones five times
MAX_PACKED_BYTES = 256 << 20  # of one array; a run of a million images needs 8 MB
DEFLATE_MAX_RATIO, DEFLATE_HEADER = 1032, 64  # no deflate stream grows more; source: zlib, "Technical Details"
NUMBERS = "biuf"  # kinds of NumPy's types that may be packed
BITS_A_BYTE = 8
HUNDRED = 100.0  # per cent
DECIMALS = tuple(f".{n}f" for n in range(3, 17))  # the last tells every float64 from 100
MAX_NAME = 40  # characters of a foreign name in a message
CPU = "cpu"  # the device that is no accelerator
FROM_CACHE = "hit"  # of `EngineFacts.cache`: nothing was built
INJECTED = (0.0, 0.01, 0.02, 0.05)  # slowdowns that a calibration injects into the timed region [fraction]
UNKNOWN = "unknown"  # precision of a layer whose runtime does not tell it
TIMED_OTHERWISE = "reference_timed_otherwise"  # of a latency: one arm as a graph or gated, the other not


@lru_cache(maxsize=N_UNPACKED)
def _unpacked(packed: PackedArray) -> NDArray[np.generic]:
    dtype, n_bytes = packed.layout()
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(packed.data, n_bytes + 1)
    except zlib.error as error:
        raise DataError(f"a packed array is damaged ({error})") from error
    if len(found) != n_bytes or not inflater.eof:
        raise DataError(f"a packed array of shape {list(packed.shape)} does not hold {n_bytes} bytes of {dtype}")
    if packed.dtype.startswith(SHUFFLED):
        found = _transposed(found, n_bytes // dtype.itemsize)
    try:
        return np.frombuffer(found, dtype=dtype).reshape(packed.shape)
    except (ValueError, OverflowError) as error:  # nothing at all, told as more than there can be of it
        raise DataError(f"a packed array has the shape {str(packed.shape)[:MAX_NAME]}: {error}") from error


def _transposed(data: bytes, n_columns: int) -> bytes:
    """Return the bytes of a table of `n_columns` column by column."""
    return np.frombuffer(data, np.uint8).reshape(-1, n_columns).T.tobytes() if data else data


def _most_inflated(n_bytes: int) -> int:
    return (n_bytes + DEFLATE_HEADER) * DEFLATE_MAX_RATIO


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedArray:
    """A NumPy array as compressed little-endian bytes.

    Numbers of 4 bytes or more are shuffled, as HDF5's filter of that name does: all first bytes, then all second ones,
    and so on. A fifth is saved, in less time.
    """

    dtype: str  # NumPy's; "shuffled <f8" for float64 whose bytes are shuffled
    shape: tuple[int, ...]
    data: bytes  # zlib

    @classmethod
    def of(cls, array: NDArray[np.generic]) -> PackedArray:
        """Pack an array of any numeric dtype."""
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        dtype, data = little.dtype.str, little.tobytes()
        if little.itemsize >= MIN_SHUFFLED:
            dtype, data = SHUFFLED + dtype, _transposed(data, little.itemsize)
        return cls(dtype=dtype, shape=tuple(array.shape), data=zlib.compress(data, ZLIB_LEVEL))

    def array(self) -> NDArray[np.generic]:
        """Return the array (read-only).

        Raises: DataError for one that is damaged, or whose header asks for more memory than its bytes can hold or than
        MAX_PACKED_BYTES. Nothing is allocated before that is known.
        """
        return _unpacked(self)

    def bits(self, n_bits: int) -> NDArray[np.bool_]:
        """Return the first bits of an array that np.packbits made, bool[N]. Raises: DataError where it has others."""
        packed = self.array()
        if packed.dtype != np.uint8 or packed.ndim != 1 or packed.size != -(-n_bits // BITS_A_BYTE):
            raise DataError(f"{packed.size} packed bytes are not the bits of {n_bits} images")
        return np.unpackbits(packed.astype(np.uint8, copy=False), count=n_bits).astype(bool)

    def check(self, *shape: int) -> None:
        """Refuse an array of another shape, or whose bytes cannot hold it, without unpacking it. Raises: DataError."""
        self.layout()
        if self.shape != shape:
            raise DataError(f"a packed array has shape {list(self.shape)}; expected {list(shape)}")

    def layout(self) -> tuple[np.dtype[np.generic], int]:
        """Return type and size [bytes] of an array that its bytes can hold. Raises: DataError where they cannot."""
        dtype = self._numpy_dtype()
        n_bytes = math.prod(self.shape) * dtype.itemsize
        if min(self.shape, default=0) < 0 or n_bytes > min(MAX_PACKED_BYTES, _most_inflated(len(self.data))):
            raise DataError(f"a packed array of shape {list(self.shape)} cannot lie in {len(self.data)} bytes")
        return dtype, n_bytes

    def _numpy_dtype(self) -> np.dtype[np.generic]:
        try:
            dtype = np.dtype(self.dtype.removeprefix(SHUFFLED))
        except (TypeError, ValueError, SyntaxError) as error:
            raise DataError(f"a packed array is of no type of numbers: {self.dtype[:MAX_NAME]!r}") from error
        if dtype.kind not in NUMBERS or dtype.subdtype is not None:
            raise DataError(f"a packed array is of no type of numbers: {self.dtype[:MAX_NAME]!r}")
        return dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What `Backend.probe` found. `reason` is empty when usable."""

    backend: str
    usable: bool
    reason: str = ""
    install_hint: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # library -> version
    devices: tuple[str, ...] = ()  # "cpu", "cuda:0", ...
    device_names: tuple[str, ...] = ()
    driver: str = ""  # NVIDIA's, for example 580.65.06
    cuda_version: str = ""  # the latest CUDA that the driver serves
    compute_capabilities: tuple[str, ...] = ()  # one a device
    fast_precisions: tuple[str, ...] = ()  # that its devices have fast kernels for; () = not known
    device_uuids: tuple[str, ...] = ()  # one a device: a card's own name, whatever slot it is in


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Whether a backend can do a case; `int8_weight_bits` is 7 where 8-bit kernels saturate (no VNNI)."""

    supported: bool
    reason: str = ""
    int8_weight_bits: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, NumPy dtype and shape of an engine's input or output; None is a free dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The machine and the software a record was made on."""

    machine: str  # hostname-free description: "Intel Xeon ..., 2 CPUs, 24 GiB"
    cpu_model: str
    cpu_isa: str  # best INT8 instruction set: sse, avx2, avx_vnni, avx512_vnni, amx, neon, ...
    n_cpus: int
    memory_bytes: int
    os: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)  # library -> version
    device: str = "cpu"
    device_name: str = ""  # the CPU's or GPU's model name
    driver: str = ""  # NVIDIA's, for example 580.65.06
    cuda_version: str = ""  # the latest CUDA that the driver serves
    compute_capability: str = ""
    commit: str = ""  # of the checkout the run was started in
    fast_precisions: tuple[str, ...] = ()  # that the device has fast kernels for; () = not known

    @property
    def host_type(self) -> str:
        """Return the kind of the host: CPU model, instruction set and number of CPUs."""
        return f"{self.cpu_model}, {self.cpu_isa}, {self.n_cpus} {'CPU' if self.n_cpus == 1 else 'CPUs'}"

    @property
    def device_type(self) -> str:
        """Return the kind of device whose times may be compared: the GPU's model name, or the host's kind."""
        return self.host_type if self.device == CPU else self.device_name or self.device


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCalibration:
    """How one tensor's range was chosen: its magnitudes, and what each candidate threshold would lose."""

    tensor: str
    threshold: float  # the chosen one; what lies beyond saturates
    largest: float | None = None  # magnitude; None where a table of a runtime tells thresholds alone
    saturated_share: float | None = None  # of all values
    counts: tuple[int, ...] = ()  # of magnitudes, in equal bins over 0..largest
    candidates: tuple[float, ...] = ()  # thresholds, ascending
    divergences: tuple[float, ...] = ()  # of each candidate: KL(values || quantized) [nat]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorNoise:
    """What quantization does to one tensor: FP32 against the float emulation of the file."""

    tensor: str
    snr_db: float | None  # signal-to-noise ratio [dB]; None where both are equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Which images calibrated an artifact or engine."""

    images: ImageRange
    fingerprint: str
    batch_size: int
    method: str
    ranges_sha256: str = ""  # of the scales that it led to, in the order of the file's nodes; "" = not in the file
    tensors: tuple[TensorCalibration, ...] = ()  # where they are few
    noise: tuple[TensorNoise, ...] = ()  # of a Q/DQ file, in the graph's order
    n_noise_images: int = 0  # calibration images that `noise` was measured on


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A model prepared in one precision: one ONNX file for every backend."""

    model: str
    precision: Precision
    recipe: str
    onnx_path: str
    sha256: str
    source_sha256: str
    output_kind: str = "probabilities"
    exported: dict[str, str] = field(default_factory=dict)  # what the source file says of itself: producer, ...
    tools: dict[str, str] = field(default_factory=dict)  # converter -> version
    weight_bits: int = 32  # 7 = reduced range
    kept_float: tuple[str, ...] = ()  # nodes that were not converted, as asked
    can_keep_float: bool = False  # whether the recipe lets nodes be named that are not converted
    calibration: Calibration | None = None
    cache_hit: bool = False
    prepare_ns: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def is_qdq(self) -> bool:
        """Tell whether the file holds Q/DQ nodes."""
        return self.precision is Precision.INT8 and self.sha256 != self.source_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorOutcome:
    """What a backend made of a net of one operator."""

    net: str  # operator/variant@operator set
    operator: str
    state: str  # ok, wrong, unsupported or error
    error: float | None = None  # largest difference from the reference, of its largest value
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer as the runtime executed it."""

    name: str
    kind: str  # the runtime's layer type: Convolution, Gemm, ...
    kernel: str = ""  # the implementation or tactic chosen
    precision: str = ""  # of the arithmetic: fp32, tf32, fp16, bf16, int8, ... ; "" unknown
    is_compute: bool = True  # False: reshape, reorder, constant, format change
    onnx_nodes: tuple[str, ...] = ()
    time_ns: float | None = None  # median per inference at the profiled batch


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """A built engine in a file that its runtime loads."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What a backend says of the engine it built."""

    build_ns: int  # as it was when the engine was built, be it now or before it was cached
    load_ns: int | None = None  # of a built engine from its file or the cache; None where it is built anew each time
    import_ns: int | None = None  # of the runtime, in the worker's process
    first_inference_ns: int | None = None  # one call, copies and all, in a process that has run none
    batch_sizes: tuple[int, ...] = ()  # that it was built for, ascending [images]
    engine_bytes: int | None = None
    file: EngineFile | None = None  # in the engine cache; None where a runtime compiles the model file each time
    device_memory_bytes: int | None = None  # of one execution context, weights apart
    host_peak_bytes: int | None = None  # resident memory of its worker, runtime and images and all, at most, so far
    n_contexts: int | None = None  # execution contexts alive at a time, at most, so far
    n_engines: int | None = None  # copies of the engine on the device, weights and all, at most, so far
    cache: str = "none"  # none, miss, hit, rebuilt (a damaged or foreign entry)
    options: dict[str, str] = field(default_factory=dict)  # as read back from the runtime
    versions: dict[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    log_errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # what a user should hear of at the end of a run: a damaged plan, ...

    @property
    def was_built(self) -> bool:
        """Tell whether it was built in this run: one from the cache has the time of another one's build."""
        return self.cache != FROM_CACHE and self.build_ns > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectivePrecision:
    """What really ran: shares of compute layers, and of their time where known [fractions]."""

    by_layer: dict[str, float]
    by_time: dict[str, float] | None = None
    note: str = ""  # e.g. "weights rounded to fp16"

    @property
    def main(self) -> str:
        """Return the precision that most of the work ran in; "unknown" without layers."""
        shares = self.by_time or self.by_layer
        return max(shares, key=lambda name: shares[name]) if shares else "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Scores of one engine on one range of images; per image, in data-set order."""

    images: ImageRange
    fingerprint: str  # sha256 of ids, labels and pixels in order
    num_classes: int
    labels: PackedArray  # int[N], model classes
    predictions: PackedArray  # int[N]: argmax, first of ties
    top1_hits: PackedArray  # uint8[ceil(N / 8)]: np.packbits of bool[N]
    top5_hits: PackedArray
    margins: PackedArray  # float32[N]: largest minus second largest output
    n_ties_top1: int  # images whose largest output is not unique
    n_ties_top5: int  # images whose 5th and 6th largest outputs are equal
    outputs_sha256: str  # of float32[N, K] little-endian
    top1_hits_last: PackedArray | None = None  # as top1_hits, were ties given to the last class; None without ties
    repeats: PackedArray | None = None  # int64[R, 2]: place of an image that came before, and the place where it did
    block_digests: PackedArray | None = None  # uint64[blocks] of the whole blocks of BLOCK_IMAGES in the range
    n_trained_on: int = 0  # scored images the model was trained on
    score_ns: int = 0  # wall time of scoring
    batch_size: int = 0

    def check(self) -> None:
        """Refuse scores whose parts are not of one number of images. Raises: DataError."""
        for packed in (self.labels, self.predictions, self.margins):
            packed.check(self.n_images)
        for packed in (self.top1_hits, self.top5_hits):
            packed.check(-(-self.n_images // BITS_A_BYTE))

    @property
    def n_images(self) -> int:
        """Return the number of scored images."""
        return self.images.n_images

    def hits(self, k: int = 1) -> NDArray[np.bool_]:
        """Return bool[N]: whether the label is among the k (1 or 5) largest outputs."""
        return {1: self.top1_hits, 5: self.top5_hits}[k].bits(self.n_images)

    def hits_last(self) -> NDArray[np.bool_]:
        """Return bool[N]: top-1 hits if ties went to the last class of those that tie, not to the first."""
        if self.top1_hits_last is None:
            return self.hits()
        return self.top1_hits_last.bits(self.n_images)

    def kinds(self) -> NDArray[np.int64] | None:
        """Return int64[N]: the place of the first image with the same pixels, of most their own; None: none repeats."""
        if self.repeats is None:
            return None
        kinds, places = np.arange(self.n_images), self.repeats.array().astype(np.int64)
        kinds[places[:, 0]] = places[:, 1]
        return kinds

    def are_first(self) -> NDArray[np.bool_]:
        """Return bool[N]: whether no image before has the same pixels."""
        found = np.ones(self.n_images, bool)
        if self.repeats is not None:
            found[self.repeats.array()[:, 0].astype(np.int64)] = False
        return found

    @property
    def has_many_ties(self) -> bool:
        """Tell whether so many largest outputs are not unique that top-1 depends on the order of the classes."""
        return self.n_ties_top1 > MANY_TIES * self.n_images

    @property
    def top1(self) -> float:
        """Return the top-1 rate [fraction]."""
        return float(self.hits(1).mean())

    @property
    def top5(self) -> float:
        """Return the top-5 rate [fraction]."""
        return float(self.hits(5).mean())


def percent(fraction: float, *, signed: bool = False) -> str:
    """Return a fraction in per cent: with two decimals, or with more where they would make a 0 or 100 of it.

    `signed`: with + where it is above 0.
    """
    value = 100 * fraction
    plus = "+" if signed and value > 0 else ""
    short = f"{value:.2f}"
    if float(short) == 0 != value:
        return f"{plus}{value:.2g} %"
    if float(short) == HUNDRED != value:
        return next(f"{plus}{text} %" for text in map(value.__format__, DECIMALS) if float(text) != HUNDRED)
    return f"{plus}{short} %"


def percent_range(low: float, high: float, *, signed: bool = False) -> str:
    """Return an interval of a fraction in per cent, its ends as `percent` has them: "7.10 to 8.90 %"."""
    return f"{percent(low, signed=signed).removesuffix(' %')} to {percent(high, signed=signed)}"


def points(fraction: float) -> str:
    """Return a difference of rates in percentage points, with at least two digits that count."""
    value = 100 * fraction
    return f"{value:.2f} points" if abs(value) >= 0.1 or value == 0 else f"{value:.2g} points"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSlices:
    """What samples scored in the classes that they hold; a slice's score is the mean of its rows."""

    of: str  # what a value is, in words: recall, IoU
    names: tuple[str, ...]  # of all classes
    rows: PackedArray  # int32[M]: place of the sample
    groups: PackedArray  # int32[M]: place in `names`
    values: PackedArray  # float64[M]
    higher_is_better: bool = True

    def check(self, n_samples: int) -> None:
        """Refuse rows that are of no sample or no class. Raises: DataError."""
        n_rows = self.rows.shape[0] if len(self.rows.shape) == 1 else -1
        for packed in (self.rows, self.groups, self.values):
            packed.check(n_rows)
        for packed, stop in ((self.rows, n_samples), (self.groups, len(self.names))):
            places = packed.array()
            if places.size and not (places.min() >= 0 and places.max() < stop):
                raise DataError(f"a slice's rows point beyond {stop} samples or classes")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricScore:
    """One metric of one engine on a set of samples, with what each sample scored.

    A metric with `resamples` is of the whole set (mean average precision); one without is the mean of its samples.
    """

    name: str
    value: float
    low: float | None  # of the 95 % interval; None: one sample has none
    high: float | None
    n_samples: int
    values: PackedArray  # float64[N]: each sample alone, in the order of the set; NaN: nothing to score in it
    resamples: PackedArray | None = None  # float64[R]: the metric on seeded resamples, the same of every engine
    summary: str = ""  # what it is, in words
    higher_is_better: bool = True
    is_fraction: bool = True  # of 0 to 1: an accepted loss is in its points, of others a share of the FP32 value
    unit: str = ""
    slices: MetricSlices | None = None  # of the leading metric

    def in_words(self, value: float) -> str:
        """Return a value of this metric: percent of a fraction, else the number and its unit."""
        return percent(value) if self.is_fraction else f"{value:.4g} {self.unit}".rstrip()

    def check(self, n_samples: int) -> None:
        """Refuse a metric whose parts are not of one number of samples. Raises: DataError."""
        if self.n_samples != n_samples:
            raise DataError(f"metric {self.name} is of {self.n_samples} samples; expected {n_samples}")
        self.values.check(n_samples)
        if self.resamples is not None and (len(self.resamples.shape) != 1 or self.resamples.shape[0] < 2):
            raise DataError(f"metric {self.name} has resamples of shape {list(self.resamples.shape)}")
        if self.slices is not None:
            self.slices.check(n_samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleScores:
    """Scores of one engine on samples of named tensors, by the metrics of its task; the first metric leads."""

    task: str
    source: str  # data set and split, or "seeded"
    fingerprint: str  # sha256 of ids, inputs and targets in order
    ids: tuple[str, ...]  # of the samples, in the order of the set
    metrics: tuple[MetricScore, ...] = ()  # () of a task that only shows drift
    settings: dict[str, str] = field(default_factory=dict)  # of the task: what decides how outputs are read
    outputs_sha256: str = ""  # of all outputs in the order of the set
    n_nan: dict[str, int] = field(default_factory=dict)  # output -> samples in which it holds NaN, where there are any
    rounding: dict[str, float] = field(default_factory=dict)  # output -> its error where inputs move by ROUNDING_STEP
    score_ns: int = 0  # wall time of scoring
    batch_size: int = 0

    @property
    def n_samples(self) -> int:
        """Return the number of scored samples."""
        return len(self.ids)

    @property
    def leading(self) -> MetricScore | None:
        """Return the metric that is shown first and gated; None of a task without."""
        return self.metrics[0] if self.metrics else None

    def check(self) -> None:
        """Refuse scores whose parts are not of one number of samples. Raises: DataError."""
        for metric in self.metrics:
            metric.check(self.n_samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockAudit:
    """What a worker found of a timer's clock before it timed anything."""

    clock: str  # host or cuda_event
    quantum_ns: float  # the smallest step between two times that it gives
    empty_ns: float  # what it says of nothing at all: the median of empty measurements
    drift: float | None = None  # its rate over that of another clock, less one [fraction]
    against: str = ""  # the other clock: monotonic_raw or host
    span_ns: int = 0  # how long the two were compared


@dataclass(frozen=True, slots=True, kw_only=True)
class CardConditions:
    """A GPU while it was timed, as NVML says it; None is what it does not say."""

    uuid: str
    n_readings: int = 0
    sm_clock_mhz: float | None = None  # median of the readings, one a round
    sm_clock_low_mhz: float | None = None
    temperature_c: float | None = None  # the highest
    power_w: float | None = None  # median
    throttle_reasons: tuple[str, ...] = ()  # every reason seen: sw_power_cap, hw_thermal_slowdown, ...
    n_other_processes: int | None = None  # with a context on it, at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What else the machine did while rounds were timed; None is what the system does not say."""

    n_cpus: int
    n_cpus_allowed: int  # that this process may run on
    stolen: float | None = None  # CPU time that the hypervisor gave to others [fraction of all CPUs' time]
    others: float | None = None  # CPU time of other processes [fraction of all CPUs' time]
    load: float | None = None  # of one minute, at the end
    spinning: tuple[str, ...] = ()  # settings read back that let idle threads spin, as NAME=value
    card: CardConditions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy of a whole GPU per image while it ran one engine back to back, and FP32 in turn with it."""

    source: str  # counter, or power (the mean of readings times the time)
    mj_per_image: tuple[float, ...]  # one a loop [mJ]
    reference_mj_per_image: tuple[float, ...] = ()  # of FP32, one a loop
    loop_ns: int = 0  # how long a loop lasted, at least

    @property
    def saving(self) -> tuple[float, float, float] | None:
        """Return FP32's energy over this engine's, loop by loop: median, smallest and largest ratio; None without."""
        if not self.reference_mj_per_image:
            return None
        ratios = [theirs / ours for ours, theirs in zip(self.mj_per_image, self.reference_mj_per_image, strict=True)]
        return float(np.median(ratios)), min(ratios), max(ratios)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Rounds of samples of one engine at one batch size, and of its FP32 reference interleaved with it."""

    batch_size: int
    rounds_ns: PackedArray  # float64[rounds, samples]: ns per call, already divided by calls_per_sample
    calls_per_sample: int
    warmup_calls: int
    clock: str  # host or cuda_event
    launch: str  # call, enqueue or graph
    gated: bool
    window: str  # compute, h2d, d2h, end_to_end or host
    started_ns: PackedArray | None = None  # int64[rounds]: start of each round since the first [ns]
    enqueue_ns: float | None = None  # host time of one plain enqueue, whatever `launch` is
    reference_rounds_ns: PackedArray | None = None  # float64[rounds, samples of FP32 in turn with ours]
    reference_case: str = ""  # id of the FP32 case
    reference_calls_per_sample: int = 0
    reference_launch: str = ""
    reference_gated: bool = False
    images_per_s: float | None = None
    flags: tuple[str, ...] = ()  # enqueue_bound, reference_timed_otherwise, drift, ...
    void: str = ""  # why it is no time of this engine: its outputs were wrong; "" = it counts
    cpu_ns: float | None = None  # CPU time of the process per call, of all its threads, over the timed rounds
    wall_ns: float | None = None  # host time per call over the same rounds
    n_discarded_rounds: int = 0  # that the card was throttled in; of both arms
    audit: ClockAudit | None = None
    conditions: Conditions | None = None
    energy: Energy | None = None

    @property
    def cores_used(self) -> float | None:
        """Return how many CPU cores the process kept busy while calls ran; None where that is not known."""
        return self.cpu_ns / self.wall_ns if self.cpu_ns is not None and self.wall_ns else None

    @property
    def resolution_ns(self) -> float:
        """Return the smallest difference of two times per call that the clock tells [ns]; 0 where it is not known."""
        return self.audit.quantum_ns / self.calls_per_sample if self.audit else 0.0

    @property
    def energy_mj_per_image(self) -> float | None:
        """Return the median energy of an image over the loops [mJ]; None where the card does not tell it."""
        return float(np.median(self.energy.mj_per_image)) if self.energy else None

    @property
    def paired_rounds_ns(self) -> PackedArray | None:
        """Return FP32's rounds where they may be divided by ours; None when they were timed in another way."""
        return None if TIMED_OTHERWISE in self.flags else self.reference_rounds_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The accepted engine timed again tonight, in turn with tonight's, at one batch size: pairs of fresh processes."""

    batch_size: int
    alpha: float  # false-alarm rate of this comparison: the night's, shared among all that are judged
    control_sha256: str = ""  # of the accepted engine's file
    control_versions: dict[str, str] = field(default_factory=dict)  # of the runtime that ran it
    log_ratios: PackedArray | None = None  # float64[pairs]: log(tonight's engine / the accepted one)
    candidate_ns: PackedArray | None = None  # float64[pairs]: median of each process of tonight's engine
    control_ns: PackedArray | None = None  # float64[pairs]: and of the accepted one
    reason: str = ""  # why it could not be timed


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingSpread:
    """How far times of one case at one batch size scatter on this type of device: what its calibration measured."""

    batch_size: int
    times_sd: float  # of the logarithm of a process's median, nights and builds apart
    times_n: int  # processes that it comes from
    pairs_sd: float  # of log ratios of pairs of processes
    pairs_n: int
    smallest_slowdown: float  # the smallest accepted slowdown that this supports [fraction]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingBasis:
    """What a latency verdict on this type of device rests on."""

    calibrated_at: str = ""  # UTC, ISO 8601; "": this type of device was not calibrated
    spreads: tuple[TimingSpread, ...] = ()
    planted_slower: float | None = None  # log ratio of tonight's engine with a slowdown planted in it
    planted_faster: float | None = None  # and with one planted in the engine it was compared with

    def of_batch(self, batch_size: int) -> TimingSpread | None:
        """Return what is known of a batch size."""
        return next((spread for spread in self.spreads if spread.batch_size == batch_size), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputLevel:
    """What one level of concurrency reached."""

    concurrency: int  # inferences at once
    images_per_s: float  # median over rounds; samples/s of a model of any graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Images a second (or samples) at the best level of concurrency, and each inference's time under that load.

    Every context's outputs were held against the scored ones, or, where nothing is scored, against a single run's.
    """

    batch_size: int
    concurrency: int  # inferences at once, at the best level
    how: str  # in words: what runs at once
    clock: str  # host
    window: str  # compute: batches lie in place
    rounds_images_per_s: PackedArray  # float64[rounds]
    latencies_ns: PackedArray  # float64[runs, or evenly chosen ones]: each inference under that load
    n_runs: int
    levels: tuple[ThroughputLevel, ...] = ()  # all that were tried, ascending


@dataclass(frozen=True, slots=True, kw_only=True)
class InvarianceCheck:
    """How far the outputs of the same images moved between arrangements in batches."""

    name: str  # repeat, batch_size, slot, neighbours or padding
    n_arrangements: int
    n_rows: int  # of outputs, in all arrangements
    largest_gap: float  # of an output from its reference
    accepted_gap: float
    worst: str  # the arrangement of the largest gap, in words
    n_changed: int  # predictions that changed

    @property
    def is_kept(self) -> bool:
        """Tell whether nothing moved by more than is accepted."""
        return self.largest_gap <= self.accepted_gap


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsOfSize:
    """The outputs of the first scored images in batches of one size."""

    batch_size: int
    outputs: PackedArray  # float32[images, K]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeCheck:
    """How far the outputs at one batch size are from what they should be."""

    batch_size: int
    largest_gap: float
    accepted_gap: float
    against: str  # in words

    @property
    def is_right(self) -> bool:
        """Tell whether the outputs are what they should be."""
        return self.largest_gap <= self.accepted_gap


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDrift:
    """How far the outputs of one engine are from those of another on the same images."""

    reference_case: str
    n_images: int
    max_abs: float
    rmse: float
    cosine: float  # mean over images
    sqnr_db: float | None  # signal-to-quantization-noise ratio [dB]; None when the outputs are equal
    kl_divergence: float  # mean over images of KL(reference || this) [nat]
    n_changed: int  # predictions that differ
    low_margin_agreement: float  # agreement on the tenth of images with the smallest reference margin [fraction]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDrift:
    """How far one output of an engine of any graph is from that of another engine on the same samples."""

    output: str
    against: str  # id of the other case
    n_samples: int
    max_abs: float
    rmse: float
    cosine: float | None  # mean over samples; None of whole numbers
    agreement: float | None  # share of places where the largest along the last axis is the same; None without classes
    n_reshaped: int  # samples whose output has another shape
    relative: PackedArray  # float64[N]: error's norm over the reference's; of whole numbers the share that differs
    rounding: float = 0.0  # the reference's own median error where its inputs move by ROUNDING_STEP
    spread: float | None = None  # mean error of the reference's first sample against its others; None of one sample

    @property
    def median(self) -> float:
        """Return the median of the relative errors."""
        return float(np.median(self.relative.array().astype(np.float64)))

    @property
    def worst(self) -> int:
        """Return the sample that is farthest off."""
        return int(np.argmax(self.relative.array()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One image that one engine gets right and the other wrong."""

    index: int  # in its split
    label: int
    reference_prediction: int
    prediction: int
    reference_margin: float
    margin: float
    gained: bool  # True: this engine is right and the reference wrong
    image: PackedArray | None = None  # uint8[H, W]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePicture:
    """A sample that is a picture, as a report draws it."""

    id: str  # of the sample
    image: PackedArray  # uint8[H, W], or uint8[3, H, W] of colours


class Outcome(str, enum.Enum):
    """What a comparison says; only REGRESSED fails by itself."""

    SAME = "SAME"
    IMPROVED = "IMPROVED"
    REGRESSED = "REGRESSED"
    INCONCLUSIVE = "INCONCLUSIVE"
    INCOMPARABLE = "INCOMPARABLE"
    NO_BASELINE = "NO_BASELINE"

    def __str__(self) -> str:
        return self.value


WORST_FIRST = (Outcome.REGRESSED, Outcome.INCONCLUSIVE, Outcome.IMPROVED, Outcome.SAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer of one gate, with the numbers it rests on."""

    gate: str  # floor, fp32, reference, baseline, kernel, invariance, latency
    outcome: Outcome
    code: str  # stable and short: "lost_images", "below_floor", ...
    message: str  # one sentence that states numbers
    batch_size: int | None = None  # of a time [images]
    advice: str = ""  # what to do
    is_failure: bool = False  # set by whoever judged, from outcome, options and tolerance
    value: float | None = None
    baseline_value: float | None = None
    change_low: float | None = None  # interval of the change [fraction]
    change_high: float | None = None
    p_value: float | None = None
    p_test: str = ""  # the test that the p-value is of
    n_lost: int | None = None
    n_gained: int | None = None
    detectable: float | None = None  # smallest loss this comparison would have seen [fraction]
    metric: str = ""  # of samples: the metric that `value` is of; "" = top-1
    worst_slice: str = ""  # the class that lost significantly, in words; "" = none did
    model_change: str = ""  # "6ee4 -> a026": the other side's model file was another
    waived: str = ""  # "waived until 2026-12-31: reason (link)": it failed, and the project knows
    upgrade: str = ""  # "onnxruntime 1.30.0 -> 1.32.0": the two sides ran on runtimes that were to be compared

    @property
    def was_compared(self) -> bool:
        """Tell whether there was something to compare with, and it could be."""
        return self.baseline_value is not None and self.outcome not in (Outcome.INCOMPARABLE, Outcome.NO_BASELINE)

    @property
    def ok(self) -> bool:
        """Tell whether a suite should pass on this verdict."""
        return not self.is_failure


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSplit:
    """FP32 -> float emulation of the Q/DQ file -> the engine's own kernels; counts of images [images]."""

    n_images: int
    quantization_lost: int
    quantization_gained: int
    kernel_lost: int
    kernel_gained: int
    n_kernel_changed: int  # predictions that differ between emulation and engine
    emulation_top1: float  # fraction


class Status(str, enum.Enum):
    """How a case ended; `NOT_JUDGED` until the gates have looked at it."""

    NOT_JUDGED = "not judged"
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    UNSUPPORTED = "unsupported"
    ABSENT = "did not run"  # though a baseline of it is stored

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOrigin:
    """Which shard of which plan was run, which try of it, and where."""

    plan: str  # sha256 of the plan's file
    number: int
    attempt: int = 1
    host: str = ""
    device_uuids: dict[str, str] = field(default_factory=dict)  # device -> the card's own name, of accelerators
    is_whole: bool = False  # no test of it was deselected, and every one ran


@dataclass(frozen=True, slots=True, kw_only=True)
class FireDrill:
    """What became of faults that were planted on purpose: a gate that finds none of its own guards nothing."""

    at: str  # UTC, ISO 8601
    version: str  # of the harness whose gates were tried
    n_plants: int
    n_red: int  # that turned red as they must
    missed: tuple[str, ...] = ()  # plants that did not, or were not run; "control" where the night without one was red

    @property
    def is_green(self) -> bool:
        """Tell whether every plant turned red, and nothing else did."""
        return 0 < self.n_plants == self.n_red and not self.missed


class RecordKey(NamedTuple):
    """What a case of one run and the same case of another run, or its baseline, are matched by."""

    device_type: str
    case_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything found about one case in one run: what was measured, and what the gates made of it."""

    case: Case
    environment: Environment
    recorded_at: str  # UTC, ISO 8601
    schema: int = RECORD_SCHEMA
    is_reference: bool = False  # measured only so that others can be compared with it; no row of a report
    command: str = ""  # repeats this case
    # -- what was asked of it
    tolerance: Tolerance = field(default_factory=Tolerance)
    expects_loss: bool = False  # a planted victim: its loss is known and shown, not a failure
    waivers: tuple[Waiver, ...] = ()  # of known failures of this case
    timing_only: bool = False  # there is nothing to score
    preprocessing: dict[str, str] = field(default_factory=dict)  # what the card does to images and labels
    # -- what was measured
    artifact: Artifact | None = None
    engine: EngineFacts | None = None
    effective_precision: EffectivePrecision | None = None
    layers: tuple[Layer, ...] = ()
    accuracy: Accuracy | None = None
    emulation: Accuracy | None = None  # of the float emulation of a Q/DQ file
    samples: SampleScores | None = None  # of a model that is no classifier of single images
    drift: OutputDrift | None = None
    tensor_drifts: tuple[TensorDrift, ...] = ()  # of every output of a graph, against FP32 and the reference backend
    kernel_drifts: tuple[TensorDrift, ...] = ()  # of every output, against the float emulation of a Q/DQ file
    flips: tuple[Flip, ...] = ()
    pictures: tuple[SamplePicture, ...] = ()  # of the samples whose metric changed most against FP32
    invariance: tuple[InvarianceCheck, ...] = ()
    sizes: tuple[SizeCheck, ...] = ()  # where the outputs depend on the batch: which batch sizes are right
    latencies: tuple[Latency, ...] = ()
    replays: tuple[Replay, ...] = ()  # of batch sizes that looked slower than accepted
    timing_basis: TimingBasis = field(default_factory=TimingBasis)
    throughput: tuple[Throughput, ...] = ()  # one a batch size
    flags: tuple[str, ...] = ()  # scored_on_training_images, precision_not_as_asked, expects_int8_loss, ...
    error: str = ""  # what stopped it; one line
    later_error: str = ""  # another one, met after that: a waiver of the first does not take it
    unsupported: str = ""  # why the device cannot do it
    absent: str = ""  # why it was never planned, though a baseline of it is stored
    baseline_parts: tuple[str, ...] = ()  # of one that did not run: predictions, times
    is_of_models_folder: bool = False  # a run without --model takes its model
    requires_precision: bool = False  # all compute layers must run in the precision asked
    allows_chance: bool = False  # FP32 may agree with the labels no better than chance
    test_failure: str = ""  # of a test that judged by itself; one line
    shard: ShardOrigin | None = None  # where a merged record is from
    # -- what the gates made of it: `harness.gates.judge_records`
    status: Status = Status.NOT_JUDGED
    reason: str = ""  # why not passed; one line
    loss_split: LossSplit | None = None
    verdicts: tuple[Verdict, ...] = ()
    times_void: str = ""  # why none of its times counts: what it scored regressed

    @property
    def known_error(self) -> Verdict | None:
        """Return the verdict of an error that a waiver takes, None of any other."""
        return next((verdict for verdict in self.verdicts if verdict.gate == KNOWN_ERROR and verdict.waived), None)

    @property
    def counted(self) -> str:
        """Return what its batches are made of, in words."""
        return "images" if self.samples is None else "samples"

    @property
    def valid_latencies(self) -> tuple[Latency, ...]:
        """Return the latencies that count: of outputs that were right."""
        return tuple(latency for latency in self.latencies if not self.void_of(latency))

    def void_of(self, latency: Latency) -> str:
        """Return why a latency of this case does not count, "" where it does."""
        return latency.void or self.times_void

    @property
    def key(self) -> RecordKey:
        """Return what this case is matched by across runs and machines."""
        return RecordKey(self.environment.device_type, self.case.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSamples:
    """What one night's calibration measured of one case at one batch size, in processes of its own."""

    case_id: str
    batch_size: int
    builds: tuple[int, ...]  # of every process: the number of the engine's build
    medians_ns: tuple[float, ...]  # of every process
    round_cvs: tuple[float, ...]  # of every process: scatter of its rounds' medians [fraction]
    log_ratios: tuple[tuple[float, ...], ...]  # of injected slowdowns, as INJECTED has them: one number a pair

    def __post_init__(self) -> None:
        if not len(self.builds) == len(self.medians_ns) == len(self.round_cvs):
            raise DataError(f"{self.case_id}: builds, medians and rounds are of unlike numbers of processes")
        if len(self.log_ratios) != len(INJECTED):
            raise DataError(f"{self.case_id}: {len(self.log_ratios)} injected slowdowns; expected {len(INJECTED)}")
        if not all(math.isfinite(time) and time > 0 for time in self.medians_ns):
            raise DataError(f"{self.case_id}: a time is not positive")
        if not all(math.isfinite(ratio) for ratios in self.log_ratios for ratio in ratios):
            raise DataError(f"{self.case_id}: a ratio is not a number")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationNight:
    """One night's calibration of a type of device."""

    measured_at: str  # UTC, ISO 8601
    driver: str
    versions: dict[str, str]  # library -> version
    cases: tuple[CaseSamples, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """How often a rule called a case slower [comparisons]."""

    slowdown: float  # that was injected into the timed region [fraction]; 0: none
    n_tried: int  # comparisons that share no process: 16 pairs each
    n_called: int
    n_resampled: int  # comparisons drawn anew from all pairs of the case
    n_resampled_called: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSpread:
    """How far the times of one case at one batch size scatter on a type of device; derived from `CaseSamples`.

    Scatters are standard deviations of logarithms, so fractions of the time; None where there is too little to tell.
    """

    case_id: str
    batch_size: int
    n_processes: int
    n_builds: int
    n_nights: int
    n_pairs: int
    round_cv: float
    process_cv: float  # of the median of a process
    build_cv: float | None
    night_cv: float | None
    paired_cv: float  # of the ratio of two processes that took turns
    smallest_slowdown: float  # the smallest accepted slowdown that this case supports [fraction]
    caught: tuple[Caught, ...]  # as INJECTED has them, at the accepted slowdown of the calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCalibration:
    """What a type of device can tell of times: its nights of calibration, and the rule they were judged by."""

    device_type: str
    max_slowdown: float  # the accepted slowdown that false alarms and power are stated for [fraction]
    alpha: float
    nights: tuple[CalibrationNight, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The header of one run; its records lie beside it."""

    id: str
    started_at: str  # UTC, ISO 8601
    command: str
    environment: Environment
    backends: tuple[Availability, ...]
    options: dict[str, str]
    finished_at: str = ""
    schema: int = RECORD_SCHEMA
    skipped: dict[str, str] = field(default_factory=dict)  # backend -> why `auto` left it out
    gates: tuple[str, ...] = ()  # those that a selected test asked for
    due_gates: tuple[str, ...] = ()  # of a shard: those that are for a case of it, whichever suites were run
    strict: bool = False  # an inconclusive verdict failed
    baseline: str = "auto"  # how baselines were read: auto, require or ignore
    baseline_dir: str = ""  # where they lay; copies of those read lie beside the records
    notes: tuple[str, ...] = ()
    url: str = ""  # where its page will be found
    shard: ShardOrigin | None = None  # of a run that is a shard
    n_shards: int = 0  # planned shards of a run that was merged
    fire_drill: FireDrill | None = None  # the last one before it, in the same report folder; None: not run
