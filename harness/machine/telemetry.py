"""What runtimes tell their vendors, switched off. Call it before any of them is imported; every worker does.

ONNX Runtime 1.32 makes a database and a device's id in the user's home while it is loaded, before its API can be told
not to; it reads its variable first. OpenVINO 2026 sends an event at every import, without asking and also where nobody
consented, through the package openvino_telemetry; where that is not there it uses a stub. NNCF sends through it too.
"""

from __future__ import annotations

import os
import sys

VARIABLES = {"ORT_DISABLE_TELEMETRY": "1", "NNCF_CI": "1", "DO_NOT_TRACK": "1"}
SENDERS = ("openvino_telemetry",)  # packages that do nothing else
SILENCED = ("ONNX Runtime", "OpenVINO", "NNCF")


def switch_off_telemetry() -> None:
    """Let no runtime of this process, nor of those it starts, send or keep usage data."""
    os.environ.update(VARIABLES)
    for name in SENDERS:
        # An import of it fails from now on, as if it were not installed.
        sys.modules[name] = None  # type: ignore[assignment]
