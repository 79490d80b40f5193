"""Random trials of the heap with real processes: shapes, delays, orders, deaths, the wrap.

A rank is a process that knows a list of seeds and nothing else; what to do in a trial follows
from its seed, so the only thing the ranks share is the heap under test.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from perfkit.comm.heap import SymmetricHeap
from perfkit.comm.segments import SHARED_MEMORY
from perfkit.errors import HeapAborted, HeapTimeout

POISON = 0xA5
PATIENCE = 60.0
KILLED_PATIENCE = 0.2


@dataclass(frozen=True)
class Trial:
    """What all ranks know of a trial."""

    seed: int
    ranks: int
    frames: int
    subtiles: int
    epochs: int
    first_epoch: int
    push: bool
    sizes: tuple[tuple[int, ...], ...]
    """``sizes[source][destination]`` in elements of 8 bytes; some ranks send or get nothing."""
    victim: int | None
    victim_epoch: int

    @classmethod
    def random(cls, seed: int, ranks: int, victim: bool = False) -> Trial:
        rng = random.Random(seed)
        epochs = rng.randint(1, 6)
        empty = {rank for rank in range(ranks) if rng.random() < 0.15}
        sizes = tuple(
            tuple(
                0 if source in empty or destination in empty else rng.randint(0, 300)
                for destination in range(ranks)
            )
            for source in range(ranks)
        )
        return cls(
            seed=seed,
            ranks=ranks,
            frames=rng.randint(1, 3),
            subtiles=rng.randint(1, 3),
            epochs=epochs,
            first_epoch=rng.choice([0, 2**32 - 3, 2**63 - 3, 2**64 - 3]),
            push=rng.random() < 0.5,
            sizes=sizes,
            victim=rng.randrange(ranks) if victim else None,
            victim_epoch=rng.randrange(epochs),
        )

    def offset(self, source: int, destination: int) -> int:
        """Where a pair's data begin: behind those of the lower sources (or destinations)."""
        if self.push:
            return 8 * sum(self.sizes[other][destination] for other in range(source))
        return 8 * sum(self.sizes[source][:destination])

    @property
    def slot_bytes(self) -> int:
        columns = [sum(row[d] for row in self.sizes) for d in range(self.ranks)]
        return 8 * max(*(sum(row) for row in self.sizes), *columns)

    def content(self, source: int, destination: int, step: int) -> np.ndarray:
        first = ((self.seed * 7 + source) * 7 + destination) * 64 + step
        return np.arange(self.sizes[source][destination], dtype=np.uint64) + np.uint64(first << 16)


def run_rank(trial: Trial, rank: int, timeout: float, folder: Path = SHARED_MEMORY) -> str:
    """One rank's part; ``ok`` or what went wrong."""
    heap = SymmetricHeap.join(
        f"trial-{os.getppid()}-{trial.seed}", rank, trial.ranks, slot_bytes=trial.slot_bytes,
        frames=trial.frames, subtiles=trial.subtiles, timeout=timeout, folder=folder,
        first_epoch=trial.first_epoch, poison=POISON,
    )  # fmt: skip
    rng = random.Random(trial.seed * 64 + rank)
    parts = trial.frames * trial.subtiles
    items = [(other, part) for other in range(trial.ranks) for part in range(parts)]
    with heap:
        for step in range(trial.epochs):
            if rank == trial.victim and step == trial.victim_epoch:
                os.kill(os.getpid(), signal.SIGKILL)
            heap.begin()
            rng.shuffle(items)
            for other, part in items:
                heap.wait_free(other)
                _send(heap, trial, rank, other, part, step)
                _pause(rng)
            rng.shuffle(items)
            left = [parts] * trial.ranks
            for other, part in items:
                heap.wait(other, *divmod(part, trial.subtiles))
                if problem := _check(heap, trial, other, rank, part, step):
                    heap.abort()
                    return problem
                _pause(rng)
                left[other] -= 1
                if not left[other]:
                    heap.acknowledge(other)
    return "ok"


def _pause(rng: random.Random) -> None:
    if rng.random() < 0.02:
        time.sleep(rng.random() * 0.0005)


def _piece(length: int, part: int, parts: int) -> slice:
    return slice(length * part // parts, length * (part + 1) // parts)


def _send(heap: SymmetricHeap, trial: Trial, rank: int, other: int, part: int, step: int) -> None:
    data = trial.content(rank, other, step)
    where = _piece(len(data), part, trial.frames * trial.subtiles)
    owner = other if trial.push else rank
    target = heap.array(data.shape, np.uint64, rank=owner, offset=trial.offset(rank, other))
    target[where] = data[where]
    heap.publish(other, *divmod(part, trial.subtiles))


def _check(
    heap: SymmetricHeap, trial: Trial, source: int, rank: int, part: int, step: int
) -> str | None:
    wanted = trial.content(source, rank, step)
    where = _piece(len(wanted), part, trial.frames * trial.subtiles)
    owner = rank if trial.push else source
    found = heap.array(wanted.shape, np.uint64, rank=owner, offset=trial.offset(source, rank))
    if (found[where] == wanted[where]).all():
        return None
    return f"seed {trial.seed}: rank {rank} read wrong data of rank {source} in step {step}"


def _serve(rank: int, ranks: int, seeds: list[int], results: Connection) -> None:
    for seed in seeds:
        try:
            answer = run_rank(Trial.random(seed, ranks), rank, PATIENCE)
        except Exception as error:
            answer = f"seed {seed}: rank {rank}: {type(error).__name__}: {error}"
        results.send(answer)
        if answer != "ok":
            return


def _die_or_tell(rank: int, trial: Trial, results: Connection) -> None:
    try:
        run_rank(trial, rank, KILLED_PATIENCE)
        results.send("ok")
    except (HeapTimeout, HeapAborted) as error:
        results.send(type(error).__name__)


def _start(target: object, arguments: list[tuple[object, ...]]) -> tuple[list, list[Connection]]:
    context = multiprocessing.get_context("fork")
    processes, ends = [], []
    for values in arguments:
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=target, args=(*values, send))  # type: ignore[arg-type]
        process.start()
        send.close()
        processes.append(process)
        ends.append(receive)
    return processes, ends


def run_batch(first_seed: int, count: int, ranks: int) -> list[str]:
    """``count`` trials by the same processes; the problems found."""
    seeds = list(range(first_seed, first_seed + count))
    processes, ends = _start(_serve, [(rank, ranks, seeds) for rank in range(ranks)])
    problems = []
    for end in ends:
        for _ in seeds:
            if not end.poll(2 * PATIENCE):
                problems.append(f"seeds {seeds[0]}..: a rank hangs")
                break
            try:
                answer = end.recv()
            except EOFError:
                problems.append(f"seeds {seeds[0]}..: a rank died")
                break
            if answer != "ok":
                problems.append(answer)
                break
    for process in processes:
        process.join(1)
        process.kill()
    return problems


def run_killed(seed: int, ranks: int) -> list[str]:
    """One trial in which a rank is killed; what each survivor says, by name of the error."""
    trial = Trial.random(seed, ranks, victim=True)
    processes, ends = _start(_die_or_tell, [(rank, trial) for rank in range(ranks)])
    answers = []
    for rank, end in enumerate(ends):
        if rank == trial.victim:
            continue
        answers.append(end.recv() if end.poll(30) else "hangs")
    for process in processes:
        process.join(1)
        process.kill()
    return answers


def leftovers(folder: Path = SHARED_MEMORY) -> list[str]:
    """Segments of this user that are still there."""
    return sorted(path.name for path in folder.glob(f"perfkit-{os.getuid()}-*"))
