"""How the bundled models are made: channels rescaled without changing the function, runs seeded and resumable."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch, an optional extra (train)")
pytest.importorskip("onnxruntime", reason="training measures with onnxruntime")

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def training():
    """Return models/train.py as a module, and leave the import path as it was."""
    path, threads = list(sys.path), torch.get_num_threads()
    sys.path.insert(0, str(MODELS))
    # On a busy machine the math library takes fewer threads than it may, and sums then add in another order.
    torch.set_num_threads(1)
    try:
        import train

        yield train
    finally:
        sys.path[:] = path
        torch.set_num_threads(threads)


@pytest.fixture
def images(training):
    random = np.random.default_rng(2)
    pixels, labels = random.integers(0, 256, (512, 28, 28), np.uint8), random.integers(0, 10, 512)
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def weights(net):
    return torch.cat([value.flatten() for value in net.state_dict().values()])


def test_rescaled_channels_keep_the_function(training):
    torch.manual_seed(0)
    net = training.NETS["lenet5"]().eval()
    hard = training.rescale_lenet5(net, octaves=8, seed=6).eval()
    with torch.no_grad():
        batch = torch.rand(20, 1, 28, 28)
        torch.testing.assert_close(hard(batch), net(batch), atol=1e-5, rtol=1e-5)
        sizes = (hard[0].weight / net[0].weight).flatten(1).mean(1)
    assert sizes.max() / sizes.min() > 2**4


def test_an_interrupted_run_ends_like_a_whole_one(training, images, tmp_path, monkeypatch):
    recipe = training.Recipe(epochs=2, peak_rate=1e-3, max_drop_int8=0.0, description="")
    monkeypatch.setitem(training.RECIPES, "mlp", recipe)
    whole = training.train("mlp", *images, seed=4, cache_dir=tmp_path / "whole")
    real_epoch, n_epochs = training.run_epoch, []

    def stop_at_second(*arguments, **options):
        n_epochs.append(1)
        if len(n_epochs) == 2:
            raise KeyboardInterrupt
        return real_epoch(*arguments, **options)

    monkeypatch.setattr(training, "run_epoch", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        training.train("mlp", *images, seed=4, cache_dir=tmp_path / "cut")
    resumed = training.train("mlp", *images, seed=4, cache_dir=tmp_path / "cut")
    assert len(n_epochs) == 3  # one epoch before the interruption, one that was interrupted, one after
    assert torch.equal(weights(whole), weights(resumed))


def test_a_checkpoint_of_other_data_is_not_taken(training, images, tmp_path, monkeypatch):
    monkeypatch.setitem(
        training.RECIPES, "mlp", training.Recipe(epochs=1, peak_rate=1e-3, max_drop_int8=0.0, description="")
    )
    first = training.train("mlp", *images, seed=4, cache_dir=tmp_path)
    pixels, labels = images
    second = training.train("mlp", pixels, (labels + 1) % 10, seed=4, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == 2
    assert not torch.equal(weights(first), weights(second))


def test_shifts_move_whole_images_by_two_pixels_at_most(training):
    pixels = torch.zeros(200, 28, 28, dtype=torch.uint8)
    pixels[:, 14, 14] = 255
    moved = training.shift_images(pixels, torch.Generator().manual_seed(1))
    assert moved.shape == (200, 1, 28, 28)
    assert (moved.sum(dim=(1, 2, 3)) == 1).all()
    places = moved[:, 0].nonzero()[:, 1:] - 14
    assert places.abs().max() == training.SHIFT
    assert len({tuple(place.tolist()) for place in places}) == 25


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_exported_net_has_a_card_that_loads(training, tmp_path, monkeypatch):
    from harness.models import inspect_onnx, load_card

    monkeypatch.setattr(training, "MODELS_DIR", tmp_path)
    torch.manual_seed(0)
    net = training.NETS["mobilenet_digits"]().eval()
    path = tmp_path / "mobilenet_digits.onnx"
    training.export(net, path)
    training.write_card("mobilenet_digits", path, {"strokes": 0.99, "mnist": 0.98}, seed=1)
    spec = load_card(tmp_path / "mobilenet_digits.toml")
    assert (spec.accuracy["mnist"], spec.floors["mnist"], spec.max_drop["int8"]) == (0.98, 0.975, 0.01)
    assert inspect_onnx(path).max_batch is None
    pixels = np.random.default_rng(0).integers(0, 256, (700, 28, 28), np.uint8)
    with torch.no_grad():
        predictions = net(torch.from_numpy(pixels)[:, None] / 255).argmax(1).numpy()
    assert training.measure_top1(path, pixels, predictions) > 0.99
