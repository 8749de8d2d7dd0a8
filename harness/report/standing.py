"""What a reader calls the outcome of a case, in one word, and the sentence at the top of a report."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.gates.invariance import GATE as INVARIANCE
from harness.records import WORST_FIRST, Outcome, Record, Run, Status, Verdict
from harness.report.format import format_fraction, format_p, format_points, plural
from harness.stats import mcnemar_p


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    word: str
    tone: str  # bad, warn, good or quiet: chooses the colour; the shape is the standing's own
    meaning: str


class Standing(str, enum.Enum):
    """One word for a case, worst first."""

    REGRESSED = "regressed"
    FAILED = "failed"
    ERROR = "error"
    DID_NOT_RUN = "did_not_run"
    INCONCLUSIVE = "inconclusive"
    WAIVED = "waived"
    EXPECTED_LOSS = "expected_loss"
    NOT_JUDGED = "not_judged"
    IMPROVED = "improved"
    PASSED = "passed"
    UNSUPPORTED = "unsupported"

    @property
    def word(self) -> str:
        """Return the word to print."""
        return LOOKS[self].word

    @property
    def tone(self) -> str:
        """Return bad, warn, good or quiet."""
        return LOOKS[self].tone

    @property
    def meaning(self) -> str:
        """Return what the word means, for a legend."""
        return LOOKS[self].meaning

    @property
    def needs_a_look(self) -> bool:
        """Tell whether somebody should look at the case."""
        return self in NEEDS_A_LOOK

    @property
    def rank(self) -> int:
        """Return the place in the order worst first."""
        return list(Standing).index(self)


LOOKS = {
    Standing.REGRESSED: _Look(word="regressed", tone="bad", meaning="a gate found a real loss"),
    Standing.FAILED: _Look(word="failed", tone="bad", meaning="a gate failed for another reason than a loss"),
    Standing.ERROR: _Look(word="error", tone="bad", meaning="nothing could be measured"),
    Standing.DID_NOT_RUN: _Look(
        word="did not run", tone="warn", meaning="a baseline of it is stored, and it did not run"
    ),
    Standing.INCONCLUSIVE: _Look(word="inconclusive", tone="warn", meaning="too few images or rounds to tell"),
    Standing.WAIVED: _Look(word="waived", tone="warn", meaning="a known failure; harness.toml accepts it until a day"),
    Standing.EXPECTED_LOSS: _Look(word="expected loss", tone="warn", meaning="a loss that the model's card expects"),
    Standing.NOT_JUDGED: _Look(word="not judged", tone="warn", meaning="it ran, but no gate compared it with anything"),
    Standing.IMPROVED: _Look(word="improved", tone="good", meaning="a gate found a real gain"),
    Standing.PASSED: _Look(word="passed", tone="good", meaning="every gate that compared it found no loss"),
    Standing.UNSUPPORTED: _Look(word="unsupported", tone="quiet", meaning="this device or backend cannot do it"),
}
TIMES = ("latency", "speedup")  # gates that judge times
BAD = (Standing.REGRESSED, Standing.FAILED, Standing.ERROR)
ENDED = {
    Status.ERROR: Standing.ERROR,
    Status.UNSUPPORTED: Standing.UNSUPPORTED,
    Status.ABSENT: Standing.DID_NOT_RUN,
}
PASSING = {  # of a case that no gate failed, the most decided first
    Outcome.REGRESSED: Standing.EXPECTED_LOSS,
    Outcome.INCONCLUSIVE: Standing.INCONCLUSIVE,
    Outcome.IMPROVED: Standing.IMPROVED,
    Outcome.SAME: Standing.PASSED,
}
EXPLAINED = (  # by one gate
    Standing.REGRESSED,
    Standing.FAILED,
    Standing.INCONCLUSIVE,
    Standing.WAIVED,
    Standing.EXPECTED_LOSS,
    Standing.IMPROVED,
)
OTHERS = {  # in a sentence, after what passed or failed
    Standing.DID_NOT_RUN: "expected and did not run",
    Standing.INCONCLUSIVE: "inconclusive",
    Standing.WAIVED: "with a waived failure",
    Standing.EXPECTED_LOSS: "with an expected loss",
    Standing.NOT_JUDGED: "not judged",
    Standing.UNSUPPORTED: "unsupported",
}
NEEDS_A_LOOK = (*BAD, Standing.DID_NOT_RUN, Standing.INCONCLUSIVE, Standing.NOT_JUDGED)


def outcome_word(outcome: Outcome) -> str:
    """Return one verdict's outcome as it is printed: "no baseline"."""
    return outcome.value.lower().replace("_", " ")


