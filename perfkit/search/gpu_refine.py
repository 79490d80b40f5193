"""Better mappings from ranked ones: each kernel's own blocks, and sums in two phases.

The kernels of a program are timed apart by the cost model, so each may take the marks of the
candidate in which it looks best (:func:`mixed`). A sum that keeps too few programs busy is factored
into chunks (:class:`perfkit.schedule.rfactor.Rfactor`), as many as the GPU has room for
(:func:`factored`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.analysis.footprint import Trip
from perfkit.cost.analytic import assumed
from perfkit.cost.device import Gpu
from perfkit.cost.facts import Facts
from perfkit.cost.gpu import GpuEstimate, LaunchCost, estimate_gpu
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir import tree as ir_tree
from perfkit.ir.tree import enclosing, loops, walk
from perfkit.schedule.base import TreeTransform, label
from perfkit.schedule.gpu import MapGrid, marked
from perfkit.schedule.gpu_mapping import SHAPES, Plan, mappings
from perfkit.schedule.gpu_orders import fused
from perfkit.schedule.launches import Launch, launches, plan
from perfkit.schedule.rfactor import Rfactor
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import Reorder

ORDERS = 2
"""Orders whose sums are tried in two phases."""

PROGRAMS = (1, 4)
"""Programs per multiprocessor that chunks are made for."""

SHARE = 0.1
"""Part of the predicted time of a program that a kernel must have to be worth a second try."""

FAR = 8.0
"""How many times longer than the best order takes one that is tried in two phases, at most."""

SMALLEST_CHUNK = 32
"""Iterations of a chunk at least: it has a partial result to store and to combine."""


@dataclass(frozen=True)
class Guess:
    """A mapping with its estimate; None where isl's budget did not allow one."""

    plan: Plan
    estimate: GpuEstimate | None

    @property
    def seconds(self) -> float:
        return self.estimate.seconds if self.estimate else inf

    @property
    def order(self) -> tuple[float, float, tuple[int, ...], str]:
        """Smaller is better: with the host, without it, by structure, and the same every time."""
        device = self.estimate.device if self.estimate else inf
        return (self.seconds, device, self.plan.cost, self.plan.name)


@dataclass(frozen=True)
class Ranking:
    """Estimates for the sizes of one program on one GPU."""

    analysis: Analysis
    sizes: Mapping[str, int]
    gpu: Gpu

    def guess(self, plan: Plan) -> Guess:
        scop = plan.order.state.scop
        try:
            poly = self.analysis.polyhedra(scop)
            made = estimate_gpu(poly, scop, plan.tree, assumed(scop, self.sizes), self.gpu)
        except (BudgetExceeded, ScheduleError) as error:
            log.get("search").info("%s is ranked last: %s", plan.name, error)
            return Guess(plan, None)
        log.get("search").debug("%s: about %.3g s", plan.name, made.seconds)
        return Guess(plan, made)

    def rank(self, found: Iterable[Plan]) -> list[Guess]:
        """The mappings, and mixtures of them, the one with the shortest estimated time first.

        Where the host's launches take longest either way, the one with less to do on the GPU.
        """
        guesses = list(map(self.guess, found))
        guesses += map(self.guess, mixed(guesses))
        return sorted(guesses, key=lambda g: g.order)

    def refined(self, guesses: Sequence[Guess]) -> list[Guess]:
        """The same, and what sums in two phases make of the best orders."""
        more: list[Guess] = []
        for guess in _best_orders(guesses):
            more += self.rank(p for made in self.factored(guess) for p in made)
        return sorted([*guesses, *more], key=lambda g: g.order)

    # -- sums in two phases --------------------------------------------------------------------

    def factored(self, guess: Guess) -> Iterator[Iterator[Plan]]:
        """Mappings with the sums in two phases that one program or few would have to themselves."""
        steps = guess.plan.order
        for programs in PROGRAMS:
            made, chunks = steps.copy(), set[str]()
            for statement, loop, size in self._narrow(guess, programs):
                before = {x.name for x in loops(made.tree)}
                if made.attempt(Rfactor(statement, loop, size)):
                    around = enclosing(made.tree, statement)
                    chunk = next(x.name for x in around if x.name not in before)
                    chunks.add(chunk)
                    _hoisted(made, chunk)
            if chunks:
                name = f"{guess.plan.order_name}-factored{programs}"
                yield mappings(name, fused(made) or made, SHAPES, frozenset(chunks))

    def _narrow(self, guess: Guess, programs: int) -> Iterator[tuple[str, str, int]]:
        """Statements that sum over a loop in too few programs, with a size of chunks."""
        steps = guess.plan.order
        scop, tree = steps.state.scop, guess.plan.tree
        poly = self.analysis.polyhedra(scop)
        facts = Facts.of(poly, scop, tree, assumed(scop, self.sizes))
        placed = {p.name: p for p in facts.placed}
        assert guess.estimate is not None
        costs = [x for x in launches(plan(tree)) if x.statements]
        for launch, cost in zip(costs, guess.estimate.launches, strict=True):
            if cost.bound == "launch" or cost.count * cost.seconds < SHARE * guess.seconds:
                continue  # nothing to gain
            for name in launch.statements:
                p = placed[name]
                if name not in steps.dependences.reductions:
                    continue
                summed = [k for k in range(len(launch.outer), len(p.path))
                          if p.write.is_invariant(k)]  # fmt: skip
                elements = 1.0
                for k in range(len(launch.host), len(p.path)):
                    elements *= 1.0 if p.write.is_invariant(k) else max(1.0, p.trips[k].mean)
                for k in summed[:1]:
                    wanted = programs * self.gpu.processors / max(1.0, elements / LANES)
                    size = _power(p.trips[k].mean / max(1.0, wanted))
                    if size * _inner(p.trips, summed) >= SMALLEST_CHUNK and (
                        2 * size <= p.trips[k].mean and wanted > 1
                    ):
                        yield name, p.path[k].name, size


