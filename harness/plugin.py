"""The pytest plugin: options, fixtures, hooks. The only file that imports pytest; what it does lies in `session`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import HarnessError, Unsupported
from harness.options import BASELINE_MODES, HarnessOptions, data_request
from harness.measure import Progress
from harness.plan import Plan, check_data, plan_run
from harness.records import Latency
from harness.specs import Case, DatasetRequest, Precision, TimingPlan, TrtOptions
from harness.tolerances import fraction_from_text, value_from_text

if TYPE_CHECKING:  # imported when a test runs: SciPy alone would double the time of --collect-only
    from harness.case_run import CaseRun
    from harness.session import RunSession

MIB = 2**20
CASE_FIXTURES = ("case_run", "judged_run")
MAX_BENCHMARK_SAMPLES = 1_000  # replayed into pytest-benchmark; more only cost time
HEAVY_MODEL = "resnet101_112"


class _State:
    """What one pytest run of ours owns."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.plan: Plan | None = None
        self.error: HarnessError | None = None
        self.session: RunSession | None = None
        self.options: HarnessOptions | None = None

    def cases(self) -> tuple[Case, ...]:
        """Plan the run once; a request that cannot be met is kept for one clear line after collection."""
        if self.plan is None and self.error is None:
            try:
                _refuse_xdist(self.config)
                self.options = options_from_pytest(self.config)
                real = not self.config.option.collectonly
                plan = plan_run(self.options, models_dir=self.config.rootpath / "models", probe=real)
                if real and not all(model.timing_only for model in plan.models.values()):
                    check_data(self.options, download_progress(self.config))
                self.plan = plan
            except HarnessError as error:
                self.error = error
        return self.plan.cases if self.plan else ()


