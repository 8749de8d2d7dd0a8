"""Worker processes: engines live there, never in pytest's process. A crash, a hang or a kill costs one case.

A worker is another interpreter (this one, or another venv's) that runs `service.serve`. Messages are JSON:
{"call": name, "value": ...} one way; {"stage"|"progress"|"result"|"error": ...} back.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import execnet
import msgspec

import harness
from harness import errors
from harness.errors import HarnessError, WorkerDied
from harness.protocols import Progress, no_progress
from harness.specs import STAGE_LIMITS_S, StageLimits
from harness.store.sealed import DAMAGE
from harness.worker.endings import end_of, exit_code, last_words
from harness.worker.interrupts import INTERRUPTS
from harness.worker.orphans import MARK, WATCHDOG, end_worker, make_scratch

T = TypeVar("T")
PACKAGE_PARENT = str(Path(harness.__file__).parents[1])
KILL_AFTER_S = 2.0
LOOK_S = 1.0  # between two looks at whether a silent worker is still there
STACK_S = 0.3  # for a worker to write its stack before it is killed
FIRST_STAGE = {
    "outputs_by_size": "invariance",
    "inspect_model": "inspect",
    "prepare": "import",
    "run_samples": "score",
    "export": "build",
    "probe": "import",
    "describe": "import",
    "build_reference": "build",
    "open_timers": "time",
    "time_step": "time",
    "throughput": "time",
    "origins": "import",
    "operator_names": "import",
    "run_operators": "build",
}
# The package alone is taken from here, not the folder that it lies in: in an installation that is `site-packages`, and
# another environment's worker would test this one's runtimes.
BOOTSTRAP = """
import faulthandler, importlib.util, os, signal, sys
package_parent, log_path, extension_dirs = channel.receive()
os.setsid()
log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
os.dup2(log, 1)
os.dup2(log, 2)
sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)
faulthandler.enable(file=log, all_threads=True)
faulthandler.register(signal.SIGUSR1, file=log, all_threads=True)
place = os.path.join(package_parent, "harness")
spec = importlib.util.spec_from_file_location(
    "harness", os.path.join(place, "__init__.py"), submodule_search_locations=[place]
)
sys.modules["harness"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["harness"])
from harness.machine.telemetry import switch_off_telemetry
switch_off_telemetry()
from harness.options.discovery import add_extension_dir
for folder in extension_dirs:
    add_extension_dir(folder)
