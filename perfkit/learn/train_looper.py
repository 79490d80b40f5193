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
from torch.nn.utils.rnn import pack_sequence

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
        leaves = self._leaves(batch)
        nodes = _by_height(batch)
        known: dict[tuple[int, int], torch.Tensor] = {}
        for level in nodes:
            inner = self._level(level, batch, leaves, known)
            known.update(zip([(b, n) for b, n in level], inner, strict=True))
        roots = torch.stack([known[b, len(x.loops)] for b, x in enumerate(batch)])
        return functional.softplus(self.out(self.top(roots)))[:, 0]

    def _leaves(self, batch: Sequence[Looped]) -> dict[tuple[int, int], torch.Tensor]:
        scale = self.scales
        rows = np.concatenate([x.computations for x in batch])
        vectors = torch.from_numpy((rows - scale.computation[0]) / scale.computation[1])
        tags = [
            torch.from_numpy((t - scale.tag[0]) / scale.tag[1]) if len(t) else torch.zeros(1, TAG)
            for x in batch for t in x.tags
        ]  # fmt: skip
        _, (last, _) = self.tags(pack_sequence(tags, enforce_sorted=False))
        words = [self.words(torch.from_numpy(e)) for x in batch for e in x.expressions]
        _, (meaning, _) = self.expression(pack_sequence(words, enforce_sorted=False))
        joined = torch.cat([vectors, last[0], last[1], meaning[0]], 1)
        encoded = self.encode(joined)
        places = [(b, k) for b, x in enumerate(batch) for k in range(len(x.computations))]
        return dict(zip(places, encoded, strict=True))

    def _level(
        self, level: Sequence[tuple[int, int]], batch: Sequence[Looped],
        leaves: dict[tuple[int, int], torch.Tensor], known: dict[tuple[int, int], torch.Tensor],
    ) -> torch.Tensor:  # fmt: skip
        inner: list[list[torch.Tensor]] = [[], []]
        vectors = []
        scale = self.scales.loop
        for b, n in level:
            x = batch[b]
            parts: list[list[torch.Tensor]] = [[], []]
            for is_loop, k in x.children[n]:
                parts[is_loop].append(known[b, k] if is_loop else leaves[b, k])
            for kind in (0, 1):
                inner[kind].append(torch.stack(parts[kind] or [self.empty]))
            row = x.loops[n] if n < len(x.loops) else np.zeros(LOOP, np.float32)
            vectors.append(torch.from_numpy(((row - scale[0]) / scale[1]).astype(np.float32)))
        _, (first, _) = self.over_computations(pack_sequence(inner[0], enforce_sorted=False))
        _, (second, _) = self.over_loops(pack_sequence(inner[1], enforce_sorted=False))
        found: torch.Tensor = self.join(torch.cat([first[0], second[0], torch.stack(vectors)], 1))
        return found


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
