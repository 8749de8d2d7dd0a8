"""Every fault at every stage of a case, and every wrong answer of an engine: what the harness says of each.

    python benchmarks/fault_table.py                          # prints the tables; some twenty minutes
    python benchmarks/fault_table.py --write                  # also writes them into docs/reliability.md
    python benchmarks/fault_table.py --only faults-apart      # one of them

A pair holds when the faulty case is red with stage and cause, its neighbour passed, and neither a process nor a
temporary file is left. Needs a checkout: the faults are those of tests/fakes.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

from fault_runs import APART, FAULTS, GRAPHS, STAGES, WRONG, fate_of, told_of  # noqa: E402
from reliability import versions, write_section  # noqa: E402

HOLDS = "holds"
TABLES = {  # section of the page -> its stages
    "faults": tuple(stage for stage in STAGES if stage not in (*GRAPHS, *APART)),
    "faults-apart": (*GRAPHS, *APART),
}
WORDS = {
    "segfault": "SIGSEGV",
    "abort": "abort",
    "kill": "SIGKILL",
    "hard_exit": "`os._exit(0)`",
    "slow_death": "slow death",
    "child": "crash, child left",
    "child_and_hang": "hang, child left",
    "exit": "`sys.exit(0)`",
    "exception": "exception",
    "base_exception": "BaseException",
    "out_of_memory": "out of memory",
    "callback": "raise in a callback",
    "thread": "raise in a thread",
    "hang": "hang asleep",
    "hang_with_the_gil": "hang with the GIL",
    "garbage_on_the_channel": "garbage on the channel",
    "garbage_on_stdout": "garbage on stdout",
}


def verdict_of(fate, told, status):
    """Return "holds", or what does not."""
    wrong = [
        (fate.status != status, f"case {fate.status}, expected {status}"),
        (not all(part in fate.reason for part in told), f"reason: {fate.reason}"),
        ("\n" in fate.reason, "reason of several lines"),
        (fate.neighbour != "passed", f"neighbour {fate.neighbour}"),
        (bool(fate.processes), f"processes left: {fate.processes}"),
        (bool(fate.files), f"files left: {fate.files}"),
    ]
    return "; ".join(text for is_wrong, text in wrong if is_wrong) or HOLDS


def measure(stages, show):
    """Return {(stage, fault): verdict} of all pairs of some stages; `show` hears of each."""
    pairs = {(stage, fault): (told_of(stage, fault), None) for fault in FAULTS for stage in stages}
    pairs |= {pair: ((told,), status) for pair, (told, status) in WRONG.items() if pair[0] in stages}
    table = {}
    for (stage, fault), (told, status) in pairs.items():
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            fate = fate_of(stage, fault, Path(folder))
        expected = status or ("passed" if told == ("",) else "error")
        table[stage, fault] = verdict_of(fate, told, expected)
        show(f"{stage:<11} {fault:<24} {time.monotonic() - started:5.1f} s  {table[stage, fault]}")
    return table


def as_markdown(table, stages):
    """Return the table of some stages as a page shows it."""
    n_holding = Counter(table.values())[HOLDS]
    lines = [
        f"{len(table)} pairs, {n_holding} hold. {versions()}",
        "",
        "| fault | " + " | ".join(stages) + " |",
        "| --- |" + " --- |" * len(stages),
    ]
    for fault in FAULTS:
        marks = ["yes" if table[stage, fault] == HOLDS else "**no**" for stage in stages]
        lines.append(f"| {WORDS[fault]} | " + " | ".join(marks) + " |")
    lines += ["", "| wrong answer | at | case ends | holds |", "| --- | --- | --- | --- |"]
    for (stage, fault), (_, status) in WRONG.items():
        if stage not in stages:
            continue
        mark = "yes" if table[stage, fault] == HOLDS else "**no**"
        lines.append(f"| {fault.replace('_', ' ')} | {stage} | {status} | {mark} |")
    return "\n".join(lines)


def main():
    """Make the tables; exit with 1 when a pair does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/reliability.md")
    parser.add_argument("--only", choices=TABLES, help="one of them")
    given = parser.parse_args()
    all_hold = True
    for name in [given.only] if given.only else TABLES:
        table = measure(TABLES[name], lambda line: print(line, flush=True))
        text = as_markdown(table, TABLES[name])
        print(text)
        if given.write:
            write_section(name, text)
        all_hold = all_hold and all(verdict == HOLDS for verdict in table.values())
    sys.exit(not all_hold)


if __name__ == "__main__":
    main()
