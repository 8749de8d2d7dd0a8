"""A timed engine is held against the outputs that were scored, before and after it is timed."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from harness.machine.clocks import HostTimer, outputs_of
from harness.measure.arms import AFTER, BEFORE
from harness.records import EngineFacts
from harness.specs import Case, Precision, TimingPlan
from harness.worker.as_scored import AsScored
from harness.worker.timers import time_engine

SCORED = np.random.default_rng(1).random((30, 10)).astype(np.float32)
PLAN = TimingPlan(batch_sizes=(1, 8), n_rounds=6, round_ns=1, warmup_ns=0)


def request_of(tmp_path, *, rows=30, n_images=30, plan=PLAN):
    path = tmp_path / "outputs.f32"
    SCORED[:rows].tofile(path)
    return SimpleNamespace(
        outputs_path=str(path),
        model=SimpleNamespace(num_classes=10, timing_only=True, input_shape=(4,), tensors=None),
        data=SimpleNamespace(scored=SimpleNamespace(n_images=n_images)),
        case=Case(model="net", backend="ort", precision=Precision.FP32, recipe="none", device="cpu"),
        timing=plan,
        build=SimpleNamespace(cache_dir=""),
    )


def right(batch):
    return SCORED[np.arange(batch) % len(SCORED)].copy()


class FakeEngine:
    """Its timers write `answer(batch, n_calls so far)` to their buffer; `keeps`: they can be read back."""

    facts = EngineFacts(build_ns=1)

    def __init__(self, answer, *, keeps=True):
        self.answer, self.keeps, self.inferred = answer, keeps, []

    def timer(self, images, *, window, launch):
        n_calls, buffer = [0], np.zeros((len(images), 10), np.float32)

        def call():
            n_calls[0] += 1
            written = self.answer(len(images), n_calls[0])
            if written is not None:
                buffer[:] = written
            sum(range(200))

        given = {"outputs": outputs_of(buffer)} if self.keeps else {}
        return HostTimer(call, batch_size=len(images), window=window, **given)

    def infer(self, images):
        self.inferred.append(len(images))
        return self.answer(len(images), 10**9)


def timed(tmp_path, answer, **options):
    engine = FakeEngine(answer, **{k: v for k, v in options.items() if k == "keeps"})
    request = request_of(tmp_path, **{k: v for k, v in options.items() if k != "keeps"})
    case = SimpleNamespace(request=request, engine=engine, turn=lambda waiting: nullcontext())
    return engine, [latency.void for latency in time_engine(case, lambda done, total: None)]


def late(batch, n_calls):
    return n_calls > 40 + batch  # after the warm-up, during the rounds


def test_right_outputs_make_valid_times_and_nothing_is_inferred(tmp_path):
    engine, voids = timed(tmp_path, lambda batch, n_calls: right(batch))
    assert voids == ["", ""]
    assert engine.inferred == [], "the timer's own buffers were read"


def test_outputs_wrong_before_timing_make_it_void(tmp_path):
    _, voids = timed(tmp_path, lambda batch, n: right(batch) + np.float32(0.01 if n < 10 else 0))
    told = f"its outputs {BEFORE} are not those that were scored: they differ by up to 0.01, accepted 0.0001"
    assert voids == [told, told]


def test_outputs_wrong_after_timing_make_it_void(tmp_path):
    plan = TimingPlan(batch_sizes=(1, 8), n_rounds=30, round_ns=1, warmup_ns=0)
    _, voids = timed(tmp_path, lambda batch, n: right(batch) * (0 if late(batch, n) else 1), plan=plan)
    assert all(void.startswith(f"its outputs {AFTER} are not those that were scored: they differ") for void in voids)


def test_only_the_batch_size_that_is_wrong_is_void(tmp_path):
    _, voids = timed(tmp_path, lambda batch, n: right(batch) if batch == 1 else right(batch)[::-1])
    assert voids[0] == ""
    assert "not those that were scored" in voids[1]


def test_an_image_far_back_in_the_batch_is_looked_at(tmp_path):
    def spoiled(batch, n_calls):
        outputs = right(batch)
        outputs[-1, 3] += 0.5
        return outputs

    plan = TimingPlan(batch_sizes=(64,), n_rounds=6, round_ns=1, warmup_ns=0)
    assert "differ by up to 0.5" in timed(tmp_path, spoiled, plan=plan)[1][0]


def test_calls_that_stop_computing_are_seen(tmp_path):
    plan = TimingPlan(batch_sizes=(1, 8), n_rounds=30, round_ns=1, warmup_ns=0)
    _, voids = timed(tmp_path, lambda batch, n: None if n > 6 else right(batch), plan=plan)
    assert all(f"{AFTER} are not those that were scored" in void and "are NaN" in void for void in voids)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_numbers_are_not_as_scored(tmp_path, value):
    _, voids = timed(tmp_path, lambda batch, n: np.full((batch, 10), value, np.float32))
    assert "10 of 10 are NaN or infinite" in voids[0]


def test_a_timer_that_keeps_nothing_is_made_up_for_once_all_is_timed(tmp_path):
    engine, voids = timed(tmp_path, lambda batch, n: right(batch), keeps=False)
    assert (voids, engine.inferred) == (["", ""], [1, 8])
    _, voids = timed(tmp_path, lambda batch, n: right(batch)[::-1] + np.float32(1), keeps=False)
    assert all(f"{AFTER} are not those" in void for void in voids)


def test_outputs_of_another_shape_are_told(tmp_path):
    outputs = AsScored(request_of(tmp_path), 8)
    outputs.verdict(SimpleNamespace(infer=lambda images: right(7)), None)
    assert outputs.void.endswith("shape [7, 10] instead of [8, 10]")


@pytest.mark.parametrize("batch", [1, 8, 30, 64])
def test_the_same_outputs_are_known_at_every_batch_size(tmp_path, batch):
    outputs = AsScored(request_of(tmp_path), batch)
    outputs.verdict(SimpleNamespace(infer=lambda images: right(batch)), None)
    assert outputs.void == ""


def test_where_nothing_was_scored_there_is_nothing_to_compare(tmp_path):
    wrong = SimpleNamespace(infer=lambda images: np.zeros((8, 10), np.float32))
    early = AsScored(request_of(tmp_path, rows=12), 8)
    early.verdict(wrong, None)
    assert early.void == "", "scoring ended early"
    request = request_of(tmp_path)
    for path in ("", str(tmp_path / "none")):
        request.outputs_path = path
        outputs = AsScored(request, 8)
        outputs.verdict(wrong, None)
        assert outputs.void == ""
