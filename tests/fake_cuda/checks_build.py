"""Building on the fake driver: errors, caches, calibrators, options."""

import json

import fake_tensorrt
import numpy as np
import pytest

from harness.backends import trt
from harness.backends._trt_calibrator import ranges_from_calibration_cache
from harness.errors import BuildError, ConfigError

pytestmark = pytest.mark.usefixtures("no_leak")


class Images:
    """A calibration set of 40 images; `spoil` changes a batch."""

    def __init__(self, spoil=None, n_images=40, shape=(1, 4, 4), fingerprint="f" * 64):
        self.n_images, self.fingerprint, self._spoil, self._shape = n_images, fingerprint, spoil, shape
        self.read = 0

    def batches(self, batch_size):
        for first in range(0, self.n_images, batch_size):
            batch = np.full((min(batch_size, self.n_images - first), *self._shape), first / 10, np.float32)
            self.read += len(batch)
            yield self._spoil(batch) if self._spoil and first else batch


@pytest.fixture
def small(make_artifact):
    return lambda **changes: make_artifact(**{"shape": (-1, 1, 4, 4), **changes})


def test_a_second_build_comes_from_the_cache(build, small):
    fake_tensorrt.built.clear()
    states, facts = [], []
    for _ in range(2):
        with build(small()) as engine:
            states.append(engine.facts.cache)
            facts.append(engine.facts)
    assert states == ["miss", "hit"]
    assert fake_tensorrt.built == ["net"]
    assert facts[0].options == facts[1].options
    assert facts[0].engine_bytes == facts[1].engine_bytes > 0
    assert facts[0].device_memory_bytes == 4096
    assert "loaded from the engine cache" in facts[1].notes[0]


def test_rebuild_ignores_the_cache(build, small):
    for rebuild, state in ((False, "miss"), (True, "rebuilt"), (False, "hit")):
        with build(small(), rebuild=rebuild) as engine:
            assert engine.facts.cache == state


@pytest.mark.parametrize(
    "change",
    [
        {"tf32": True},
        {"workspace_bytes": 1 << 20},
        {"optimization_level": 5},
        {"tactic_sources": ("JIT_CONVOLUTIONS",)},
        {"profiles": ((1, 2, 4),)},
        {"hardware_compatible": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_option_is_another_plan(build, small, change):
    with build(small()):
        pass
    with build(small(), **change) as engine:
        assert engine.facts.cache == "miss"


def test_a_plan_of_another_version_is_never_loaded(build, small, monkeypatch):
    with build(small()):
        pass
    monkeypatch.setattr(fake_tensorrt, "__version__", "8.6.1")
    with build(small()) as engine:
        assert engine.facts.cache == "miss"


@pytest.mark.parametrize(
    ("variable", "value", "state"),
    [
        ("FAKE_DRIVER", "580.99.01", "hit"),  # the same major
        ("FAKE_DRIVER", "590.10", "miss"),
        ("FAKE_DRIVER", "", "miss"),  # unknown is no match
        ("FAKE_CUDA_VERSION", "13010", "miss"),
    ],
)
def test_a_plan_of_another_driver_major_or_cuda_is_never_loaded(build, small, environment, variable, value, state):
    with build(small()):
        pass
    environment(variable, value)
    with build(small()) as engine:
        assert engine.facts.cache == state


def test_a_plan_of_another_revision_of_the_adapter_is_never_loaded(build, small, monkeypatch):
    artifact, images = small(precision="int8", recipe="trt-entropy2"), [Images() for _ in range(2)]
    with build(artifact, calibration=images[0]):
        pass
    monkeypatch.setattr("harness.backends.trt.PLAN_REVISION", trt.PLAN_REVISION + 1)
    with build(artifact, calibration=images[1]) as engine:
        assert engine.facts.cache == "miss"
    assert images[1].read == 40  # nor is its calibration table


def test_a_damaged_plan_is_rebuilt_and_said_so(build, small, tmp_path):
    with build(small()):
        pass
    (plan,) = (tmp_path / "cache" / "plans").glob("*/*.plan")
    plan.write_bytes(plan.read_bytes()[:-1])
    with build(small()) as engine:
        assert engine.facts.cache == "rebuilt"
        assert "damaged" in engine.facts.notes[0]
    with build(small()) as engine:
        assert engine.facts.cache == "hit"


def test_a_plan_that_tensorrt_refuses_is_rebuilt(build, small, monkeypatch):
    with build(small()):
        pass
    real, refused = fake_tensorrt.Runtime.deserialize_cuda_engine, []

    def once(self, data):
        if refused:
            return real(self, data)
        refused.append(1)
        self._logger.log(fake_tensorrt.ILogger.Severity.ERROR, "made by another version")
        return None

    monkeypatch.setattr(fake_tensorrt.Runtime, "deserialize_cuda_engine", once)
    with build(small()) as engine:
        assert engine.facts.cache == "rebuilt"
        assert "made by another version" in engine.facts.notes[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"error": "false"}, r"net.onnx: TensorRT 8.6.0 cannot parse it: node 3: this operator is not supported"),
        ({"error": "bad scale"}, "bad scale"),
        ({"empty": True}, "the model is empty"),
        ({"unbuildable": True}, "built no engine: out of memory"),
        ({"shape": (-1, 1, -1, 4)}, "only the first dimension"),
        ({"shape": (4, 1, 4, 4)}, r"batch 1 lies in no profile \(4..4"),
    ],
)
def test_a_bad_model_is_named(build, make_artifact, changes, says):
    with pytest.raises(BuildError, match=says):
        build(make_artifact(**changes))


