"""The suites beside the plugins that projects have: same numbers and verdicts, one line for a name of theirs."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records import Status
from harness.store.runs import load_run

ROOT = Path(__file__).parents[1]
PLUGINS = ("playwright", "randomly", "timeout", "rerunfailures", "html", "xdist")
SMALL = ("--backend=ort", "--model=mlp", "--precision=fp32,int8", "--score-images=500", "--batch-size=1")
REQUIRED = bool(os.environ.get("HARNESS_REQUIRE_PLUGINS"))  # then none may be skipped


def is_installed(plugin):
    try:
        return bool(importlib.metadata.version(f"pytest-{plugin}"))
    except importlib.metadata.PackageNotFoundError:
        return False


MISSING = [f"pytest-{plugin}" for plugin in PLUGINS if not is_installed(plugin)]
pytestmark = pytest.mark.skipif(bool(MISSING) and not REQUIRED, reason=f"needs {', '.join(MISSING)}")


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the suites as a user does, with all plugins that are installed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

    def run(*words, reports="reports"):
        command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider", *SMALL, *words]
        command += [f"--report-dir={tmp_path / reports}", f"--engine-cache={tmp_path / 'cache'}", "--timing-rounds=6"]
        end = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False, timeout=200)
        return end.returncode, end.stdout + end.stderr

    return run


def records_of(folder):
    return {record.case.id: record for record in load_run(folder / "latest")[1] if not record.is_reference}


def test_all_of_them_change_no_number_and_no_order(run, tmp_path):
    plain = run("--floor=0", "-p", "no:randomly", reports="plain")
    words = ("--floor=0", "--harness-device=cpu", "--reruns=1", "--timeout=150", f"--html={tmp_path / 'all.html'}")
    code, told = run(*words, "-p", "randomly", "-p", "no:xdist")
    assert (plain[0], code) == (0, 0), told
    assert [line for line in told.splitlines() if "is an option of" in line] == [
        "--device is an option of pytest-playwright here; ours is --harness-device"
    ]
    assert re.findall(r"^case \d of \d  (\S+)", told, re.MULTILINE) == ["mlp-ort-fp32", "mlp-ort-int8"]
    assert "mlp-ort-int8" in (tmp_path / "all.html").read_text()
    before, after = records_of(tmp_path / "plain"), records_of(tmp_path / "reports")
    assert before.keys() == after.keys()
    for name, record in before.items():
        assert after[name].accuracy.predictions == record.accuracy.predictions
        assert after[name].status is record.status


def test_a_failed_verdict_that_is_asked_again_fails_again(run, tmp_path):
    code, told = run("--floor=99.9%", "--reruns=2", "-m", "accuracy")
    assert code == 1
    assert re.search(r"\b2 failed, .*\b4 rerun\b", told), told
    assert {record.status for record in records_of(tmp_path / "reports").values()} == {Status.FAILED}


def test_sharing_out_is_refused_in_one_line(run):
    code, told = run("-n2")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert told.count("Run them without -n") == 1
