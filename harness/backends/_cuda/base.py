"""What every engine on a GPU has, whatever it runs: facts, timers, and an orderly end."""

from __future__ import annotations

import atexit
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Protocol, TypeVar

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.host_timer import WINDOW as HOST_WINDOW
from harness.backends._cuda.host_timer import CudaHostTimer
from harness.backends._cuda.moves import Moves, work_of_window
from harness.backends._cuda.timer import CudaTimer
from harness.errors import MeasurementError
from harness.records import EngineFacts

T = TypeVar("T", bound="CudaBase")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedWork:
    """One inference on buffers of a timer, as the timer repeats it."""

    bind: Callable[[], int]  # makes the engine ready; its number changes when captured graphs have become invalid
    run: Callable[[], object]  # enqueues one inference on the timer's stream
    entries_per_call: int  # of the stream's queue, about
    launch: str
    can_capture: bool = True


class _Closes(Protocol):
    def close(self) -> None: ...


class KeepsFacts:
    """What is known of an engine, and notes that join it while the engine runs."""

    _facts: EngineFacts

    @property
    def facts(self) -> EngineFacts:
        """What is known of the engine by now."""
        return self._known(self._facts)

    @facts.setter
    def facts(self, facts: EngineFacts) -> None:
        self._facts = facts

    def _known(self, facts: EngineFacts) -> EngineFacts:
        """Add what changes while the engine runs."""
        return facts

    def _note(self, text: str) -> None:
        """Keep once what the user should know."""
        if text not in self._facts.notes:
            self._facts = replace(self._facts, notes=(*self._facts.notes, text))


class CudaBase(KeepsFacts, ABC):
    """A built engine on one GPU; closes the GPU when it is closed itself.

    A subclass sets `facts`, then calls `_opened` once its engine can run; from then on the engine is closed at the end
    of the process at the latest: a context left on the stack aborts the process.
    """

    def __init__(self, gpu: Gpu, *, label: str) -> None:
        self._gpu, self._label = gpu, label
        self._compute: Any = gpu.stream()  # of every inference but those that overlap
        self._lent: list[_Closes] = []  # timers and contexts, closed with the engine
        self.closed = True

    @abstractmethod
    def _free(self) -> None:
        """Free the engine and all that lies on the GPU, its streams last; the CUDA context is still there."""

    @abstractmethod
    def _drop_buffers(self) -> None:
        """Let go of buffers and graphs; nothing runs any more."""

    def close(self) -> None:
        """Free everything, then the context; a second call does nothing.

        Raises: CudaError when a fault on the device has broken the context.
        """
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        try:
            self._gpu.synchronize()
        except self._gpu.errors:
            self._gpu.close()  # says what is broken; what lies in a broken context goes with the process
            return
        for lent in self._lent:
            lent.close()
        self._lent = []
        self._drop_buffers()
        self._free()
        del self._compute
        self._gpu.close()

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> None:
        self.closed = False
        atexit.register(self.close)

    def _new_timer(
        self, timed: TimedWork, moves: Moves, *, stream: Any, batch_size: int, window: str
    ) -> CudaTimer | CudaHostTimer:
        """Return a timer of one inference, whose inputs are in page-locked memory already.

        Raises: ConfigError for a window or launch that this engine lacks, MeasurementError.
        """
        is_host = window == HOST_WINDOW
        work = work_of_window("end_to_end" if is_host else window, timed.run, moves, label=self._label)
        by_host = partial(CudaHostTimer, moves=moves)
        by_events = partial(
            CudaTimer, window=window, entries_per_call=timed.entries_per_call, outputs=moves.read_outputs
        )
        make: Callable[..., CudaTimer | CudaHostTimer] = by_host if is_host else by_events
        try:
            moves.copy_in()
            timer = make(
                self._gpu,
                stream,
                work=work,
                bind=timed.bind,
                batch_size=batch_size,
                launch=timed.launch,
                can_capture=timed.can_capture,
                note=self._note,
            )
        except self._gpu.errors as error:
            raise self._failed(f"timing batch {batch_size} failed on the device", error) from error
        self._lent.append(timer)
        return timer

    def _failed(self, what: str, error: BaseException) -> MeasurementError:
        return MeasurementError(f"{self._label}: {what}: {error}")

    def _check_open(self) -> None:
        if self.closed:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")
