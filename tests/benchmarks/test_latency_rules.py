"""The table of latency rules on planted traces: every rule is applied, and ours has its direction and its spread."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.records import INJECTED

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "latency_rules.py"
N_PAIRS, N_ROUNDS, N_SAMPLES = 16, 10, 12


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("latency_rules", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "N_DRAWS", 100)
    return module


def test_the_table_says_who_cries_wolf_and_who_sees_the_slowdown(script, tmp_path, capsys):
    rng, arrays = np.random.default_rng(1), {}
    shape = (N_PAIRS, N_ROUNDS, N_SAMPLES)
    for number, slowdown in enumerate(INJECTED):
        machine = rng.lognormal(0, 0.02, (N_PAIRS, 1, 1))  # its speed of the moment, which a pair shares
        for arm, factor in (("candidate", 1 + slowdown), ("control", 1.0)):
            own = rng.lognormal(0, 0.001, (N_PAIRS, 1, 1))
            arrays[f"net batch 1|{number}|{arm}"] = 1e5 * factor * machine * own * rng.lognormal(0, 0.003, shape)
    np.savez(tmp_path / "traces.npz", **arrays)
    script.judge(SimpleNamespace(traces=tmp_path / "traces.npz", max_slowdown=0.02))
    told = capsys.readouterr().out
    rows = {line[:26].strip(): line[26:].split() for line in told.splitlines()}
    assert "1 series, 32 processes; 1 of our comparisons share no process" in told
    for rule in ("pytest-benchmark mean:5%", "asv factor 1.1 (default)", "pyperf t test", "nvbench legacy",
                 "nvbench robust", "Google Benchmark U test"):  # fmt: skip
        assert rows[rule][1] == "of"
    alarms = {rule: int(cells[0]) for rule, cells in rows.items() if "of" in cells[1:2]}
    assert alarms["ours, pairs alone"] == alarms["ours, look then pairs"] == 0
    assert alarms["old rule of this harness"] > 10  # it knows rounds and not processes
    assert rows["ours, look then pairs"][-3:] == ["0.0%", "0.0%", "100.0%"]