STATE = pytest.StashKey[_State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options under one group."""
    default, data, timing = HarnessOptions(), DatasetRequest(), TimingPlan()
    group = parser.getgroup("harness", "inference engines: accuracy and latency")
    add = group.addoption

    def listed(name: str, metavar: str, text: str) -> None:
        add(name, action="append", default=[], metavar=metavar, help=text)

    listed(
        "--backend",
        "NAMES",
        "backends, comma list or repeated: ort, openvino, trt, ... (default: auto, every usable one)",
    )
    listed("--backend-dir", "DIR", "folder with backends of your own, one file each (docs/backends.md), repeatable")
    listed("--precision", "NAMES", "precisions, comma list: fp32, fp16, int8 (default: all three)")
    listed(
        "--recipe",
        "NAMES",
        "INT8 recipes, comma list: qdq-minmax, qdq-entropy, qdq-percentile, nncf, trt-entropy2, ... (default: qdq-minmax)",
    )
    listed(
        "--model",
        "NAME|FILE",
        f"bundled model, ONNX file or card, comma list or repeated; {HEAVY_MODEL} is made on demand (default: every bundled classifier)",
    )
    add(
        "--input-scale",
        type=float,
        metavar="FACTOR",
        help="factor on pixels 0..255 for a model without a card (default: 1/255)",
    )
    add(
        "--num-classes", type=int, metavar="N", help="classes of a model without a card (default: read from its output)"
    )
    add(
        "--label-offset",
        type=int,
        metavar="N",
        help="added to a data set's labels to get the model's classes (default: the card's, or 0)",
    )
    add(
        "--dataset",
        default=data.name,
        metavar="NAME|PATH",
        help="data set: strokes, mnist, fashion-mnist, ..., an IDX images file, or a folder of TensorRT batch files (default: %(default)s)",
    )
    add(
        "--data-dir",
        metavar="DIR",
        help="where the data set's files lie (default: the user's cache, downloaded when absent)",
    )
    add("--split", default=data.split, choices=("train", "test"), help="split to score (default: %(default)s)")
    add(
        "--score-images",
        type=int,
        default=data.score_images,
        metavar="N",
        help="number of images to score (default: %(default)s)",
    )
    add("--score-from", type=int, default=0, metavar="INDEX", help="first image to score (default: %(default)s)")
    add(
        "--calibration-images",
        type=int,
        default=data.calibration_images,
        metavar="N",
        help="number of images that calibrate INT8 (default: %(default)s)",
    )
    add(
        "--calibration-from",
        type=int,
        metavar="INDEX",
        help="first calibration image (default: 0, or the first after the scored ones where they would overlap)",
    )
    add("--calibration-split", choices=("train", "test"), help="split of the calibration images (default: train)")
    add(
        "--batch-size",
        default=",".join(map(str, timing.batch_sizes)),
        metavar="N,N",
        help="batch sizes to time [images] (default: %(default)s)",
    )
    add(
        "--score-batch",
        type=int,
        default=default.score_batch,
        metavar="N",
        help="images per batch when scoring (default: %(default)s)",
    )
    add(
        "--timing-window",
        default=timing.window,
        choices=("compute", "end_to_end", "h2d", "d2h"),
        help="what the clock sees (default: %(default)s)",
    )
    add(
        "--timing-launch",
        default=timing.launch,
        choices=("auto", "enqueue", "graph", "gated", "gated_graph"),
        help="how a CUDA engine is launched when timed (default: %(default)s, the quietest that works)",
    )
    add(
        "--timing-rounds",
        type=int,
        default=timing.n_rounds,
        metavar="N",
        help="rounds of samples per engine and batch size (default: %(default)s)",
    )
    add(
        "--device",
        default=default.device,
        metavar="NAME",
        help="device: cpu, cuda:0, ... (default: the backend's first)",
    )
    add(
        "--threads",
        type=int,
        default=default.num_threads,
        metavar="N",
        help="CPU threads of one inference (default: %(default)s, the steadiest to time)",
    )
    add(
        "--report-dir", default=default.report_dir, metavar="DIR", help="where runs are written (default: %(default)s/)"
    )
    add(
        "--engine-cache",
        default="",
        metavar="DIR",
        help="cache of prepared models and built engines (default: the user's cache folder)",
    )
    add("--rebuild", action="store_true", help="ignore cached models and engines")
    add(
        "--strict-verdicts", action="store_true", help="an inconclusive verdict fails; pytest's own --strict implies it"
    )
    add(
        "--floor",
        metavar="FRACTION",
        help="lowest acceptable top-1, 0.98 or 98%% (default: the model card's)",
    )
    add(
        "--max-drop",
        metavar="FRACTION",
        help="accepted loss of top-1, 0.005 or 0.5%% (default: harness.toml, the card, or 0.5%%)",
    )
    add(
        "--max-slowdown",
        metavar="FRACTION",
        help="fail when the whole interval of the latency ratio lies beyond, 0.05 or 5%% (default: never)",
    )
    add("--alpha", metavar="FRACTION", help="false-alarm rate of one comparison (default: 0.001)")
    add(
        "--baseline",
        default=default.baseline,
        choices=BASELINE_MODES,
        help="auto names a missing baseline, require fails on it, ignore compares with none (default: %(default)s)",
    )
    add("--baseline-dir", default=default.baseline_dir, metavar="DIR", help="stored baselines (default: %(default)s)")
    add("--update-baselines", action="store_true", help="write baselines at the end of a clean run")
    add(
        "--timeout",
        type=float,
        default=default.timeout_s,
        metavar="SECONDS",
        help="longest silence of a worker before it is killed [s] (default: %(default)s)",
        dest="harness_timeout",
    )
    add(
        "--worker-python",
        default=default.worker_python,
        metavar="PATH",
        help="interpreter of the workers, for example of a venv with another runtime version (default: this one)",
    )
    _add_trt_options(add)


def _add_trt_options(add: Callable[..., None]) -> None:
    add("--trt-tf32", action="store_true", help="allow TF32 in TensorRT's FP32 engines (default: off)")
    add("--trt-workspace", type=int, metavar="MIB", help="TensorRT workspace limit [MiB] (default: the library's)")
    add(
        "--trt-optimization-level",
        type=int,
        choices=range(6),
        metavar="0..5",
        help="TensorRT builder optimization level (default: the library's)",
    )
    add(
        "--trt-tactic-sources",
        metavar="NAMES",
        help="TensorRT tactic sources, comma list, e.g. EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS (default: the library's)",
    )
    add("--trt-version-compatible", action="store_true", help="build TensorRT engines that later minor versions load")
    add("--trt-hardware-compatible", action="store_true", help="build TensorRT engines for Ampere and newer")
    add(
        "--trt-profile",
        action="append",
        default=[],
        metavar="MIN:OPT:MAX",
        help="optimization profile by batch size [images], repeatable (default: one from the batch sizes)",
    )
    add("--trt-plugin", action="append", default=[], metavar="LIB.so", help="plug-in library to load, repeatable")
    add("--trt-ranges", metavar="FILE", help="JSON of tensor name to dynamic range, for the recipe trt-ranges")
    add(
        "--trt-quantile",
        metavar="FRACTION",
        help="quantile of the recipe trt-legacy (default: the library's)",
    )
    add(
        "--trt-cutoff",
        metavar="FRACTION",
        help="cutoff of the recipe trt-legacy (default: the library's)",
    )


def options_from_pytest(config: pytest.Config) -> HarnessOptions:
    """Turn pytest's options into ours. Raises: ConfigError for a contradiction."""
    o = config.option
    names = _split(o.backend) or ("auto",)
    root = config.rootpath
    return HarnessOptions(
        backends=names,
        backend_dirs=tuple(str(Path(folder).absolute()) for folder in o.backend_dir),
        precisions=_precisions(_split(o.precision)),
        recipes=_split(o.recipe),
        models=_split(o.model),
        input_scale=o.input_scale,
        num_classes=o.num_classes,
        label_offset=o.label_offset,
        data=data_request(
            name=o.dataset,
            data_dir=o.data_dir,
            split=o.split,
            score_first=o.score_from,
            score_images=o.score_images,
            calibration_images=o.calibration_images,
            calibration_first=o.calibration_from,
            calibration_split=o.calibration_split,
        ),
        timing=TimingPlan(
            batch_sizes=_whole_numbers("--batch-size", o.batch_size),
            window=o.timing_window,
            launch=o.timing_launch,
            n_rounds=o.timing_rounds,
        ),
        score_batch=o.score_batch,
        device=o.device,
        num_threads=o.threads,
        report_dir=str(root / o.report_dir),
        engine_cache=str(Path(o.engine_cache).absolute()) if o.engine_cache else "",
        rebuild=o.rebuild,
        strict=o.strict_verdicts or bool(getattr(o, "strict", False)),
        baseline=o.baseline,
        baseline_dir=str(root / o.baseline_dir),
        update_baselines=o.update_baselines,
        root=str(root),
        floor=_tolerance("floor", o.floor),
        max_drop=_tolerance("max_drop", o.max_drop),
        max_slowdown=_tolerance("max_slowdown", o.max_slowdown),
        alpha=_tolerance("alpha", o.alpha),
        timeout_s=o.harness_timeout,
        worker_python=o.worker_python,
        trt=_trt_options(o),
    )


def _tolerance(name: str, text: str | None) -> float | None:
    return None if text is None else value_from_text(name, text, where=f"--{name.replace('_', '-')}")


def _trt_options(o: Any) -> TrtOptions:
    return TrtOptions(
        tf32=o.trt_tf32,
        workspace_bytes=o.trt_workspace * MIB if o.trt_workspace is not None else None,
        optimization_level=o.trt_optimization_level,
        tactic_sources=_split([o.trt_tactic_sources]) if o.trt_tactic_sources else None,
        version_compatible=o.trt_version_compatible,
        hardware_compatible=o.trt_hardware_compatible,
        profiles=tuple(_profile(text) for text in o.trt_profile),
        plugins=tuple(o.trt_plugin),
        ranges_file=o.trt_ranges,
        quantile=fraction_from_text(o.trt_quantile) if o.trt_quantile else None,
        cutoff=fraction_from_text(o.trt_cutoff) if o.trt_cutoff else None,
    )


def _split(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def _precisions(names: tuple[str, ...]) -> tuple[Precision, ...]:
    known = {precision.value: precision for precision in Precision}
    for name in names:
        if name not in known:
            raise pytest.UsageError(f"--precision={name}: choose from {', '.join(known)}")
    return tuple(known[name] for name in known if name in names) or tuple(Precision)


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise pytest.UsageError(f"{option}={text}: expected whole numbers such as 1,100") from None


def _profile(text: str) -> tuple[int, int, int]:
    numbers = _whole_numbers_of_profile(text)
    if len(numbers) != len(("min", "opt", "max")) or not 1 <= numbers[0] <= numbers[1] <= numbers[2]:
        raise pytest.UsageError(f"--trt-profile={text}: expected MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX")
    return numbers[0], numbers[1], numbers[2]


def _whole_numbers_of_profile(text: str) -> list[int]:
    return [int(part) for part in text.split(":") if part.isdigit()]


def download_progress(config: pytest.Config) -> Progress:
    """Return a progress line for downloads [bytes], as quiet in CI as any other."""
    from harness.render.terminal import progress_reporter

    return progress_reporter(config.pluginmanager.get_plugin("terminalreporter"))("download")


def _refuse_xdist(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or config.getoption("numprocesses", None):
        raise pytest.UsageError(
            "the suites measure: parallel cases would disturb each other's times. Run them without -n"
        )


# -- collection


def pytest_configure(config: pytest.Config) -> None:
    """Register markers and our state."""
    config.stash[STATE] = _State(config)
    for line in (
        "accuracy: scores images",
        "latency: times inference",
        "build: builds engines and reads back what they run in",
        "invariance: checks that neighbours, slot and batch size do not matter",
        "precisions(*names): generate cases of these precisions only",
        "needs_qdq: generate cases whose artifact holds Q/DQ nodes only",
    ):
        config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize every test that takes `case_run` or `judged_run` with the cases of this run."""
    fixture = next((name for name in CASE_FIXTURES if name in metafunc.fixturenames), None)
    if fixture is None:
        return
    state = metafunc.config.stash[STATE]
    cases = [case for case in state.cases() if _wanted(case, metafunc.definition, state)]
    metafunc.parametrize(fixture, cases, ids=[case.id for case in cases], indirect=True, scope="session")
    if "batch_size" in metafunc.fixturenames and state.options:
        sizes = state.options.timing.batch_sizes
        metafunc.parametrize("batch_size", sizes, ids=[f"batch{size}" for size in sizes])


def _wanted(case: Case, definition: pytest.Item, state: _State) -> bool:
    if state.plan and state.plan.models[case.model].timing_only and definition.get_closest_marker("accuracy"):
        return False
    marker = definition.get_closest_marker("precisions")
    if marker and case.precision.value not in marker.args:
        return False
    return not (definition.get_closest_marker("needs_qdq") and case.recipe.startswith("trt-"))


@pytest.hookimpl(trylast=True)  # after -k and -m: only cases with a test left are part of the run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stop with one line when the request could not be met; else measure case by case, and judge all cases last."""
    state = config.stash[STATE]
    if state.error:
        raise pytest.UsageError(str(state.error))
    if state.plan:
        # A test that fits none of the cases was generated without one: nothing to run, and no skip to explain.
        items[:] = [item for item in items if _case_id(item) or not set(CASE_FIXTURES) & set(_fixtures(item))]
        order = {case.id: index for index, case in enumerate(state.plan.cases)}
        items.sort(key=lambda item: ("judged_run" in _fixtures(item), order.get(_case_id(item), -1)))
        selected = {_case_id(item) for item in items}
        state.plan = replace(state.plan, cases=tuple(case for case in state.plan.cases if case.id in selected))


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


def _case_id(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec else {}
    case = next((params[name] for name in CASE_FIXTURES if name in params), None)
    return case.id if isinstance(case, Case) else ""


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """List the backends: usable ones with versions, others with their reason."""
    plan = config.stash[STATE].plan
    if not plan:
        return []
    if not any(argument.startswith("--benchmark") for argument in config.invocation_params.args):
        # Our table says it all; pytest-benchmark's own is shown to those who ask something of it. No option of it can
        # be changed this late, and earlier nobody knows whether a suite of ours runs.
        config._benchmarksession.quiet = True  # type: ignore[attr-defined]
    usable = "; ".join(" ".join([a.backend, *(f"{k} {v}" for k, v in a.versions.items())]) for a in plan.backends)
    lines = [f"backends: {usable}"]
    lines += [f"  left out: {name}: {reason}" for name, reason in plan.left_out.items()]
    return lines


# -- running


@pytest.fixture(scope="session")
def harness_session(request: pytest.FixtureRequest) -> Iterator[RunSession]:
    """The run: its store, baselines and finished cases."""
    state = request.config.stash[STATE]
    if state.session is None:
        state.session = _new_session(state)
    yield state.session


def _new_session(state: _State) -> RunSession:
    from harness.render.terminal import progress_reporter
    from harness.session import RunSession

    config = state.config
    if state.options is None or state.plan is None:
        raise pytest.UsageError("no case was planned; a test that takes harness_session must also take case_run")
    command = shlex.join(["pytest", *config.invocation_params.args])
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return RunSession(state.options, state.plan, command=command, progress=progress_reporter(reporter))


@pytest.fixture(scope="session")
def case_run(request: pytest.FixtureRequest, harness_session: RunSession) -> Iterator[CaseRun]:
    """One case: measures on demand, gives verdicts, is written as one record when the last of its tests is done."""
    run = harness_session.open_case(request.param)
    yield run
    harness_session.close_case(run)


@pytest.fixture(scope="session")
def judged_run(request: pytest.FixtureRequest, harness_session: RunSession) -> CaseRun:
    """One case with its verdicts against FP32, the reference backend, its emulation and its baseline."""
    return harness_session.judged(request.param)


@pytest.fixture
def latency(request: pytest.FixtureRequest, case_run: CaseRun, batch_size: int) -> Latency:
    """The case's latency at one batch size; its samples are handed to pytest-benchmark.

    Take it before `benchmark`: pytest-benchmark reads the timer from the test's marker when its fixture is made.
    """
    found = case_run.latency(batch_size)
    samples = found.rounds_ns.array().ravel()[:MAX_BENCHMARK_SAMPLES]
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
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show our own errors as their one line, and `Unsupported` as a skip with its reason.

    Not in a fixture hook: pytest caches what a session fixture raised and raises it again past every hook.
    """
    outcome = yield
    error = call.excinfo.value if call.excinfo else None
    report = outcome.get_result()
    if isinstance(error, Unsupported):
        report.outcome = "skipped"
        path, line, _ = item.location
        report.longrepr = (path, line or 0, f"Skipped: {error}")
    elif isinstance(error, HarnessError):
        report.longrepr = f"{type(error).__name__}: {error}"
    session = item.config.stash[STATE].session
    if session and report.failed and error is not None:
        session.note_failure(_case_id(item), _first_line(error))


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Close the run: write records, summary, report and asked-for baselines."""
    state = session.config.stash[STATE]
    if state.session is None:
        return
    try:
        state.session.finish(clean=exitstatus == pytest.ExitCode.OK)
    except HarnessError as error:
        state.session.notes.append(f"ERROR: {error}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if session.exitstatus == pytest.ExitCode.OK:
        problem = state.session.problem()
        if problem:
            state.session.notes.append(f"ERROR: {problem}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """End with one table."""
    state = config.stash[STATE]
    if state.session is None:
        return

    from harness.render.terminal import summary_lines

    terminalreporter.section("engines")
    for line in summary_lines(state.session.records, color=terminalreporter._tw.hasmarkup):
        terminalreporter.write_line(line)
    for note in state.session.notes:
        terminalreporter.write_line(note)
