"""Which batch sizes the invariance check tries: those a backend names, else small ones as well."""

import numpy as np
import pytest

from harness.protocols import no_progress
from harness.records import Support
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, TimingPlan
from harness.worker import cold, inspecting, opening
from harness.worker.requests import CaseRequest


class Plain:
    required_modules = ()

    def supports(self, case):
        return Support(supported=True)


class Bounded(Plain):
    def batch_bounds(self, options):
        return tuple(options.settings["mine"]["bounds"])


@pytest.mark.parametrize(
    ("backend", "bounds", "sizes"),
    [(Plain(), (), (1, 2, 8, 64)), (Bounded(), (), (1, 2, 8, 64)), (Bounded(), (3, 5, 9), (3, 5, 9))],
)
def test_a_backend_may_name_the_batches_to_try(spec, monkeypatch, backend, bounds, sizes):
    tried = []
    monkeypatch.setattr(cold, "load_backend", lambda name: backend)
    monkeypatch.setattr(opening.OpenCase, "engine", object())
    monkeypatch.setattr(inspecting, "INVARIANCE_IMAGES", 8)
    monkeypatch.setattr(
        inspecting, "check_invariance", lambda *args, batch_sizes, **rest: tried.append(batch_sizes) or ()
    )
    monkeypatch.setattr(
        inspecting, "timing_images", lambda model, data, size, pictures: np.zeros((size, 1), np.float32)
    )
    request = CaseRequest(
        case=Case(model="tiny", backend="mine", precision=Precision.FP32, recipe="none"),
        model=spec,
        data=DatasetRequest(),
        build=BuildOptions(settings={"mine": {"bounds": bounds}}),
        timing=TimingPlan(batch_sizes=(64,)),
        score_batch=64,
    )
    inspecting.invariance(opening.OpenCase(request), no_progress)
    assert tried == [sizes]
