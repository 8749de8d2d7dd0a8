"""The grid search of the recipe trt-search on the fake driver."""

import json
import types

import fake_tensorrt
import numpy as np
import pytest

from harness.backends.trt.searching import GRID
from harness.errors import BuildError
from harness.store.cache import ContentCache

pytestmark = pytest.mark.usefixtures("no_leak")
BEST = (0.9999, 0.75)


class Images:
    """A calibration set whose images differ; what was read of it is counted by place."""

    def __init__(self, n_images=40, shape=(1, 4, 4)):
        self.n_images, self.fingerprint, self._shape = n_images, "f" * 64, shape
        self.read = np.zeros(n_images, int)

    def batches(self, batch_size):
        values = np.random.default_rng(0).random((self.n_images, *self._shape), dtype=np.float32)
        for first in range(0, self.n_images, batch_size):
            self.read[first : first + batch_size] += 1
            yield values[first : first + batch_size]


@pytest.fixture(autouse=True)
def grid(monkeypatch):
    """Let every pair but the best overlook pixels, the more the farther it is from the best."""

    def overlooked(quantile, cutoff):
        return round(abs(np.log10(1 - quantile) - np.log10(1 - BEST[0]))) + round(8 * abs(cutoff - BEST[1]))

    monkeypatch.setattr(fake_tensorrt.Builder, "overlooked", staticmethod(overlooked))
    return overlooked


@pytest.fixture
def search(make_artifact):
    return lambda **changes: make_artifact(
        **{"shape": (-1, 1, 4, 4), "precision": "int8", "recipe": "trt-search", **changes}
    )


def grid_of(facts):
    (note,) = (text for text in facts.notes if "in search of" in text)
    return json.loads(note[note.index("{") :])


def test_the_pair_whose_engine_is_nearest_to_fp32_is_taken(build, search, images):
    given = Images()
    with build(search(), calibration=given) as engine:
        facts, found = engine.facts, engine.infer(np.ones((4, 1, 4, 4), np.float32))
        plan = engine.loaded.engine.plan
    assert plan["overlooked"] == 0
    assert found.shape == (4, 5)
    table = grid_of(facts)
    assert table["columns"] == ["quantile", "cutoff", "changed", "error"]
    assert [tuple(row[:2]) for row in table["rows"]] == list(GRID)
    assert [row[:2] for row in table["rows"] if row[3] == 0] == [list(BEST)]
    assert facts.calibration.method == (
        "legacy search: quantile 0.9999, cutoff 0.75, the best of 15 pairs on 8 images held out"
    )
    assert facts.calibration.batch_size == 32


def test_images_that_judge_do_not_calibrate(build, search, monkeypatch):
    given, calibrated = Images(), []
    real = fake_tensorrt.Builder._calibrate

    def counted(self, network, config):
        before = given.read.copy()
        real(self, network, config)
        calibrated.append(given.read - before)

    monkeypatch.setattr(fake_tensorrt.Builder, "_calibrate", counted)
    with build(search(), calibration=given):
        pass
    assert len(calibrated) == len(GRID)
    assert (calibrated[0][:32] == 1).all()
    assert (given.read[32:] > 0).all()


@pytest.fixture
def calibrations(monkeypatch):
    """Count the engines that are calibrated; the one of a number given is killed."""
    found = types.SimpleNamespace(n=0, killed_at=None)
    real = fake_tensorrt.Builder._calibrate

    def counted(self, network, config):
        found.n += 1
        if found.n == found.killed_at:
            raise KeyboardInterrupt
        real(self, network, config)

    monkeypatch.setattr(fake_tensorrt.Builder, "_calibrate", counted)
    return found


def test_a_search_that_was_killed_goes_on(build, search, calibrations, tmp_path):
    calibrations.killed_at = 7
    with pytest.raises(KeyboardInterrupt):
        build(search(), calibration=Images())
    calibrations.n, calibrations.killed_at = 0, None
    with build(search(), calibration=Images()) as engine:
        resumed, build_ns = grid_of(engine.facts), engine.facts.build_ns
        assert engine.loaded.engine.plan["overlooked"] == 0
    assert calibrations.n == len(GRID) - 6
    assert not list((tmp_path / "cache" / "searched").glob("[!.]*")), "what a search that has ended leaves is room lost"
    calibrations.n = 0
    with build(search(), calibration=Images(), rebuild=True) as engine:
        assert grid_of(engine.facts) == resumed
    assert calibrations.n == len(GRID)
    assert build_ns > 0


