"""A case that is opened says how far calibration is."""

from pathlib import Path

from harness.models import load_card
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, TimingPlan
from harness.worker.opening import OpenCase
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