from harness.worker.service import serve
serve(channel)
"""


def stage_of(name: str) -> str:
    """Return the stage that a call begins with, "" for one that belongs to the stage before it."""
    return FIRST_STAGE.get(name, name if name in STAGE_LIMITS_S else "")


class Worker:
    """One worker process. `call` may be used until it raises WorkerDied or `close` is called."""

    def __init__(
        self,
        *,
        log_path: Path | None = None,
        python: str = sys.executable,
        extension_dirs: Sequence[str] = (),
        label: str = "",
        limits: StageLimits | None = None,
    ) -> None:
        """Start the process. `log_path`: where all that it prints goes; without one it is gone at the end.

        Raises: ConfigError when the interpreter does not start.
        """
        self._label, self._limits, self._stage = label, limits or StageLimits(), "import"
        self._is_busy = False  # it was not heard to the end: nothing polite will reach it
        self._mark = uuid.uuid4().hex
        self._log_is_kept = log_path is not None
        self._log = log_path or make_scratch(self._mark) / "worker.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)  # somebody removed the run's folder meanwhile
        self._group = execnet.Group()
        WATCHDOG.add(0, self._mark)
        try:
            self._gateway = self._group.makegateway(f"popen//python={_command(python, self._mark)}")
            WATCHDOG.add(self._pid, self._mark)
            self._channel = self._gateway.remote_exec(BOOTSTRAP)
            self._channel.send((PACKAGE_PARENT, str(self._log), tuple(extension_dirs)))
        except (OSError, execnet.HostNotFound, EOFError) as error:
            self._end()
            raise errors.ConfigError(f"no worker could be started with the interpreter {python}: {error}") from error
        except BaseException:
            self._end()
            raise

    def call(self, name: str, value: object, kind: type[T], *, progress: Progress = no_progress) -> T:
        """Run one function of the service in the worker and return its result.

        Raises: the HarnessError that the worker raised; WorkerDied when it crashed, was killed, was silent for longer
        than its stage may be, or sent something that is no answer.
        """
        self._stage = stage_of(name) or self._stage
        self._is_busy = True
        try:
            self._channel.send(msgspec.json.encode({"call": name, "value": value}).decode())
            answer = self._answer(kind, progress)
        except _Silence as error:
            raise self._given_up() from error
        except (EOFError, OSError, self._channel.RemoteError) as error:
            raise self._died(error) from error
        except (*DAMAGE, KeyError) as error:
            words = last_words(self._log)
            self._end()
            raise WorkerDied(
                f"{self._label}: sent no answer but garbage during {self._stage} ({error}); killed it{words}"
            ) from error
        if isinstance(answer, HarnessError):
            raise answer
        return answer

    @property
    def is_lost(self) -> bool:
        """Tell whether nothing more can be asked of it."""
        return self._is_busy

    def close(self, *, politely: bool = True) -> None:
        """End the process: politely where it listens, then by force, with all that it has started."""
        if politely and not self._is_busy:
            with contextlib.suppress(OSError, EOFError):
                self._channel.close()
                self._gateway.exit()
            exit_code(self._process)
        self._end()

    # -- one call

    def _answer(self, kind: type[T], progress: Progress) -> T | HarnessError:
        while True:
            reply = msgspec.json.decode(self._received(), type=dict[str, msgspec.Raw])
            if "stage" in reply:
                self._stage = msgspec.json.decode(reply["stage"], type=str)
            elif "progress" in reply:
                done, total = msgspec.json.decode(reply["progress"], type=tuple[int, int])
                progress(done, total)
            elif "error" in reply:
                self._is_busy = False
                return _error_from_reply(msgspec.json.decode(reply["error"], type=dict[str, str]))
            else:
                result = msgspec.json.decode(reply["result"], type=kind)
                self._is_busy = False
                return result

    def _received(self) -> Any:
        """Return the next message. Raises: _Silence; EOFError, also where a child keeps a dead worker's pipe open."""
        until = time.monotonic() + self._limits.of(self._stage)
        while True:
            left = until - time.monotonic()
            try:
                return self._channel.receive(timeout=max(0.0, min(LOOK_S, left)))
            except self._channel.TimeoutError:
                process = self._process
                INTERRUPTS.check()
                if process is not None and process.poll() is not None:
                    raise EOFError(self._stage) from None
                if left <= 0:
                    raise _Silence from None

    # -- its end

    def _given_up(self) -> WorkerDied:
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGUSR1)  # faulthandler writes the stack, whoever holds the GIL
            time.sleep(STACK_S)
        words = last_words(self._log)
        self._end()
        where = f"; its output is in {self._log}" if self._log_is_kept else ""
        return WorkerDied(
            f"{self._label}: no sign of life for {self._limits.of(self._stage):g} s during {self._stage}; killed it"
            f"{words} (--stage-timeout={self._stage}=SECONDS sets the limit{where})"
        )

    def _died(self, error: BaseException) -> WorkerDied:
        # What the other interpreter printed of its error; a broken pipe has nothing to add.
        said = str(error).strip().splitlines() if isinstance(error, self._channel.RemoteError) else []
        ended = end_of(self._process)
        reason = f"{ended} during {self._stage}" + (f" ({said[-1]})" if said else "")
        words = last_words(self._log)
        self._end()
        return WorkerDied(f"{self._label}: {reason}{words}")

    @property
    def _process(self) -> Any:
        # execnet has no public way to a popen gateway's process.
        return getattr(getattr(getattr(self, "_gateway", None), "_io", None), "popen", None)

    @property
    def _pid(self) -> int:
        return 0 if self._process is None else int(self._process.pid)

    def _end(self) -> None:
        """Kill what is left of it, and forget it."""
        self._is_busy = True
        end_worker(self._pid, self._mark)
        WATCHDOG.drop(self._pid, self._mark)
        self._group.terminate(timeout=KILL_AFTER_S)  # its pipe is closed by now: nothing to wait for
        # A group asks to be ended with this process, and is kept until then, with all that its worker sent.
        atexit.unregister(self._group._cleanup_atexit)


class _Silence(Exception):
    """A worker said nothing for too long."""


def _command(python: str, mark: str) -> str:
    """Return the interpreter as execnet wants it: words of a shell, without the `//` that ends a part of its spec."""
    words = ["env", f"{MARK}={mark}", f"TMPDIR={make_scratch(mark)}", python]
    return " ".join(shlex.quote(re.sub("/+", "/", word)) for word in words)


def _error_from_reply(reply: dict[str, str]) -> HarnessError:
    kind: Callable[[str], HarnessError] = getattr(errors, reply["kind"], HarnessError)
    return kind(reply["message"])