def test_engines_of_other_images_are_not_taken(build, search, calibrations):
    calibrations.killed_at = 7
    with pytest.raises(KeyboardInterrupt):
        build(search(), calibration=Images())
    calibrations.n, calibrations.killed_at = 0, None
    other = Images()
    other.fingerprint = "e" * 64
    with build(search(), calibration=other):
        pass
    assert calibrations.n == len(GRID)


@pytest.mark.parametrize("harm", ["damaged", "refused"])
def test_a_kept_engine_that_is_no_good_is_built_anew(build, search, calibrations, tmp_path, harm):
    calibrations.killed_at = 7
    with pytest.raises(KeyboardInterrupt):
        build(search(), calibration=Images())
    calibrations.n, calibrations.killed_at = 0, None
    kept = sorted((tmp_path / "cache" / "searched").glob("*/*-int8.plan"))
    assert len(kept) == 6
    if harm == "damaged":
        kept[0].write_bytes(b"no plan")
    else:
        note = json.loads((kept[0].parent / "entry.json").read_text())
        ContentCache(tmp_path / "cache", kind="searched").put(
            note["key"], b"no plan", name=kept[0].name, meta=note["meta"]
        )
    with build(search(), calibration=Images()) as engine:
        assert engine.loaded.engine.plan["overlooked"] == 0
        (said,) = (text for text in engine.facts.warnings if "searched before" in text)
    assert calibrations.n == len(GRID) - 5
    assert harm in said


def test_a_kept_engine_that_another_search_takes_away_meanwhile_is_built_anew(build, search, calibrations, monkeypatch):
    calibrations.killed_at = 7
    with pytest.raises(KeyboardInterrupt):
        build(search(), calibration=Images())
    calibrations.n, calibrations.killed_at = 0, None
    real, taken = ContentCache.lookup, []

    def lookup(cache, key, **needs):
        found = real(cache, key, **needs)
        if found.entry is not None and "searched" in found.entry.path and not taken:
            taken.append(found.entry.path)
            cache.drop(key)
        return found

    monkeypatch.setattr(ContentCache, "lookup", lookup)
    with build(search(), calibration=Images()) as engine:
        assert engine.loaded.engine.plan["overlooked"] == 0
    assert len(taken) == 1


def test_it_says_how_far_it_is(build, search):
    given, told = Images(), []
    given.tell = lambda done, total: told.append((done, total))
    with build(search(), calibration=given):
        pass
    n_engines = len(GRID) + 1
    assert told == [(done, n_engines) for done in range(n_engines + 1)]


def test_a_second_build_comes_from_the_cache_with_its_grid(build, search):
    told = []
    for state in ("miss", "hit"):
        given = Images()
        with build(search(), calibration=given) as engine:
            assert engine.facts.cache == state
            told.append((grid_of(engine.facts), engine.facts.calibration.method, engine.facts.build_ns))
    assert told[0] == told[1]
    assert not given.read.any()


def test_what_it_cannot_do_is_one_line(build, search):
    with pytest.raises(BuildError, match="recipe trt-search needs 10 calibration images or more"):
        build(search(), calibration=Images(n_images=9))
    with pytest.raises(BuildError, match="trt-search chooses quantile and cutoff itself; trt-legacy takes them"):
        build(search(), calibration=Images(), quantile=0.9)
    with pytest.raises(BuildError, match="needs calibration images"):
        build(search())


def test_a_model_of_a_fixed_batch_is_judged_on_whole_batches(build, search):
    with build(search(shape=(8, 1, 4, 4)), calibration=Images(n_images=50), batch_sizes=(8,)) as engine:
        assert engine.loaded.engine.plan["overlooked"] == 0
        assert engine.facts.calibration.batch_size == 8
