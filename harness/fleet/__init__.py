"""Many machines, one run: a plan is cut into shards, each is an ordinary run of the suites, and their records merge."""

from harness.fleet.planning import write_fleet_plan
from harness.fleet.writing import merge_folders

__all__ = ["merge_folders", "write_fleet_plan"]
