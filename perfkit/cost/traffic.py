"""Bytes that move between the levels of the memory hierarchy.

For a cache, the outermost loop whose data fit is found for every nest; what is outside streams
through the cache, so an access fetches its distinct lines once every time the next loop out is
entered. A loop that does not move an access reuses its lines even when the rest streams by (least
recently used, judged access by access). After S. Ghosh et al., *Cache miss equations* (1999), with
boxes in place of equations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from perfkit.analysis.footprint import CACHE_LINE
from perfkit.cost.device import Device, Level
from perfkit.cost.facts import Facts, Move, Placed

FILL = 0.8
"""The share of a cache that a loop can count on."""

SMALL_PAGE = 4096
TLB_NEAR, TLB_FAR = 3.0, 10.0
"""Cycles per access when the first level of the TLB misses, and when the pages are very many."""


@dataclass(frozen=True, slots=True)
class Group:
    """Accesses of one array that move alike and so touch about the same elements.

    ``lines[k]`` counts the cache lines touched while loop k runs once; the last entry is a single
    iteration of the innermost loop.
    """

    owner: Placed
    array: str
    move: Move
    written: bool
    lines: tuple[float, ...]
    private: bool


class Traffic:
    """The volume of data by level of the hierarchy."""

    def __init__(self, facts: Facts, device: Device, widths: Mapping[str, tuple[int, ...]]) -> None:
        """``widths``: per statement and loop, the iterations taken together (see ``Shape``)."""
        self.device = device
        self.widths = widths
        self.hidden = _hidden(facts)
        self.array_bytes = {
            m.access.array: float(m.array_bytes)
            for p in facts.placed for m in p.moves if m.access.array not in self.hidden
        }  # fmt: skip
        self.groups = {p.name: self._groups(p) for p in facts.placed}
        self.placed = facts.placed
        self._filled: dict[tuple[str, Level, float], float] = {}
        self._bytes: dict[str, float] = {}
        for placed in facts.placed:
            for loop in placed.path:
                if loop.name not in self._bytes:
                    names = {s for s, _ in loop.schedule}
                    self._bytes[loop.name] = self._held(
                        [(p, p.path.index(loop)) for p in facts.placed if p.name in names]
                    )

    @property
    def program_bytes(self) -> float:
        """What the whole program touches."""
        return sum(self.array_bytes.values())

    # -- footprints ------------------------------------------------------------------------------

    def _groups(self, placed: Placed) -> tuple[Group, ...]:
        members: dict[tuple[str, tuple[tuple[float, ...], ...]], list[Move]] = {}
        for move in placed.moves:
            if move.extents and move.access.array not in self.hidden:
                members.setdefault((move.access.array, move.steps), []).append(move)
        return tuple(self._group(placed, array, m) for (array, _), m in members.items())

    def _group(self, placed: Placed, array: str, moves: list[Move]) -> Group:
        move = moves[0]
        depth = len(placed.path)
        rank = len(move.extents)
        rows = {tuple(str(i) for i in m.access.indices[:-1]) for m in moves}
        apart = [d for d in range(rank - 1) if len({str(m.access.indices[d]) for m in moves}) > 1]
        widths = self.widths[placed.name]
        spans, visits = [1.0] * rank, 1.0
        lines: list[float] = []
        for k in range(depth):  # what strips take together lies inside all loops
            for d, step in enumerate(move.steps[k]):
                spans[d] += abs(step) * (min(widths[k], placed.trips[k].mean or 1.0) - 1.0)
            visits *= 1.0 if move.is_invariant(k) else widths[k]
        for k in range(depth, -1, -1):
            if k < depth:
                trip = max(1.0, placed.trips[k].mean / widths[k])
                for d, step in enumerate(move.steps[k]):
                    spans[d] += abs(step) * widths[k] * (trip - 1.0)
                visits *= 1.0 if move.is_invariant(k) else trip
            box = [min(s, float(e)) for s, e in zip(spans, move.extents, strict=True)]
            elements = min(prod(box), visits)
            row = min(box[-1], max(1.0, box[-1] * move.item_bytes / CACHE_LINE))
            found = min(elements, prod(box[:-1]) * row)
            # Neighbouring rows overlap once the loop that walks across them is inside.
            if all(spans[d] < 2.0 for d in apart):
                found *= len(rows)
            lines.append(min(found, move.array_bytes / CACHE_LINE + 1.0))
        parallel = placed.parallel
        private = parallel is not None and not move.is_invariant(parallel)
        written = any(m.is_write for m in moves)
        return Group(placed, array, move, written, tuple(reversed(lines)), private)

    def _held(self, inside: Iterable[tuple[Placed, int]]) -> float:
        """Bytes that one run of a loop touches, data that several statements share counted once."""
        seen: dict[tuple[str, tuple[tuple[float, ...], ...]], float] = {}
        for placed, k in inside:
            for group in self.groups[placed.name]:
                key = (group.array, group.move.steps[k:])
                seen[key] = max(seen.get(key, 0.0), group.lines[k] * CACHE_LINE)
        by_array: dict[str, float] = {}
        for (array, _), size in seen.items():
            by_array[array] = by_array.get(array, 0.0) + size
        return sum(min(size, self.array_bytes[a] + CACHE_LINE) for a, size in by_array.items())

    # -- volumes ---------------------------------------------------------------------------------

    def seconds(self, placed: Placed, level: Level, threads: float) -> float:
        """Time to fill ``level`` from outside for one statement, ``threads`` sharing the work."""
        key = placed.name, level, threads
        if key not in self._filled:
            self._filled[key] = self._seconds(placed, level, threads)
        return self._filled[key]

    def _seconds(self, placed: Placed, level: Level, threads: float) -> float:
        depth = len(placed.path)
        cold = _ramp(self.program_bytes / level.bytes)
        if not depth or not cold:
            return 0.0
        fits = depth
        parallel = placed.parallel
        for k in range(depth - 1, -1, -1):
            room = FILL * level.bytes
            if level.shared and parallel is not None and k > parallel:
                room /= self._crowd(placed, k)
            if self._bytes[placed.path[k].name] > room:
                break
            fits = k
        rate = min(level.core_rate * threads, level.total_rate)
        volume = sum(
            self._volume(group, fits) * self._dearness(group, level)
            for group in self.groups[placed.name]
        )
        return cold * volume / rate

    def _crowd(self, placed: Placed, k: int) -> float:
        """How many copies of the data of loop k the threads hold in a shared cache."""
        groups = self.groups[placed.name]
        everything = sum(g.lines[k] for g in groups)
        private = sum(g.lines[k] for g in groups if g.private)
        return 1.0 + (self.device.threads - 1) * private / everything if everything else 1.0

    def _volume(self, group: Group, fits: int) -> float:
        """Bytes fetched (and written back) when loops from ``fits`` inwards fit."""
        k = max(0, fits - 1)
        while k > 0 and group.move.is_invariant(k):
            k -= 1
        times = group.owner.entered(k) / prod(self.widths[group.owner.name][:k])
        if fits == 0:
            k, times = 0, 1.0
        return group.lines[k] * CACHE_LINE * times * (2.0 if group.written else 1.0)

    def _dearness(self, group: Group, level: Level) -> float:
        last, move = group.owner.inner, group.move
        if move.is_invariant(last) or move.stride(last) < 4 * CACHE_LINE:
            return 1.0
        return level.scattered

    def tlb_cycles(self, placed: Placed) -> float:
        """Cycles lost on pages: accesses that take a new page at every step of the inner loop."""
        last = placed.inner
        if last < 0 or placed.trips[last].mean <= self.device.tlb_entries:
            return 0.0
        found = 0.0
        for group in self.groups[placed.name]:
            if group.move.stride(last) >= self.device.page_bytes:
                pages = placed.trips[last].mean
                found += TLB_FAR if pages > 16 * self.device.tlb_entries else TLB_NEAR
        return found * placed.instances / prod(self.widths[placed.name])

    def fresh_pages(self, facts: Facts) -> float:
        """Pages of 4 KiB of the temporaries that the code allocates itself."""
        local = {a.name for a in facts.scop.arrays if a.local}
        size = sum(b for name, b in self.array_bytes.items() if name in local)
        return size / SMALL_PAGE


def _ramp(ratio: float) -> float:
    """The share of data that a cache has lost since the last run, by what it would have to hold."""
    return min(1.0, max(0.0, (ratio - 0.7) / 0.6))


def _hidden(facts: Facts) -> frozenset[str]:
    """Local arrays that live in a register: all accesses are to one element per iteration."""
    local = {a.name for a in facts.scop.arrays if a.local}
    places: dict[str, set[tuple[str, tuple[tuple[float, ...], ...]]]] = {}
    for placed in facts.placed:
        for move in placed.moves:
            if move.access.array in local:
                where = placed.path[-1].name if placed.path else ""
                places.setdefault(move.access.array, set()).add((where, move.steps))
    return frozenset(name for name, found in places.items() if len(found) == 1)


__all__ = ["Group", "Traffic"]
