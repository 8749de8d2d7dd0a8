"""What a task of samples is: its settings, and a collector that turns the outputs of samples into metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError, MeasurementError
from harness.protocols import Sample, Tensors
from harness.records import MetricScore

Settings = Mapping[str, object]  # a card's [task] table, checked and with the defaults filled in
NUMBER = (int, float)
METRIC, OUTPUT = "metric", "output"


class Collector(Protocol):
    """Scores the outputs of one engine, sample by sample; small memory a sample."""

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Take the outputs of one sample, without a batch axis.

        Raises: DataError for outputs or a target that the task cannot read; MeasurementError for NaN.
        """
        ...

    def scores(self) -> tuple[MetricScore, ...]:
        """Return the metrics of all samples added, the leading one first. Raises: MeasurementError without samples."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key of a card's [task] table."""

    name: str
    summary: str
    kinds: tuple[type, ...] = (str,)
    default: object = None  # None: not given
    choices: tuple[str, ...] = ()
    is_file: bool = False  # a path beside the card
    low: float | None = None  # the smallest number taken
    high: float | None = None

    def read(self, value: object, *, task: str) -> object:
        """Return a value that the task can take. Raises: ConfigError that names the key."""
        where = f"[task] {self.name}"
        is_taken = isinstance(value, self.kinds) and (not isinstance(value, bool) or bool in self.kinds)
        if not is_taken:
            expected = " or ".join(_KINDS[kind] for kind in self.kinds)
            raise ConfigError(f"{where} = {value!r}: task {task} expects {expected}: {self.summary}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{where} = {value!r}: task {task} takes {', '.join(self.choices)}")
        if isinstance(value, NUMBER) and not isinstance(value, bool):
            low, high = self.low, self.high
            if not np.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
                bounds = " to ".join(f"{bound:g}" for bound in (low, high) if bound is not None)
                raise ConfigError(f"{where} = {value!r}: task {task} expects {bounds or 'a number'}: {self.summary}")
        return value


_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
COMMON = (
    Setting(name=OUTPUT, summary="the output that is scored, where a model has several"),
    Setting(name=METRIC, summary="the metric that leads the report and is gated"),
)


Read = tuple[tuple[str, object], ...]  # key of [task], the output that it names (None: the model's only one)


def named_output(settings: Settings) -> Read:
    """Return the output that a card names, if it names one."""
    return ((OUTPUT, settings[OUTPUT]),) if settings[OUTPUT] is not None else ()


def one_output(settings: Settings) -> Read:
    """Return the output that is scored: named, or the only one."""
    return ((OUTPUT, settings[OUTPUT]),)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTask:
    """One meaning of a model's named outputs; a file of this folder offers it as TASK.

    `make(settings)` returns a collector; `settings` beside COMMON are the keys that a card's [task] table may hold;
    `reads(settings)` says which outputs the collector will ask for, so that a wrong name is told before anything runs.
    """

    name: str
    summary: str
    make: Callable[[Settings], Collector]
    metrics: tuple[str, ...]  # the names it may score, the leading one first; () of one that only shows drift
    settings: tuple[Setting, ...] = ()
    reads: Callable[[Settings], Read] = named_output

    def collector(self, options: Settings, *, outputs: Sequence[str] | None = None) -> Collector:
        """Return a collector. `options`: a card's [task] table; `outputs`: names of the model's, None: not known.

        Raises: ConfigError that names the key.
        """
        known = {setting.name: setting for setting in (*COMMON, *self.settings)}
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(f"[task] {unknown[0]}: task {self.name} has no such key; it has: {', '.join(known)}")
        given = {name: known[name].read(value, task=self.name) for name, value in options.items()}
        leading = given.get(METRIC)
        if leading is not None and leading not in self.metrics:
            raise ConfigError(f"[task] metric = {leading!r}: task {self.name} scores {', '.join(self.metrics)}")
        settings = {name: given.get(name, setting.default) for name, setting in known.items()}
        for key, output in self.reads(settings) if outputs is not None else ():
            name_of_output(outputs or (), output, task=self.name, key=key)
        made = self.make(settings)
        return made if leading is None else _Led(made, str(leading))


