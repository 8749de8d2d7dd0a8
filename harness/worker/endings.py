"""How a worker ended, in words: signal or exit code, the last line of its log, and where its Python stood."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TAIL_BYTES = 64 << 10  # of a log: what a worker that writes without end has written is not read whole
MAX_LINE = 300  # characters of a log line in a reason
MAX_FRAMES = 4
WAIT_S = 2.0
# What faulthandler writes of a stack: CPython, Python/traceback.c (`dump_frame`), innermost frame first.
FRAME = re.compile(r'File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<name>\S+)')
STACK_BEGINS = re.compile(
    r"(?P<current>Current )?[Tt]hread 0x[0-9a-f]+.*\(most recent call first\)|Stack \(most recent"
)
FATAL = re.compile(r"(Fatal Python error: |Windows fatal exception: )")
NOT_OURS = re.compile(
    r"(<string>|<remote exec>|[/\\]execnet[/\\]|[/\\]threading\.py$|[/\\]harness[/\\]worker[/\\]service\.py$)"
)


def end_of(process: Any) -> str:
    """Return how a process (subprocess.Popen, None where there is none) ended; it may need a moment to."""
    code = exit_code(process)
    if code is None:
        return "closed its connection"
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-code}"
    hint = "; the kernel kills so when memory runs out" if code == -getattr(signal, "SIGKILL", 9) else ""
    return f"crashed ({name}{hint})"


def exit_code(process: Any) -> int | None:
    """Return a process's exit code, None while it lives."""
    if process is None:
        return None
    try:
        code: int = process.wait(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        return None
    return code


def last_words(log: Path | None) -> str:
    """Return "; last log line: ...; stack: ..." of a worker's log, as far as there is any."""
    lines = _tail(log)
    begin = next((index for index, line in enumerate(lines) if FATAL.search(line) or STACK_BEGINS.search(line)), None)
    said = [line for line in lines[:begin] if line]
    told = f"; last log line: {said[-1][:MAX_LINE]}" if said else ""
    frames = [] if begin is None else frames_of(lines[begin:])
    return told + (f"; stack: {' < '.join(frames)}" if frames else "")


def frames_of(lines: Sequence[str]) -> list[str]:
    """Return "function (file:line)" of the innermost frames of the last stack that faulthandler wrote.

    Of several threads it is the current one where that is told, else the one that runs a case's code.
    """
    stacks: list[list[str]] = []
    current: list[str] | None = None
    for line in lines:
        begins, frame = STACK_BEGINS.search(line), FRAME.search(line)
        if begins:
            stacks.append([])
            current = stacks[-1] if begins["current"] else current
        elif frame and stacks and not NOT_OURS.search(frame["file"]):
            stacks[-1].append(f"{frame['name']} ({Path(frame['file']).name}:{frame['line']})")
    chosen = current or max(stacks, key=len, default=[])
    return chosen[:MAX_FRAMES]


def _tail(log: Path | None) -> list[str]:
    if log is None:
        return []
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return []
    return ["".join(c for c in line if c.isprintable()).strip() for line in text.splitlines()]