@pytest.mark.parametrize(
    ("trt", "says"),
    [
        ({"profiles": ((4, 2, 8),)}, "profile 4,2,8: expected 1 <= min <= opt <= max"),
        ({"profiles": ((2, 4, 4),)}, r"batch 1 lies in no profile \(2..4"),
        ({"plugins": ("/nowhere/lib.so",)}, "there is no such file"),
        ({"plugins": (__file__,)}, "cannot be loaded"),
    ],
)
def test_bad_options_are_named(build, trt, says):
    with pytest.raises(BuildError, match=says):
        build(**trt)


def test_an_unknown_tactic_source_or_device_is_named(build):
    with pytest.raises(ConfigError, match=r"CUDNN_9.*CUBLAS, EDGE"):
        build(tactic_sources=("CUDNN_9",))
    with pytest.raises(ConfigError, match="no CUDA device"):
        build(device="cpu")


def test_flags_and_options_are_read_back(build, small):
    with build(small(precision="int8", recipe="qdq-minmax", qdq=True), tactic_sources=("JIT_CONVOLUTIONS",)) as engine:
        options = engine.facts.options
    assert options["typing"] == "weak"
    assert options["flags"] == "FP16|INT8"
    assert options["tf32"] == "off"
    assert options["tactic_sources"] == "JIT_CONVOLUTIONS"
    assert options["profiles"] == "1..4 (opt 4)"


@pytest.mark.parametrize("recipe", ["trt-entropy2", "trt-legacy"])
def test_a_calibrator_reads_every_image_once(build, small, recipe):
    images = Images()
    artifact = small(precision="int8", recipe=recipe)
    with build(artifact, calibration=images) as engine:
        assert engine.facts.calibration.batch_size == 40
        assert engine.facts.calibration.fingerprint == "f" * 64
        assert engine.facts.calibration.method == recipe.removeprefix("trt-")
    assert images.read == 40
    again = Images()
    with build(artifact, calibration=again, tf32=True) as engine:  # another plan, the same calibration cache
        assert engine.facts.cache == "miss"
    assert again.read == 0
    other = Images(fingerprint="0" * 64)
    with build(artifact, calibration=other):
        pass
    assert other.read == 40


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda b: np.where(b > 0, np.nan, b), "calibration image 128 holds NaN"),
        (lambda b: b[:, :, :2], "expected float32"),
        (lambda b: b[:1], "expected float32"),
        (lambda b: b.astype(np.float64), "float64"),
        (lambda b: 1 / 0, "division by zero"),
    ],
)
def test_a_bad_calibration_batch_fails_the_build(build, small, spoil, says):
    artifact = small(precision="int8", recipe="trt-entropy2")
    with pytest.raises(BuildError, match=says):
        build(artifact, calibration=Images(spoil, n_images=256))


def test_calibration_needs_images_that_can_be_cut_evenly(build, small):
    artifact = small(precision="int8", recipe="trt-entropy2")
    for images, says in ((None, "none were given"), (Images(n_images=997), "equal batches")):
        with pytest.raises(BuildError, match=says):
            build(artifact, calibration=images)


def test_qdq_and_calibrator_exclude_each_other(build, small):
    with pytest.raises(BuildError, match="would ignore the calibrator"):
        build(small(precision="int8", recipe="trt-entropy2", qdq=True), calibration=Images())


def test_a_calibrator_this_version_lacks_is_refused(build, small, backend):
    assert not backend.api().has_calibrator("trt-minmax")
    with pytest.raises(BuildError, match="no calibrator of this kind"):
        build(small(precision="int8", recipe="trt-minmax"), calibration=Images())


def test_ranges_reach_every_tensor(build, small, tmp_path):
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps({"in": 1.5, "out": 3.0}))
    with build(small(precision="int8", recipe="trt-ranges"), ranges_file=str(path)) as engine:
        ranges = engine._engine.plan["ranges"]
    assert ranges == {"in": [-1.5, 1.5], "w": [-2.0, 2.0], "s": [-1.5, 1.5], "out": [-3.0, 3.0], "p": [-1.0, 1.0]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Expecting"),
        ("[1]", "JSON object"),
        ('{"in": 0}', "above 0"),
        ('{"in": 1.0}', "lacks 1 of 5 tensors: out"),
    ],
)
def test_a_bad_ranges_file_is_named(build, small, tmp_path, text, says):
    path = tmp_path / "ranges.json"
    path.write_text(text)
    with pytest.raises(BuildError, match=says):
        build(small(precision="int8", recipe="trt-ranges"), ranges_file=str(path))
    with pytest.raises(BuildError, match="--trt-ranges"):
        build(small(precision="int8", recipe="trt-ranges"))


def test_ranges_come_from_a_calibration_cache(build, small, tmp_path):
    with build(small(precision="int8", recipe="trt-entropy2"), calibration=Images()):
        pass
    (cache,) = (tmp_path / "cache" / "calibrations").glob("*/calibration.cache")
    assert ranges_from_calibration_cache(cache.read_bytes()) == {"in": 0.0, "out": 127.0}


def test_the_timing_cache_is_kept_and_reused(build, small, tmp_path):
    for n, sha in enumerate(("b" * 64, "c" * 64)):
        with build(small(sha256=sha)):
            pass
        (file,) = (tmp_path / "cache" / "timing").glob("*/timing.cache")
        assert file.read_bytes() == b"timing:" * (n + 1)
