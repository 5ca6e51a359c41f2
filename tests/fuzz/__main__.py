"""The long fuzz: ``python -m tests.fuzz [--files 10000]``.

Prints how many files came to what; a file that misbehaves is kept in ``--keep``, and the exit code
is then 1. coverage.py is the one to run by hand.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from tests.fuzz import harness


def run(files: int, first: int, keep: Path) -> int:
    """Decode ``files`` mutated files, a quarter of them of each level; the exit code."""
    counts: dict[str, Counter[str]] = {level: Counter() for level in harness.LEVELS}
    names, found, start = list(harness.LEVELS), 0, time.monotonic()
    with harness.measured():
        for number in range(first, first + files):
            level = names[number % len(names)]
            data = harness.make_file(level, number)
            try:
                counts[level][harness.outcome(data)] += 1
            except harness.Misbehaviour as fault:
                found += 1
                counts[level]["MISBEHAVIOUR"] += 1
                keep.mkdir(parents=True, exist_ok=True)
                path = keep / f"{level}-{number}.dfc"
                path.write_bytes(data)
                print(f"{path}: {fault}", file=sys.stderr)
    outcomes = sorted({outcome for count in counts.values() for outcome in count})
    print(f"| outcome | {' | '.join(names)} | all |")
    print(f"| --- |{' --- |' * (len(names) + 1)}")
    for outcome in outcomes:
        row = [counts[level][outcome] for level in names]
        print(f"| {outcome} | {' | '.join(map(str, row))} | {sum(row)} |")
    print(f"{files} files, {found} misbehaved, {time.monotonic() - start:.0f} s")
    return 1 if found else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"))
    options = parser.parse_args()
    return run(options.files, options.first, options.keep)


if __name__ == "__main__":
    sys.exit(main())
