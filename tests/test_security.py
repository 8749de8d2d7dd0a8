"""What docs/security.md claims of a run: no connection, no telemetry, no secret of the environment in any file."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECRET = "hunter2-4c1f-of-the-environment"
INTERNET = re.compile(r"AF_INET6?\b")
COMMAND = (
    "suites/",
    "-pno:cacheprovider",
    "--import-mode=importlib",
    "-c/dev/null",
    "--backend=ort,openvino,fake-segfault",
    "--model=mlp",
    "--precision=fp32",
    "--score-images=100",
    "--batch-size=1",
    "--timing-rounds=6",
    f"--extension-dir={ROOT / 'tests' / 'fakes'}",
    "--baseline-dir=baselines",
    "--engine-cache=cache",
    "--floor=0",
)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A CPU run of both runtimes, one crash in it, below strace: its folder, and what it asked the kernel for."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    folder = tmp_path_factory.mktemp("run")
    (folder / "conftest.py").write_text('pytest_plugins = ("harness.plugin",)\n')
    for name in ("suites", "models"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    (folder / "home").mkdir()
    environment = {**os.environ, "DEPLOY_TOKEN": SECRET, "HOME": str(folder / "home")}
    environment.pop("XDG_CACHE_HOME", None)
    calls = folder / "calls"
    trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=socket,connect,sendto", "-o", str(calls)]
    python = [sys.executable, "-m", "pytest", *COMMAND, f"--rootdir={folder}"]
    done = subprocess.run([*trace, *python], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr and not calls.exists():
        pytest.skip("strace may not trace here")
    (folder / "printed").write_text(done.stdout + done.stderr)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "crashed (SIGSEGV)" in done.stdout
    return folder, calls.read_text()


def test_a_cpu_run_opens_no_network_connection(traced):
    _, calls = traced
    assert not INTERNET.findall(calls)


def test_a_connection_would_be_seen(tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()"
    trace = ["strace", "-f", "-qq", "-e", "trace=socket", "-o", str(tmp_path / "calls")]
    subprocess.run([*trace, sys.executable, "-c", code], check=True)
    assert INTERNET.findall((tmp_path / "calls").read_text())


def test_no_runtime_keeps_telemetry(traced):
    folder, _ = traced
    written = [path.relative_to(folder / "home").parts for path in (folder / "home").rglob("*") if path.is_file()]
    ours = ((".cache", "nn-engine-harness"), (".cache", "matplotlib"), (".config", "matplotlib"))
    assert [path for path in written if path[:2] not in ours] == []


def test_no_secret_of_the_environment_is_in_any_file(traced):
    folder, _ = traced
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(folder / "suites")]
    assert {"records.jsonl", "index.html", "report.md", "printed"} <= {path.name for path in files}
    assert [str(path) for path in files if SECRET.encode() in path.read_bytes()] == []


FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "yaml", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "tempfile.mktemp"}


def harmful(source):
    """Yield what code must not do: unpickle, load YAML, start a shell, run text."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in FORBIDDEN_CALLS or given.get("shell", "False") != "False":
                yield called
            if called in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
                yield called


@pytest.mark.parametrize("path", sorted((ROOT / "harness").rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_unpickled_and_no_shell_is_started(path):
    assert list(harmful(path.read_text())) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from yaml import load", ["yaml"]),
        ("subprocess.run(x, shell=True)", ["subprocess.run"]),
        ("np.load(p, allow_pickle=True)", ["np.load"]),
        ("eval(x); os.system(y)", ["eval", "os.system"]),
        ("subprocess.run([x], shell=False); np.load(p, allow_pickle=False); msgspec.json.decode(x)", []),
    ],
)
def test_harmful_code_would_be_found(source, found):
    assert sorted(harmful(source)) == sorted(found)
