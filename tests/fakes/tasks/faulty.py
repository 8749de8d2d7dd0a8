"""A task of a user's own whose metric fails at a sample; see `backends._faults`."""

import numpy as np

from harness.tasks import Naming, SampleTask, mean_score, output_of

FAILING_SAMPLE = 3


class Faulty:
    """Counts samples; all are right."""

    def __init__(self, settings):
        self.settings, self.n_samples = settings, 0

    def add(self, outputs, sample):
        from harness.backends._faults import happen  # of the fakes: there once backends were looked for

        output_of(outputs, self.settings["output"], task="faulty")
        self.n_samples += 1
        if self.n_samples == FAILING_SAMPLE:
            happen("metric")

    def scores(self):
        return (mean_score(Naming(name="right", summary="all are"), np.ones(self.n_samples)),)


TASK = SampleTask(name="faulty", summary="always right, or fails", make=Faulty, metrics=("right",))