LANES = 128
"""Elements that one program of a sum into many elements takes."""


def _inner(trips: Sequence[Trip], summed: Sequence[int]) -> float:
    """Iterations of the loops inside the chunked one that are summed over, too."""
    found = 1.0
    for k in summed[1:]:
        found *= max(1.0, trips[k].mean)
    return found


def _power(size: float) -> int:
    """The power of two at or above, 2 at least."""
    return max(2, 1 << max(1, ceil(size) - 1).bit_length())


def _hoisted(steps: Steps, chunk: str) -> None:
    """Run chunks before neighbours that they do not need: those may join the combination."""
    for node in walk(steps.tree):
        if isinstance(node, ir_tree.Sequence):
            names = [label(c) for c in node.children]
            if chunk in names and names[0] != chunk:
                rest = [n for n in names if n != chunk]
                for place in range(names.index(chunk)):
                    if steps.attempt(Reorder(*rest[:place], chunk, *rest[place:])):
                        return
                return


def _best_orders(guesses: Sequence[Guess]) -> list[Guess]:
    """The best guess of each of the best orders, one whose nests are apart among them."""
    best: dict[int, Guess] = {}
    for guess in guesses:
        if guess.estimate is not None:
            best.setdefault(id(guess.plan.order), guess)
    found = list(best.values())
    apart = [g for g in found if "-fused" not in g.plan.name]
    tried = {id(g): g for g in (*found[:ORDERS], *apart[:ORDERS])}.values()
    return [g for g in tried if g.seconds <= FAR * found[0].seconds]


# -- each kernel's own blocks ----------------------------------------------------------------


def mixed(guesses: Sequence[Guess]) -> Iterator[Plan]:
    """For every order, the marks under which each of its kernels looks best."""
    orders: dict[int, list[Guess]] = {}
    for guess in guesses:
        if guess.estimate is not None:
            orders.setdefault(id(guess.plan.order), []).append(guess)
    for members in orders.values():
        made = _mixed(sorted(members, key=lambda g: g.order))
        if made is not None:
            yield made


def _mixed(members: list[Guess]) -> Plan | None:
    best = members[0]
    kernels = [(guess, _kernels(guess)) for guess in members]
    shape = [x.statements for x in kernels[0][1]]
    same = [(g, own) for g, own in kernels if [x.statements for x in own] == shape]
    chosen: list[tuple[LaunchCost, Guess, Launch]] = []
    for place in range(len(shape)):
        options = [
            (guess.estimate.launches[place], guess, own[place])
            for guess, own in same if guess.estimate is not None
        ]  # fmt: skip
        chosen.append(min(options, key=lambda o: (o[0].seconds, o[0].device)))
    if len({id(g) for _, g, _ in chosen}) < 2:
        return None
    marks: dict[TreeTransform, None] = {}
    for _, guess, launch in chosen:
        inside = {x.name for x in (*launch.grid, *loops(launch.body))}
        marks |= dict.fromkeys(m for m in guess.plan.marks if _loop_of(m) in inside)
    order = best.plan.order
    return Plan(f"{best.plan.order_name}:mixed", order, tuple(marks),
                marked(order.tree, marks), best.plan.cost)  # fmt: skip


def _kernels(guess: Guess) -> list[Launch]:
    return [x for x in launches(plan(guess.plan.tree)) if x.statements]


def _loop_of(mark: TreeTransform) -> str:
    """The loop of a mark, the outer one of a grid."""
    name = mark.loops[0] if isinstance(mark, MapGrid) else getattr(mark, "loop", "")
    return str(name)


__all__ = ["Guess", "Ranking", "mixed"]
