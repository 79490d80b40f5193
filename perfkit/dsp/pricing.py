"""Prices, in seconds and bytes, of running a stage in a layout and of changing layouts.

A :class:`Stage` is a part of a model that mixes some of the tensor's axes (attention along them)
and treats the others point by point. A *layout* says, for each axis of the mesh, which tensor axis
it shards (None: it replicates). A stage can run in a layout that shards none of the axes it mixes;
where it mixes a sharded axis, it runs head-sharded if it has heads: DeepSpeed-Ulysses (arXiv
2309.14509) exchanges that axis for heads before the attention and back after it.

Counts are exact (those of :mod:`perfkit.dsp.transfers`); seconds follow the alpha-beta model on
the busiest rank, so the imbalance of uneven shards is part of every price. Nothing is assumed to
overlap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from perfkit.cost.transfer import Link, transfer
from perfkit.dsp.placement import Placement, shard_length, volume
from perfkit.errors import PlanError

Layout = tuple[str | None, ...]
"""For each mesh axis, the tensor axis that it shards, or None."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a model that runs in one layout.

    ``width`` is the bytes per position of its input (a position is one index of every axis),
    ``flops`` counts its forward pass over the whole tensor. ``saved`` is what it keeps per
    position for the backward pass and ``work`` what it needs while it runs, in bytes. ``heads``
    is its number of attention heads, None where it has none; ``exchanged`` is the bytes per
    position of what is exchanged for heads (queries, keys, values and the output).
    """

    name: str
    mixes: frozenset[str]
    width: int
    flops: float = 0.0
    heads: int | None = None
    exchanged: int | None = None
    saved: int = 0
    work: int = 0

    @property
    def exchanged_width(self) -> int:
        return 4 * self.width if self.exchanged is None else self.exchanged


@dataclass(frozen=True, slots=True)
class Mesh:
    """Ranks in row-major order, one link for each axis (the outer axis first, across nodes).

    ``flops`` is what a rank computes per second; ``memory`` bounds the bytes of a rank that
    stages may use, None for no bound.
    """

    shape: tuple[int, ...]
    links: tuple[Link, ...]
    flops: float = math.inf
    memory: float | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.links) or not self.shape:
            raise PlanError(
                f"mesh {self.shape} needs one link for each axis; got {len(self.links)}"
            )
        if any(n < 1 for n in self.shape) or not self.flops > 0:
            raise PlanError(f"mesh {self.shape} at {self.flops} flop/s: must be positive")

    @property
    def ranks(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Passes:
    """What is run: inference, or training with or without recomputation.

    ``recompute`` runs every stage's forward again in the backward pass (activation
    checkpointing), and then stages keep only their input; ``resend`` repeats their communication
    as well, as checkpointing without care does.
    """

    training: bool = True
    recompute: bool = False
    resend: bool = False

    @property
    def compute(self) -> float:
        """Forward passes' worth of arithmetic: backward takes twice the forward."""
        return 1.0 + (2.0 + self.recompute if self.training else 0.0)

    @property
    def forward_sends(self) -> int:
        return 1 + (self.training and self.recompute and self.resend)


@dataclass(frozen=True, slots=True)
class Price:
    """Seconds on the busiest rank, and the most bytes that one rank sends."""

    seconds: float = 0.0
    sent: int = 0

    def __add__(self, other: Price) -> Price:
        return Price(self.seconds + other.seconds, self.sent + other.sent)

    def __mul__(self, times: int) -> Price:
        return Price(self.seconds * times, self.sent * times)


