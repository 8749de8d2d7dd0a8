"""Samples of any graph: run, kept on disk, and held against another engine's outputs."""

from types import SimpleNamespace

import numpy as np
import pytest
from graph_nets import graph_spec, write_net

from harness.errors import MeasurementError, Unsupported
from harness.measure.samples import (
    OutputsFile,
    drift_of_outputs,
    first_outputs,
    read_outputs,
    rounding_errors,
    run_samples,
    tensors_engine,
)
from harness.models.feeds import seeded_sample
from harness.specs import Case, ModelInput, ModelOutput, ModelTensors, Precision
from harness.worker.as_scored import AsScored


class Net:
    """y = x + last y where there is a state; counts its runs."""

    def __init__(self, tensors, function):
        self.inputs = self.outputs = ()
        self.tensors, self.function, self.batches = tensors, function, []

    def run(self, feeds):
        self.batches.append(len(feeds["x"]))
        return self.function(feeds)

    def bind(self, feeds, *, batch_size, window, launch):
        raise NotImplementedError


def stackable(shape=(1, 3)):
    return ModelTensors(
        inputs=(ModelInput(name="x", dtype="float32", shape=shape, batch_axis=0, free_axes=(0,)),),
        outputs=(ModelOutput(name="y", batch_axis=0),),
    )


def run_all(net, tensors, samples, batch_size):
    found = []
    run_samples(net, tensors, iter(samples), batch_size=batch_size, each=found.append, n_samples=len(samples))
    return found


def test_samples_share_runs_and_come_back_in_order():
    tensors = stackable()
    samples = [{"x": np.full(3, k, np.float32)} for k in range(7)]
    net = Net(tensors, lambda feeds: {"y": feeds["x"] * 2})
    found = run_all(net, tensors, samples, 3)
    assert net.batches == [3, 3, 1]
    assert [float(one["y"][0]) for one in found] == [0, 2, 4, 6, 8, 10, 12]
    assert found[0]["y"].shape == (3,)


def test_samples_of_other_shapes_get_runs_of_their_own():
    tensors = stackable()
    samples = [{"x": np.zeros(3, np.float32)}, {"x": np.zeros(4, np.float32)}, {"x": np.zeros(4, np.float32)}]
    net = Net(tensors, lambda feeds: {"y": feeds["x"]})
    assert [len(one["y"]) for one in run_all(net, tensors, samples, 8)] == [3, 4, 4]
    assert net.batches == [1, 2]


def test_a_state_goes_from_run_to_run():
    tensors = ModelTensors(
        inputs=(
            ModelInput(name="x", dtype="float32", shape=(1,)),
            ModelInput(name="s", dtype="float32", shape=(1,), state="y"),
        ),
        outputs=(ModelOutput(name="y"),),
    )
    samples = [{"x": np.ones(1, np.float32), "s": np.zeros(1, np.float32)} for _ in range(4)]
    net = Net(tensors, lambda feeds: {"y": feeds["x"] + feeds["s"]})
    assert [float(one["y"][0]) for one in run_all(net, tensors, samples, 8)] == [1, 2, 3, 4]


def test_an_output_that_is_not_one_a_sample_is_refused():
    tensors = stackable()
    net = Net(tensors, lambda feeds: {"y": feeds["x"].ravel()})
    with pytest.raises(MeasurementError, match=r"output y has shape \[6\] for 2 samples"):
        run_all(net, tensors, [{"x": np.zeros(3, np.float32)}] * 2, 2)


@pytest.mark.parametrize("shape", [(20, 1, 7), (20,), (1, 5), ()])
def test_where_a_run_holds_one_sample_its_outputs_are_taken_as_they_come(tmp_path, shape):
    """Files name shapes that their nets do not give; only a run of several samples needs to be taken apart."""
    tensors = ModelTensors(
        inputs=(ModelInput(name="x", dtype="float32", shape=(1, 3), batch_axis=0),),  # fixed: one sample a run
        outputs=(ModelOutput(name="y", batch_axis=0),),
    )
    given = np.random.default_rng(0).random(shape)
    found = run_all(Net(tensors, lambda feeds: {"y": given}), tensors, [{"x": np.zeros(3, np.float32)}], 8)
    np.testing.assert_array_equal(np.squeeze(found[0]["y"]), np.squeeze(given))
    with OutputsFile(tmp_path / "o.zip", tensors.output_names) as file:
        file.add(found[0])
    request = SimpleNamespace(
        outputs_path=str(tmp_path / "o.zip"),
        model=SimpleNamespace(tensors=tensors),
        case=Case(model="net", backend="ort", precision=Precision.FP32, recipe="none", device="cpu"),
    )
    AsScored(request, 1).check(SimpleNamespace(outputs=lambda: {"y": given}), "here")
    with pytest.raises(MeasurementError, match=r"shape \[2, 3\] instead of"):
        AsScored(request, 1).check(SimpleNamespace(outputs=lambda: {"y": np.zeros((2, 3))}), "here")


