"""Damaged and hostile files for every reader: counts of inputs, and what was not refused in one line.

    python benchmarks/fuzz.py                                 # one minute in all
    python benchmarks/fuzz.py --minutes 60 --write            # also writes the counts into docs/reliability.md

Every reader has a process of its own, one for each CPU at a time, which may take 512 MB more than it begins with; an
input that takes longer than ten seconds is a hang. Inputs that are not refused as they should be are kept in --corpus;
put them into tests/store/fuzz_corpus. Files lie in memory where that can be. Needs a checkout.
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

from fuzz_readers import damaged, readers, try_reader  # noqa: E402
from reliability import versions, write_section  # noqa: E402

MORE_BYTES = 512 << 20
HANG_S = 10
MAX_EDITS = 4
N_KINDS = 6
IN_MEMORY = Path("/dev/shm")  # to empty a file on a disk takes longer than to read it


class Hang(Exception):
    """A reader took too long."""


def edits_from(generator):
    """Return a few edits as `fuzz_readers.damaged` takes them."""
    n_edits = generator.randint(1, MAX_EDITS)
    return [(generator.randrange(N_KINDS), generator.random(), generator.randrange(256)) for _ in range(n_edits)]


def limit_memory():
    """Let this process have no more than MORE_BYTES beside what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def fuzz_reader(name, seconds, seed, corpus):
    """Fuzz one reader for some seconds; print how many inputs there were, refused and wrong."""

    def hang(*_):
        raise Hang(f"no answer in {HANG_S} s")

    signal.signal(signal.SIGALRM, hang)
    generator = random.Random(f"{name} {seed}")
    n_inputs, n_refused, n_wrong = 0, 0, 0
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        reader = readers(Path(folder) / "sound")[name]
        place = Path(folder) / "read"
        place.mkdir()
        limit_memory()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            data = damaged(reader, edits_from(generator))
            n_inputs += 1
            signal.alarm(HANG_S)
            try:
                n_refused += bool(try_reader(reader, data, place))
            except (Exception, Hang) as error:
                n_wrong += 1
                corpus.mkdir(parents=True, exist_ok=True)
                (corpus / f"{name.replace(' ', '_')}-{n_inputs}").write_bytes(data)
                print(f"{name}: input {n_inputs}: {type(error).__name__}: {error}"[:300], file=sys.stderr, flush=True)
            finally:
                signal.alarm(0)
    print(n_inputs, n_refused, n_wrong)


def as_markdown(found, seed):
    """Return the counts as a page shows them."""
    total, wrong = sum(counts[0] for counts in found.values()), sum(counts[2] for counts in found.values())
    lines = [
        f"{total:,} inputs (seed {seed}), {wrong} not refused in one line. {versions('numpy', 'msgspec')}",
        "",
        "| reader | inputs | refused | read all the same | wrong |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {name} | {n:,} | {r:,} | {n - r - w:,} | {w} |" for name, (n, r, w) in found.items()]
    return "\n".join(lines)


def main():
    """Fuzz all readers in turn; exit with 1 when one did what it should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"), help="where wrong inputs are kept")
    parser.add_argument("--write", action="store_true", help="write the counts into docs/reliability.md")
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.reader:
        fuzz_reader(given.reader, given.seconds, given.seed, given.corpus)
        return
    with tempfile.TemporaryDirectory() as folder:
        names = list(readers(Path(folder)))
    n_jobs = os.cpu_count() or 1
    seconds = 60 * given.minutes * n_jobs / len(names)

    def fuzzed(name):
        words = ["--reader", name, "--seconds", str(seconds), "--seed", str(given.seed), "--corpus", str(given.corpus)]
        done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
        counts = tuple(map(int, done.stdout.split()))
        print(f"{name:<20} {counts}", flush=True)
        return counts

    with ThreadPoolExecutor(n_jobs) as pool:
        found = dict(zip(names, pool.map(fuzzed, names), strict=True))
    text = as_markdown(found, given.seed)
    print(text)
    if given.write:
        write_section("fuzz", text)
    sys.exit(any(wrong for _, _, wrong in found.values()))


if __name__ == "__main__":
    main()
