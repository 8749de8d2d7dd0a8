"""Another environment's Python: what it lacks is said in one line, and only its own runtimes are loaded."""

import ast
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from other_environments import make_environment

from harness.errors import ConfigError
from harness.worker.interpreter import WORKER_NEEDS, check_interpreters, environment_of, python_of
from harness.worker.process import Worker
from harness.worker.requests import ModuleOrigin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def origins(python, *modules):
    with closing(Worker(python=python, label="origins")) as worker:
        return worker.call("origins", modules, tuple[ModuleOrigin, ...])


# -- what it holds


def test_this_environment_lacks_nothing_and_tells_its_versions():
    found = environment_of(sys.executable, ("numpy",))
    assert (found.missing, found.problem) == ((), "")
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    assert found.versions["numpy"] == sys.modules["numpy"].__version__


def test_all_that_is_missing_is_one_line_with_the_command(tmp_path):
    python = make_environment(tmp_path / "bare", shares=False)
    found = environment_of(python, ("onnxruntime", "a_runtime"))
    assert found.missing == (*WORKER_NEEDS.values(), "onnxruntime", "a-runtime")
    with pytest.raises(ConfigError) as error:
        check_interpreters({"--a": found, "--b": environment_of(sys.executable)})
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"--a: {python} lacks msgspec>=0.19,<1, numpy>=1.26,<3, ")
    assert f"{python} -m pip install 'msgspec>=0.19,<1' " in str(error.value)
    assert str(error.value).endswith(" onnxruntime a-runtime")
    assert "--b" not in str(error.value)


def test_what_a_worker_needs_is_what_the_project_declares():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(WORKER_NEEDS.values()) <= set(declared)


def test_a_worker_imports_nothing_else_before_a_runtime():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import harness.worker.service as _"
    report = "print([n for n, m in sys.modules.items() if 'site-packages' in (getattr(m, '__file__', '') or '')])"
    found = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ast.literal_eval(found.stdout)}
    ours = {name for name in loaded if name.startswith(("_", "harness"))}  # of an editable install, and setuptools' own
    assert loaded - ours - {"typing_extensions"} <= set(WORKER_NEEDS)
    assert {"msgspec", "numpy"} <= loaded


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit 3", "is no Python that starts: exit code 3"),
        ("echo oh dear >&2; exit 1", "is no Python that starts: oh dear"),
        ("""echo '{"version": [3, 8, 1], "missing": [], "versions": {}}'""", "is Python 3.8.1; the harness needs 3.10"),
    ],
)
def test_what_is_no_python_is_one_line(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        environment_of(script(tmp_path / "python", text))


def test_what_a_site_prints_at_its_start_is_no_trouble(tmp_path):
    python = script(tmp_path / "python", f'echo "welcome"\nexec "{sys.executable}" "$@"')
    assert environment_of(python).missing == ()


def test_an_environment_is_named_by_its_python_its_folder_or_a_command(tmp_path, monkeypatch):
    python = make_environment(tmp_path / "venv")
    assert python_of(str(tmp_path / "venv")) == python
    assert python_of(python) == python  # not where the link leads: a venv's Python knows its environment by its place
    monkeypatch.setenv("PATH", str(tmp_path / "venv" / "bin"))
    assert python_of("python") == python
    monkeypatch.chdir(tmp_path)
    assert python_of("venv") == python
    with pytest.raises(ConfigError, match="nowhere: no Python there"):
        python_of("nowhere")


# -- what it loads


def test_a_worker_loads_the_runtime_of_its_own_environment_beside_an_installed_harness(tmp_path, monkeypatch):
    """A wheel puts harness/ beside the runtimes of the environment that starts the workers."""
    installed = tmp_path / "installed" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "harness").symlink_to(ROOT / "harness")
    (installed / "fake_runtime.py").write_text('__version__ = "2"')
    monkeypatch.setattr("harness.worker.process.PACKAGE_PARENT", str(installed))
    python = make_environment(tmp_path / "old", modules={"fake_runtime": '__version__ = "1"'})
    (found,) = origins(python, "fake_runtime")
    assert found.is_own
    assert Path(found.path).is_relative_to(tmp_path / "old")
    with pytest.raises(ConfigError, match="fake_runtime cannot be imported"):  # nor does this environment have it
        origins(sys.executable, "fake_runtime")


def test_a_runtime_from_elsewhere_is_told(tmp_path, monkeypatch):
    python = make_environment(tmp_path / "old", modules={"fake_runtime": ""})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "fake_runtime.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    (found,) = origins(python, "fake_runtime")
    assert (found.is_own, found.path) == (False, str(tmp_path / "elsewhere" / "fake_runtime.py"))


def test_a_package_without_a_file_of_its_own_has_a_place(tmp_path):
    python = make_environment(tmp_path / "old")
    (folder,) = (tmp_path / "old").glob("lib/*/site-packages")
    (folder / "spaced").mkdir()
    (found,) = origins(python, "spaced")
    assert (found.is_own, found.path) == (True, str(folder / "spaced"))
