"""The fire drill: it proves the gates, and a gate that is turned off, silent or on the wrong side fails the drill."""

from dataclasses import replace
from pathlib import Path

import pytest
from render_records import make_run

import harness.gates
from harness import __version__
from harness.records import FireDrill, Outcome
from harness.report.facts import tone_of_run
from harness.report.files import summary_of_run
from harness.report.html import render_html
from harness.report.markdown import render_markdown
from harness.report.model import build_report
from harness.report.standing import Standing
from harness.report.terminal import summary_lines
from harness.run.drill import CONTROL, PLANTS
from harness.run.drill.directions import DIRECTIONS
from harness.run.drill.plant import ERROR, Alarm, Plant, found_of
from harness.run.drill.sound import sound_night
from harness.store.drills import FILE, load_fire_drill, save_fire_drill

ROOT = Path(__file__).parents[2]
# Of losses alone; of other models; of numbers that somebody has to set a limit for.
UNASKED = {"joint", "drift", "metric", "metric_baseline", "buildtime", "enginesize", "memory"}
GREEN = FireDrill(at="2026-12-01T03:00:00+00:00", version=__version__, n_plants=18, n_red=18)
PURE = [plant for plant in PLANTS if plant.name.startswith("direction_")]
PURE += [plant for plant in PLANTS if plant.name in ("slowed_5_percent", "case_missing", "check_disabled")]


def act(plant):
    return found_of(plant, plant.act(None))


# -- the plants


def test_the_sound_night_is_green_by_every_gate_with_a_number():
    judged = sound_night().judged()
    assert {str(record.status) for record in judged} == {"passed"}
    asked = {verdict.gate for record in judged for verdict in record.verdicts}
    assert {direction.gate for direction in DIRECTIONS} - asked == UNASKED


@pytest.mark.parametrize("plant", PURE, ids=lambda plant: plant.name)
def test_a_plant_in_records_turns_red(plant):
    found = act(plant)
    assert found.is_red, found.message


def test_every_plant_has_a_name_of_its_own_and_there_are_enough():
    assert len({plant.name for plant in PLANTS}) == len(PLANTS) >= 18


def gates_with(name, **changes):
    return tuple(replace(gate, **changes) if gate.name == name else gate for gate in harness.gates.list_gates())


def passing(judge):
    """A gate's judge that finds everything the same."""
    return lambda evidence: tuple(
        replace(verdict, outcome=Outcome.SAME, is_failure=False, code="off") for verdict in judge(evidence)
    )


def failing(judge):
    return lambda evidence: tuple(replace(verdict, is_failure=True) for verdict in judge(evidence))


@pytest.mark.parametrize("direction", DIRECTIONS, ids=lambda direction: direction.gate)
@pytest.mark.parametrize("turned", ["silent", "passing", "failing"])
def test_a_gate_that_is_turned_off_fails_its_drill(direction, turned, monkeypatch):
    gate = next(gate for gate in harness.gates.list_gates() if gate.name == direction.gate)
    if gate.judge_together is not None:
        if turned == "failing":
            pytest.skip("it judges no case alone")
        changes = {"judge_together": lambda evidence: ()}
    else:
        judges = {"silent": lambda evidence: (), "passing": passing(gate.judge), "failing": failing(gate.judge)}
        changes = {"judge": judges[turned]}
    gates = gates_with(direction.gate, **changes)
    monkeypatch.setattr(harness.gates, "list_gates", lambda: gates)
    found = act(direction.plant())
    assert not found.is_red
    assert ("WRONG SIDE" if turned == "failing" else "SILENT") in found.message


def test_a_number_that_goes_the_wrong_way_fails_its_drill():
    direction = next(one for one in DIRECTIONS if one.gate == "fp32")
    found = act(replace(direction, grows=False).plant())
    assert not found.is_red
    assert "WRONG SIDE" in found.message


