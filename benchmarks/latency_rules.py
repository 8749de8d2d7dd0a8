"""False alarms and power of latency rules on the same traces: those of seven other tools, the old rule, and ours.

    python benchmarks/latency_rules.py collect TRACES.npz --backend ort --model lenet5 [--pairs 48]
    python benchmarks/latency_rules.py judge TRACES.npz [--max-slowdown 0.02]

collect: pairs of fresh processes of one and the same engine, which take turns round by round, and in the same processes
the candidate slowed down by 1, 2 and 5 % inside the timed region. 7 s a pair and case at two batch sizes on a CPU (16
pairs of 3 cases: 6 min); the same script serves a GPU (`--backend trt`). The traces are not kept in version control.

judge: every rule sees the same processes. A rule of single runs compares each control with each candidate, so its
comparisons share processes; rules of several processes, and ours, draw processes or pairs anew. The number of processes
that all of them come from is printed: the interval is exact for as many independent comparisons, which these are not.

Sources: pytest-benchmark 5 plugin.py (`--benchmark-compare-fail=mean:5%`); Google Benchmark tools/gbench/report.py
(U test, alpha 0.05, 9 repetitions); asv commands/compare.py (Mann-Whitney p < 0.002, factor 1.1 by default); pyperf
_compare.py (two-sided t test at 95 %, 20 processes of 3 values; here at most half of the processes that there are);
nvbench scripts/nvbench_compare.py (difference beyond the smaller noise) and nvbench_compare_robust.py (interval from
the minimum to the third quartile, 0.5 % apart).
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

from harness.options.values import HarnessOptions
from harness.protocols import no_progress
from harness.records import INJECTED
from harness.run.pairing import Arm, time_slowed_pair
from harness.run.plan import plan_run
from harness.run.settings import case_request, worker_settings
from harness.specs import Precision, TimingPlan
from harness.stats import clopper_pearson_interval, ratio_of_runs
from harness.stats.looking import LookSpread, look_once
from harness.stats.pairs import LOOKS, PairsOutcome, Spread, judge_comparisons, log_ratio, pairs_spread

ALPHA = 0.001
OURS = "ours, look then pairs"
N_DRAWS = 1_000
N_PYPERF, N_ASV, N_REPETITIONS = 20, 2, 9
ROUND_NS, WARMUP_NS = 10_000_000, 20_000_000


# -- traces


def collect(arguments: argparse.Namespace) -> None:
    """Measure pairs of every case in turn, and write all samples."""
    options = HarnessOptions(
        backends=tuple(arguments.backend),
        models=tuple(arguments.model),
        precisions=tuple(map(Precision, arguments.precision)),
        timing=TimingPlan(
            batch_sizes=tuple(arguments.batch_size), n_rounds=arguments.rounds, round_ns=ROUND_NS, warmup_ns=WARMUP_NS
        ),
    )
    plan = plan_run(options, models_dir=Path("models"))
    found: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = worker_settings(options, Path(folder), lambda what: no_progress)
        for index in range(arguments.pairs):
            for case in plan.cases:
                request = case_request(case, plan.models[case.model], options)
                arms = [Arm(request=request, settings=settings, name=name) for name in ("candidate", "control")]
                is_first = index % 2 == 0
                given = time_slowed_pair(*arms, INJECTED[1:], n_rounds=arguments.rounds, candidate_first=is_first)
                for number, condition in enumerate(given):
                    for times in condition:
                        key = f"{case.id} batch {times.batch_size}|{number}"
                        found.setdefault(f"{key}|candidate", []).append(times.candidate_ns)
                        found.setdefault(f"{key}|control", []).append(times.control_ns)
                print(f"pair {index + 1} of {arguments.pairs}: {case.id}", flush=True)
            arguments.traces.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(arguments.traces, **{key: _stacked(rows) for key, rows in found.items()})


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Return float64[pairs, rounds, samples], as many samples as every process gave."""
    n_samples = min(row.shape[1] for row in rows)
    return np.stack([row[:, :n_samples] for row in rows])


# -- rules of one run against another: float64[rounds, samples] each


