"""The pytest plugin: options, fixtures, hooks. The only file that imports pytest; what it does lies in `session`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import ConfigError, HarnessError, Unsupported, first_line
from harness.gates import Candidate, Gate, GateAnswer, JudgeOptions, find_gate, list_gates
from harness.options.sharing import is_brought_by_conftest, lines_of_taken, share_options
from harness.options.values import HarnessOptions
from harness.records import Latency
from harness.report.progress import CaseProgress, progress_on
from harness.run.plan import Plan, plan_run, timing_of
from harness.run.sharding import options_of_run, shard_of
from harness.specs import Case
from harness.worker.interrupts import INTERRUPTS

if TYPE_CHECKING:  # imported when a test runs: SciPy alone would double the time of --collect-only
    from harness.run.case import CaseRun
    from harness.run.session import RunSession

CASE_FIXTURE = "case_run"
OPERATORS = "operators"
FIRE_DRILL = "fire_drill"
OTHER_JOBS = (OPERATORS, FIRE_DRILL)  # marks of tests that run only when they are asked for
OF_WHOLE_RUNS = {"presence"}  # gates that no test asks
ASKED_WITH = {"baseline": {"joint"}}  # gate that a test asks -> those that look at all its cases together
ONE_PROCESS = "runs-in-one-process"  # the id of our tests where pytest-xdist would share them out
OUTCOMES = ("passed", "failed", "skipped")  # of pytest; its plugins have others, such as "rerun"
MAX_BENCHMARK_SAMPLES = 1_000  # replayed into pytest-benchmark; more only cost time


class _State:
    """What one pytest run of ours owns."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.plan: Plan | None = None
        self.error: HarnessError | None = None
        self.session: RunSession | None = None
        self.options: HarnessOptions | None = None
        self.n_generated = 0  # tests of ours before -k and -m
        self.is_whole = False  # none was deselected
        self.last_of_cases: set[str] = set()  # the test of each case that runs last
        self.told: set[tuple[str, str]] = set()  # (case, error): each is one failure, however many tests meet it

    def batch_sizes_of(self, case: Case) -> tuple[int, ...]:
        """Return the batch sizes that a planned case is timed at."""
        if self.plan is None or self.options is None:
            return ()
        return timing_of(self.plan.models[case.model], self.options).batch_sizes

    def cases(self) -> tuple[Case, ...]:
        """Plan the run once; a request that cannot be met is kept for one clear line after collection."""
        if self.plan is None and self.error is None:
            try:
                self.options = options_of_run(
                    self.config.option,
                    root=self.config.rootpath,
                    called_in=None if has_chosen_root(self.config) else self.config.invocation_params.dir,
                )
                real = not self.config.option.collectonly
                self.plan = plan_run(
                    self.options,
                    probe=real,
                    progress=progress_on(self.config.get_terminal_writer() if real else None)("download"),
                )
                self.plan = shard_of(self.options, self.plan) if real else self.plan
            except HarnessError as error:
                self.error = error
        return self.plan.cases if self.plan else ()


def has_chosen_root(config: pytest.Config) -> bool:
    """Tell whether an ini file or an option gave the root."""
    return bool(config.inipath or config.option.rootdir)


