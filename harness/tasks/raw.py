"""Outputs without a meaning: no metric; a case still has latency, drift and invariance."""

from __future__ import annotations

from harness.protocols import Sample, Tensors
from harness.records import MetricScore
from harness.tasks._samples import OUTPUT, SampleTask, Settings, output_of


class NoScores:
    """Scores nothing, and refuses NaN."""

    def __init__(self, settings: Settings) -> None:
        """Begin without samples."""
        self._output = settings[OUTPUT]

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Look at the outputs of one sample. Raises: MeasurementError for NaN."""
        for name in outputs if self._output is None else (self._output,):
            output_of(outputs, name, task="raw")

    def scores(self) -> tuple[MetricScore, ...]:
        """Return no metric."""
        return ()


TASK = SampleTask(name="raw", summary="outputs of any meaning: drift only", make=NoScores, metrics=())