def pytest_benchmark(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Mean more than 5 % above the stored mean."""
    return bool(ours.mean() > 1.05 * theirs.mean())


def google_benchmark(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """U test of 9 repetitions of one process each, alpha 0.05, and the median above."""
    a, b = ours.mean(axis=1)[:N_REPETITIONS], theirs.mean(axis=1)[:N_REPETITIONS]
    return bool(stats.mannwhitneyu(a, b).pvalue < 0.05 and np.median(a) > np.median(b))


def nvbench_legacy(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Difference of means beyond the smaller relative standard deviation."""
    noise = min(ours.std(ddof=1) / ours.mean(), theirs.std(ddof=1) / theirs.mean())
    return bool(ours.mean() / theirs.mean() - 1 > noise)


def nvbench_robust(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Intervals from minimum to third quartile 0.5 % apart."""
    high, low = float(np.quantile(theirs, 0.75)), float(ours.min())
    return low > high and (low - high) / high >= 0.005


def old_rule(ours: np.ndarray, theirs: np.ndarray, margin: float) -> bool:
    """Interval over rounds of two single processes wholly beyond the margin: what this harness did before."""
    low = ratio_of_runs(ours, theirs, 1 - 2 * ALPHA).low
    return low is not None and low > 1 + margin


# -- rules of several processes: float64[processes, rounds, samples] each


def asv(ours: np.ndarray, theirs: np.ndarray, factor: float) -> bool:
    """Mann-Whitney p < 0.002 over the samples of two processes each, and the median beyond the factor."""
    a, b = (np.median(found, axis=2)[:, :5].ravel() for found in (ours, theirs))
    return bool(stats.mannwhitneyu(a, b).pvalue < 0.002 and np.median(a) > factor * np.median(b))


def pyperf(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Student's t over all values pooled, 95 % two-sided, 3 values a process."""
    a, b = (np.stack([part.mean(axis=(1, 2)) for part in np.array_split(x, 3, axis=1)]).ravel() for x in (ours, theirs))
    found = stats.ttest_ind(a, b)
    return bool(found.pvalue < 0.05 and found.statistic > 0)


# -- all of them on one case


def alarms(candidate: np.ndarray, control: np.ndarray, slowed: np.ndarray, base: np.ndarray, margin: float) -> dict:
    """Return bool[comparisons] of every rule; `candidate` and `control` are the unchanged pairs.

    slowed and base: of the injected slowdown, the two arms of each pair; the unchanged ones where there is none.
    """
    rng, n_pairs = np.random.default_rng(1), len(control)
    runs = [(slowed[j], control[i]) for i in range(n_pairs) for j in range(n_pairs)]
    found = {
        "pytest-benchmark mean:5%": [pytest_benchmark(*run) for run in runs],
        "Google Benchmark U test": [google_benchmark(*run) for run in runs],
        "nvbench legacy": [nvbench_legacy(*run) for run in runs],
        "nvbench robust": [nvbench_robust(*run) for run in runs],
        "old rule of this harness": [old_rule(*run, margin) for run in runs],
    }

    def drawn(size: int) -> tuple[np.ndarray, np.ndarray]:
        size = min(size, n_pairs // 2)  # more would draw the same processes every time
        return slowed[rng.choice(n_pairs, size, replace=False)], control[rng.choice(n_pairs, size, replace=False)]

    found["asv factor 1.1 (default)"] = [asv(*drawn(N_ASV), 1.1) for _ in range(N_DRAWS)]
    found["asv factor 1.0"] = [asv(*drawn(N_ASV), 1.0) for _ in range(N_DRAWS)]
    found["pyperf t test"] = [pyperf(*drawn(N_PYPERF)) for _ in range(N_DRAWS)]
    suspected, slower, n_used = _ours(candidate, control, slowed, base, margin, rng)
    found["ours, pairs alone"] = slower
    found[OURS] = suspected & slower
    found["(ours: sent on to pairs)"] = suspected
    return {name: np.asarray(values, bool) for name, values in found.items()} | {"pairs": n_used}


def _ours(
    candidate: np.ndarray,
    control: np.ndarray,
    slowed: np.ndarray,
    base: np.ndarray,
    margin: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    unchanged = np.array([log_ratio(a, b) for a, b in zip(candidate, control, strict=True)])
    ratios = np.array([log_ratio(a, b) for a, b in zip(slowed, base, strict=True)])
    pairs = pairs_spread(unchanged)
    medians = np.log([np.median(np.median(process, axis=1)) for process in (*candidate, *control)])
    spread = LookSpread(times=Spread(sd=float(medians.std(ddof=1)), n=medians.size), pairs=pairs)
    n_pairs = len(ratios)
    rows = rng.choice(ratios, (N_DRAWS, LOOKS[-1]))
    if slowed is candidate:  # which of two unchanged engines is called the control is a coin's throw
        rows = rows * rng.choice((-1.0, 1.0), rows.shape)
    outcomes, n_used = judge_comparisons(rows, margin=margin, alpha=ALPHA, spread=pairs)
    looks = [
        look_once(slowed[j], control[i], margin=margin, alpha=ALPHA, spread=spread).is_suspicious
        for i, j in rng.integers(0, n_pairs, (N_DRAWS, 2))
    ]
    return np.array(looks), np.array([outcome is PairsOutcome.SLOWER for outcome in outcomes]), n_used


def judge(arguments: argparse.Namespace) -> None:
    """Print the table."""
    traces = np.load(arguments.traces)
    cases = sorted({key.split("|")[0] for key in traces.files})
    sums: dict[str, list[np.ndarray]] = {}
    n_processes = 0
    for case in cases:
        arms = [[traces[f"{case}|{n}|{arm}"] for arm in ("candidate", "control")] for n in range(len(INJECTED))]
        candidate, control = arms[0]
        n_processes += 2 * len(control)
        ratios = np.array([log_ratio(a, b) for a, b in zip(candidate, control, strict=True)])
        medians = np.log([np.median(np.median(process, axis=1)) for process in (*candidate, *control)])
        for number, (slowed, base) in enumerate(arms):
            given = alarms(candidate, control, slowed, base, arguments.max_slowdown)
            for name, values in given.items():
                sums.setdefault(f"{number}|{name}", []).append(values)
        ours = " ".join(f"{100 * sums[f'{c}|{OURS}'][-1].mean():.1f}" for c in range(len(INJECTED)))
        print(
            f"{case}: {len(control)} pairs; CV of a process {100 * medians.std(ddof=1):.2f} %, of a pair "
            f"{100 * pairs_spread(ratios).sd:.2f} % (untrimmed {100 * ratios.std(ddof=1):.2f} %); ours, unchanged and "
            f"slowed: {ours} %"
        )
    joined = {key: np.concatenate(values) for key, values in sums.items()}
    n_apart = sum(len(traces[f"{case}|0|control"]) // LOOKS[-1] for case in cases)
    print(f"\n{len(cases)} series, {n_processes} processes; {n_apart} of our comparisons share no process; accepted "
          f"slowdown {100 * arguments.max_slowdown:g} %")  # fmt: skip
    print(
        f"{'rule':26s} {'false alarms':>16s} {'95 %':>17s} "
        + " ".join(f"{f'+{100 * s:g} %':>6s}" for s in INJECTED[1:])
    )
    for name in [key.split("|")[1] for key in joined if key.startswith("0|") and not key.endswith("|pairs")]:
        n, k = joined[f"0|{name}"].size, int(joined[f"0|{name}"].sum())
        low, high = clopper_pearson_interval(k, n)
        power = " ".join(f"{100 * joined[f'{c}|{name}'].mean():5.1f}%" for c in range(1, len(INJECTED)))
        print(f"{name:26s} {k:6d} of {n:6d} {100 * low:7.2f}-{100 * high:6.2f} % {power}")
    used = " ".join(f"{joined[f'{c}|pairs'].mean():6.1f}" for c in range(len(INJECTED)))
    print(f"pairs until decided, without and with each slowdown: {used}")


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)
    first = steps.add_parser("collect")
    first.add_argument("traces", type=Path)
    first.add_argument("--backend", action="append", required=True)
    first.add_argument("--model", action="append", required=True)
    first.add_argument("--precision", action="append", default=None)
    first.add_argument("--batch-size", action="append", type=int, default=None)
    first.add_argument("--pairs", type=int, default=16)
    first.add_argument("--rounds", type=int, default=10)
    first.set_defaults(step=collect)
    second = steps.add_parser("judge")
    second.add_argument("traces", type=Path)
    second.add_argument("--max-slowdown", type=float, default=0.02)
    second.set_defaults(step=judge)
    arguments = parser.parse_args()
    if arguments.step is collect:
        arguments.precision = arguments.precision or ["fp32"]
        arguments.batch_size = arguments.batch_size or [1, 100]
    arguments.step(arguments)


if __name__ == "__main__":
    main()