def test_a_gate_without_a_direction_fails_the_drill(monkeypatch):
    from harness.run.drill import directions

    plant = next(plant for plant in PLANTS if plant.name == "every_number")
    assert act(plant).is_red
    monkeypatch.setattr(directions, "DIRECTIONS", DIRECTIONS[1:])
    found = act(plant)
    assert not found.is_red
    assert f"no direction is planted for {DIRECTIONS[0].gate}" in found.message


@pytest.mark.parametrize(
    ("alarms", "is_red"),
    [
        ([], False),
        ([Alarm(by="floor", told="below")], False),
        ([Alarm(by="fp32", told="something else")], False),
        ([Alarm(by=ERROR, told="crashed")], False),
        ([Alarm(by="floor", told="below"), Alarm(by="fp32", told="40 lost")], True),
    ],
)
def test_only_the_alarm_that_was_expected_proves_a_gate(alarms, is_red):
    plant = Plant(name="x", planted="a loss", red_by=("fp32",), told="lost", act=lambda bench: alarms)
    assert act(plant).is_red is is_red


# -- the suite


@pytest.fixture
def suites(pytester):
    """Return a function that runs the suites in a folder of their own."""
    for name in ("suites", "models"):
        (pytester.path / name).symlink_to(ROOT / name, target_is_directory=True)
    pytester.makeconftest('pytest_plugins = ("harness.plugin",)')
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider --import-mode=importlib")
    return lambda *args: pytester.runpytest_inprocess("suites/", *args)


def test_a_drill_runs_by_its_mark_alone_and_what_was_not_run_is_not_red(suites, pytester):
    pytest.importorskip("onnxruntime")
    result = suites("-m", "fire_drill", "-k", "labels_shifted or direction_fp32")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert "backends:" not in result.stdout.str(), "nothing was probed"
    drill = load_fire_drill(pytester.path / "reports", version=__version__)
    assert (drill.n_red, drill.n_plants, drill.is_green) == (2, len(PLANTS), False)
    assert CONTROL in drill.missed


def test_an_ordinary_run_knows_nothing_of_the_drill(suites):
    result = suites("--collect-only", "-q", "--backend=ort", "--model=mlp", "--precision=fp32")
    assert "fire_drill" not in result.stdout.str()
    assert "deselected" not in result.stdout.str()


# -- what is told of it


@pytest.mark.parametrize(
    ("drill", "told"),
    [
        (None, "not run"),
        (GREEN, "18/18 on 2026-12-01"),
        (replace(GREEN, n_red=17, missed=("wrong_scale",)), "17/18 on 2026-12-01, NOT GREEN: wrong_scale"),
        (replace(GREEN, missed=(CONTROL,)), "18/18 on 2026-12-01, NOT GREEN: control"),
    ],
)
def test_page_terminal_markdown_and_summary_tell_the_drill(drill, told):
    run, records = make_run(6)
    run = replace(run, fire_drill=drill)
    report = build_report(run, records)
    assert f"fire drill: {told}" in summary_lines(report)
    assert told in render_html(report)
    assert "Fire drill: " in render_markdown(report)
    assert (b'"fire_drill": null' in summary_of_run(run, records)) is (drill is None)


def test_a_night_whose_drill_failed_is_not_good():
    run, records = make_run(6)
    rows = build_report(run, records).rows
    passed = [row for row in rows if row.standing is Standing.PASSED][:1]
    assert passed
    assert [tone_of_run(replace(run, fire_drill=drill), passed, []) for drill in (GREEN, replace(GREEN, n_red=17))] == [
        "good",
        "warn",
    ]


def test_a_drill_is_read_back_and_one_of_another_version_or_a_damaged_one_is_none(tmp_path):
    assert load_fire_drill(tmp_path, version=__version__) is None
    path = save_fire_drill(tmp_path / "reports", GREEN)
    assert path.name == FILE
    assert load_fire_drill(tmp_path / "reports", version=__version__) == GREEN
    assert load_fire_drill(tmp_path / "reports", version="0.0.1") is None
    path.write_text(path.read_text().replace('"n_red": 18', '"n_red": 19'))
    assert load_fire_drill(tmp_path / "reports", version=__version__) is None
