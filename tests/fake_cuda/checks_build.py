"""Building on the fake driver: errors, caches, calibrators, options."""

import hashlib
import json

import fake_tensorrt
import numpy as np
import pytest

from harness.backends._cuda.device import Gpu
from harness.backends.trt import keys as trt
from harness.backends.trt.calibrator import ranges_from_calibration_cache
from harness.errors import BuildError, ConfigError, DataError

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
    monkeypatch.setattr("harness.backends.trt.keys.PLAN_REVISION", trt.PLAN_REVISION + 1)
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
        assert "damaged" in engine.facts.warnings[0]
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
        assert "made by another version" in engine.facts.warnings[0]


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
    assert options["profiles"] == "1..1 (opt 1), 1..4 (opt 4)"


def test_int8_without_the_fp16_flag(build, small):
    with build(small(precision="int8", recipe="qdq-minmax", qdq=True), int8_only=True) as engine:
        assert engine.facts.options["flags"] == "INT8"
    # What TensorRT quantizes itself, it may also leave in FP32 where that is faster, unless it is held to INT8.
    artifact = small(precision="int8", recipe="trt-entropy2")
    with build(artifact, calibration=Images(), int8_only=True) as engine:
        assert engine.facts.options["flags"] == "INT8|OBEY_PRECISION_CONSTRAINTS"
    with build(artifact, calibration=Images()) as engine:
        assert engine.facts.options["flags"] == "FP16|INT8"
        assert engine.facts.cache == "miss"


@pytest.mark.parametrize("recipe", ["trt-entropy", "trt-entropy2", "trt-legacy"])
def test_a_calibrator_reads_every_image_once(build, small, recipe):
    images = Images()
    artifact = small(precision="int8", recipe=recipe)
    with build(artifact, calibration=images) as engine:
        assert engine.facts.calibration.batch_size == 40
        assert engine.facts.calibration.fingerprint == "f" * 64
        assert engine.facts.calibration.method == recipe.removeprefix("trt-")
        assert [one.tensor for one in engine.facts.calibration.tensors] == ["in", "out"]
        assert engine.facts.warnings == ()
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


def test_the_table_of_a_calibrator_is_told_after_a_cache_hit_too(build, small):
    artifact, told = small(precision="int8", recipe="trt-entropy2"), []
    for state, changes in (("miss", {}), ("hit", {}), ("miss", {"tf32": True})):  # built, loaded, given its table
        with build(artifact, calibration=Images(), **changes) as engine:
            assert engine.facts.cache == state
            told.append([(row.tensor, round(row.threshold, 3)) for row in engine.facts.calibration.tensors])
    assert told[0] == [("in", 0.0), ("out", 127.0)]
    assert told == [told[0]] * 3


def test_calibration_is_fed_with_the_batch_that_is_asked_for(build, small):
    artifact = small(precision="int8", recipe="trt-entropy")
    for asked, images in ((20, Images()), (None, Images()), (20, Images())):
        with build(artifact, calibration=images, calibration_batch=asked) as engine:
            assert engine.facts.calibration.batch_size == (asked or 40)
    with pytest.raises(BuildError, match=r"--calibration-batch=16: 40 calibration images .*ask for 32 with"):
        build(artifact, calibration=Images(), calibration_batch=16)
    with pytest.raises(BuildError, match=r"--calibration-batch=64: 40 calibration images .*ask for 64 with"):
        build(artifact, calibration=Images(), calibration_batch=64)


def test_a_model_of_a_fixed_batch_is_calibrated_with_no_other(build, make_artifact):
    artifact = make_artifact(shape=(8, 1, 4, 4), precision="int8", recipe="trt-entropy2")
    with pytest.raises(BuildError, match="--calibration-batch=20: the model takes batches of 8 only"):
        build(artifact, calibration=Images(), batch_sizes=(8,), calibration_batch=20)
    with build(artifact, calibration=Images(), batch_sizes=(8,), calibration_batch=8) as engine:
        assert engine.facts.calibration.batch_size == 8


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
        ranges = engine.loaded.engine.plan["ranges"]
    assert ranges == {"in": [-1.5, 1.5], "w": [-2.0, 2.0], "s": [-1.5, 1.5], "out": [-3.0, 3.0], "p": [-1.0, 1.0]}


