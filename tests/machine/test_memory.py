"""The peak of a process's memory is its own."""

import subprocess
import sys

import numpy as np
import pytest

from harness.machine.memory import peak_host_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it in /proc")


def test_memory_that_was_held_and_freed_is_counted():
    before = peak_host_bytes()
    held = np.ones(64 << 20, np.uint8)
    del held
    assert peak_host_bytes() >= before
    assert peak_host_bytes() > 64 << 20


def test_a_process_does_not_count_what_its_parent_held():
    held = np.ones(256 << 20, np.uint8)
    code = "from harness.machine.memory import peak_host_bytes; print(peak_host_bytes())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(found.stdout) < held.nbytes


def test_a_system_that_does_not_tell_has_none(tmp_path):
    assert peak_host_bytes(tmp_path / "none") is None
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t 100 kB\n")
    assert peak_host_bytes(tmp_path / "status") is None
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  100 kB\n")
    assert peak_host_bytes(tmp_path / "status") == 102_400
