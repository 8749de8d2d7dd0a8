"""Plants in engines, in the cache and in the files of baselines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.run.drill.bench import FAULTY, MODEL, SOUND, Bench, Night
from harness.run.drill.models import altered, changed_tensor
from harness.run.drill.plant import ERROR, Alarm, Plant, alarms_of
from harness.specs import Precision
from harness.store.cache import NOTE, sha256_of_file
from harness.store.sealed import DIGEST, sealed

OLD_SCHEMA = 1


def _faulty_engine(fault: str, precision: Precision, *gates: str) -> Callable[[Bench], Sequence[Alarm]]:
    def act(bench: Bench) -> Sequence[Alarm]:
        assert bench.accepted  # the baselines are there
        return alarms_of(bench.night(Night(cases=(bench.case(FAULTY, precision),), gates=gates, fault=fault)))

    return act


def _foreign_entry(bench: Bench) -> Sequence[Alarm]:
    """Put the INT8 file of other weights where that of ours is cached, with a note that fits it."""
    assert bench.accepted
    spec = altered(bench, "foreign", weights=changed_tensor(4, lambda weights: weights[..., ::-1, ::-1]))
    ours = _cached(bench.accepted[-1])
    cases = (bench.case(FAULTY, Precision.INT8),)
    (foreign,) = bench.night(Night(cases=cases, gates=("floor",), models={MODEL: spec}))
    cache = bench.copied("foreign-cache", "cache")
    target = cache / ours.relative_to(bench.folder / "cache")
    target.write_bytes(_cached(foreign).read_bytes())
    _resealed(target.parent / NOTE, lambda note: note.update(sha256=sha256_of_file(target)))
    return alarms_of(bench.night(Night(cases=cases, gates=("fp32",)), engine_cache=str(cache)))


def _cached(record: Any) -> Path:
    assert record.artifact is not None, record.error
    return Path(record.artifact.onnx_path)


def _resealed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a file's values and give it the digest that fits them."""
    values = msgspec.json.decode(path.read_bytes())
    values.pop(DIGEST)
    change(values)
    path.write_bytes(sealed(msgspec.json.encode(values)))


def _other_baselines(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Bench], Sequence[Alarm]]:
    def act(bench: Bench) -> Sequence[Alarm]:
        assert bench.accepted
        folder = bench.copied(name, "baselines")
        for path in folder.glob("predictions/*/*/*.json"):
            _resealed(path, change)
        cases = (bench.case(SOUND, Precision.FP32),)
        return alarms_of(bench.night(Night(cases=cases, gates=("baseline",)), baseline_dir=str(folder)))

    return act


def _of_other_images(values: dict[str, Any]) -> None:
    values["scores"]["fingerprint"] = hashlib.sha256(b"other images").hexdigest()


def _backend_gone(bench: Bench) -> Sequence[Alarm]:
    assert bench.accepted
    cases = (bench.case(SOUND, Precision.FP32),)
    night = Night(cases=cases, gates=("presence",), left_out={FAULTY: "its runtime is not installed"})
    return alarms_of(bench.night(night, backends=("auto",)))


PLANTS = (
    Plant(
        name="silent_fp32",
        planted="an INT8 engine that runs in FP32 and says nothing",
        red_by=("precision",),
        act=_faulty_engine("in_float", Precision.INT8, "precision"),
    ),
    Plant(
        name="nan_output",
        planted="NaN as one output of every batch",
        red_by=(ERROR,),
        told="nan",
        act=_faulty_engine("nan", Precision.FP32, "floor"),
    ),
    Plant(
        name="previous_batch",
        planted="the outputs of the batch before",
        red_by=("reference",),
        act=_faulty_engine("stale", Precision.FP32, "reference"),
    ),
    Plant(
        name="worker_killed",
        planted="SIGKILL while images are scored",
        red_by=(ERROR,),
        told="crashed (SIGKILL",
        act=_faulty_engine("killed", Precision.FP32, "floor"),
    ),
    Plant(
        name="foreign_cache_entry",
        planted="a cache entry of other weights whose note fits it",
        red_by=("fp32",),
        act=_foreign_entry,
    ),
    Plant(
        name="stale_baseline",
        planted="a baseline of an earlier schema",
        red_by=(ERROR,),
        told=f"has schema {OLD_SCHEMA}",
        act=_other_baselines("stale", lambda values: values.update(schema=OLD_SCHEMA)),
    ),
    Plant(
        name="baseline_of_other_images",
        planted="a baseline of other images under the same name",
        red_by=("baseline",),
        told="not comparable",
        act=_other_baselines("other-images", _of_other_images),
    ),
    Plant(
        name="backend_gone",
        planted="a backend with accepted times that is not there tonight",
        red_by=("presence",),
        told="expected, did not run",
        act=_backend_gone,
    ),
)
