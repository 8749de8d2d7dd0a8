"""Faults planted in copies, each of which must turn red. Runs only when asked by name: -m fire_drill."""

import pytest

pytestmark = pytest.mark.fire_drill


def pytest_generate_tests(metafunc):
    if "plant" in metafunc.fixturenames:
        metafunc.parametrize("plant", _names() if "fire_drill" in metafunc.config.option.markexpr else [])


def _names():
    from harness.run.drill import PLANTS  # an ordinary run does not pay for it

    return [plant.name for plant in PLANTS]


@pytest.fixture(scope="module")
def drill(request):
    from harness.plugin import has_chosen_root
    from harness.run.drill import open_drill

    config = request.config
    called_in = None if has_chosen_root(config) else config.invocation_params.dir
    opened = open_drill(config.option, root=config.rootpath, called_in=called_in)
    yield opened
    opened.finish()


def test_without_a_plant_all_is_green(drill):
    red = drill.control()
    assert not red, red


def test_a_plant_turns_red(plant, drill):
    found = drill.run(plant)
    assert found.is_red, found.message
