"""A notebook as a script: read two runs, compare them, plot one, time a model. Run: python notebook.py RUN_A RUN_B."""

# %% Two runs of `harness run`, by their folders
import sys

from harness import compare, load_run, time_model

before, after = map(load_run, sys.argv[1:3])
frame = after.frame()
print(frame[["case", "batch_size", "top1", "p50_ns"]].to_string(index=False))

# %% Did anything get worse?
found = compare(before, after)
for case_id, verdicts in found.verdicts:
    for verdict in verdicts:
        print(f"{case_id:32} {verdict.gate:10} {verdict.outcome.value:14} {verdict.message}")
print("worse" if found.is_failure else "nothing worse")

# %% Every time sample is there: one line a round
latency = after.cases[0].latencies[0]
rounds = latency.rounds_ns.array()
print(f"{after.cases[0].case.id}, batch {latency.batch_size}: medians of {len(rounds)} rounds [us]")
print([round(sorted(samples)[len(samples) // 2] / 1e3, 2) for samples in rounds.tolist()])

# %% A model without a run
(alone,) = time_model("mlp", "ort", n_rounds=6)
print(f"mlp on ort, batch 1: {sorted(alone.rounds_ns.array().ravel())[alone.rounds_ns.array().size // 2] / 1e3:.2f} us")
