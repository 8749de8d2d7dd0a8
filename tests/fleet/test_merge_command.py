"""`harness merge` on shards that lie on disk: what it writes, prints and returns."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from comparison_records import latency_with
from fleet_records import TYPES, by_shard, night, plan_of, shard_run
from typer.testing import CliRunner

from harness.cli import app
from harness.records import Status
from harness.run.stored import load_judged_run
from harness.store.baselines import BaselineStore
from harness.store.runs import BASELINES_FOLDER, RunStore
from harness.store.shard_plans import read_plan, write_plan
from harness.store.spreading import spread


def write_shards(root, records, *, stored=()):
    """Write a plan and the folder of every shard, with what the cases were compared with; return the shards."""
    groups = by_shard(records)
    write_plan(plan_of(groups, digest=""), root / "shards.json")
    digest = read_plan(root / "shards.json").digest
    accepted = BaselineStore(root / "accepted")
    if stored:
        passed = [replace(record, status=Status.PASSED) for record in stored]
        accepted.accept(passed, accepted_by="someone", accepted_at="2026-11-20T00:00:00+00:00")
    shards = []
    for number, group in enumerate(groups):
        shard = shard_run(number, group)
        run = replace(shard.run, shard=replace(shard.run.shard, plan=digest))
        store = RunStore(root / "shards", run)
        accepted.copy_to(store.folder / BASELINES_FOLDER, group)
        store.finish(run, group, summary=b"{}")
        shards.append(store.folder)
    return shards


def merge(root, *folders, name="night"):
    words = ["merge", *folders, "--shard-plan", root / "shards.json", "-o", root / "reports" / name]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_night_in_which_all_came_and_held_is_green_and_judged_with_its_baselines(tmp_path):
    records = night()
    write_shards(tmp_path, records, stored=records)
    result = merge(tmp_path, tmp_path / "shards")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == "4 shards merged, 0 duplicate records dropped"
    _, judged = load_judged_run(tmp_path / "reports" / "latest")
    assert len(judged) == len(records)
    assert {record.status for record in judged} == {Status.PASSED}
    told = {v.message for record in judged for v in record.verdicts if v.gate == "baseline"}
    assert told
    assert all("the baseline of 2026-11-20" in message for message in told)
    again = merge(tmp_path, tmp_path / "shards")
    assert (again.exit_code, "exists already" in again.output) == (2, True)


@pytest.mark.parametrize("links", [True, False])
def test_a_merged_run_keeps_its_baselines_when_its_shards_are_gone(tmp_path, monkeypatch, links):
    """They are second names of the shards' files where the disk has such, else copies."""

    def no_links(source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    records = night()
    shards = write_shards(tmp_path, records, stored=records)
    assert merge(tmp_path, tmp_path / "shards").exit_code == 0
    (kept,) = (shards[3] / BASELINES_FOLDER).glob("predictions/*/*/mlp-ort-int8.json")
    merged = tmp_path / "reports" / "night" / BASELINES_FOLDER / kept.relative_to(shards[3] / BASELINES_FOLDER)
    assert (merged.stat().st_nlink > 1) is links
    shutil.rmtree(tmp_path / "shards")
    _, judged = load_judged_run(tmp_path / "reports" / "night")
    assert {record.status for record in judged} == {Status.PASSED}


def test_a_shards_baselines_may_be_symbolic_links(tmp_path):
    """As a store of artifacts by content keeps them; what they lead to is linked, wherever the merged run lies."""
    shards = write_shards(tmp_path, night(wrong=lambda model, device: range(40)), stored=night())
    (tmp_path / "objects").mkdir()
    for number, path in enumerate(sorted((tmp_path / "shards").rglob(f"{BASELINES_FOLDER}/**/*.json"))):
        kept = tmp_path / "objects" / str(number)
        path.rename(kept)
        path.symlink_to(os.path.relpath(kept, path.parent))
    (tmp_path / "reports" / "2026").mkdir(parents=True)
    assert merge(tmp_path, *shards, name="2026/night").exit_code == 1
    _, judged = load_judged_run(tmp_path / "reports" / "2026" / "night")
    assert {v.code for record in judged for v in record.verdicts if v.gate == "baseline"} == {
        "lost_images",
        "identical",
    }


def test_a_loss_against_a_baseline_that_a_shard_kept_fails_the_night(tmp_path):
    before = night()
    shards = write_shards(tmp_path, night(wrong=lambda model, device: range(40 * (device == "large"))), stored=before)
    result = merge(tmp_path, *shards, shards[0])
    assert result.exit_code == 1
    _, judged = load_judged_run(tmp_path / "reports" / "night")
    red = {record.key for record in judged if record.status is Status.FAILED}
    assert {key.case_id for key in red} == {"lenet5-ort-int8", "mlp-ort-int8"}
    assert {key.device_type for key in red} == {TYPES["large"].device_type}


def test_the_same_shards_write_the_same_records_in_whatever_order_they_are_given(tmp_path):
    shards = write_shards(tmp_path, night())
    merge(tmp_path, *shards, name="one")
    merge(tmp_path, *reversed(shards), *shards[:2], name="other")
    one, other = (tmp_path / "reports" / name / "records.jsonl.gz" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_a_night_that_is_judged_on_all_cpus_is_the_one_that_is_judged_on_one(tmp_path, monkeypatch):
    """The error of a baseline, found in another process, is its case's too."""
    records = [replace(record, latencies=(latency_with(),)) for record in night(wrong=lambda model, device: range(40))]
    shards = write_shards(tmp_path, records, stored=night())
    (path,) = (shards[3] / BASELINES_FOLDER).glob("predictions/*/*/mlp-ort-int8.json")
    path.write_text("{")
    merge(tmp_path, tmp_path / "shards", name="one")
    forked = partial(spread, at_a_time=1, min_items=2)
    monkeypatch.setattr("harness.fleet.judging.spread", forked)
    monkeypatch.setattr("harness.store.nights.spread", lambda work, n, **_: forked(work, n))
    monkeypatch.setattr("harness.store.runs.spread", lambda work, n, **_: forked(work, n))
    monkeypatch.setattr("harness.store.runs.MEMBER_LINES", 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    merge(tmp_path, tmp_path / "shards", name="other")
    one, other = (load_judged_run(tmp_path / "reports" / name)[1] for name in ("one", "other"))
    assert one == other
    assert {record.status for record in one} == {Status.PASSED, Status.FAILED, Status.ERROR}


READ_AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from harness.fleet.shards import read_shard
sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(2) as pool:
    print(sum(len(shard.records) for shard in pool.map(read_shard, map(Path, sys.argv[1:]))))
"""


def test_threads_that_read_the_first_records_of_a_process_do_not_crash_it(tmp_path):
    shards = write_shards(tmp_path, night())
    for _ in range(2):
        words = [sys.executable, "-c", READ_AT_ONCE, *map(str, shards)]
        found = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stdout.strip()) == (0, "8"), found.stderr


@pytest.mark.parametrize("name", ["records.jsonl", "run.json"])
def test_a_damaged_folder_is_refused_and_costs_its_own_cases_only(tmp_path, name):
    shards = write_shards(tmp_path, night())
    (shards[1] / name).write_bytes(b"{")
    result = merge(tmp_path, tmp_path / "shards")
    assert result.exit_code == 1
    assert f"refused: {shards[1]}" in result.output
    _, judged = load_judged_run(tmp_path / "reports" / "night")
    assert sum(record.status is Status.ERROR for record in judged) == 2


def test_a_damaged_baseline_is_its_case_s_error(tmp_path):
    records = [replace(record, latencies=(latency_with(),)) for record in night()]
    shards = write_shards(tmp_path, records, stored=records)
    (path,) = (shards[3] / BASELINES_FOLDER).glob("times/*/mlp-ort-int8.json")
    path.write_text("{")
    result = merge(tmp_path, tmp_path / "shards")
    assert result.exit_code == 1
    _, judged = load_judged_run(tmp_path / "reports" / "night")
    (bad,) = [record for record in judged if record.status is Status.ERROR]
    assert bad.case.id == "mlp-ort-int8"
    assert "harness baseline accept" in bad.reason


def test_a_night_in_which_nothing_could_run_is_no_success(tmp_path):
    records = [replace(record, accuracy=None, unsupported="no such operator") for record in night()]
    write_shards(tmp_path, records)
    assert merge(tmp_path, tmp_path / "shards").exit_code == 1


def test_a_folder_or_plan_that_is_none_is_one_line(tmp_path):
    shards = write_shards(tmp_path, night())
    (tmp_path / "empty").mkdir()
    nothing = merge(tmp_path, tmp_path / "empty")
    assert (nothing.exit_code, "holds no run" in nothing.output) == (2, True)
    (tmp_path / "shards.json").unlink()
    no_plan = merge(tmp_path, *shards)
    assert (no_plan.exit_code, "no plan of shards" in no_plan.output) == (2, True)
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("case_ids", [[], ["mlp-ort-int8"]])
def test_the_baselines_of_a_merged_run_are_accepted_on_every_type_of_device(tmp_path, monkeypatch, case_ids):
    monkeypatch.chdir(tmp_path)
    records = [replace(record, latencies=(latency_with(),)) for record in night()]
    write_shards(tmp_path, records)
    merge(tmp_path, tmp_path / "shards")
    words = [word for case_id in case_ids for word in ("--case", case_id)]
    accepted = CliRunner().invoke(app, ["baseline", "accept", "night", *words])
    assert accepted.exit_code == 0, accepted.output
    store = BaselineStore(tmp_path / "suites" / "baselines")
    expected = [record for record in records if record.case.id in (case_ids or [record.case.id])]
    assert len(expected) == (2 if case_ids else 8)
    assert all(store.times_path(record).is_file() for record in expected)
    assert len([path for path in store.paths() if "times" in path.parts]) == len(expected)
