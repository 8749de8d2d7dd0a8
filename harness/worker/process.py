"""Worker processes: engines live there, never in pytest's process. A crash, a hang or a kill costs one case.

A worker is another interpreter (this one, another venv's, or one behind ssh) that runs `pipeline.serve`. Messages are
JSON: {"call": name, "value": ...} one way; {"progress"|"result"|"error": ...} back.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import execnet
import msgspec

import harness
from harness import errors
from harness.errors import HarnessError, WorkerDied
from harness.protocols import Progress, no_progress

T = TypeVar("T")
PACKAGE_PARENT = str(Path(harness.__file__).parents[1])
KILL_AFTER_S = 2.0
LOG_TAIL_LINES = 3
BOOTSTRAP = """
import os, sys
package_parent, log_path, extension_dirs = channel.receive()
sys.path.insert(0, package_parent)
if log_path:
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(os.dup(log), "w", buffering=1)
from harness.discovery import add_extension_dir
for folder in extension_dirs:
    add_extension_dir(folder)
from harness.worker.service import serve
serve(channel)
"""


class Worker:
    """One worker process. `call` may be used until it raises WorkerDied or `close` is called."""

    def __init__(
        self,
        *,
        log_path: Path | None = None,
        python: str = sys.executable,
        extension_dirs: Sequence[str] = (),
        label: str = "",
    ) -> None:
        self._label = label
        self._log_path = log_path
        self._group = execnet.Group()
        try:
            self._gateway = self._group.makegateway(f"popen//python={python}")
        except (OSError, execnet.HostNotFound, EOFError) as error:
            raise errors.ConfigError(f"no worker could be started with the interpreter {python}: {error}") from error
        self._channel = self._gateway.remote_exec(BOOTSTRAP)
        self._channel.send((PACKAGE_PARENT, str(log_path) if log_path else "", tuple(extension_dirs)))

    def call(
        self,
        name: str,
        value: object,
        kind: type[T],
        *,
        timeout_s: float,
        limit_option: str = "--worker-timeout",
        progress: Progress = no_progress,
    ) -> T:
        """Run one function of the pipeline in the worker and return its result.

        `timeout_s` is the longest silence [s]: progress counts as a sign of life; `limit_option` is what sets it, if
        anything does.
        Raises: the HarnessError that the worker raised; WorkerDied when it crashed, was killed or went silent.
        """
        try:
            self._channel.send(msgspec.json.encode({"call": name, "value": value}).decode())
            while True:
                reply = msgspec.json.decode(self._channel.receive(timeout=timeout_s), type=dict[str, msgspec.Raw])
                if "progress" in reply:
                    done, total = msgspec.json.decode(reply["progress"], type=tuple[int, int])
                    progress(done, total)
                elif "error" in reply:
                    raise _error_from_reply(msgspec.json.decode(reply["error"], type=dict[str, str]))
                else:
                    return msgspec.json.decode(reply["result"], type=kind)
        except self._channel.TimeoutError as error:
            self.close()
            raise WorkerDied(
                f"{self._label}: no sign of life for {timeout_s:.0f} s while it ran '{name}'; killed it"
                f"{self._hint(limit_option)}"
            ) from error
        except (EOFError, OSError, self._channel.RemoteError) as error:
            # What the other interpreter printed of its error; a broken pipe has nothing to add.
            said = str(error).strip().splitlines() if isinstance(error, self._channel.RemoteError) else []
            reason = self._how_it_ended() + (f" ({said[-1]})" if said else "")
            self.close()
            raise WorkerDied(f"{self._label}: the worker {reason} while it ran '{name}'{self._log_tail()}") from error

    def close(self) -> None:
        """End the process: politely, then by force."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()
        self._group.terminate(timeout=KILL_AFTER_S)

    def _process(self) -> Any:
        # execnet has no public way to a popen gateway's exit status.
        return getattr(self._gateway._io, "popen", None)

    def _how_it_ended(self) -> str:
        process = self._process()
        if process is None:
            return "closed its connection"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=KILL_AFTER_S)
        code = process.returncode
        if code is None:
            return "closed its connection"
        if code < 0:
            return f"died of {signal.Signals(-code).name}"
        return f"exited with code {code}"

    def _hint(self, limit_option: str) -> str:
        parts = [f"{limit_option} sets the limit"] if limit_option else []
        parts += [f"its output is in {self._log_path}"] if self._log_path else []
        return f" ({'; '.join(parts)})" if parts else ""

    def _log_tail(self) -> str:
        if not self._log_path or not self._log_path.exists():
            return ""
        lines = [line.strip() for line in self._log_path.read_text(errors="replace").splitlines() if line.strip()]
        return f"; last log lines: {' | '.join(lines[-LOG_TAIL_LINES:])}" if lines else ""


def _error_from_reply(reply: dict[str, str]) -> HarnessError:
    kind: Callable[[str], HarnessError] = getattr(errors, reply["kind"], HarnessError)
    return kind(reply["message"])