def test_ranges_come_from_a_calibration_table(build, small, tmp_path):
    path = tmp_path / "fleet.table"
    path.write_text("TRT-8601-EntropyCalibration2\nin: 00000000\nout: 3f800000\n")
    with build(small(precision="int8", recipe="trt-ranges"), ranges_file=str(path)) as engine:
        ranges = engine.loaded.engine.plan["ranges"]
    assert (ranges["in"], ranges["out"]) == ([-1.0, 1.0], [-127.0, 127.0])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Expecting"),
        ("[1]", "or JSON that maps tensor names"),
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
        assert len(file.read_bytes().split()) == n + 1


def test_a_rebuild_measures_anew_and_loses_no_other_case(build, small, tmp_path):
    artifacts = [small(sha256=sha * 64) for sha in "bcd"]
    for artifact in artifacts:
        with build(artifact):
            pass
    (file,) = (tmp_path / "cache" / "timing").glob("*/timing.cache")
    before = file.read_bytes().split()
    for artifact in artifacts[:2]:
        with build(artifact, rebuild=True) as engine:
            assert not engine.facts.warnings
    after = file.read_bytes().split()
    assert len(after) == 5
    assert set(before) < set(after)
    assert after[0] == f"tactic{len(fake_tensorrt.built)}".encode()  # nothing was read before it was built


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_refused_timing_cache_is_replaced_and_said_so(build, small, tmp_path, rebuild):
    with build(small()):
        pass
    (file,) = (tmp_path / "cache" / "timing").glob("*/timing.cache")
    file.write_bytes(b"foreign")
    entry = file.parent / "entry.json"
    content = json.loads(entry.read_text())
    entry.write_text(json.dumps({**content, "sha256": hashlib.sha256(b"foreign").hexdigest()}))
    with build(small(sha256="b" * 64), rebuild=rebuild) as engine:
        (said,) = engine.facts.warnings
    assert "timing cache" in said
    assert b"foreign" not in file.read_bytes()


@pytest.mark.parametrize("kind", ["timing", "calibrations"])
def test_a_damaged_cache_beside_the_plans_is_made_anew_and_said_so(build, small, tmp_path, kind):
    artifact = small(precision="int8", recipe="trt-entropy2")
    with build(artifact, calibration=Images()) as engine:
        assert engine.facts.warnings == ()
    (file,) = (tmp_path / "cache" / kind).glob("*/*.cache")
    file.write_bytes(b"")
    for state in ("miss", "hit"):
        with build(artifact, calibration=Images(), tf32=True) as engine:
            assert engine.facts.cache == state
            said = [text for text in engine.facts.warnings if "damaged and is made anew" in text]
            assert len(said) == len(engine.facts.warnings) == (state == "miss")
    assert file.read_bytes()


def test_errors_of_the_build_are_shown_after_a_cache_hit_too(build, small):
    for state in ("miss", "hit"):
        with build(small(complaint="a tactic failed")) as engine:
            assert engine.facts.cache == state
            assert engine.facts.log_errors == ("a tactic failed",)


@pytest.mark.parametrize("offered", [False, True], ids=["no table", "a refused table"])
def test_calibration_that_ends_early_fails_and_is_not_kept(build, small, tmp_path, monkeypatch, offered):
    artifact = small(precision="int8", recipe="trt-entropy2")
    if offered:
        with build(artifact, calibration=Images(n_images=256)):
            pass
    tables = {path.read_bytes() for path in tmp_path.glob("cache/calibrations/*/calibration.cache")}
    monkeypatch.setattr(fake_tensorrt.Builder, "refuses_tables", True)
    monkeypatch.setattr(fake_tensorrt.Builder, "n_batches_read", 1)
    with pytest.raises(BuildError, match="calibration read 128 of 256 images"):
        build(artifact, calibration=Images(n_images=256), tf32=True)
    assert {path.read_bytes() for path in tmp_path.glob("cache/calibrations/*/calibration.cache")} == tables


def test_a_refused_calibration_table_is_made_anew_and_said_so(build, small, monkeypatch):
    artifact, again = small(precision="int8", recipe="trt-entropy2"), Images(n_images=256)
    with build(artifact, calibration=Images(n_images=256)):
        pass
    monkeypatch.setattr(fake_tensorrt.Builder, "refuses_tables", True)
    with build(artifact, calibration=again, tf32=True) as engine:
        (said,) = engine.facts.warnings
    assert "calibration table" in said
    assert again.read == 256


