"""Rows -> the section of one case: confusion, flips, layers, build, all as plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePath

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from harness.records import Accuracy, Calibration, EngineFacts, Flip, Layer, PackedArray, Record
from harness.report.charts import rounds_chart
from harness.report.drifts import DriftView, drift_views
from harness.report.flags import flag_text
from harness.report.format import MISSING, format_bytes, format_count, format_time, is_number, plural
from harness.report.load import throughput_facts
from harness.report.png import uri_of_packed
from harness.report.quantization import QuantizationView, calibration_of, quantization_view, recipes_of_models
from harness.report.rows import Row, Timing, unpacked
from harness.stats import ConfusionMove, confusion_matrix, largest_confusion_moves

FULL_CASES = 60  # cases with pictures, confusion matrix and every layer; the worst ones come first
INLINE_CASES = 12  # of more cases than that: readable without scripts, the others are unfolded when opened
MAX_CLASSES_SHOWN = 20  # a larger confusion matrix is listed, not drawn
MAX_FLIPS = 24
FULL_LAYERS, BRIEF_LAYERS = 60, 5
N_SHADES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionCell:
    """Images of one class predicted as another, and how many more than the reference's."""

    n: int
    change: int
    shade: int  # 0 (none) to 4
    is_diagonal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipView:
    """One flipped image with its picture, "" when none was kept."""

    flip: Flip
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerView:
    """One layer, its share of the time, and what changed since the previous run."""

    layer: Layer
    share: float | None  # of the time of all layers [fraction]
    before: Layer | None = None

    @property
    def ratio(self) -> float | None:
        """Return time now / time in the previous run."""
        if self.before is None or not self.before.time_ns or self.layer.time_ns is None:
            return None
        return self.layer.time_ns / self.before.time_ns

    @property
    def precision_before(self) -> str:
        """Return the previous run's precision where it was another, else ""."""
        if self.before is None or self.before.precision == self.layer.precision:
            return ""
        return self.before.precision or "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingView:
    """One batch size of a case with its chart."""

    timing: Timing
    chart: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """Everything the section of one case shows beyond its row."""

    row: Row
    is_full: bool
    is_inline: bool
    confusion: tuple[tuple[ConfusionCell, ...], ...] = ()
    confusion_against: str = ""
    moves: tuple[ConfusionMove, ...] = ()
    lost: tuple[FlipView, ...] = ()
    gained: tuple[FlipView, ...] = ()
    n_flips_left_out: int = 0
    pictures: dict[str, str] = field(default_factory=dict)  # sample -> data URI, of the worst cases alone
    timings: tuple[TimingView, ...] = ()
    throughput: tuple[tuple[str, str], ...] = ()
    drifts: tuple[DriftView, ...] = ()
    quantization: QuantizationView | None = None
    layers: tuple[LayerView, ...] = ()
    n_layers_left_out: int = 0
    build: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = field(default=())


def details_from_rows(rows: Sequence[Row], *, full_cases: int = FULL_CASES) -> tuple[Detail, ...]:
    """Return the sections in the rows' order; the `full_cases` most notable ones in full."""
    notable = sorted(range(len(rows)), key=lambda index: _notability(rows[index], index))[:full_cases]
    full = set(notable)
    inline = full if len(rows) <= max(full_cases, INLINE_CASES) else set(notable[:INLINE_CASES])
    recipes = recipes_of_models([row.record for row in rows])
    return tuple(
        _detail(row, recipes.get(row.record.case.model, {}), is_full=index in full, is_inline=index in inline)
        for index, row in enumerate(rows)
    )


def _notability(row: Row, index: int) -> tuple[int, int, int]:
    lost = row.against_fp32.n_lost if row.against_fp32 and row.against_fp32.n_lost else 0
    return row.standing.rank, -lost, index


def _detail(row: Row, recipes: Mapping[str, Calibration], *, is_full: bool, is_inline: bool) -> Detail:
    record = row.record
    confusion, against, moves = _confusion(row, is_full=is_full)
    flips = record.flips[:MAX_FLIPS] if is_full else ()
    views = [FlipView(flip=flip, uri=uri_of_packed(flip.image)) for flip in flips]
    layers = _layers(record, row.previous)
    shown = layers[: FULL_LAYERS if is_full else BRIEF_LAYERS]
    return Detail(
        row=row,
        is_full=is_full,
        is_inline=is_inline,
        confusion=confusion,
        confusion_against=against,
        moves=moves,
        lost=tuple(view for view in views if not view.flip.gained),
        gained=tuple(view for view in views if view.flip.gained),
        n_flips_left_out=len(record.flips) - len(flips),
        pictures={one.id: uri for one in record.pictures if is_inline and (uri := uri_of_packed(one.image))},
        timings=tuple(_timing_view(timing, is_drawn=is_full or not index) for index, timing in enumerate(row.timings)),
        throughput=throughput_facts(record),
        drifts=drift_views(record),
        quantization=quantization_view(record, row.previous, recipes) if is_full else None,
        layers=shown,
        n_layers_left_out=len(layers) - len(shown),
        build=_build_facts(record, row.previous),
        flags=tuple(flag_text(flag) for flag in record.flags),
    )


def _timing_view(timing: Timing, *, is_drawn: bool) -> TimingView:
    chart = rounds_chart(timing.latency, timing.summary) if is_drawn and timing.summary else Markup()
    return TimingView(timing=timing, chart=chart)


