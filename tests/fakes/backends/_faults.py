"""Faults that a backend, a recipe or an engine may have at any stage; which one, says the environment.

NN_FAKE_FAULT is "STAGE:FAULT"; `happen(stage)` does nothing at any other stage.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

VARIABLE = "NN_FAKE_FAULT"
CHILD_SECONDS = "600"


def asked():
    stage, _, fault = os.environ.get(VARIABLE, "").partition(":")
    return stage, fault


def happen(stage):
    wanted, fault = asked()
    if stage == wanted and fault in FAULTS:
        print(f"about to fail: {fault} during {stage}", flush=True)
        FAULTS[fault]()


def segfault():
    ctypes.string_at(0)


def out_of_memory():
    """Ask for more than the process may have, as a native allocation would."""
    import resource

    limit = 6 << 30  # of address space: less than is asked, more than there is already
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    bytearray(limit)


def hang_with_the_gil():
    ctypes.PyDLL(None).sleep(int(CHILD_SECONDS))


def slow_death():
    """Close nothing, answer nothing, and die late."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.5)
    os._exit(3)


def garbage_on_stdout():
    """Write to what other programs would take for the wire; then go on. No fault: the wire is elsewhere."""
    os.write(1, b"\x00\xff{garbage" * 1000)
    print("garbage on stdout")


def garbage_on_the_channel():
    """Write to every descriptor, the wire among them."""
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\xff\x00garbage" * 100)
    time.sleep(int(CHILD_SECONDS))


def raise_in_a_callback():
    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def compare(_, __):
        raise ValueError("no such order")

    numbers = (ctypes.c_int * 2)(2, 1)
    ctypes.CDLL(None).qsort(numbers, 2, ctypes.sizeof(ctypes.c_int), compare)


def raise_in_a_thread():
    def work():
        raise ValueError("the thread broke")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def leave_a_child():
    """Start a child in a session of its own, which no signal to the group reaches; then crash."""
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({CHILD_SECONDS})"], start_new_session=True)
    os.abort()


def child_and_hang():
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({CHILD_SECONDS})"], start_new_session=True)
    hang_with_the_gil()


def raise_exception():
    raise RuntimeError("a vendor's error\nof two lines")


def raise_base_exception():
    raise KeyboardInterrupt("from inside a library")


FAULTS = {
    "segfault": segfault,
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: sys.exit(0),
    "hard_exit": lambda: os._exit(0),
    "exception": raise_exception,
    "base_exception": raise_base_exception,
    "hang": lambda: threading.Event().wait(),
    "hang_with_the_gil": hang_with_the_gil,
    "out_of_memory": out_of_memory,
    "slow_death": slow_death,
    "garbage_on_the_channel": garbage_on_the_channel,
    "garbage_on_stdout": garbage_on_stdout,
    "callback": raise_in_a_callback,
    "thread": raise_in_a_thread,
    "child": leave_a_child,
    "child_and_hang": child_and_hang,
}
HARMLESS = ("garbage_on_stdout",)  # the case goes on, and passes
# What an engine gives instead of an error: see `_numpy_engine`.
WRONG = ("wrong_dtype", "wrong_shape", "nan", "stale", "permuted", "constant_timer", "negative_timer")
