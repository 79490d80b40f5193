"""An analytic cost model of Triton kernels: seconds of a mapped schedule, without running it.

Each launch takes as long as the longest of four things: the units' work, moving data through the
second-level cache and from memory, the chain of dependent steps of one program times the waves of
programs, and the host's time to launch a kernel at all. Trip counts, access moves and operation
counts are those of the CPU's model (:mod:`perfkit.cost.facts`, :mod:`perfkit.cost.compute`); the
machine is
:class:`perfkit.cost.device.Gpu`. After S. Hong and H. Kim, *An analytical model for a GPU
architecture with memory-level and thread-level parallelism awareness* (2009), simplified.

Not calibrated: it has met no GPU. It ranks mappings, its absolute values are rough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

from perfkit.cost.device import Gpu
from perfkit.cost.facts import Facts, Move, Placed
from perfkit.cost.operations import operations
from perfkit.ir.expr import ITEMSIZE, Access
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Node
from perfkit.schedule.gpu import default_warps
from perfkit.schedule.gpu_dot import contribution, products
from perfkit.schedule.launches import Launch, lanes, launches, plan

SECTOR = 32
"""Bytes that the memory moves at least, however few of them a warp uses."""

MOST_REGISTERS = 255
"""Per thread; what does not fit spills."""

SPILLING = 4.0
"""How many times longer a program takes that spills."""

IMPOSSIBLE = 1e6
"""The same where the operands of a product do not fit into shared memory: no such kernel runs."""

OVERHEAD_REGISTERS = 40.0
"""Per thread, for pointers, masks and counters."""

OFFSET = 4
"""Bytes per lane of the offset or mask of an access."""

MOST_IN_FLIGHT = 4
"""Operands of a statement, and tiles, that are live at one time."""

STEP = 40.0
"""Cycles of one tensor operation from its operands to its result, with nothing loaded."""

REDUCE = 200.0
"""Cycles for the lanes of a program to agree on a sum."""

SYNC = 30.0
"""Cycles that one step of a product waits for its operands, however deep it is."""

LONGEST_BODY = 1024
"""Scalar multiply-adds of one thread in a step of a product: all of them stand in the code."""

SMALLEST_DOT = 16

DOT_STAGES = 3
"""Operands of a product that are in shared memory at one time: the present ones and those ahead."""


@dataclass(frozen=True, slots=True)
class LaunchCost:
    """One kernel: how often it is launched, on how many programs of how many warps.

    ``device`` is the time of one launch on the GPU; ``bound`` says what it waits for: "compute",
    "cache", "memory" or "latency"; "launch" where the host takes longer to launch the next one.
    ``seconds`` is the longer of both.
    """

    count: float
    programs: float
    warps: int
    device: float
    seconds: float
    bound: str


@dataclass(frozen=True, slots=True)
class GpuEstimate:
    """Predicted seconds of one run, and its kernels in order."""

    launches: tuple[LaunchCost, ...]

    @property
    def seconds(self) -> float:
        return sum(c.count * c.seconds for c in self.launches)

    @property
    def device(self) -> float:
        """Seconds on the GPU alone, which decide between mappings that the host holds up."""
        return sum(c.count * c.device for c in self.launches)


def estimate_gpu(
    poly: Polyhedra, scop: Scop, tree: Node, sizes: Mapping[str, int], gpu: Gpu
) -> GpuEstimate:
    """Predict how long ``tree``, with GPU marks, takes as the order of ``scop`` at ``sizes``.

    Deterministic. Raises BudgetExceeded when isl cannot bound the loops within its budget,
    KeyError for a parameter without a size, TransformError for marks that no kernel can have.
    """
    facts = Facts.of(poly, scop, tree, sizes)
    by_name = {p.name: p for p in facts.placed}
    local = frozenset(a.name for a in scop.arrays if a.local)
    single = frozenset(a.name for a in scop.arrays if a.dtype == "float32")
    halved = single if gpu.float32_bytes < ITEMSIZE["float32"] else frozenset[str]()
    costs: list[LaunchCost] = []
    for launch in launches(plan(tree)):
        inside = [by_name[n] for n in launch.statements]
        if inside:
            costs.append(_Kernel(launch, inside, gpu, local, halved).cost())
    return GpuEstimate(tuple(costs))


class _Kernel:
    """One launch and the statements in it."""

    def __init__(
        self, launch: Launch, placed: list[Placed], gpu: Gpu, local: frozenset[str],
        halved: frozenset[str],
    ) -> None:  # fmt: skip
        self.gpu = gpu
        self.local = local
        self.halved = halved
        self.placed = placed
        self.host = len(launch.host)
        self.outer = len(launch.host) + len(launch.grid)
        self.dots = {p.name: self._is_dot(p) for p in placed}
        width = max(ITEMSIZE[p.statement.value.dtype] * self._held(p) for p in placed)
        marks = [loop.mark("warps") for loop in launch.grid]
        named = [m.factor for m in marks if m is not None]
        self.warps = named[0] if named else default_warps(width, any(self.dots.values()))

    # -- shape ---------------------------------------------------------------------------------

    def _is_dot(self, p: Placed) -> bool:
        """Do the lanes make this a product of matrices?"""
        wide = [k for k, loop in enumerate(p.path) if lanes(loop)]
        over = [k for k in wide if k >= self.outer and p.write.is_invariant(k)]
        large = all(lanes(p.path[k]) >= SMALLEST_DOT for k in wide)
        return len(wide) == 3 and len(over) == 1 and large and len(p.moves) >= 4

    def _reduced(self, p: Placed) -> list[int]:
        """The positions of loops inside a program whose lanes are combined at its end."""
        wide = range(self.outer, len(p.path))
        found = [k for k in wide if lanes(p.path[k]) and p.write.is_invariant(k)]
        return [] if self.dots[p.name] else found

    def _written(self, p: Placed) -> list[int]:
        """The positions of loops whose lanes the result has."""
        return _wide(p, p.write)

    def _elements(self, p: Placed, positions: list[int]) -> float:
        return float(prod(lanes(p.path[k]) for k in positions))

    def _held(self, p: Placed) -> float:
        """Elements of the tensor that a program has of a statement."""
        return self._elements(p, self._written(p)) if self.dots[p.name] else self._lanes(p)

    def _lanes(self, p: Placed) -> float:
        return float(prod(lanes(loop) or 1 for loop in p.path))

    def _iterations(self, p: Placed, most: int | None = None) -> float:
        """How often a program runs the statement, loops up to position ``most`` counted."""
        end = len(p.path) if most is None else most + 1
        return prod(_times(p, k) for k in range(self.outer, end))

    @property
    def count(self) -> float:
        return max(1.0, *(p.entered(self.host) for p in self.placed), 1.0)

    @property
    def programs(self) -> float:
        found = (prod(_times(p, k) for k in range(self.host, self.outer)) for p in self.placed)
        return max(1.0, *found, 1.0)

    # -- time ----------------------------------------------------------------------------------

    def cost(self) -> LaunchCost:
        gpu, programs = self.gpu, self.programs
        registers = self._registers()
        spilling = SPILLING if registers > MOST_REGISTERS else 1.0
        if max(map(self._shared, self.placed)) > gpu.shared:
            spilling = IMPOSSIBLE
        threads = 32 * self.warps
        resident = max(1.0, min(
            gpu.programs, gpu.threads // threads,
            gpu.registers / (min(registers, MOST_REGISTERS) * threads),
        ))  # fmt: skip
        waves = ceil(programs / (gpu.processors * resident))
        together = min(resident, ceil(programs / gpu.processors))
        busy = min(1.0, programs / gpu.processors) * min(1.0, self.warps * together / gpu.warps)
        moved, distinct = self._bytes()
        hot = distinct < gpu.cache_bytes / 2 and self.count > 1
        parts = {
            "compute": programs * self._work() / busy,
            "cache": programs * moved / gpu.cache_rate / min(1.0, programs / gpu.processors),
            "memory": 0.0 if hot else distinct / gpu.memory_rate,
            "latency": waves * self._chain(hot),
        }
        bound = max(parts, key=lambda k: parts[k])
        device = parts[bound] * spilling + gpu.start
        seconds = max(device, gpu.launch)
        bound = bound if device >= gpu.launch else "launch"
        return LaunchCost(self.count, programs, self.warps, device, seconds, bound)

    def _work(self) -> float:
        """Seconds of one program on the whole machine's units."""
        return sum(self._iterations(p) * self._instance(p) for p in self.placed)

    def _instance(self, p: Placed) -> float:
        """Seconds that one execution of all lanes takes of the whole machine's units."""
        gpu = self.gpu
        double = ITEMSIZE[p.statement.value.dtype] > 4
        if self.dots[p.name]:
            rate = gpu.matrix64 if double else gpu.matrix32
            if not double and lanes(p.path[self._written(p)[0]]) < gpu.matrix_rows:
                rate /= 2.0
            scalar = not double and not gpu.matrix_rows
            if scalar and self._lanes(p) > LONGEST_BODY * 32 * self.warps:
                rate /= 1.2
            count = max(1, (len(p.moves) - 2) // 2)  # two operands each
            return count * self._lanes(p) * 2.0 / rate + SYNC / gpu.hertz / gpu.processors
        ops = operations(p.statement.value, p.statement.write)
        rate = gpu.float64 if double else gpu.float32
        return self._lanes(p) * (2.0 * (ops.fma + ops.other + ops.dear) + 2.0) / rate

    def _bytes(self) -> tuple[float, float]:
        """Bytes that one program moves from and to the cache; distinct bytes of the launch."""
        moved = 0.0
        touched: dict[str, float] = {}
        held: dict[object, float] = {}  # elements that stay in the program, whoever uses them
        for p in self.placed:
            for group in _together(p):
                last = self._moving(p, group[0])
                size = self._iterations(p, last) * _footprint(p, group, self._bytes_of(group[0]))
                if last < self.outer and len(group) == 1:
                    (move,) = group
                    place = tuple(i.const for i in move.access.indices)
                    key = (move.is_write, move.access.array, place, move.steps[: self.outer])
                    held[key] = max(held.get(key, 0.0), size)
                else:
                    moved += size
            for move in p.moves:
                box = 1.0
                for d, extent in enumerate(move.extents):
                    span = 1.0 + sum(
                        abs(move.steps[k][d]) * max(0.0, p.trips[k].mean - 1.0)
                        for k in range(self.host, len(p.path))
                    )
                    box *= min(span, float(extent))
                size = box * self._bytes_of(move)
                name = move.access.array
                touched[name] = max(touched.get(name, 0.0), size)
        return moved + sum(held.values()), sum(touched.values())

    def _bytes_of(self, move: Move) -> float:
        """What an element takes in memory."""
        half = move.access.array in self.halved
        return float(self.gpu.float32_bytes if half else move.item_bytes)

    def _shared(self, p: Placed) -> float:
        """Bytes of shared memory for the operands of a product."""
        if not self.dots[p.name]:
            return 0.0
        read = [m for m in p.moves[1:] if len(_wide(p, m)) == 2 and m.access != p.write.access]
        ahead = sum(self._elements(p, _wide(p, m)) * self._bytes_of(m) for m in read)
        return DOT_STAGES * ahead

    def _moving(self, p: Placed, move: Move) -> int:
        """The innermost loop inside a program along which an access moves: outside it is held."""
        inside = range(self.outer, len(p.path))
        return max((k for k in inside if not move.is_invariant(k)), default=self.outer - 1)

    def _chain(self, hot: bool) -> float:
        """Seconds of one program alone: its statements one after the other."""
        gpu = self.gpu
        latency = gpu.cache_latency if hot else gpu.memory_latency
        total = latency
        for p in self.placed:
            inner = len(p.path) - 1
            loads = any(
                m.extents and self._moving(p, m) == inner and not m.is_write for m in p.moves
            )
            # four warps can use all units of a multiprocessor that runs nothing else
            units = min(1.0, self.warps / 4.0) / gpu.processors
            step = STEP / gpu.hertz + self._instance(p) / units
            if loads and inner >= self.outer:
                # products are pipelined, what follows a sum is not
                step += latency / 3.0 if self.dots[p.name] else latency
            total += self._iterations(p) * step
            reduced = self._reduced(p)
            if reduced:  # lanes sum for themselves while the loop runs
                total += self._iterations(p, reduced[0] - 1) * REDUCE / gpu.hertz
        return total

    def _registers(self) -> float:
        """32-bit registers per thread, about: what one statement holds, and tiles beside it.

        A statement has its result, its operands (several loads are in flight together) and their
        offsets; temporaries of the program stay in registers between statements.
        """
        most = 0.0
        tiles: dict[str, float] = {}
        for p in self.placed:
            item = ITEMSIZE[p.statement.value.dtype]
            own = self._elements(p, self._written(p)) * item
            if self._reduced(p):
                own = self._lanes(p) * item
            if self.dots[p.name]:
                copies = 2.0 if _scaled(p) else 1.0  # the sum apart from what it is added to
                if item == 4 and not self.gpu.matrix_rows:
                    copies = 7.0 if copies > 1.0 else 2.0  # and operands, as ptxas has them
                own *= copies
                # the result's offsets are needed after the loop, a part at a time
                most = max(most, own + self._elements(p, self._written(p)) * OFFSET / 4.0)
                continue
            if p.write.access.array in self.local:
                tiles[p.write.access.array] = own
            reads: dict[Access, float] = {}
            for move in p.moves[1:]:
                if move.access.array not in self.local:
                    elements = self._elements(p, _wide(p, move))
                    reads[move.access] = elements * (move.item_bytes + OFFSET)
            in_flight = sorted(reads.values(), reverse=True)[:MOST_IN_FLIGHT]
            beside = self._lanes(p) * OFFSET + sum(in_flight)
            # around a product a tile is in registers already, and the rest comes a part at a time
            most = max(most, own + beside / (4.0 if any(self.dots.values()) else 1.0))
        shared = Counter(
            (m.access.array, tuple(i.const for i in m.access.indices), m.steps)
            for p in self.placed
            for m in dict.fromkeys(p.moves[1:])
            if not self.dots[p.name] and m.access.array not in self.local
        )
        both = sum(1 for users in shared.values() if users > 1)  # loaded once for two statements
        most += min(both, MOST_IN_FLIGHT) * max(map(self._lanes, self.placed)) * 4.0
        held = most + sum(sorted(tiles.values(), reverse=True)[:MOST_IN_FLIGHT])
        return OVERHEAD_REGISTERS + held / 4.0 / (32.0 * self.warps)


def _scaled(p: Placed) -> bool:
    """Is a product of matrices multiplied by something before it is added?"""
    found = products(contribution(p.statement.value, p.statement.write, 0))
    return any(len(term.factors) > 2 for term in found)


def _wide(p: Placed, move: Move) -> list[int]:
    """The positions of loops along whose lanes an access moves."""
    return [k for k, loop in enumerate(p.path) if lanes(loop) and not move.is_invariant(k)]


def _times(p: Placed, k: int) -> float:
    """Iterations of loop k, blocks counted where it has lanes."""
    trip = max(p.trips[k].mean, 0.0)
    size = lanes(p.path[k])
    return float(max(1, ceil(trip / size))) if size else max(1.0, trip)


def _together(p: Placed) -> list[list[Move]]:
    """Accesses that walk side by side, as those of a stencil: near memory serves what they share.

    The write, and reads of another form, are alone.
    """
    groups: dict[object, list[Move]] = {}
    for move in p.moves:
        if move.extents:
            form = tuple(i - i.const for i in move.access.indices)
            groups.setdefault((move.is_write, move.access.array, form), []).append(move)
    return list(groups.values())


def _footprint(p: Placed, group: list[Move], item: float) -> float:
    """Bytes that all lanes of a statement move at once for such accesses, in whole sectors."""
    first = group[0]
    wide = _wide(p, first)
    sides: list[float] = []
    for d in range(len(first.extents)):
        places = [m.access.indices[d].const for m in group]
        walked = sum(abs(first.steps[k][d]) * (lanes(p.path[k]) - 1) for k in wide)
        sides.append(1.0 + walked + max(places) - min(places))
    rows, row = prod(sides[:-1]), sides[-1]
    if not wide:
        return float(rows * row * item)
    if any(first.is_unit(k) for k in wide):
        return float(rows * SECTOR * ceil(row * item / SECTOR))
    elements = min(rows * row, len(group) * prod(float(lanes(p.path[k])) for k in wide))
    nearest = min(first.stride(k) for k in wide) * item / first.item_bytes
    return elements * max(item, min(nearest, float(SECTOR)))


__all__ = ["GpuEstimate", "LaunchCost", "estimate_gpu"]
