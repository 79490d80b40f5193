"""The baseline model: LOOPer's architecture on our data (needs torch).

Per computation a vector, a bidirectional LSTM over its transformed loops, and an LSTM over its
expression, through layers of 600, 350, 200 and 180; then the loop tree from the leaves up, with
LSTMs over the computations and over the loops inside a loop; the output is the speedup over the
original order, under the mean absolute percentage error. Inputs are standardised per column, which
the original does not do and which only helps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from perfkit.learn.examples import Group
from perfkit.learn.looper import COMPUTATION, LOOP, OPERATIONS, TAG, Looped

Array = np.ndarray[Any, Any]
EMBEDDING = 180
TAGS, WORDS = 60, 30


@dataclass(frozen=True)
class Scales:
    """Mean and deviation of the columns of computations, loops and tags."""

    computation: tuple[Array, Array]
    loop: tuple[Array, Array]
    tag: tuple[Array, Array]

    @staticmethod
    def of(found: Sequence[Looped]) -> Scales:
        def scale(parts: Sequence[Array]) -> tuple[Array, Array]:
            rows = np.concatenate(parts)
            return rows.mean(0), np.maximum(rows.std(0), 1e-3)

        return Scales(
            scale([x.computations for x in found]), scale([x.loops for x in found]),
            scale([t for x in found for t in x.tags]),
        )  # fmt: skip


class Looper(torch.nn.Module):
    """Predicts speedups, float32 [schedules]."""

    def __init__(self, scales: Scales) -> None:
        super().__init__()
        self.scales = scales
        self.tags = torch.nn.LSTM(TAG, TAGS, bidirectional=True)
        self.words = torch.nn.Embedding(len(OPERATIONS), WORDS)
        self.expression = torch.nn.LSTM(WORDS, TAGS)
        self.encode = _layers(COMPUTATION + 3 * TAGS, 600, 350, 200, EMBEDDING)
        self.over_computations = torch.nn.LSTM(EMBEDDING, EMBEDDING)
        self.over_loops = torch.nn.LSTM(EMBEDDING, EMBEDDING)
        self.join = _layers(2 * EMBEDDING + LOOP, 200, EMBEDDING)
        self.top = _layers(EMBEDDING, 180)
        self.out = torch.nn.Linear(180, 1)
        self.empty = torch.nn.Parameter(torch.zeros(EMBEDDING))

    def forward(self, batch: Sequence[Looped]) -> torch.Tensor:
        encoded = self._computations(batch)
        # Row 0 stands for "nothing inside"; then come the computations, then the loops by height.
        table = torch.cat([self.empty[None], encoded])
        first = 1 + np.cumsum([0] + [len(x.computations) for x in batch])
        place: dict[tuple[int, int], int] = {}
        for level in _by_height(batch):
            inside: tuple[list[list[int]], list[list[int]]] = ([], [])
            rows = []
            for b, n in level:
                x = batch[b]
                inside[0].append([int(first[b]) + k for loop, k in x.children[n] if not loop])
                inside[1].append([place[b, k] for loop, k in x.children[n] if loop])
                rows.append(x.loops[n] if n < len(x.loops) else np.zeros(LOOP, np.float32))
            place |= {node: len(table) + k for k, node in enumerate(level)}
            joined = [
                _last(self.over_computations, table, inside[0]),
                _last(self.over_loops, table, inside[1]),
                _standard(np.stack(rows), self.scales.loop),
            ]
            table = torch.cat([table, self.join(torch.cat(joined, 1))])
        roots = table[[place[b, len(x.loops)] for b, x in enumerate(batch)]]
        return functional.softplus(self.out(self.top(roots)))[:, 0]

    def _computations(self, batch: Sequence[Looped]) -> torch.Tensor:
        """Float32 [all computations, EMBEDDING]."""
        tags = [t for x in batch for t in x.tags]
        blank = np.zeros((1, TAG), np.float32)
        rows = _standard(np.concatenate(tags), self.scales.tag)
        loops = _last(self.tags, torch.cat([torch.from_numpy(blank), rows]), _spans(tags))
        words = [e for x in batch for e in x.expressions]
        said = self.words(torch.from_numpy(np.concatenate(words)))
        meaning = _last(self.expression, torch.cat([said[:1], said]), _spans(words))
        vectors = _standard(
            np.concatenate([x.computations for x in batch]), self.scales.computation
        )
        found: torch.Tensor = self.encode(torch.cat([vectors, loops, meaning], 1))
        return found


def _standard(rows: Array, scale: tuple[Array, Array]) -> torch.Tensor:
    return torch.from_numpy(((rows - scale[0]) / scale[1]).astype(np.float32))


def _spans(parts: Sequence[Array]) -> list[list[int]]:
    """Row numbers, from 1, of each of several arrays that lie one below the other."""
    ends = np.cumsum([0] + [len(p) for p in parts])
    return [list(range(a + 1, b + 1)) for a, b in pairwise(ends.tolist())]


def _last(lstm: torch.nn.LSTM, table: torch.Tensor, rows: Sequence[list[int]]) -> torch.Tensor:
    """Where an LSTM ends over each list of rows of ``table``: [lists, directions * hidden].

    A list without rows stands for row 0.
    """
    lengths = [max(1, len(r)) for r in rows]
    index = np.zeros((max(lengths), len(rows)), np.int64)
    for k, r in enumerate(rows):
        index[: len(r), k] = r
    steps = pack_padded_sequence(
        table[torch.from_numpy(index)], torch.tensor(lengths), enforce_sorted=False
    )
    _, (last, _) = lstm(steps)
    return torch.cat(tuple(last), 1)


def _layers(*widths: int) -> torch.nn.Sequential:
    parts: list[torch.nn.Module] = []
    for a, b in pairwise(widths):
        parts += [torch.nn.Linear(a, b), torch.nn.ELU()]
    return torch.nn.Sequential(*parts)


def _by_height(batch: Sequence[Looped]) -> list[list[tuple[int, int]]]:
    """Nodes (schedule, loop or root) of all trees, those without loops inside first."""
    levels: list[list[tuple[int, int]]] = []
    for b, x in enumerate(batch):
        heights: dict[int, int] = {}

        def height(n: int, x: Looped = x, heights: dict[int, int] = heights) -> int:
            if n not in heights:
                inside = [height(k) for is_loop, k in x.children[n] if is_loop]
                heights[n] = 1 + max(inside, default=-1)
            return heights[n]

        height(len(x.loops))
        for n, h in heights.items():
            while len(levels) <= h:
                levels.append([])
            levels[h].append((b, n))
    return levels


def train(
    groups: Sequence[Group], seed: int, epochs: int, told: Callable[[int, float], None],
    rate: float = 1e-3, programs: int = 8, decay: float = 1e-2,
) -> Looper:  # fmt: skip
    """Train on the programs whose original order was measured."""
    torch.manual_seed(seed)
    usable = [g for g in groups if g.original >= 0]
    network = Looper(Scales.of([x for g in usable for x in g.looper]))
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
    batches = math.ceil(len(usable) / programs)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * batches)
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(usable))
        total = 0.0
        for k in range(batches):
            chosen = [usable[j] for j in order[k * programs : (k + 1) * programs]]
            speedup = np.concatenate([g.seconds[g.original] / g.seconds for g in chosen])
            target = torch.from_numpy(speedup.astype(np.float32))
            predicted = network([x for g in chosen for x in g.looper])
            loss = ((predicted - target).abs() / target).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        told(epoch + 1, total / batches)
    network.eval()
    return network


def predict(network: Looper, group: Group) -> Array:
    """Seconds of the schedules of a program, from the measured time of its original order."""
    with torch.no_grad():
        speedup = network(group.looper).numpy()
    return group.seconds[group.original] / np.maximum(speedup, 1e-6)


__all__ = ["Looper", "Scales", "predict", "train"]
