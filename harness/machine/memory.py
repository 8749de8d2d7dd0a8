"""How much memory this process has held at most."""

from __future__ import annotations

import re
from pathlib import Path

STATUS = Path("/proc/self/status")
KIB = 1024


def peak_host_bytes(status: Path = STATUS) -> int | None:
    """Return the high-water mark of this process's resident set [bytes]; None where the system does not tell.

    `getrusage` is no substitute: its figure is inherited from the process that started this one.
    Source: proc_pid_status(5), VmHWM.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * KIB if found else None
