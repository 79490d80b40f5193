"""``python -m tests.protocol --n N``: random trials with 2 to 5 processes; status 0 if all pass."""

from __future__ import annotations

import argparse
import sys
import time

from tests.protocol import trials

BATCH = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.protocol", description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="number of trials (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="the first trial's seed (default 0)")
    arguments = parser.parse_args()
    if arguments.n < 1:
        parser.error("--n must be at least 1")
    before = set(trials.leftovers())
    started = time.monotonic()
    done = killed = 0
    problems: list[str] = []
    while done < arguments.n and not problems:
        ranks = 2 + done // BATCH % 4
        count = min(BATCH, arguments.n - done)
        problems += trials.run_batch(arguments.seed + done, count - 1, ranks) if count > 1 else []
        # The last trial of every batch kills one of its ranks.
        seed = arguments.seed + done + count - 1
        answers = trials.run_killed(seed, ranks)
        if not set(answers) <= {"HeapTimeout", "HeapAborted"} or "HeapTimeout" not in answers:
            problems.append(f"seed {seed}: after a death the survivors said {answers}")
        done += count
        killed += 1
        sys.stderr.write(f"\r{done}/{arguments.n}")
    left = sorted(set(trials.leftovers()) - before)
    if left:
        problems.append(f"left in shared memory: {', '.join(left)}")
    seconds = time.monotonic() - started
    sys.stderr.write("\n")
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(
        f"{done} trials ({killed} with a killed rank), {len(problems)} problems, {seconds:.0f} s\n"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