STATE = pytest.StashKey[_State]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add our options under one group, where a conftest file brings us."""
    if is_brought_by_conftest(pluginmanager):
        _share_options(parser, pluginmanager)


@pytest.hookimpl(wrapper=True)  # no conftest file's: pytest does not ask those
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> Generator[None]:
    """Add our options where we are installed: after all other plugins, so that their names stay theirs."""
    try:
        return (yield)
    finally:
        _share_options(parser, early_config.pluginmanager)


def _share_options(parser: pytest.Parser, plugins: pytest.PytestPluginManager) -> None:
    try:
        share_options(parser, plugins)
    except HarnessError as error:  # of a package that brings options
        raise pytest.UsageError(str(error)) from error


# -- collection


def pytest_configure(config: pytest.Config) -> None:
    """Register markers and our state."""
    config.stash[STATE] = _State(config)
    for line in (
        "accuracy: scores images",
        "drift: compares the outputs of any graph with FP32's",
        "latency: times inference",
        "throughput: runs several inferences at once; only with --throughput",
        "build: builds engines and reads back what they run in",
        "operators: runs nets of one operator each; only with -m operators",
        "invariance: checks that neighbours, slot and batch size do not matter",
        "fire_drill: plants faults in copies and demands red; only with -m fire_drill",
        f"gate(name): what `verdict` answers, for the cases it applies to: {', '.join(g.name for g in list_gates())}",
    ):
        config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize every test that takes `case_run` or `verdict` with the cases of this run that it is for."""
    if CASE_FIXTURE not in metafunc.fixturenames:  # `verdict` takes it too
        return
    if hasattr(metafunc.config, "workerinput"):  # of pytest-xdist: its controller sees the id, and refuses
        metafunc.parametrize(CASE_FIXTURE, [None], ids=[ONE_PROCESS])
        return
    if metafunc.config.option.markexpr.strip() == FIRE_DRILL:  # none of these tests: nothing to plan, or to probe
        metafunc.parametrize(CASE_FIXTURE, [])
        return
    state = metafunc.config.stash[STATE]
    cases = [case for case in state.cases() if _wanted(case, metafunc.definition, state)]
    wants_size = "batch_size" in metafunc.fixturenames
    sizes = {case.id: state.batch_sizes_of(case) if wants_size else () for case in cases}
    if len(set(sizes.values())) > 1:  # a model of any graph has sizes of its own
        pairs = [(case, size) for case in cases for size in sizes[case.id]]
        state.n_generated += len(pairs)
        names = [f"{case.id}-batch{size}" for case, size in pairs]
        metafunc.parametrize((CASE_FIXTURE, "batch_size"), pairs, ids=names, indirect=[CASE_FIXTURE], scope="session")
        return
    shared = sizes[cases[0].id] if cases else ()
    state.n_generated += len(cases) * max(1, len(shared))
    metafunc.parametrize(CASE_FIXTURE, cases, ids=[case.id for case in cases], indirect=True, scope="session")
    if wants_size:
        metafunc.parametrize("batch_size", shared, ids=[f"batch{size}" for size in shared])


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_xdist_node_collection_finished(ids: Sequence[str]) -> None:
    """Refuse to run suites of ours in parallel; other tests may. Raises: UsageError."""
    if any(f"[{ONE_PROCESS}" in name for name in ids):
        raise pytest.UsageError(
            "the suites measure: parallel cases would disturb each other's times. Run them without -n"
        )


def _wanted(case: Case, definition: pytest.Item, state: _State) -> bool:
    if state.plan is None or state.options is None:
        return False
    model = state.plan.models[case.model]
    if definition.get_closest_marker("throughput") and not state.options.timing.throughput:
        return False
    try:
        gate = _gate(definition)
    except ConfigError as error:
        state.error = state.error or error
        return False
    if gate is None:
        return not (model.timing_only and definition.get_closest_marker("accuracy"))
    has_metrics = case.model in state.plan.by_metrics
    candidate = Candidate.of_model(case, model, writes=state.plan.writes(case), has_metrics=has_metrics)
    return gate.is_due(candidate, state.plan.tolerance_of(case, model), JudgeOptions(baseline=state.options.baseline))


def _gate(item: pytest.Item) -> Gate | None:
    """Return the gate of a test's mark, None for a test that asks none.

    Raises: ConfigError for an unknown gate, and for a test that takes `verdict` without one.
    """
    marker = item.get_closest_marker("gate")
    if marker is None and "verdict" not in _fixtures(item):
        return None
    if marker is None or len(marker.args) != 1:
        raise ConfigError(f'{item.nodeid}: a test that takes `verdict` is marked @pytest.mark.gate("name") once')
    try:
        return find_gate(marker.args[0])
    except ConfigError as error:
        raise ConfigError(f"{item.nodeid}: {error}") from None