class _Led:
    """A collector whose leading metric is another one."""

    def __init__(self, collector: Collector, leading: str) -> None:
        self._collector, self._leading = collector, leading

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Take the outputs of one sample."""
        self._collector.add(outputs, sample)

    def scores(self) -> tuple[MetricScore, ...]:
        """Return the metrics, the one that was asked for first. Raises: MeasurementError where it was not scored."""
        scores = self._collector.scores()
        first = [score for score in scores if score.name == self._leading]
        if not first:
            known = ", ".join(score.name for score in scores)
            raise MeasurementError(f"[task] metric = {self._leading!r} does not fit these outputs; scored: {known}")
        slices = next((score.slices for score in scores if score.slices is not None), None)
        led = first[0] if first[0].slices else replace(first[0], slices=slices)
        return (led, *(replace(score, slices=None) for score in scores if score is not first[0]))


def name_of_output(outputs: Sequence[str], name: object, *, task: str, key: str = OUTPUT) -> str:
    """Return the name of an output that there is: the one given, or the only one. Raises: ConfigError."""
    if name is None and len(outputs) != 1:
        raise ConfigError(
            f"[task] {key}: task {task} scores one output and the model has {', '.join(outputs)}; name it"
        )
    found = outputs[0] if name is None else str(name)
    if found not in outputs:
        raise ConfigError(f"[task] {key} = {found!r}: the model has no such output; it has: {', '.join(outputs)}")
    return found


def output_of(outputs: Tensors, name: object, *, task: str, key: str = OUTPUT) -> NDArray[np.generic]:
    """Return the output by its name, or the only one. Raises: ConfigError; MeasurementError for NaN."""
    found = name_of_output(tuple(outputs), name, task=task, key=key)
    array = np.asarray(outputs[found])
    if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
        raise MeasurementError(f"output {found} holds NaN")
    return array


def target_of(sample: Sample, key: str, *, task: str) -> object:
    """Return a sample's target, or the part of it that a mapping holds under a key. Raises: DataError for none."""
    target = sample.target
    if isinstance(target, Mapping):
        target = target.get(key)
    if target is None:
        raise DataError(f"sample {sample.id}: it has no {key}, which task {task} needs")
    return target


def class_of(value: object, sample: Sample, *, n_classes: int | None = None) -> int:
    """Return a class index. Raises: DataError for something else, or one beyond the model's classes."""
    array = np.asarray(value)
    if array.size != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"sample {sample.id}: the target {_short(value)} is not a class index")
    index = int(array.reshape(()))
    if index < 0 or (n_classes is not None and index >= n_classes):
        raise DataError(f"sample {sample.id}: class {index} is not one of the model's {n_classes} classes")
    return index


def numbers_of(value: object, sample: Sample) -> NDArray[np.float64]:
    """Return a target as float64. Raises: DataError for what are no finite numbers."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"sample {sample.id}: the target {_short(value)} is not an array of numbers") from error
    if not np.isfinite(array).all():
        raise DataError(f"sample {sample.id}: the target holds a number that is not finite")
    return array


def names_of_classes(given: object, n_classes: int) -> tuple[str, ...]:
    """Return the names of classes: those given, and the index of any other. Raises: ConfigError for too many."""
    names = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if len(names) > n_classes:
        raise ConfigError(f"[task] classes: {len(names)} names for an output of {n_classes}; are they another model's?")
    return tuple(str(names[i]) if i < len(names) else str(i) for i in range(n_classes))


CLASSES = Setting(name="classes", summary="the names of the classes, in the order of the output", kinds=(list,))


def threshold(summary: str) -> Setting:
    """Return the setting of where a score means yes."""
    return Setting(name="threshold", summary=summary, kinds=(int, float), default=0.5)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
