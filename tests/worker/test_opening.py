"""A case that is opened says how far calibration is, and a build of many engines how far that is."""

from pathlib import Path

import numpy as np
from onnx_nets import ArraySet

from harness.models import load_card
from harness.precision import CheckedCalibration
from harness.protocols import TellsProgress
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, TimingPlan
from harness.worker.opening import OpenCase, _ToldCalibration
from harness.worker.requests import CaseRequest

MODELS = Path(__file__).parents[2] / "models"


def test_calibration_tells_how_many_images_were_read(tmp_path):
    told = []
    request = CaseRequest(
        case=Case(model="mlp", backend="ort", precision=Precision.INT8, recipe="qdq-minmax"),
        model=load_card(MODELS / "mlp.toml"),
        data=DatasetRequest(calibration_images=250),
        build=BuildOptions(cache_dir=str(tmp_path)),
        timing=TimingPlan(batch_sizes=(1,)),
    )
    OpenCase(request, progress=lambda done, total: told.append((done, total))).artifact(request.case)
    assert {total for _, total in told} == {250}
    assert told[-1] == (250, 250)
    assert len(told) > 1


def test_a_build_of_many_engines_tells_how_many_are_built():
    told = []
    images = ArraySet(np.zeros((4, 1, 8, 8), np.float32))
    passed = _ToldCalibration(images, told.append, "build", lambda done, total: told.append((done, total)))
    for calibration in (passed, CheckedCalibration(passed, load_card(MODELS / "mlp.toml"))):
        assert isinstance(calibration, TellsProgress)
        calibration.tell(3, 16)
        assert told == ["build", (3, 16)]
        told.clear()
    CheckedCalibration(images, load_card(MODELS / "mlp.toml")).tell(3, 16)  # of a set that nobody waits for
    assert not told
