"""Flags of records and latencies in words, for the terminal and the page."""

from __future__ import annotations

from harness.machine.clock_audit import CLOCK_COARSENS, CLOCK_DRIFT, CLOCK_FLAGS, COARSE_CLOCK
from harness.machine.conditions import (
    BUSY_MACHINE,
    PINNED,
    POWER_CAPPED,
    SHARED_GPU,
    SPINNING,
    STOLEN_CPU,
    THROTTLED,
)
from harness.measure.warm_up import NOT_STEADY
from harness.records import TIMED_OTHERWISE, Latency

ENQUEUE_BOUND = "enqueue_bound"
# What bears on the meaning of a time or a speed-up, so that the terminal tells it too.
TOLD_IN_TERMINAL = (ENQUEUE_BOUND, TIMED_OTHERWISE, THROTTLED, *CLOCK_FLAGS)
FLAGS = {
    "precision_not_as_asked": "ran in another precision than asked",
    "scored_on_training_images": "scored on images the model was trained on",
    "many_ties": "ties: top-1 depends on the order of the classes; score the logits",
    "expects_int8_loss": "the model's card expects a loss in INT8",
    ENQUEUE_BOUND: "a plain enqueue takes the host nearly as long as the device needs, or longer",
    TIMED_OTHERWISE: "FP32 was timed in another way: their ratio is no speed-up",
    "drift": "the latency moved during the run",
    "noisy": "the rounds scatter widely: the machine was not quiet",
    NOT_STEADY: "calls still got faster or slower when the time for warming up was spent",
    COARSE_CLOCK: "a step of the clock is more than 1 % of a sample: the time has few digits",
    CLOCK_DRIFT: "the clock ran more than 0.1 % faster or slower than another clock of this machine",
    CLOCK_COARSENS: "the clock's steps grew during the run: it keeps times in too few bits",
    PINNED: "the process may run on some of the machine's CPUs only",
    STOLEN_CPU: "the hypervisor gave more than 1 % of the CPUs' time to other machines",
    BUSY_MACHINE: "other processes took more than a quarter of the CPUs' time",
    SPINNING: "idle threads may spin (a setting was read back): they take time from whatever runs next",
    SHARED_GPU: "other processes held the GPU",
    POWER_CAPPED: "the GPU held its clocks down to stay below its power limit",
    THROTTLED: "the GPU was too hot or short of power in so many rounds that they were kept",
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
