"""Flags of records and latencies in words, for the terminal and the page."""

from __future__ import annotations

from harness.records import TIMED_OTHERWISE, Latency

ENQUEUE_BOUND = "enqueue_bound"
# What bears on the meaning of a time or a speed-up, so that the terminal tells it too.
TOLD_IN_TERMINAL = (ENQUEUE_BOUND, TIMED_OTHERWISE)
FLAGS = {
    "precision_not_as_asked": "ran in another precision than asked",
    "scored_on_training_images": "scored on images the model was trained on",
    "many_ties": "ties: top-1 depends on the order of the classes; score the logits",
    "expects_int8_loss": "the model's card expects a loss in INT8",
    ENQUEUE_BOUND: "a plain enqueue takes the host nearly as long as the device needs, or longer",
    TIMED_OTHERWISE: "FP32 was timed in another way: their ratio is no speed-up",
    "drift": "the latency moved during the run",
    "noisy": "the rounds scatter widely: the machine was not quiet",
}


def flag_text(flag: str) -> str:
    """Return a flag in words; one that this report does not know comes back as it is."""
    return FLAGS.get(flag, flag)


def latency_flag_text(flag: str, latency: Latency) -> str:
    """Return a flag of a latency in words that say what it means for how this one was timed."""
    ours = _mode_text(latency.launch, latency.gated)
    if flag == TIMED_OTHERWISE and latency.reference_launch:
        theirs = _mode_text(latency.reference_launch, latency.reference_gated)
        return f"timed as {ours}, FP32 as {theirs}: their ratio is no speed-up"
    if flag != ENQUEUE_BOUND:
        return flag_text(flag)
    if (latency.launch, latency.gated) == ("enqueue", False):
        return f"{FLAGS[flag]}: this time is the host's"
    return f"{FLAGS[flag]}; this time, of {ours}, is not affected"


def _mode_text(launch: str, gated: bool) -> str:
    if gated:
        return f"a gated {launch}"
    return f"an {launch}" if launch[0] in "aeiou" else f"a {launch}"
