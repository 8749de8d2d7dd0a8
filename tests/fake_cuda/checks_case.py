"""A case's way through the pipeline on the fake driver: what calibrates it, what is cached, what its facts say."""

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import BuildError
from harness.models import load_engine
from harness.models.card_text import card_text, engine_spec
from harness.specs import BuildOptions, Case, DatasetRequest, ModelSpec, Precision, TimingPlan
from harness.worker import cold
from harness.worker import images as worker_images
from harness.worker.exporting import exported
from harness.worker.opening import OpenCase
from harness.worker.requests import CaseRequest

pytestmark = pytest.mark.usefixtures("no_leak")
CARD = ModelSpec(
    name="net",
    onnx_path="net.onnx",
    sha256="",
    input_name="in",
    input_shape=(1, 28, 28),
    output_name="out",
    num_classes=10,
)


@pytest.fixture
def open_case(backend, make_artifact, tmp_path, monkeypatch):
    """Open a case of ten classes; keyword arguments change its card."""
    monkeypatch.setattr(cold, "load_backend", lambda name: backend)
    opened = []

    def make(precision="int8", recipe="trt-entropy2", shape=(-1, 1, 28, 28), **card):
        request = CaseRequest(
            case=Case(model="net", backend="trt", precision=Precision(precision), recipe=recipe, device="cuda:0"),
            model=replace(CARD, **card),
            data=DatasetRequest(score_images=12, calibration_images=40),
            build=BuildOptions(cache_dir=str(tmp_path / "cache")),
            timing=TimingPlan(batch_sizes=(1, 4)),
            score_batch=4,
            artifact=make_artifact(precision=precision, recipe=recipe, classes=10, shape=shape),
        )
        opened.append(OpenCase(request))
        return opened[-1]

    yield make
    for case in opened:
        case.close()


@pytest.mark.parametrize(
    "card", [{"scale": 1 / 128}, {"mean": (0.5,)}, {"std": (0.5,)}], ids=lambda card: next(iter(card))
)
def test_images_preprocessed_by_another_card_calibrate_anew(open_case, card):
    assert [open_case().prepare().engine.cache for _ in range(2)] == ["miss", "hit"]
    other = open_case(**card).prepare().engine
    assert other.cache == "miss"
    assert other.calibration.fingerprint != open_case().prepare().engine.calibration.fingerprint


def test_the_calibration_table_is_kept_apart_too(open_case, tmp_path):
    for card in ({}, {"scale": 1.0}):
        open_case(**card).prepare()
    tables = {path.read_bytes() for path in (tmp_path / "cache" / "calibrations").glob("*/calibration.cache")}
    assert len(tables) == 2


@pytest.mark.parametrize(
    ("value", "says"), [(0, "calibration image 0 is constant"), (None, "all 40 calibration images are the same")]
)
def test_blank_or_equal_images_calibrate_nothing(open_case, monkeypatch, tmp_path, value, says):
    one = np.arange(28 * 28, dtype=np.uint8).reshape(1, 28, 28)
    pixels = one if value is None else np.full_like(one, value)

    class Stuck:
        name, split, n_images, num_classes, image_shape = "stuck", "train", 100, 10, (28, 28)

        def read(self, first, stop):
            return np.repeat(pixels, stop - first, axis=0), np.zeros(stop - first, np.int64)

    monkeypatch.setattr(worker_images, "open_dataset", lambda *_, **__: Stuck())
    with pytest.raises(BuildError, match=says):
        open_case().prepare()
    assert not list(tmp_path.glob("cache/plans/*/*.plan"))
    assert not list(tmp_path.glob("cache/calibrations/*/*"))


def test_a_plan_is_exported_and_taken_back_as_it_is(open_case, tmp_path):
    case = open_case("fp32", "none")
    case.prepare()
    images = np.random.default_rng(0).random((4, 1, 28, 28), dtype=np.float32)
    expected, written = case.engine.infer(images), exported(case, str(tmp_path / "net.plan"))
    assert written.is_engine
    (tmp_path / "net.toml").write_text(
        card_text(
            engine_spec(
                case.request.model,
                case.request.case,
                sha256=written.sha256,
                runtime=written.runtime,
                batch_size=written.batch_size,
            ),
            file="net.plan",
            provenance="",
        )
    )
    model = load_engine(tmp_path / "net.plan")
    given = replace(case.request, model=model, artifact=None, case=replace(case.request.case, recipe="given"))
    opened = OpenCase(given)
    prepared = opened.prepare()
    assert opened.engine.infer(images).tobytes() == expected.tobytes()
    assert prepared.engine.file.sha256 == prepared.artifact.sha256 == written.sha256
    opened.close()
    (tmp_path / "net.plan").write_bytes(b"a plan of another version")
    other = OpenCase(replace(given, model=replace(model, sha256="")))
    with pytest.raises(BuildError, match=r"refused the plan: .*its card says that fake_tensorrt \S+ built it"):
        other.prepare()
    other.close()