@pytest.hookimpl(trylast=True)  # after -k and -m: only cases with a test left are part of the run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stop with one line when the request could not be met; else measure case by case, and judge all cases last."""
    state = config.stash[STATE]
    if state.error:
        raise pytest.UsageError(str(state.error))
    for mark in OTHER_JOBS:
        if mark not in config.option.markexpr:  # dropped, not deselected: an ordinary run knows nothing of other jobs
            items[:] = [item for item in items if item.get_closest_marker(mark) is None]
    if state.plan:
        # A test that fits none of the cases was generated without one: nothing to run, and no skip to explain.
        items[:] = [item for item in items if _case_id(item) or CASE_FIXTURE not in _fixtures(item)]
        order = {case.id: index for index, case in enumerate(state.plan.cases)}
        gates = {item: _gate(item) for item in items}
        items.sort(key=lambda item: (_waits(gates[item]), order.get(_case_id(item), -1)))
        selected = {_case_id(item) for item in items}
        state.last_of_cases = set({_case_id(item): item.nodeid for item in items if _case_id(item)}.values())
        state.is_whole = len(items) == state.n_generated and len(selected - {""}) == len(state.plan.cases)
        state.plan = replace(state.plan, cases=tuple(case for case in state.plan.cases if case.id in selected))
        if state.plan.cases and not config.option.collectonly:
            if config.get_verbosity() == 0 and config.pluginmanager.hasplugin("terminalreporter"):
                progress = CaseProgress([case.id for case in state.plan.cases])
                config.pluginmanager.register(_CaseLines(config, state, progress, _last_tests(items, gates)))
            try:
                asked = {gate.name for gate in gates.values() if gate}
                asked |= {name for gate in asked for name in ASKED_WITH.get(gate, ())}
                # What is missing can only be told of a run from which nothing was deselected.
                state.session = _new_session(state, gates=asked | (OF_WHOLE_RUNS if state.is_whole else set()))
                INTERRUPTS.listen()
                if not config.option.fulltrace:
                    config.pluginmanager.register(_LastFrame())
            except HarnessError as error:
                raise pytest.UsageError(str(error)) from error


def _last_tests(items: Sequence[pytest.Item], gates: Mapping[pytest.Item, Gate | None]) -> dict[str, str]:
    """Return our tests by node id, each with its case if it is the last that measures it."""
    found = {item.nodeid: "" for item in items if _case_id(item)}
    last = {_case_id(item): item.nodeid for item in items if _case_id(item) and not _waits(gates[item])}
    return {**found, **{nodeid: case_id for case_id, nodeid in last.items()}}


def _waits(gate: Gate | None) -> bool:
    """Tell whether a test can only be run when all cases were measured."""
    return gate is not None and gate.in_family


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


