"""Fixtures shared by the harness's own tests."""

# isort: off
import beginning  # noqa: F401
import contextlib

# pytester forgets what a run in this process imports first: it would be loaded anew by each, and parts of NumPy load
# once a process.
import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import pandas  # noqa: F401
import scipy.optimize
import scipy.stats  # noqa: F401
import harness.run.session  # noqa: F401

with contextlib.suppress(ModuleNotFoundError):  # tests beside other plugins need no more than those and pytest
    import hypothesis  # noqa: F401

# isort: on
import sys
from pathlib import Path

import pytest

from harness import backends, datasets, gates, precision, tasks
from harness.machine.telemetry import switch_off_telemetry
from harness.models import importers, load_card
from harness.options import discovery
from harness.specs import ModelSpec

ROOT = Path(__file__).parents[1]
switch_off_telemetry()  # tests import runtimes without a worker


@pytest.fixture
def spec():
    """A card for 4x4 one-channel images of ten classes; its file is never opened."""
    return ModelSpec(
        name="tiny",
        onnx_path="tiny.onnx",
        sha256="0" * 64,
        input_name="images",
        input_shape=(1, 4, 4),
        output_name="probabilities",
        num_classes=10,
    )


@pytest.fixture(scope="session")
def bundled():
    """Return bundled models by name."""
    return lambda name: load_card(ROOT / "models" / f"{name}.toml")


@pytest.fixture(autouse=True)
def extensions():
    """Forget the extension folders that a test adds, and what was loaded from them."""
    rooms = [backends.ROOM, datasets.ROOM, gates.ROOM, importers.ROOM, precision.ROOM, tasks.ROOM]
    folders, known = list(discovery._folders), [(room, list(room._path), dict(room._loaded)) for room in rooms]
    yield
    discovery._folders[:] = folders
    for room, path, loaded in known:
        for name in room._loaded.keys() - loaded.keys():
            module = f"{room._package}.{name.replace('-', '_')}"
            if module in sys.modules and not Path(sys.modules[module].__file__ or "").is_relative_to(ROOT / "harness"):
                del sys.modules[module]
        room._path[:] = path
        room._loaded.clear()
        room._loaded.update(loaded)