def _confusion(
    row: Row, *, is_full: bool
) -> tuple[tuple[tuple[ConfusionCell, ...], ...], str, tuple[ConfusionMove, ...]]:
    accuracy = row.record.accuracy
    if accuracy is None or not accuracy.n_images:
        return (), "", ()
    other = next((x for x in (row.reference, row.previous) if x and _is_same_images(accuracy, x.accuracy)), None)
    if other is None and not is_full:
        return (), "", ()
    now = _matrix(accuracy)
    before = _matrix(other.accuracy) if other and other.accuracy else None
    against = "" if other is None else (other.case.id if other is row.reference else "the previous run")
    moves = () if before is None else largest_confusion_moves(before, now)
    is_drawn = is_full and accuracy.num_classes <= MAX_CLASSES_SHOWN
    return (_cells(now, before) if is_drawn else ()), against, moves


def _is_same_images(accuracy: Accuracy, other: Accuracy | None) -> bool:
    return (
        other is not None
        and other.fingerprint == accuracy.fingerprint
        and (other.n_images, other.num_classes) == (accuracy.n_images, accuracy.num_classes)
    )


def _matrix(accuracy: Accuracy) -> NDArray[np.int64]:
    return _confusion_matrix(accuracy.labels, accuracy.predictions, accuracy.num_classes)


@lru_cache(maxsize=64)
def _confusion_matrix(labels: PackedArray, predictions: PackedArray, num_classes: int) -> NDArray[np.int64]:
    return confusion_matrix(unpacked(labels).astype(np.int64), unpacked(predictions).astype(np.int64), num_classes)


def _cells(now: NDArray[np.int64], before: NDArray[np.int64] | None) -> tuple[tuple[ConfusionCell, ...], ...]:
    change = now - before if before is not None else np.zeros_like(now)
    wrong = now.copy()
    np.fill_diagonal(wrong, 0)
    shades = np.ceil(N_SHADES * wrong / max(int(wrong.max()), 1)).astype(int)
    return tuple(
        tuple(
            ConfusionCell(
                n=int(now[label, prediction]),
                change=int(change[label, prediction]),
                shade=int(shades[label, prediction]),
                is_diagonal=label == prediction,
            )
            for prediction in range(now.shape[1])
        )
        for label in range(now.shape[0])
    )


def _layers(record: Record, previous: Record | None) -> tuple[LayerView, ...]:
    before = {layer.name: layer for layer in previous.layers} if previous else {}
    total = sum(layer.time_ns for layer in record.layers if layer.time_ns is not None and is_number(layer.time_ns))
    slowest_first = sorted(record.layers, key=lambda layer: -(layer.time_ns if layer.time_ns is not None else -1.0))
    return tuple(
        LayerView(
            layer=layer,
            share=layer.time_ns / total if layer.time_ns is not None and total else None,
            before=before.get(layer.name),
        )
        for layer in slowest_first
    )


def _build_facts(record: Record, previous: Record | None) -> tuple[tuple[str, str], ...]:
    engine, artifact = record.engine, record.artifact
    before = previous.engine if previous else None
    facts: list[tuple[str, str]] = []
    if engine:
        facts += _cold_costs(engine, before)
    if artifact:
        facts += [
            ("Model file", PurePath(artifact.onnx_path).name),
            ("sha256", artifact.sha256[:16]),
            ("Prepared in", format_time(artifact.prepare_ns) + (" (from the cache)" if artifact.cache_hit else "")),
            ("Recipe", f"{artifact.recipe}, {artifact.weight_bits}-bit weights"),
            ("Kept in float", ", ".join(artifact.kept_float)),
        ]
        facts += [("Converter", f"{tool} {version}") for tool, version in artifact.tools.items()]
    calibration = calibration_of(record)
    if calibration:
        images = calibration.images
        text = f"{format_count(images.n_images)} images of {images.dataset}/{images.split} from {images.first:,}"
        facts.append(("Calibration", f"{text}, {calibration.method}, batches of {calibration.batch_size}"))
    if engine:
        facts += [(name, value) for name, value in engine.versions.items()]
        facts += [(name, value) for name, value in engine.options.items()]
    return tuple((name, value) for name, value in facts if value != MISSING)


def _cold_costs(engine: EngineFacts, before: EngineFacts | None) -> list[tuple[str, str]]:
    """Return what a case costs once: all times are wall times of the host, one measurement each."""

    def time_of(name: str) -> str:
        return _since(format_time(getattr(engine, name)), format_time(getattr(before, name) if before else None))

    def size_of(name: str) -> str:
        return _since(format_bytes(getattr(engine, name)), format_bytes(getattr(before, name) if before else None))

    built = " (when it was built: this one came from the cache)" if engine.cache == "hit" else ""
    return [
        ("Runtime import", time_of("import_ns")),
        ("Build time", time_of("build_ns") + built),
        ("Load of the built engine", time_of("load_ns")),
        ("First inference", time_of("first_inference_ns")),
        ("Engine size", size_of("engine_bytes")),
        ("Device memory", _device_memory(engine)),
        ("Peak host memory", size_of("host_peak_bytes")),
        ("Engine cache", engine.cache),
    ]


def _device_memory(engine: EngineFacts) -> str:
    """Return what contexts take, of which scoring makes several; weights and buffers come on top."""
    each = format_bytes(engine.device_memory_bytes)
    if each == MISSING or not engine.n_contexts:
        return each
    copies = f", of {engine.n_engines} copies of the engine" if engine.n_engines and engine.n_engines > 1 else ""
    return f"{each} in each of {plural(engine.n_contexts, 'context')}{copies}; weights and buffers apart"


def _since(now: str, before: str) -> str:
    return now if before in (MISSING, now) else f"{now} (previous run {before})"
