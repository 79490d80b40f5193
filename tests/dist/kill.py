"""``python -m tests.dist.kill --trials 100``: kill a random rank at a random moment, many times.

Every rank runs the primitives in a loop; one of them gets SIGKILL, wherever it is. Every survivor
must end with an error that names its rank and the stage, within the group's timeout, and no
process may be left. Half of the trials run in debug mode.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from perfkit import dsp
from perfkit.dsp.peers.ring import ring_attention
from perfkit.errors import CollectiveError
from tests.dist.launcher import launch

TIMEOUT = 5.0  # of the group, seconds
SLACK = 3.0  # for a busy machine to notice
STAGES = ("to positions", "to frames", "ring", "whole", "sum")


@dataclass(frozen=True)
class Trial:
    """Who dies and when; everything follows from the seed."""

    world: int
    victim: int
    delay: float
    checked: bool

    @staticmethod
    def random(seed: int) -> Trial:
        rng = random.Random(seed)
        world = rng.choice([2, 3, 4])
        return Trial(world, rng.randrange(world), rng.uniform(0.0, 0.1), rng.random() < 0.5)


def loop(trial: Trial, folder: str) -> None:
    """A rank's life: communicate for ever, until an error or the kill."""
    rank = dist.get_rank()
    (Path(folder) / f"{os.getpid()}.pid").touch()
    x = torch.randn(2, 3 * trial.world + 1, 7, 16)
    mine = dsp.split(x, dim=1, grad="partial").contiguous().requires_grad_()
    dist.barrier()
    if rank == trial.victim:
        # From another thread, so that it strikes inside of a collective as well.
        threading.Thread(target=die, args=(trial.delay, folder), daemon=True).start()
    while True:
        y = dsp.switch(mine, from_dim=1, to_dim=2, size=x.shape[1], stage=STAGES[0])
        y = dsp.switch(y.sin(), from_dim=2, to_dim=1, size=7, stage=STAGES[1], async_op=True).wait()
        q = y.unflatten(-1, (2, 8)).permute(0, 2, 3, 1, 4)  # [2, 7, heads, positions, 8]
        y = ring_attention(q, q, q, size=x.shape[1], stage=STAGES[2])
        y = dsp.gather(y, dim=3, size=x.shape[1], grad="partial", stage=STAGES[3])
        dsp.reduce_scatter(y, dim=3, stage=STAGES[4]).sum().backward()


def die(delay: float, folder: str) -> None:
    time.sleep(delay)
    (Path(folder) / "killed").write_text(repr(time.time()))
    os.kill(os.getpid(), signal.SIGKILL)


def until_error(trial: Trial, folder: str) -> tuple[float, str]:
    """Seconds from the kill to this rank's error, and its text."""
    try:
        loop(trial, folder)
    except CollectiveError as error:
        killed = float((Path(folder) / "killed").read_text())
        return time.time() - killed, str(error)
    raise AssertionError("the loop ended without an error")


def run(seed: int) -> tuple[Trial, list[tuple[float, str]]]:
    """One trial: (seconds, error) of every survivor.

    Raises:
        AssertionError: a survivor without a proper error in time, or a process that is left.
    """
    trial = Trial.random(seed)
    environment = {"PERFKIT_DSP_CHECK": "1"} if trial.checked else {}
    with tempfile.TemporaryDirectory() as folder:
        outcomes = launch(
            trial.world,
            until_error,
            trial,
            folder,
            environment={**environment, "PERFKIT_DSP_TIMEOUT": str(TIMEOUT)},
            group_timeout=TIMEOUT,
            timeout=60,
            may_die=True,
        )
        pids = [int(path.stem) for path in Path(folder).glob("*.pid")]
    assert len(pids) == trial.world
    left = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    assert not left, f"{trial}: processes {left} are left"
    survivors = []
    for rank, (kind, found) in enumerate(outcomes):
        if rank == trial.victim:
            assert kind == "died", f"{trial}: the victim ended with {kind}: {found}"
            continue
        assert kind == "ok", f"{trial}: rank {rank} ended with {kind}: {found}"
        seconds, text = found
        assert f"rank {rank}" in text, f"{trial}: {text!r} does not name rank {rank}"
        assert any(f"stage {s!r}" in text or f"stage '{s} (" in text for s in STAGES), (
            f"{trial}: {text!r} does not name a stage"
        )
        assert seconds < TIMEOUT + SLACK, f"{trial}: rank {rank} noticed after {seconds:.1f} s"
        survivors.append((seconds, text))
    return trial, survivors


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.dist.kill", description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    times: list[float] = []
    failures = 0
    for seed in range(given.seed, given.seed + given.trials):
        try:
            trial, survivors = run(seed)
        except AssertionError as error:
            failures += 1
            sys.stdout.write(f"seed {seed}: {error}\n")
            continue
        times += [seconds for seconds, _ in survivors]
        slowest = max(seconds for seconds, _ in survivors)
        sys.stdout.write(f"seed {seed}: {trial}: {slowest:.2f} s, {survivors[0][1][:120]}\n")
        sys.stdout.flush()
    good = given.trials - failures
    sys.stdout.write(
        f"{good} of {given.trials} trials good; {len(times)} survivors, each with an error that "
        f"names rank and stage, the slowest after {max(times, default=0.0):.2f} s "
        f"(timeout {TIMEOUT:g} s); no process left\n"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
