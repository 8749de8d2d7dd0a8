"""What a reader calls the outcome of a case, in one word, and the sentence at the top of a report."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records import Outcome, Record, Run, Status, Verdict
from harness.report.format import format_images, format_p, plural


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
    UNJUDGED = "unjudged"
    INCONCLUSIVE = "inconclusive"
    KNOWN_LOSS = "known_loss"
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
    def rank(self) -> int:
        """Return the place in the order worst first."""
        return list(Standing).index(self)


LOOKS = {
    Standing.REGRESSED: _Look(word="regressed", tone="bad", meaning="a gate found a real loss"),
    Standing.FAILED: _Look(word="failed", tone="bad", meaning="a gate failed for another reason than a loss"),
    Standing.ERROR: _Look(word="error", tone="bad", meaning="nothing could be measured"),
    Standing.UNJUDGED: _Look(word="not judged", tone="warn", meaning="it ran, but no gate compared it with anything"),
    Standing.INCONCLUSIVE: _Look(word="inconclusive", tone="warn", meaning="too few images or rounds to tell"),
    Standing.KNOWN_LOSS: _Look(word="known loss", tone="warn", meaning="a loss that the model's card announces"),
    Standing.IMPROVED: _Look(word="improved", tone="good", meaning="a gate found a real gain"),
    Standing.PASSED: _Look(word="holds", tone="good", meaning="every gate that compared it found no loss"),
    Standing.UNSUPPORTED: _Look(word="unsupported", tone="quiet", meaning="this device or backend cannot do it"),
}
BAD = (Standing.REGRESSED, Standing.FAILED, Standing.ERROR)
ENDED = {Status.ERROR: Standing.ERROR, Status.UNSUPPORTED: Standing.UNSUPPORTED}
PASSING = {  # of a case that no gate failed, the most decided first
    Outcome.REGRESSED: Standing.KNOWN_LOSS,
    Outcome.INCONCLUSIVE: Standing.INCONCLUSIVE,
    Outcome.IMPROVED: Standing.IMPROVED,
    Outcome.SAME: Standing.PASSED,
}
NEEDS_A_LOOK = (*BAD, Standing.UNJUDGED)


def standing_of(record: Record) -> Standing:
    """Return the one word for a record. A case that nothing judged never reads like one that holds."""
    if record.status in ENDED:
        return ENDED[record.status]
    outcomes = {verdict.outcome for verdict in record.verdicts if _counts(verdict)}
    failed = {verdict.outcome for verdict in record.verdicts if verdict.is_failure}
    if record.status is Status.FAILED or failed:
        return Standing.REGRESSED if Outcome.REGRESSED in failed else Standing.FAILED
    return next((standing for outcome, standing in PASSING.items() if outcome in outcomes), Standing.UNJUDGED)


def _counts(verdict: Verdict) -> bool:
    # An absolute time wanders from night to night; without an accepted slowdown it is shown, not judged.
    return verdict.gate != "latency" or verdict.is_failure or verdict.code == "speed_unclear"


def leading_verdict(record: Record) -> Verdict | None:
    """Return the verdict that explains the standing: failures first, then the most decided outcome."""
    order = (Outcome.REGRESSED, Outcome.INCONCLUSIVE, Outcome.IMPROVED, Outcome.SAME)
    ranked = sorted(
        record.verdicts,
        key=lambda verdict: (
            not verdict.is_failure,
            not _counts(verdict),
            order.index(verdict.outcome) if verdict.outcome in order else len(order),
            verdict.n_lost is None,
        ),
    )
    return ranked[0] if ranked else None


def case_name(record: Record) -> str:
    """Return a case in words: "lenet5, openvino, int8"; a recipe or device only when the id shows it."""
    case = record.case
    plain = f"{case.model}-{case.backend}-{case.precision}"
    extra = case.id[len(plain) :].strip("-")
    return ", ".join(part for part in (case.model, case.backend, case.precision.value, extra) if part)


def finding(record: Record) -> str:
    """Return why a case stands where it does, in a few words: "14 images lost, none won, p = 0.0001"."""
    verdict = leading_verdict(record)
    if record.status in (Status.ERROR, Status.UNSUPPORTED) or verdict is None:
        return record.reason or "no reason given"
    if verdict.n_lost is not None and verdict.n_gained is not None:
        found = format_images(verdict.n_lost, verdict.n_gained)
        return f"{found}, {format_p(verdict.p_value)}" if verdict.p_value is not None else found
    return verdict.message or record.reason


def verdict_sentence(run: Run, records: Sequence[Record], *, missing: Sequence[str] = ()) -> str:
    """Return the one sentence a report opens with; `missing` are cases of the baseline that did not run."""
    if not records:
        return "No case ran: nothing was checked."
    ranked = sorted(records, key=lambda record: standing_of(record).rank)
    counts = Counter(standing_of(record) for record in records)
    is_bad = any(counts[standing] for standing in BAD)
    sentence = _bad_sentence(ranked, counts) if is_bad else _good_sentence(counts, len(records))
    if missing:
        sentence += f" {plural(len(missing), 'case')} of the baseline did not run: {_some(missing)}."
    return sentence if run.finished_at else f"The run did not finish. Of what ran: {sentence}"


def _bad_sentence(ranked: Sequence[Record], counts: Counter[Standing]) -> str:
    verbs = {Standing.REGRESSED: "regressed", Standing.FAILED: "failed", Standing.ERROR: "ended in an error"}
    present = [standing for standing in BAD if counts[standing]]
    first = present[0]
    head = f"{counts[first]:,} of {plural(len(ranked), 'case')} {verbs[first]}"
    lead = "" if counts[first] == 1 else "first "
    sentence = f"{head}: {lead}{case_name(ranked[0])}: {finding(ranked[0]).rstrip('.')}."
    rest = [f"{counts[standing]:,} {verbs[standing]}" for standing in present[1:]]
    return f"{sentence} {' and '.join(rest)}." if rest else sentence


def _good_sentence(counts: Counter[Standing], n_records: int) -> str:
    n_held = counts[Standing.PASSED] + counts[Standing.IMPROVED]
    words = {
        Standing.UNJUDGED: "not judged",
        Standing.INCONCLUSIVE: "inconclusive",
        Standing.KNOWN_LOSS: "with a known loss",
        Standing.UNSUPPORTED: "unsupported",
    }
    others = [f"{counts[standing]:,} {word}" for standing, word in words.items() if counts[standing]]
    if counts[Standing.IMPROVED]:
        others.insert(0, f"{counts[Standing.IMPROVED]:,} of them improved")
    if n_held == 0:
        return f"No case was shown to hold: {', '.join(others)}."
    head = f"No regression: {n_held:,} of {plural(n_records, 'case')} {'holds' if n_held == 1 else 'hold'}"
    return f"{head}; {', '.join(others)}." if others else f"{head}."


def _some(names: Sequence[str], limit: int = 3) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"
