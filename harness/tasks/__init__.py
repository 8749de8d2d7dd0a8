"""Tasks: what the outputs of a model mean, and how they are scored; one file each.

A file of this folder, of `DIR/tasks/` of an `--extension-dir DIR`, or an entry point of the group `harness.tasks` joins
by offering `TASK`: a `Task` scores batches of images with a label each, a `SampleTask` samples of named tensors with
metrics of its own. A model's card names it as `[output] task`, and gives its settings in the table `[task]`.
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import ConfigError
from harness.options.discovery import Room
from harness.specs import ModelSpec
from harness.tasks._metrics import Naming, Ratios, Slicing, mean_score, whole_score
from harness.tasks._samples import Collector, SampleTask, Setting, class_of, numbers_of, output_of, target_of
from harness.tasks._task import Task, TopK

__all__ = [
    "Collector",
    "Naming",
    "Ratios",
    "SampleTask",
    "Setting",
    "Slicing",
    "Task",
    "TopK",
    "class_of",
    "collector_of",
    "find_sample_task",
    "find_task",
    "list_tasks",
    "mean_score",
    "numbers_of",
    "output_of",
    "target_of",
    "whole_score",
]

ROOM = Room("tasks", noun="task", package=__name__, path=__path__, offers="TASK")


def list_tasks() -> tuple[str, ...]:
    """Return the names of all tasks."""
    return ROOM.names()


def find_task(name: str) -> Task:
    """Return a task of images. Raises: ConfigError for an unknown name, a file that cannot be used or other samples."""
    task = ROOM.load(name)
    if not isinstance(task, Task):
        raise ConfigError(f"task {name} scores samples of named tensors, not batches of labelled images")
    return task


def find_sample_task(name: str) -> SampleTask:
    """Return a task of samples. Raises: ConfigError for an unknown name, a file that cannot be used or images alone."""
    task = ROOM.load(name)
    found = task.samples if isinstance(task, Task) else task
    if not isinstance(found, SampleTask):
        raise ConfigError(f"task {name} scores batches of labelled images, not samples of named tensors")
    return found


def collector_of(model: ModelSpec) -> Collector:
    """Return a collector of a model's task, with the settings of its card.

    A file is looked for beside the card. What a task asks of the images' way into the model (`fit`, `input_size`) is
    what the card's [preprocess] does, unless [task] says otherwise.
    Raises: ConfigError that names the model and the key.
    """
    task = find_sample_task(model.task)
    known = {setting.name: setting for setting in task.settings}
    prepared: dict[str, object] = {"fit": model.preprocess.fit, "input_size": _size_shown(model)}
    settings = {name: value for name, value in prepared.items() if name in known and value}
    settings |= model.task_settings
    files = {name for name, setting in known.items() if setting.is_file and isinstance(settings.get(name), str)}
    folder = Path(model.card_dir or Path(model.onnx_path).parent)
    outputs = model.tensors.output_names if model.tensors is not None else None
    try:
        beside = {name: _beside(folder, name, str(settings[name])) for name in files}
        return task.collector({**settings, **beside}, outputs=outputs)
    except ConfigError as error:
        raise ConfigError(f"{model.name}: {error}") from error


def _beside(folder: Path, key: str, name: str) -> str:
    """Return where a file of a card's [task] lies. Raises: ConfigError for a name that leads out of the folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise ConfigError(f"[task] {key} = {name!r} leads out of the card's folder; put the file beside its card")
    return str(folder / name)


def _size_shown(model: ModelSpec) -> list[int]:
    """Return [height, width] of what a model is shown; [] where nothing tells it."""
    if sized := model.preprocess.crop or model.preprocess.resize:
        return list(sized) if len(sized) == 2 else []
    shape = model.input_shape[:2] if model.layout == "NHWC" else model.input_shape[-2:]
    return list(shape) if len(shape) == 2 and min(shape) > 0 else []
