"""Two checkouts are timed in turn, each with its own harness and its own cache."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "main_job.py"


@pytest.fixture
def main_job():
    spec = importlib.util.spec_from_file_location("main_job", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_checkouts_run_in_turn_and_their_ratio_is_told(main_job, monkeypatch, tmp_path, capsys):
    calls = []

    def seconds(root, *arguments):
        calls.append((root, next((a for a in arguments if a.startswith("--engine-cache")), "--collect-only")))
        return 3.0 if root == main_job.ROOT else 2.0

    monkeypatch.setattr(main_job, "seconds", seconds)
    monkeypatch.setattr(main_job, "check_checkout", lambda root: None)
    main_job.against(tmp_path, 2, ["--model=mlp"])
    assert [root for root, _ in calls] == [tmp_path, main_job.ROOT] * 6
    caches = [cache for _, cache in calls]
    assert caches[:2] == caches[6:8] == ["--collect-only"] * 2
    assert caches[2:4] == caches[4:6]  # warm finds what cold left
    assert len({*caches[2:4], *caches[8:10]}) == 4  # each checkout and each round has a cache of its own
    assert "cold: A/B 1.500 (1.500 to 1.500); medians 3.00 s and 2.00 s" in capsys.readouterr().out


def test_the_ratio_is_the_median_of_the_rounds_ratios(main_job):
    line = main_job.ratio_line("warm", [(1.0, 2.0), (3.0, 2.0), (2.0, 2.0)])
    assert line == "warm: A/B 1.000 (0.500 to 1.500); medians 2.00 s and 2.00 s"


def test_a_folder_that_is_no_checkout_is_refused(main_job, tmp_path):
    with pytest.raises(SystemExit, match="expected a checkout with harness/ and suites/"):
        main_job.check_checkout(tmp_path)


def test_this_checkout_runs_its_own_harness(main_job):
    main_job.check_checkout(main_job.ROOT)