class Pricer:
    """Prices for one mesh and one set of axes (name -> length), each computed once.

    Raises:
        PlanError: an axis without a positive length.
    """

    def __init__(self, axes: Mapping[str, int], mesh: Mesh, passes: Passes) -> None:
        if any(length < 1 for length in axes.values()):
            raise PlanError(f"axes {dict(axes)}: lengths must be positive")
        self.axes, self.mesh, self.passes = dict(axes), mesh, passes
        self._names = tuple(axes)
        self._links = _slowest_links(mesh)
        self._changes: dict[tuple[Layout, Layout, int], Price] = {}
        self._runs: dict[tuple[Stage, Layout], Price | None] = {}
        self._shares: dict[Layout, int] = {}

    @property
    def positions(self) -> int:
        return math.prod(self.axes.values())

    def layouts(self, used: Iterable[str]) -> list[Layout]:
        """Every layout over the axes named, the replicated one included."""
        choices = [None, *(name for name in self._names if name in set(used))]
        return list(itertools.product(choices, repeat=len(self.mesh.shape)))

    def share(self, layout: Layout) -> int:
        """Positions on the rank that holds the most."""
        found = self._shares.get(layout)
        if found is None:
            placement = self._placement(layout)
            found = max(volume(placement.box(rank)) for rank in range(self.mesh.ranks))
            self._shares[layout] = found
        return found

    def change(self, before: Layout, after: Layout, width: int) -> Price:
        """Changing the layout of a tensor of ``width`` bytes per position, all passes.

        Backward moves the gradient the other way (what was split is gathered, what was gathered
        is split without sending).
        """
        key = (before, after, width)
        if key not in self._changes:
            here, there = self._placement(before), self._placement(after)
            price = self._move(here, there, width) * self.passes.forward_sends
            if self.passes.training:
                price += self._move(there, here, width)
            self._changes[key] = price
        return self._changes[key]

    def run(self, stage: Stage, layout: Layout) -> Price | None:
        """Running a stage whose input and output have the layout; None where it cannot."""
        key = (stage, layout)
        if key not in self._runs:
            self._runs[key] = self._run(stage, layout)
        return self._runs[key]

    def _run(self, stage: Stage, layout: Layout) -> Price | None:
        mixed = [a for a, name in enumerate(layout) if name in stage.mixes]
        if mixed and stage.heads is None:
            return None
        inside = tuple(None if a in mixed else name for a, name in enumerate(layout))
        share = self.share(inside) / self.positions
        price = Price()
        if mixed:
            heads = stage.heads or 1
            most = heads
            for a in mixed:
                most = shard_length(most, self.mesh.shape[a], 0)
            share *= most / heads
            price += self._exchange(stage, layout, mixed, heads)
        arithmetic = stage.flops * share / self.mesh.flops * self.passes.compute
        return price + Price(arithmetic)

    def memory(self, stage: Stage, layout: Layout) -> tuple[float, float]:
        """(bytes kept until backward, bytes needed while running) on the fullest rank."""
        share = self.share(layout)
        kept = (stage.width if self.passes.recompute else stage.saved) * share
        again = stage.saved * share if self.passes.training and self.passes.recompute else 0
        return (kept if self.passes.training else 0.0), stage.work * share + again

    def mode(self, stage: Stage, layout: Layout) -> str:
        """In words, how a stage runs in a layout."""
        words = []
        for name, extent in zip(layout, self.mesh.shape, strict=True):
            if name is None:
                words.append(f"replicated on {extent}")
            elif name in stage.mixes:
                words.append(f"heads on {extent} (Ulysses over {name})")
            else:
                words.append(f"{name} on {extent}")
        return ", ".join(words)

    # -- counting ----------------------------------------------------------------------------

    def _placement(self, layout: Layout) -> Placement:
        shape = tuple(self.axes.values())
        dims = tuple(None if name is None else self._names.index(name) for name in layout)
        return Placement(shape, self.mesh.shape, dims)

    def _exchange(self, stage: Stage, layout: Layout, mixed: list[int], heads: int) -> Price:
        """The mixed axes for heads and back, of which a quarter (the output) goes back."""
        shape = (*self.axes.values(), heads)
        outside = self._placement(layout).shards
        inside = tuple(len(shape) - 1 if a in mixed else d for a, d in enumerate(outside))
        before = Placement(shape, self.mesh.shape, outside)
        after = Placement(shape, self.mesh.shape, inside)
        total = Price()
        output = stage.exchanged_width // 4
        for here, there, width in (
            (before, after, stage.exchanged_width - output),
            (after, before, output),
        ):
            total += self._move(here, there, width, heads) * self.passes.forward_sends
            if self.passes.training:
                total += self._move(there, here, width, heads)
        return total

    def _move(self, before: Placement, after: Placement, width: int, parts: int = 1) -> Price:
        """One transfer; elements are ``width / parts`` bytes."""
        if before == after or not width:
            return Price()
        counts = moved(before, after)
        seconds, most = 0.0, 0
        for direction in (counts, counts.T):
            sizes = direction * (width / parts)
            spent = np.zeros(len(sizes))
            for link, pairs in self._links.items():
                bytes_sent = np.where(pairs, sizes, 0.0).sum(axis=1)
                messages = np.where(pairs, direction > 0, False).sum(axis=1)
                spent += [
                    transfer(float(b), int(m), link)
                    for b, m in zip(bytes_sent, messages, strict=True)
                ]
            seconds = max(seconds, float(spent.max()))
        most = int(counts.sum(axis=1).max()) * width // parts
        return Price(seconds, most)


def moved(before: Placement, after: Placement) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Elements that each rank (row) sends to each other rank (column): every rank's Transfer."""
    ranks = range(before.ranks)
    here = np.array([before.box(r) for r in ranks], dtype=np.int64)
    there = np.array([after.box(r) for r in ranks], dtype=np.int64)
    start = np.maximum(here[:, None, :, 0], there[None, :, :, 0])
    stop = np.minimum(here[:, None, :, 1], there[None, :, :, 1])
    counts = np.maximum(stop - start, 0).prod(axis=2)
    place = np.array([before.coordinates(r) for r in ranks])
    for axis, dim in enumerate(before.shards):
        if dim is None:  # replicas read from their own coordinate, as in transfers
            counts *= place[:, None, axis] == place[None, :, axis]
    np.fill_diagonal(counts, 0)
    return counts


def _slowest_links(mesh: Mesh) -> dict[Link, np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    """For each link, the pairs of ranks that talk over it: the outermost axis they differ on."""
    grid = Placement((), mesh.shape, (None,) * len(mesh.shape))
    place = np.array([grid.coordinates(r) for r in range(mesh.ranks)])
    left = np.ones((mesh.ranks, mesh.ranks), dtype=np.bool_)
    pairs: dict[Link, np.ndarray[tuple[int, int], np.dtype[np.bool_]]] = {}
    for axis, link in enumerate(mesh.links):
        differ = left & (place[:, None, axis] != place[None, :, axis])
        pairs[link] = pairs.get(link, np.zeros_like(differ)) | differ
        left &= ~differ
    return pairs
