"""A record names the Python and the packages that its engine ran with, whichever interpreter started the run."""

import sys

from other_environments import make_environment

from harness import __version__
from harness.machine.environment import collect_environment
from harness.records import Availability
from harness.run.plan import Plan
from harness.run.settings import Environments

METADATA = "Metadata-Version: 2.1\nName: onnxruntime\nVersion: 0.0.1\n"


def environment(tmp_path, python=sys.executable):
    found = Availability(backend="ort", usable=True, versions={"onnx": "9.9"}, devices=("cpu",))
    plan = Plan(cases=(), models={}, backends=(found,), left_out={})
    return Environments(plan, tmp_path, python=python).of("ort", "cpu")


def test_the_versions_are_those_of_the_workers_environment(tmp_path):
    python = make_environment(tmp_path / "old", shares=False)
    (site,) = (tmp_path / "old").glob("lib/*/site-packages")
    (site / "onnxruntime-0.0.1.dist-info").mkdir()
    (site / "onnxruntime-0.0.1.dist-info" / "METADATA").write_text(METADATA)
    found = environment(tmp_path, python)
    ours = {name: text for name, text in found.versions.items() if name == "nn-engine-harness"}
    assert found.versions == {**ours, "onnxruntime": "0.0.1", "onnx": "9.9"}  # nothing of this environment
    assert set(ours.values()) <= {__version__}
    assert found.python == ".".join(map(str, sys.version_info[:3]))


def test_of_the_same_python_nothing_is_asked(tmp_path):
    expected = collect_environment(versions={"onnx": "9.9"}, checkout=tmp_path)
    assert environment(tmp_path).versions == expected.versions
