"""What holds for all verdicts of a run: many comparisons share one alpha, and options say what fails."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from harness.gates._paired import check_tolerance
from harness.records import Outcome, Verdict
from harness.stats import cases_that_could_alarm, holm_p, smallest_p

UNGATED_CODES = ("slower_not_gated", "from_cache")


def holm(
    verdicts: Sequence[Verdict],
    *,
    alpha: float,
    families: Mapping[str, str] | None = None,
    smallest: Sequence[float] | None = None,
) -> tuple[Verdict, ...]:
    """Keep the chance of any false REGRESSED at alpha over all cases of a run, family by family; order is kept.

    A REGRESSED whose adjusted p-value exceeds alpha becomes INCONCLUSIVE. Cases whose few changed images could never
    have raised an alarm do not take part, so a night in which one case moved judges it with the full alpha.
    `families`: gate -> its family (default: each its own). `smallest`: the smallest p-value that each test could have
    given (default: 0).
    Raises: MeasurementError for an alpha or a p-value that is not a number.
    Source: S. Holm, Scand. J. Statist. 6 (1979) 65; R. E. Tarone, Biometrics 46 (1990) 515.
    """
    check_tolerance(0.0, alpha)
    adjusted, known = list(verdicts), families or {}
    least = smallest if smallest is not None else [0.0] * len(verdicts)
    of_family = [known.get(verdict.gate, verdict.gate) for verdict in verdicts]
    for family in dict.fromkeys(of_family):
        places = [i for i, v in enumerate(verdicts) if of_family[i] == family and v.p_value is not None]
        could = cases_that_could_alarm([least[i] for i in places], alpha)
        taking_part = [i for i, takes_part in zip(places, could, strict=True) if takes_part]
        p_values = holm_p([verdicts[i].p_value or 0.0 for i in taking_part])
        joint = dict(zip(taking_part, p_values.tolist(), strict=True))
        for i in places:
            adjusted[i] = _adjusted(verdicts[i], joint.get(i, 1.0), n_tests=len(places), alpha=alpha)
    return tuple(adjusted)


def apply_rules(
    verdicts: Sequence[Verdict],
    *,
    strict: bool = False,
    require_baseline: bool = False,
    baseline_gates: Collection[str] = (),
) -> tuple[Verdict, ...]:
    """Say which verdicts fail under the options of a run; REGRESSED was decided when it was judged.

    `strict`: INCONCLUSIVE fails, and so does INCOMPARABLE between measurements of the same run. `require_baseline`:
    a missing, stale or foreign baseline fails; `baseline_gates` are the gates that read one.
    """

    def fails(verdict: Verdict) -> bool:
        if verdict.code in UNGATED_CODES:
            return False
        if verdict.outcome is Outcome.INCONCLUSIVE:
            return strict
        if verdict.outcome is Outcome.NO_BASELINE:
            return require_baseline
        if verdict.outcome is Outcome.INCOMPARABLE:
            return require_baseline if verdict.gate in baseline_gates else strict
        return False

    return tuple(
        replace(verdict, is_failure=True) if not verdict.is_failure and fails(verdict) else verdict
        for verdict in verdicts
    )


def smallest_p_of(verdict: Verdict) -> float:
    """Return the smallest p-value that the exact test of a verdict could have given, with as many changed images."""
    if verdict.n_lost is not None and verdict.n_gained is not None:
        return smallest_p(verdict.n_lost, verdict.n_gained)
    return 0.0


def _adjusted(verdict: Verdict, joint_p: float, *, n_tests: int, alpha: float) -> Verdict:
    if verdict.outcome is not Outcome.REGRESSED or joint_p <= alpha:
        return verdict
    return replace(
        verdict,
        outcome=Outcome.INCONCLUSIVE,
        code="not_among_many",
        is_failure=False,
        message=f"{verdict.message}; beyond {alpha:g} alone, but not among the {n_tests} tests of this run",
        advice=f"repeat with more images before acting on it; {verdict.advice}",
    )