def standing_of(record: Record) -> Standing:
    """Return the one word for a record. A case that nothing judged never reads like one that holds."""
    if record.status in ENDED:
        return ENDED[record.status]
    is_open = record.error and record.known_error is None
    if record.status is not Status.FAILED and (is_open or record.unsupported):  # of a run that ended unjudged
        return Standing.ERROR if record.error else Standing.UNSUPPORTED
    outcomes = {verdict.outcome for verdict in record.verdicts if _counts(verdict)}
    failed = {verdict.outcome for verdict in record.verdicts if verdict.is_failure}
    if record.status is Status.FAILED or failed:
        return Standing.REGRESSED if Outcome.REGRESSED in failed else Standing.FAILED
    if any(verdict.waived for verdict in record.verdicts):
        return Standing.WAIVED
    return next((standing for outcome, standing in PASSING.items() if outcome in outcomes), Standing.NOT_JUDGED)


def _counts(verdict: Verdict) -> bool:
    # An absolute time wanders from night to night; without an accepted slowdown it is shown, not judged.
    return verdict.gate not in TIMES or verdict.is_failure or verdict.code == "speed_unclear"


def leading_verdict(record: Record) -> Verdict | None:
    """Return the verdict that explains the standing: failures first, then the most decided outcome."""
    ranked = sorted(
        record.verdicts,
        key=lambda verdict: (
            not verdict.is_failure,
            not verdict.waived,
            not _counts(verdict),
            WORST_FIRST.index(verdict.outcome) if verdict.outcome in WORST_FIRST else len(WORST_FIRST),
            verdict.n_lost is None and verdict.p_value is None,  # what was compared says more than what was held
            verdict.gate == INVARIANCE.name,  # of the case with itself
        ),
    )
    return ranked[0] if ranked else None


def deciding_gate(record: Record) -> str:
    """Return the gate whose verdict explains the standing, "" where none does."""
    standing, verdict = standing_of(record), leading_verdict(record)
    if standing is Standing.FAILED and not (verdict and verdict.is_failure):  # by a test that judged by itself
        return ""
    return verdict.gate if verdict is not None and standing in EXPLAINED else ""


def finding(record: Record) -> str:
    """Return why a case stands where it does: "top-1 99.25 -> 97.25 % (-2.00 points; 40 lost, 0 gained of 2,000)"."""
    verdict = leading_verdict(record)
    failed_by_test = record.status is Status.FAILED and not (verdict and verdict.is_failure)
    if record.status in ENDED or verdict is None or failed_by_test:
        told = record.reason or record.error or record.unsupported or "no gate judged it"
        return told.removeprefix(f"{record.case.id}: ")  # whoever prints it names the case
    found = counted(record, verdict) or verdict.message or record.reason
    if verdict.worst_slice and verdict.worst_slice not in found:
        found = f"{found}; {verdict.worst_slice}"
    if verdict.upgrade:
        found = f"{verdict.upgrade}: {found}"
    if verdict.waived:
        found = f"{found}; {verdict.waived}"
    return f"{found}; then an error: {record.error}" if record.error and verdict.is_failure else found


def counted(record: Record, verdict: Verdict) -> str:
    """Return what a verdict on images counted, or a metric's two values; "" for another verdict."""
    n_lost, n_gained = verdict.n_lost, verdict.n_gained
    leading = record.samples.leading if record.samples is not None and verdict.metric else None
    if leading is not None and verdict.value is not None and verdict.baseline_value is not None:
        before, now = (leading.in_words(value) for value in (verdict.baseline_value, verdict.value))
        moved = f"{before} -> {now}" if before != now else now
        return f"{verdict.metric} {moved} on {leading.n_samples:,} samples"
    if n_lost is None or n_gained is None:
        return ""
    n = record.accuracy.n_images if record.accuracy else None
    counts = []
    rate = ""
    if verdict.value is not None and verdict.baseline_value is not None:
        before, now = (format_fraction(value, n=n) for value in (verdict.baseline_value, verdict.value))
        change = verdict.value - verdict.baseline_value
        rate = f"top-1 {before.removesuffix('%').rstrip()} -> {now}" if change else f"top-1 {now}"
        counts += [format_points(change, n=n)] if change else []
    counts.append(f"{n_lost:,} lost, {n_gained:,} gained" + (f" of {n:,}" if n else ""))
    split = record.loss_split
    if split is not None and verdict.gate == "fp32":
        counts.append(f"{split.quantization_lost:,} lost by quantization, {split.kernel_lost:,} by kernels")
    if not verdict.is_failure:  # beside counts, a reader expects this test, whatever the gate decided by
        counts.append(f"McNemar {format_p(mcnemar_p(n_lost, n_gained))}")
    return f"{rate} ({'; '.join(counts)})" if rate else "; ".join(counts)


