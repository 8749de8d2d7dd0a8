"""The badge says how the run ended, in words and colour."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from render_records import make_run

from harness.records import Status
from harness.report.badge import GREEN, GREY, RED, render_badge
from harness.report.model import build_report
from harness.report.standing import Standing, standing_of


def badge_of(records):
    run, _ = make_run(6)
    return ET.fromstring(render_badge(build_report(run, records)))


def passing():
    """Return two records that every gate holds of."""
    return [record for record in make_run(24)[1] if standing_of(record) is Standing.PASSED][:2]


@pytest.mark.parametrize(
    ("status", "colour", "words"),
    [
        (Status.PASSED, GREEN, "2 of 2 passed"),
        (Status.ERROR, RED, "2 of 2 bad"),
        (Status.ABSENT, RED, "2 of 2 bad"),
        (Status.UNSUPPORTED, GREY, "0 of 2 passed"),
    ],
)
def test_the_badge_is_of_the_worst(status, colour, words):
    kept = (record.verdicts if status is Status.PASSED else () for record in passing())
    badge = badge_of([replace(record, status=status, verdicts=next(kept)) for record in passing()])
    assert badge.get("aria-label") == f"harness: {words}"
    assert [rect.get("fill") for rect in badge.iter("{http://www.w3.org/2000/svg}rect")][1] == colour


def test_one_bad_case_makes_it_red():
    bad, good = passing()
    badge = badge_of([replace(bad, status=Status.ERROR, verdicts=()), good])
    assert badge.get("aria-label") == "harness: 1 of 2 bad"
