"""What latency verdicts rest on: the calibration of each type of device, read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.records import Record, TimingBasis, TimingCalibration
from harness.report.calibration import calibration_lines, calibration_sentence
from harness.stats.calibrated import case_spreads, timing_basis
from harness.store.timing_calibrations import load_calibration, save_calibration, with_night


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


def stored_night(calibration: TimingCalibration, root: Path, *, width: int) -> list[str]:
    """Store tonight's calibration of a type of device with its earlier nights, and return what to say of it.

    Raises: BaselineError for a damaged file, ConfigError where it cannot be written.
    """
    merged = with_night(calibration, load_calibration(root, calibration.device_type))
    told = calibration_lines(merged, case_spreads(merged), width=width)
    return ["", *told, f"wrote {save_calibration(root, merged)}"]


def calibration_notes(baseline_dir: str, records: Sequence[Record]) -> list[str]:
    """Say of every type of device whose times were judged how often its gate was wrong when that was measured.

    Raises: BaselineError for a damaged calibration.
    """
    judged = {record.environment.device_type for record in records if record.timing_basis.calibrated_at}
    notes = []
    for device in sorted(judged):
        calibration = load_calibration(Path(baseline_dir), device)
        if calibration is not None:
            spreads = case_spreads(calibration, n_injected=1)  # all that the sentence tells
            notes.append(f"times on {device}: {calibration_sentence(calibration, spreads)}")
    return notes
