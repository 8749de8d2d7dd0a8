"""How a worker ended is told in one line: signal or code, its last log line, and the stack that matters."""

import subprocess
import sys

import pytest

from harness.worker.endings import MAX_LINE, end_of, last_words

CRASH = """prepare: 0.1 s
Fatal Python error: Segmentation fault

Thread 0x00007f01 (most recent call first):
  File "/x/waiter.py", line 3 in wait
  File "/x/waiter.py", line 4 in a
  File "/x/waiter.py", line 5 in b
  File "/x/waiter.py", line 6 in c

Current thread 0x00007f02 (most recent call first):
  File "/x/engine.py", line 48 in infer
  File "/x/harness/measure/scoring.py", line 175 in score_engine
  File "/x/harness/worker/service.py", line 77 in score
  File "/x/execnet/gateway_base.py", line 9 in run
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "crashed (SIGABRT)"),
        ("import os; os.kill(os.getpid(), 9)", "crashed (SIGKILL; the kernel kills so when memory runs out)"),
        ("import os; os.kill(os.getpid(), 40)", "crashed (signal 40)"),
        ("raise SystemExit(0)", "exited with code 0"),
        ("raise SystemExit(7)", "exited with code 7"),
    ],
)
def test_signal_and_code_are_named(code, words):
    assert end_of(subprocess.Popen([sys.executable, "-S", "-c", code])) == words


def test_a_process_that_lives_on_closed_its_connection(monkeypatch):
    monkeypatch.setattr("harness.worker.endings.WAIT_S", 0.05)
    process = subprocess.Popen(["sleep", "60"])
    assert end_of(process) == end_of(None) == "closed its connection"
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("one\ntwo\n\n", "; last log line: two"),
        (CRASH, "; last log line: prepare: 0.1 s; stack: infer (engine.py:48) < score_engine (scoring.py:175)"),
        ("\x1b[31mred\x07\n", "; last log line: [31mred"),
        ("x" * 5_000, f"; last log line: {'x' * MAX_LINE}"),
    ],
)
def test_the_last_words_are_the_line_before_the_stack_and_the_thread_that_crashed(tmp_path, text, words):
    (tmp_path / "log").write_text(text)
    assert last_words(tmp_path / "log") == words


def test_a_log_that_is_gone_or_endless_is_no_trouble(tmp_path):
    assert last_words(tmp_path / "nowhere") == last_words(None) == ""
    with (tmp_path / "log").open("wb") as file:
        file.truncate(1 << 33)
        file.seek(1 << 33)
        file.write(b"\nlast\n")
    assert last_words(tmp_path / "log") == "; last log line: last"


# Signals go to a process of their own: libraries that other tests load may have taken them here.
SWALLOWED = """
import os, signal
from harness.worker.interrupts import Interrupts

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
interrupts = Interrupts()
interrupts.listen()
interrupts.check()
Swallows()  # Python prints the KeyboardInterrupt and goes on
print(interrupts.name)
try:
    interrupts.check()
except KeyboardInterrupt:
    print("again")
interrupts.forget()
interrupts.check()
print(repr(interrupts.name), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""

IGNORED = """
import os, signal
from harness.worker.interrupts import Interrupts

signal.signal(signal.SIGTERM, signal.SIG_IGN)
interrupts = Interrupts()
interrupts.listen()
os.kill(os.getpid(), signal.SIGTERM)
print(repr(interrupts.name))
interrupts.forget()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
"""


@pytest.mark.parametrize(
    ("code", "printed"),
    [(SWALLOWED, ["SIGINT", "again", "'' True"]), (IGNORED, ["''", "True"])],
    ids=["swallowed by a destructor: comes again", "ignored from the start: stays ignored"],
)
def test_interrupts(code, printed):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout.splitlines()) == (0, printed), result.stderr
