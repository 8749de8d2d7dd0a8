"""The options as a user types them: names, units, defaults; and back into `HarnessOptions`. Knows no pytest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.options.tolerances import fraction_from_text, value_from_text
from harness.options.values import BASELINE_MODES, HarnessOptions, data_request
from harness.specs import (
    DEFAULT_PRECISIONS,
    MIB,
    OPTIMIZATION_LEVELS,
    DatasetRequest,
    Precision,
    TimingPlan,
    TrtOptions,
)

HEAVY_MODEL = "resnet101_112"


def add_options(add: Callable[..., None]) -> None:
    """Define every option with argparse's words; `add` is `addoption` of pytest's group."""
    _add_cases(add)
    _add_data(add)
    _add_measuring(add)
    _add_verdicts(add)
    _add_trt_options(add)


def _add_cases(add: Callable[..., None]) -> None:
    def listed(name: str, metavar: str, text: str) -> None:
        add(name, action="append", default=[], metavar=metavar, help=text)

    listed(
        "--backend",
        "NAMES",
        "backends, comma list or repeated: ort, openvino, trt, ... (default: auto, every usable one)",
    )
    listed("--backend-dir", "DIR", "folder with backends of your own, one file each (docs/backends.md), repeatable")
    listed("--precision", "NAMES", "precisions, comma list: fp32, fp16, bf16, int8 (default: all but bf16)")
    listed(
        "--recipe",
        "NAMES",
        "recipes, comma list; INT8: qdq-minmax, qdq-entropy, qdq-percentile, nncf, trt-entropy2, ...; BF16: cast, "
        "runtime (default: qdq-minmax and cast)",
    )
    listed(
        "--model",
        "NAME|FILE",
        f"bundled model, ONNX file or card, comma list or repeated; {HEAVY_MODEL} is made on demand "
        "(default: every bundled classifier)",
    )
    add(
        "--input-scale",
        type=float,
        metavar="FACTOR",
        help="factor on pixels 0..255 for a model without a card (default: 1/255)",
    )
    add(
        "--num-classes", type=int, metavar="N", help="classes of a model without a card (default: read from its output)"
    )
    add(
        "--label-offset",
        type=int,
        metavar="N",
        help="added to a data set's labels to get the model's classes (default: the card's, or 0)",
    )


def _add_data(add: Callable[..., None]) -> None:
    data = DatasetRequest()
    add(
        "--dataset",
        default=data.name,
        metavar="NAME|PATH",
        help="data set: strokes, mnist, fashion-mnist, ..., an IDX images file, or a folder of TensorRT batch files "
        "(default: %(default)s)",
    )
    add(
        "--data-dir",
        metavar="DIR",
        help="where the data set's files lie (default: the user's cache, downloaded when absent)",
    )
    add("--split", default=data.split, choices=("train", "test"), help="split to score (default: %(default)s)")
    add(
        "--score-images",
        type=int,
        default=data.score_images,
        metavar="N",
        help="number of images to score (default: %(default)s)",
    )
    add("--score-from", type=int, default=0, metavar="INDEX", help="first image to score (default: %(default)s)")
    add(
        "--calibration-images",
        type=int,
        default=data.calibration_images,
        metavar="N",
        help="number of images that calibrate INT8 (default: %(default)s)",
    )
    add(
        "--calibration-from",
        type=int,
        metavar="INDEX",
        help="first calibration image (default: 0, or the first after the scored ones where they would overlap)",
    )
    add("--calibration-split", choices=("train", "test"), help="split of the calibration images (default: train)")


def _add_measuring(add: Callable[..., None]) -> None:
    default, timing = HarnessOptions(), TimingPlan()
    add(
        "--batch-size",
        default=",".join(map(str, timing.batch_sizes)),
        metavar="N,N",
        help="batch sizes to time [images] (default: %(default)s)",
    )
    add(
        "--score-batch",
        type=int,
        default=default.score_batch,
        metavar="N",
        help="images per batch when scoring (default: %(default)s)",
    )
    add(
        "--timing-window",
        default=timing.window,
        choices=("compute", "end_to_end", "h2d", "d2h"),
        help="what the clock sees (default: %(default)s)",
    )
    add(
        "--timing-launch",
        default=timing.launch,
        choices=("auto", "enqueue", "graph", "gated", "gated_graph"),
        help="how a CUDA engine is launched when timed (default: %(default)s, the quietest that works)",
    )
    add(
        "--timing-rounds",
        type=int,
        default=timing.n_rounds,
        metavar="N",
        help="rounds of samples per engine and batch size (default: %(default)s)",
    )
    add(
        "--device",
        default=default.device,
        metavar="NAME",
        help="device: cpu, cuda:0, ... (default: the backend's first)",
    )
    add(
        "--threads",
        type=int,
        default=default.num_threads,
        metavar="N",
        help="CPU threads of one inference (default: %(default)s, the steadiest to time)",
    )
    add(
        "--report-dir", default=default.report_dir, metavar="DIR", help="where runs are written (default: %(default)s/)"
    )
    add(
        "--engine-cache",
        default="",
        metavar="DIR",
        help="cache of prepared models and built engines (default: the user's cache folder)",
    )
    add("--rebuild", action="store_true", help="ignore cached models and engines")


def _add_verdicts(add: Callable[..., None]) -> None:
    default = HarnessOptions()
    add(
        "--strict-verdicts", action="store_true", help="an inconclusive verdict fails; pytest's own --strict implies it"
    )
    add(
        "--floor",
        metavar="FRACTION",
        help="lowest acceptable top-1, 0.98 or 98%% (default: the model card's)",
    )
    add(
        "--max-drop",
        metavar="FRACTION",
        help="accepted loss of top-1, 0.005 or 0.5%% (default: harness.toml, the card, or 0.5%%)",
    )
    add(
        "--max-slowdown",
        metavar="FRACTION",
        help="fail when the whole interval of the latency ratio lies beyond, 0.05 or 5%% (default: never)",
    )
    add("--alpha", metavar="FRACTION", help="false-alarm rate of one comparison (default: 0.001)")
    add(
        "--baseline",
        default=default.baseline,
        choices=BASELINE_MODES,
        help="auto names a missing baseline, require fails on it, ignore compares with none (default: %(default)s)",
    )
    add("--baseline-dir", default=default.baseline_dir, metavar="DIR", help="stored baselines (default: %(default)s)")
    add("--update-baselines", action="store_true", help="write baselines at the end of a clean run")
    add(
        "--worker-timeout",
        type=float,
        default=default.timeout_s,
        metavar="SECONDS",
        help="longest silence of a worker before it is killed [s] (default: %(default)s)",
    )
    add(
        "--worker-python",
        default=default.worker_python,
        metavar="PATH",
        help="interpreter of the workers, for example of a venv with another runtime version (default: this one)",
    )


def _add_trt_options(add: Callable[..., None]) -> None:
    add("--trt-tf32", action="store_true", help="allow TF32 in TensorRT's FP32 engines (default: off)")
    add("--trt-workspace", type=int, metavar="MIB", help="TensorRT workspace limit [MiB] (default: the library's)")
    add(
        "--trt-optimization-level",
        type=int,
        choices=OPTIMIZATION_LEVELS,
        metavar=f"0..{OPTIMIZATION_LEVELS[-1]}",
        help="TensorRT builder optimization level (default: the library's)",
    )
    add(
        "--trt-tactic-sources",
        metavar="NAMES",
        help="TensorRT tactic sources, comma list, e.g. EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS "
        "(default: the library's)",
    )
    add("--trt-version-compatible", action="store_true", help="build TensorRT engines that later minor versions load")
    add("--trt-hardware-compatible", action="store_true", help="build TensorRT engines for Ampere and newer")
    add(
        "--trt-profile",
        action="append",
        default=[],
        metavar="MIN:OPT:MAX",
        help="optimization profile by batch size [images], repeatable (default: one from the batch sizes)",
    )
    add("--trt-plugin", action="append", default=[], metavar="LIB.so", help="plug-in library to load, repeatable")
    add("--trt-ranges", metavar="FILE", help="JSON of tensor name to dynamic range, for the recipe trt-ranges")
    add(
        "--trt-quantile",
        metavar="FRACTION",
        help="quantile of the recipe trt-legacy (default: 0.99999, sampleINT8's)",
    )
    add(
        "--trt-cutoff",
        metavar="FRACTION",
        help="cutoff of the recipe trt-legacy (default: 0.999, sampleINT8's)",
    )


def options_from_namespace(o: Any, *, root: Path) -> HarnessOptions:
    """Turn parsed options into ours; relative folders lie below `root`. Raises: ConfigError for a contradiction."""
    names = _split(o.backend) or ("auto",)
    return HarnessOptions(
        backends=names,
        backend_dirs=tuple(str(Path(folder).absolute()) for folder in o.backend_dir),
        precisions=_precisions(_split(o.precision)),
        recipes=_split(o.recipe),
        models=_split(o.model),
        input_scale=o.input_scale,
        num_classes=o.num_classes,
        label_offset=o.label_offset,
        data=data_request(
            name=o.dataset,
            data_dir=o.data_dir,
            split=o.split,
            score_first=o.score_from,
            score_images=o.score_images,
            calibration_images=o.calibration_images,
            calibration_first=o.calibration_from,
            calibration_split=o.calibration_split,
        ),
        timing=TimingPlan(
            batch_sizes=_whole_numbers("--batch-size", o.batch_size),
            window=o.timing_window,
            launch=o.timing_launch,
            n_rounds=o.timing_rounds,
        ),
        score_batch=o.score_batch,
        device=o.device,
        num_threads=o.threads,
        report_dir=str(root / o.report_dir),
        engine_cache=str(Path(o.engine_cache).absolute()) if o.engine_cache else "",
        rebuild=o.rebuild,
        strict=o.strict_verdicts or bool(getattr(o, "strict", False)),
        baseline=o.baseline,
        baseline_dir=str(root / o.baseline_dir),
        update_baselines=o.update_baselines,
        root=str(root),
        floor=_tolerance("floor", o.floor),
        max_drop=_tolerance("max_drop", o.max_drop),
        max_slowdown=_tolerance("max_slowdown", o.max_slowdown),
        alpha=_tolerance("alpha", o.alpha),
        timeout_s=o.worker_timeout,
        worker_python=o.worker_python,
        trt=_trt_options(o),
    )


def _tolerance(name: str, text: str | None) -> float | None:
    return None if text is None else value_from_text(name, text, where=f"--{name.replace('_', '-')}")


def _trt_options(o: Any) -> TrtOptions:
    return TrtOptions(
        tf32=o.trt_tf32,
        workspace_bytes=o.trt_workspace * MIB if o.trt_workspace is not None else None,
        optimization_level=o.trt_optimization_level,
        tactic_sources=_split([o.trt_tactic_sources]) if o.trt_tactic_sources else None,
        version_compatible=o.trt_version_compatible,
        hardware_compatible=o.trt_hardware_compatible,
        profiles=tuple(_profile(text) for text in o.trt_profile),
        plugins=tuple(o.trt_plugin),
        ranges_file=o.trt_ranges,
        quantile=_fraction("--trt-quantile", o.trt_quantile),
        cutoff=_fraction("--trt-cutoff", o.trt_cutoff),
    )


def _fraction(option: str, text: str | None) -> float | None:
    try:
        return None if text is None else fraction_from_text(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def _split(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def _precisions(names: tuple[str, ...]) -> tuple[Precision, ...]:
    known = {precision.value: precision for precision in Precision}
    for name in names:
        if name not in known:
            raise ConfigError(f"--precision={name}: choose from {', '.join(known)}")
    return tuple(known[name] for name in known if name in names) or DEFAULT_PRECISIONS


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"{option}={text}: expected whole numbers such as 1,100") from None


def _profile(text: str) -> tuple[int, int, int]:
    parts = text.split(":")
    if len(parts) != len(("min", "opt", "max")) or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--trt-profile={text}: expected MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX")
    return int(parts[0]), int(parts[1]), int(parts[2])
