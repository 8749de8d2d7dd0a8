"""What the suite of operators needs beside the plugin: its cells, its fixture, its table."""

import pytest

from harness.errors import HarnessError
from harness.plugin import STATE

FIXTURE, MARK = "operator_verdict", "operators"
RUN = pytest.StashKey()


def pytest_configure(config):
    """Register the marker."""
    config.addinivalue_line("markers", "operators: runs nets of one operator each; only with -m operators")


def pytest_generate_tests(metafunc):
    """Parametrize the suite with backends and precisions, where its marker asks for it."""
    if FIXTURE not in metafunc.fixturenames:
        return
    cells, state = (), metafunc.config.stash[STATE]
    if _is_asked(metafunc.config) and not hasattr(metafunc.config, "workerinput"):
        from harness.run.operators import cells_of

        state.cases()
        cells = cells_of(state.options, state.plan.backends) if state.plan else ()
    metafunc.parametrize(FIXTURE, cells, ids=[cell.id for cell in cells], indirect=True, scope="session")


def pytest_collection_modifyitems(config, items):
    """Leave the suite out, without a word, of a run that does not ask for it."""
    if not _is_asked(config):
        items[:] = [item for item in items if FIXTURE not in getattr(item, "fixturenames", ())]


def _is_asked(config):
    return MARK in (config.option.markexpr or "")


@pytest.fixture(scope="session")
def operator_verdict(request):
    """What is wrong with a backend's operators in one precision, in a line each; none where nothing is."""
    from harness.run.operators import OperatorRun, run_cell

    state, cell = request.config.stash[STATE], request.param
    if RUN not in request.config.stash:
        request.config.stash[RUN] = OperatorRun(options=state.options)
    versions = next(one.versions for one in state.plan.backends if one.backend == cell.backend)
    return request.config.stash[RUN].verdict(cell, run_cell(cell, state.options, versions))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    """Write the lists, and end with the table of operators."""
    if RUN not in config.stash:
        return
    terminalreporter.section("operators")
    try:
        lines = config.stash[RUN].finish()
    except HarnessError as error:
        lines = [f"ERROR: {error}"]
    for line in lines:
        terminalreporter.write_line(line)
