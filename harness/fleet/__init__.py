"""Many machines, one run: a plan is cut into shards, each is an ordinary run of the suites, and their records merge."""

from harness.fleet.bisect_command import bisect_case
from harness.fleet.page import write_report
from harness.fleet.plan_command import write_fleet_plan
from harness.fleet.run_command import run_fleet
from harness.fleet.series import change_lines, history_lines
from harness.fleet.writing import merge_folders
from harness.store.retention import KEEP_NIGHTS, tidy_runs

__all__ = [
    "KEEP_NIGHTS",
    "bisect_case",
    "change_lines",
    "history_lines",
    "merge_folders",
    "run_fleet",
    "tidy_runs",
    "write_fleet_plan",
    "write_report",
]
