"""A GPU for an engine that closes it; it is let go of again where the engine cannot be made."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from harness.backends._cuda.device import CudaError, Gpu


@contextlib.contextmanager
def gpu_for_engine(index: int) -> Iterator[Gpu]:
    """Open a GPU; an error inside closes it, once what the failed calls hold is freed. Raises: BackendUnavailable."""
    gpu = Gpu(index)
    try:
        yield gpu
    except BaseException as error:
        failures: tuple[type[BaseException], ...] = (CudaError, *gpu.errors)
        with contextlib.suppress(*failures):
            gpu.synchronize()  # what was enqueued may still use what goes now
        _let_go(error)
        with contextlib.suppress(CudaError):  # that the context is broken too must not hide what broke it
            gpu.close()
        raise


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of a failed build hold: a session must not outlive its context."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__
