"""The table that ends a run, and what is said below it."""

import dataclasses

from render_records import make_run

from harness.report.model import build_report
from harness.report.terminal import summary_lines


def test_what_the_user_should_hear_of_is_said_for_passed_cases_too():
    run, records = make_run(3, n_images=300)
    damaged = dataclasses.replace(records[0].engine, warnings=("the cached plan was damaged and is built anew: x",))
    lines = summary_lines(build_report(run, [dataclasses.replace(records[0], engine=damaged), *records[1:]]))
    assert f"note {records[0].case.id}: the cached plan was damaged and is built anew: x" in lines
    assert not [line for line in summary_lines(build_report(run, records)) if line.startswith("note ")]