def test_what_comes_after_the_last_batch_is_heard_though_tensorrt_does_not_ask(build, small, monkeypatch):
    class EndsBadly(Images):
        def batches(self, batch_size):
            yield from super().batches(batch_size)
            raise DataError("all images are the same")

    monkeypatch.setattr(fake_tensorrt.Builder, "n_batches_read", 1)
    with pytest.raises(BuildError, match="all images are the same"):
        build(small(precision="int8", recipe="trt-entropy2"), calibration=EndsBadly())


def test_a_fixed_batch_is_what_calibration_was_fed_with(build, make_artifact):
    artifact = make_artifact(shape=(8, 1, 4, 4), precision="int8", recipe="trt-entropy2")
    for state in ("miss", "hit"):
        with build(artifact, calibration=Images(), batch_sizes=(8,)) as engine:
            assert engine.facts.cache == state
            assert engine.facts.calibration.batch_size == 8


def test_a_table_that_only_tensorrt_can_read_costs_the_ranges_and_not_the_engine(build, small, monkeypatch):
    monkeypatch.setattr(fake_tensorrt.Builder, "table_header", "TensorRT 99 #7")
    for cache in ("miss", "hit"):
        with build(small(precision="int8", recipe="trt-entropy2"), calibration=Images()) as engine:
            assert (engine.facts.cache, engine.facts.calibration.tensors) == (cache, ())
            (warning,) = engine.facts.warnings
            assert "the ranges of TensorRT's calibration are not told" in warning
            assert "its first line is 'TensorRT 99 #7'" in warning


def test_what_shaped_an_engine_is_in_its_options(build, small, tmp_path):
    ranges = tmp_path / "ranges.json"
    ranges.write_text(json.dumps({"in": 1.5, "out": 3.0}))
    digest = hashlib.sha256(ranges.read_bytes()).hexdigest()
    with build(small(precision="int8", recipe="trt-ranges"), ranges_file=str(ranges)) as engine:
        assert engine.facts.options["ranges"] == f"ranges.json {digest[:16]}"
        assert engine.facts.options["plugins"] == "none"
        assert engine.facts.options["cuda_provider"] in ("pycuda", "cuda-bindings")
    legacy = small(precision="int8", recipe="trt-legacy")
    for given, told in (({}, ("0.999999", "1.0")), ({"quantile": 0.5, "cutoff": 0.25}, ("0.5", "0.25"))):
        with build(legacy, calibration=Images(), **given) as engine:
            assert (engine.facts.options["quantile"], engine.facts.options["cutoff"]) == told


def test_a_batch_outside_the_profiles_is_refused_though_the_plan_is_cached(build, small):
    with build(small(), profiles=((1, 2, 4),), batch_sizes=(1, 4)):
        pass
    with pytest.raises(BuildError, match=r"batch 100 lies in no profile \(1..4"):
        build(small(), profiles=((1, 2, 4),), batch_sizes=(1, 100))


@pytest.mark.parametrize(("n_images", "kind"), [(200_000_000, "page-locked"), (100_000_000, "device")])
def test_buffers_that_do_not_fit_name_their_bytes(build, make_artifact, monkeypatch, n_images, kind):
    if kind == "device":
        monkeypatch.setattr(Gpu, "pinned", lambda self, shape, *_, **__: np.broadcast_to(np.zeros(1, "f4"), shape))
    artifact = make_artifact(shape=(-1, 1, 4, 8))
    with pytest.raises(BuildError, match=rf"buffers of batch {n_images}.*{n_images * 128:,} bytes of {kind} memory"):
        build(artifact, batch_sizes=(n_images,))


@pytest.mark.loses_the_device
def test_an_error_of_the_build_is_not_hidden_by_the_end_of_its_context(build, small, environment, monkeypatch):
    def fail(self, network, config):
        environment("FAKE_CUDA_FAULT", "yes")
        self._logger.log(fake_tensorrt.ILogger.Severity.ERROR, "illegal access in a tactic")

    monkeypatch.setattr(fake_tensorrt.Builder, "build_serialized_network", fail)
    with pytest.raises(BuildError, match="illegal access in a tactic"):
        build(small())


def test_kept_nodes_are_held_to_fp32_where_the_builder_chooses(build, small):
    with build(small(precision="fp16", kept_float=("/convolution/Node",))) as engine:
        held = {layer.name for layer in fake_tensorrt.networks[-1]._layers if layer.precision is not None}
        assert engine.facts.cache == "miss"
    assert held == {"/convolution/Node"}