def _case_id(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec else {}
    case = params.get(CASE_FIXTURE)
    return case.id if isinstance(case, Case) else ""


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """List the backends: usable ones with versions, others with their reason."""
    plan = config.stash[STATE].plan
    if not plan:
        return []
    if not any(argument.startswith("--benchmark") for argument in config.invocation_params.args):
        # Our table says it all; pytest-benchmark's own is shown to those who ask something of it. No option of it can
        # be changed this late, and earlier nobody knows whether a suite of ours runs.
        benchmarks = getattr(config, "_benchmarksession", None)
        if benchmarks is not None:
            benchmarks.quiet = True
    usable = "; ".join(" ".join([a.backend, *(f"{k} {v}" for k, v in a.versions.items())]) for a in plan.backends)
    taken = lines_of_taken(config.pluginmanager, config.invocation_params.args)
    return [f"backends: {usable}", *plan.lines_left_out(), *plan.lines_of_models(), *taken]


# -- running


class _LastFrame:
    """Of an interrupt's traceback pytest shows the last frame, but first reads the source of all: half a second."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Leave that frame."""
        excinfo.traceback = excinfo.traceback[-1:]


class _CaseLines:
    """One line a case while a run goes on, where pytest would interleave its letters of five files."""

    def __init__(self, config: pytest.Config, state: _State, progress: CaseProgress, tests: dict[str, str]) -> None:
        """`tests`: of ours by node id, each with its case if it is the last that measures it, else ""."""
        self._state, self._progress, self._tests = state, progress, tests
        self._reporter: Any = config.pluginmanager.getplugin("terminalreporter")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Leave out the names of our files."""
        self._reporter.showfspath = False if nodeid in self._tests else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Tell that a case is done."""
        case_id = self._tests.get(nodeid)
        if case_id:
            failure = self._state.session.failure_of(case_id) if self._state.session else ""
            self._reporter.write_line(self._progress.line(case_id, failure))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Count tests of ours without a letter."""
        if report.nodeid not in self._tests or report.outcome not in OUTCOMES:
            return None
        if report.passed:
            return ("passed" if report.when == "call" else "", "", "")
        category = "skipped" if report.skipped else "failed" if report.when == "call" else "error"
        return (category, "", category.upper())  # the word is for the short summary at the end


@pytest.fixture(scope="session")
def harness_session(request: pytest.FixtureRequest) -> RunSession:
    """The run: its store, baselines and finished cases."""
    session = request.config.stash[STATE].session
    if session is None:
        raise pytest.UsageError("no case was planned; a test that takes harness_session must also take case_run")
    return session


def _new_session(state: _State, *, gates: set[str]) -> RunSession:
    from harness.run.session import RunSession

    config = state.config
    if state.options is None or state.plan is None:
        raise pytest.UsageError("no case was planned; a test that takes harness_session must also take case_run")
    command = shlex.join(["pytest", *config.invocation_params.args])
    return RunSession(
        state.options, state.plan, command=command, gates=gates, progress=progress_on(config.get_terminal_writer())
    )


@pytest.fixture(scope="session")
def case_run(request: pytest.FixtureRequest, harness_session: RunSession) -> Iterator[CaseRun]:
    """One case: measures on demand, gives verdicts, is written as one record when the last of its tests is done."""
    run = harness_session.open_case(request.param)
    yield run
    harness_session.close_case(run)


@pytest.fixture
def verdict(request: pytest.FixtureRequest, harness_session: RunSession, case_run: CaseRun) -> GateAnswer:
    """What the gate of the test's mark says of one case: `assert verdict.ok, verdict.message`."""
    gate = _gate(request.node)
    if gate is None:
        raise pytest.UsageError(f"{request.node.nodeid}: mark it with a gate")
    answer = harness_session.answer(case_run.case, gate.name)
    if answer.no_times:
        pytest.skip(answer.no_times)
    return answer


@pytest.hookimpl(optionalhook=True)  # pytest-benchmark's
def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Say in plain words what each benchmark of ours is of; pytest-benchmark cannot write a Case."""
    for entry in output_json["benchmarks"]:
        case = (entry.get("params") or {}).get(CASE_FIXTURE)
        if isinstance(case, Case):
            entry["params"][CASE_FIXTURE] = case.id
            told = {name: str(getattr(case, name)) for name in ("model", "backend", "precision", "recipe", "device")}
            entry["extra_info"] = {**told, **entry["params"], **entry.get("extra_info", {})}
            entry["extra_info"].pop(CASE_FIXTURE)


@pytest.fixture
def latency(request: pytest.FixtureRequest, case_run: CaseRun, batch_size: int) -> Latency:
    """The case's latency at one batch size; its samples are handed to pytest-benchmark.

    Take it before `benchmark`: pytest-benchmark reads the timer from the test's marker when its fixture is made.
    """
    found = case_run.latency(batch_size)
    samples = found.rounds_ns.array().ravel()[:MAX_BENCHMARK_SAMPLES].tolist()
    request.node.add_marker(pytest.mark.benchmark(timer=replay_timer(samples), group=f"batch {batch_size}"))
    return found


def replay_timer(samples_ns: Sequence[float]) -> Callable[[], float]:
    """Return a clock whose successive differences, read in pairs, are the samples [s]."""
    readings: Iterator[float] = _readings(samples_ns)

    def recorded_engine_timer() -> float:
        return next(readings)

    return recorded_engine_timer


def _readings(samples_ns: Sequence[float]) -> Iterator[float]:
    while True:
        for sample in samples_ns:
            yield 0.0  # not a running sum: its rounding would come back as false digits
            yield float(sample) * 1e-9


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Show a fault of ours once and as one line; `Unsupported`, and what follows from a fault, as a skip.

    Not in a fixture hook: pytest caches what a session fixture raised and raises it again past every hook.
    """
    outcome = yield
    error = call.excinfo.value if call.excinfo else None
    report = outcome.get_result()
    state, case_id = item.config.stash[STATE], _case_id(item)
    if isinstance(error, Unsupported):
        _skip(report, item, str(error))
    elif isinstance(error, HarnessError) and state.session and (why := state.session.known_error(case_id, str(error))):
        _skip(report, item, f"{why}: {error}")
    elif isinstance(error, HarnessError):
        told = f"{type(error).__name__}: {error}"
        if (case_id, told) in state.told:
            _skip(report, item, f"{case_id} ended in the error that an earlier test tells")
        else:
            state.told.add((case_id, told))
            report.longrepr = told
    elif isinstance(error, AssertionError) and item.get_closest_marker("gate") is not None:
        report.longrepr = first_line(error)  # the verdict; the values compared are no news
    session = state.session
    if session and report.when == "teardown" and item.nodeid in state.last_of_cases and item.config.option.xmlpath:
        report.user_properties += session.properties_of(case_id)  # once a case, when all of it is judged
    if session and report.failed and error is not None:
        session.note_failure(case_id, first_line(error))


def _skip(report: pytest.TestReport, item: pytest.Item, reason: str) -> None:
    path, line, _ = item.location
    report.outcome = "skipped"
    report.longrepr = (path, line or 0, f"Skipped: {reason}")


@pytest.hookimpl(trylast=True)  # after pytest tore down its fixtures: the open case is closed then
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Close the run: write records, summary, report and asked-for baselines."""
    state = session.config.stash[STATE]
    if state.session is None:
        return
    INTERRUPTS.let_one_pass()
    try:
        if exitstatus == pytest.ExitCode.INTERRUPTED and not session.shouldstop:
            state.session.interrupt(INTERRUPTS.name or "stopped")
            return
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not session.shouldstop
        clean = exitstatus == pytest.ExitCode.OK
        state.session.finish(clean=clean, is_whole=state.is_whole and ended, had_end=ended)
    except KeyboardInterrupt:
        state.session.notes.append(f"ERROR: {INTERRUPTS.name} stopped the writing of the report; go on with --resume")
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    except HarnessError as error:
        state.session.notes.append(f"ERROR: {error}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if session.exitstatus == pytest.ExitCode.OK:
        problem = state.session.problem()
        if problem:
            state.session.notes.append(f"ERROR: {problem}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give back the signals that end a run."""
    INTERRUPTS.forget()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """End with one table."""
    state = config.stash[STATE]
    if state.session is None:
        return
    terminalreporter.section("engines")
    terminal = config.get_terminal_writer()
    for line in state.session.lines(color=terminal.hasmarkup, width=terminal.fullwidth):
        terminalreporter.write_line(line)
