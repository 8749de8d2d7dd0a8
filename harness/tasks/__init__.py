"""Tasks: what the output of a model means, and how it is scored; one file each.

A file of this folder, of `DIR/tasks/` of an `--extension-dir DIR`, or an entry point of the group `harness.tasks` joins
by offering `TASK`; a model's card names it as `[output] task`.
"""

from __future__ import annotations

from harness.options.discovery import Room
from harness.tasks._task import Task, TopK

__all__ = ["Task", "TopK", "find_task", "list_tasks"]

ROOM = Room("tasks", noun="task", package=__name__, path=__path__, offers="TASK")


def list_tasks() -> tuple[str, ...]:
    """Return the names of all tasks."""
    return ROOM.names()


def find_task(name: str) -> Task:
    """Return a task. Raises: ConfigError for an unknown name or a file that cannot be used."""
    task: Task = ROOM.load(name)
    return task
