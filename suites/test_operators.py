"""Which operators a runtime computes right, each in nets of its own; only with -m operators."""

import pytest

from harness.plugin import STATE

pytestmark = pytest.mark.operators


def pytest_generate_tests(metafunc):
    state, cells = metafunc.config.stash[STATE], ()
    if "operators" in metafunc.config.option.markexpr and not hasattr(metafunc.config, "workerinput"):
        from harness.run.operators import cells_of

        state.cases()
        cells = cells_of(state.options, state.plan.backends) if state.plan else ()
    metafunc.parametrize("cell", cells, ids=[cell.id for cell in cells])


@pytest.fixture(scope="session")
def operator_run(request):
    from harness.run.operator_lists import OperatorRun

    run = OperatorRun(options=request.config.stash[STATE].options)
    yield run
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    terminal.section("operators")
    for line in run.finish():
        terminal.write_line(line)


def test_operators(cell, operator_run, request):
    from harness.run.operators import run_cell

    state = request.config.stash[STATE]
    versions = next(one.versions for one in state.plan.backends if one.backend == cell.backend)
    worse = operator_run.verdict(cell, run_cell(cell, state.options, versions))
    assert not worse, "\n".join(worse)