def verdict_sentence(run: Run, records: Sequence[Record], *, missing: Sequence[str] = ()) -> str:
    """Return the one sentence a report opens with; `missing` are cases of the previous run that did not run."""
    if not records:
        return "No case ran: nothing was checked."
    ranked = sorted(records, key=lambda record: standing_of(record).rank)
    counts = Counter(standing_of(record) for record in records)
    is_bad = any(counts[standing] for standing in BAD)
    changed = _changes_of_models(records, told=finding(ranked[0]) if is_bad else "")
    if is_bad:
        sentence = f"{_bad_sentence(ranked, counts)}{changed}"
    else:
        sentence = _good_sentence(counts, len(records), n_losses=sum(map(has_real_loss, records)), changed=changed)
    if missing:
        sentence += f" {plural(len(missing), 'case')} of the previous run did not run: {_some(missing)}."
    return sentence if run.finished_at else f"The run did not finish. Of what ran: {sentence}"


def _bad_sentence(ranked: Sequence[Record], counts: Counter[Standing]) -> str:
    verbs = {Standing.REGRESSED: "regressed", Standing.FAILED: "failed", Standing.ERROR: "ended in an error"}
    present = [standing for standing in BAD if counts[standing]]
    first, worst = present[0], ranked[0]
    told = finding(worst).rstrip(".")
    if counts[first] == 1:
        sentence = f"{worst.case.id} {verbs[first]}: {told}."
    else:
        sentence = (
            f"{counts[first]:,} of {plural(len(ranked), 'case')} {verbs[first]}; the first is {worst.case.id}: {told}."
        )
    rest = [f"{counts[standing]:,} {verbs[standing]}" for standing in present[1:]]
    rest += [f"{counts[s]:,} {word}" for s, word in OTHERS.items() if counts[s]]
    rest += [f"{n_held:,} passed"] if (n_held := counts[Standing.PASSED] + counts[Standing.IMPROVED]) else []
    return f"{sentence} Of {plural(len(ranked), 'case')}: {', '.join(rest)}." if rest else sentence


def has_real_loss(record: Record) -> bool:
    """Tell whether a case lost more images than chance explains, though no more than is accepted."""
    alpha = record.tolerance.alpha
    return any(
        verdict.outcome in (Outcome.SAME, Outcome.INCONCLUSIVE)
        and verdict.code != "not_among_many"
        and verdict.n_lost is not None
        and verdict.n_gained is not None
        and verdict.n_lost > verdict.n_gained
        and mcnemar_p(verdict.n_lost, verdict.n_gained) <= alpha
        for verdict in record.verdicts
    )


def _changes_of_models(records: Sequence[Record], *, told: str = "") -> str:
    """Return a sentence on each model whose file is not the baseline's: its change, and its worst case.

    `told`: a finding that stands before it, and is not told twice.
    """
    worst: dict[str, tuple[Record, Verdict]] = {}
    for record in records:
        for verdict in record.verdicts:
            if verdict.model_change and verdict.value is not None and verdict.n_lost is not None:
                before = worst.get(record.case.model)
                if before is None or _net_loss(verdict) > _net_loss(before[1]):
                    worst[record.case.model] = (record, verdict)
    return "".join(f" {_change_of_model(record, verdict, told)}" for record, verdict in worst.values())


def _net_loss(verdict: Verdict) -> int:
    return (verdict.n_lost or 0) - (verdict.n_gained or 0)


def _change_of_model(record: Record, verdict: Verdict, told: str) -> str:
    case = record.case
    where = ", ".join(part for part in (case.backend, case.precision.value, case.variant) if part)
    found = counted(record, replace(verdict, is_failure=True))  # without a p-value: the sentence is long enough
    changed = f"{case.model} changed ({verdict.model_change})"
    return f"{changed}." if found == told else f"{changed}: {found} on {where}."


def _good_sentence(counts: Counter[Standing], n_records: int, *, n_losses: int = 0, changed: str = "") -> str:
    n_held = counts[Standing.PASSED] + counts[Standing.IMPROVED]
    others = [f"{counts[standing]:,} {word}" for standing, word in OTHERS.items() if counts[standing]]
    if counts[Standing.IMPROVED]:
        others.insert(0, f"{counts[Standing.IMPROVED]:,} of them improved")
    if n_held == 0:
        return f"No case passed: {', '.join(others)}.{changed}"
    held = f"{n_held:,} of {plural(n_records, 'case')} passed"
    told = f"{held}; {', '.join(others)}." if others else f"{held}."
    if n_losses:
        return (
            f"Significant loss in {n_losses:,} of {plural(n_records, 'case')}, within what is accepted.{changed} {told}"
        )
    return f"No regression: {told}{changed}"


def _some(names: Sequence[str], limit: int = 3) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"