def test_outputs_are_kept_bit_by_bit(tmp_path):
    path, names = tmp_path / "o.zip", ("a/b:0", "n")
    kept = [{"a/b:0": np.random.default_rng(k).random((k + 1, 2)), "n": np.array(k, np.int64)} for k in range(3)]
    with OutputsFile(path, names) as file:
        for one in kept:
            file.add(one)
    for found, one in zip(read_outputs(path, names), kept, strict=True):
        for name in names:
            np.testing.assert_array_equal(found[name], one[name])
            assert found[name].dtype == one[name].dtype
    with OutputsFile(tmp_path / "p.zip", names) as other:
        for one in kept[:2]:
            other.add(one)
    assert file.hexdigest() != other.hexdigest()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MeasurementError, match=r"o\.zip: the outputs that were kept are gone or damaged"):
        list(read_outputs(path, names))


def test_first_outputs_are_stacked_and_repeated(tmp_path):
    tensors = stackable()
    with OutputsFile(tmp_path / "o.zip", tensors.output_names) as file:
        for k in range(2):
            file.add({"y": np.full(3, k, np.float32)})
    assert first_outputs(tmp_path / "o.zip", 3, tensors)["y"].tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]


def drift(reference, ours, **changes):
    (found,) = drift_of_outputs(
        iter([{"y": np.asarray(one)} for one in reference]),
        iter([{"y": np.asarray(one)} for one in ours]),
        ["y"],
        against="other",
        **changes,
    )
    return found


def test_drift_is_the_norm_of_the_error_over_that_of_the_reference():
    found = drift([[3.0, 4.0], [0.0, 1.0]], [[3.0, 4.5], [0.0, 1.0]])
    np.testing.assert_allclose(found.relative.array(), [0.1, 0.0])
    assert (found.max_abs, found.n_samples, found.agreement, found.worst) == (0.5, 2, 1.0, 0)
    assert found.rmse == pytest.approx(0.25)


def test_drift_of_whole_numbers_is_the_share_that_differs():
    found = drift([[1, 2, 3, 4]], [[1, 2, 3, 9]])
    assert found.relative.array().tolist() == [0.25]
    assert (found.cosine, found.agreement, found.max_abs) == (None, None, 5.0)


@pytest.mark.parametrize(
    ("ours", "expected"),
    [([[np.nan, 1.0]], np.inf), ([[np.inf, 1.0]], np.inf), ([[0.0, 1.0, 2.0]], 1.0)],
)
def test_outputs_that_are_no_numbers_or_of_another_shape_are_far_off(ours, expected):
    found = drift([[0.0, 1.0]], ours)
    assert found.relative.array().tolist() == [expected]
    assert found.n_reshaped == (1 if expected == 1.0 else 0)


def test_equal_infinities_are_no_drift():
    assert drift([[-np.inf, 1.0]], [[-np.inf, 1.0]]).relative.array().tolist() == [0.0]


def test_a_reference_that_gives_all_samples_the_same_is_told():
    assert drift([[1.0, 2.0]] * 3, [[1.0, 2.1]] * 3).spread == 0
    assert drift([[1.0, 2.0]], [[1.0, 2.1]]).spread is None  # one sample has none
    assert drift([[3.0, 4.0], [3.0, 4.5], [3.0, 5.0]], [[1.0, 2.1]] * 3).spread == pytest.approx((0.1 + 0.2) / 2)


def test_nothing_compared_is_an_error():
    with pytest.raises(MeasurementError, match="no sample of output y was compared"):
        drift([], [])


def test_roundings_of_a_net_that_amplifies_them_are_seen():
    tensors = stackable()
    samples = [seeded_sample(tensors, index) for index in range(3)]
    calm = rounding_errors(Net(tensors, lambda feeds: {"y": feeds["x"] * 2}), tensors, samples)
    wild = rounding_errors(Net(tensors, lambda feeds: {"y": np.sin(feeds["x"] * 1e6)}), tensors, samples)
    assert calm["y"] < 1e-5
    assert wild["y"] > 0.1


def test_an_engine_of_images_alone_is_unsupported():
    with pytest.raises(Unsupported, match="takes one float32 image"):
        tensors_engine(object())


def test_an_output_that_grows_with_the_values_is_taken_whole(tmp_path):
    spec = graph_spec(write_net(tmp_path, "chosen"))
    assert [one.batch_axis for one in spec.tensors.outputs] == [None]
    assert not spec.tensors.is_stackable
