"""What latency verdicts rest on: the calibration of each type of device, read once."""

from __future__ import annotations

from pathlib import Path

from harness.gates import timing_basis
from harness.records import Record, TimingBasis, TimingCalibration
from harness.store.timing_calibrations import load_calibration


class TimingBases:
    """The calibrations below one folder of baselines."""

    def __init__(self, baseline_dir: str) -> None:
        self._root = Path(baseline_dir)
        self._known: dict[str, TimingCalibration | None] = {}  # by type of device

    def of(self, record: Record) -> TimingBasis:
        """Return what is known of a case's times on its type of device. Raises: BaselineError for a damaged file."""
        device = record.environment.device_type
        if device not in self._known:
            self._known[device] = load_calibration(self._root, device)
        return timing_basis(self._known[device], record.case.id)
