"""Data that one program stores and loads again: barriers, and the proof that they are enough.

The lanes of a Triton program are spread over threads, and two tensors may be spread differently,
so an element that is stored and then loaded (or loaded and then overwritten) by one program may
pass from thread to thread even where it stays in its lane. Every dependence between instances of
one program therefore needs a barrier in between, unless the element never leaves a register tile.

:func:`separate` sets barriers from the structure of the loops. :func:`prove` is another algorithm:
it follows the program with the accesses that are still in flight, going round every loop twice, and
asks isl about each pair that meets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from perfkit.analysis.dependences import Dependence, Dependences
from perfkit.analysis.fronts import Front, PairSpace
from perfkit.codegen.triton_nodes import Barrier, Held, If, Node, Repeat, Run
from perfkit.codegen.triton_space import Space
from perfkit.errors import IllegalSchedule
from perfkit.ir.affine import Affine
from perfkit.ir.isl import budget_errors

_Access = tuple[str, str]  # statement, array


class Exchanges:
    """Questions about the dependences inside one program of a kernel."""

    def __init__(self, space: Space, deps: Dependences) -> None:
        self.space = space
        self._found: dict[tuple[str, str, str], list[tuple[Dependence, Front]]] = {}
        iterators = {s.name: s.iterators for s in deps.scop.statements}
        inside = set(space.placed)
        for d in deps:
            if d.source in inside and d.target in inside:
                pairs = d.pairs
                places = PairSpace(
                    pairs, deps.scop.parameters, iterators[d.source], iterators[d.target]
                )
                key = (d.source, d.target, d.array)
                self._found.setdefault(key, []).append((d, Front(places, pairs)))
        self._levels = {
            s: {space.variable(loop): self._level(loop.name, loop.expression(s))
                for loop in p.around}
            for s, p in space.placed.items()
        }  # fmt: skip

    def _level(self, loop: str, value: Affine) -> Affine:
        size = self.space.sizes.get(loop)
        return value.floordiv(size) if size else value

    def between(
        self, first: _Access, second: _Access, equal: tuple[str, ...], later: str = ""
    ) -> Dependence | None:
        """A dependence whose two ends agree on the variables ``equal``, and on nothing else known.

        With ``later``, the target is also in a later iteration of that variable.
        """
        if first[1] != second[1]:
            return None
        source, target = self._levels[first[0]], self._levels[second[0]]
        for d, start in self._found.get((first[0], second[0], first[1]), ()):
            front: Front | None = start
            for name in equal:
                if front is not None:
                    front = front.same(source[name], target[name])
            if front is None:
                continue
            if not later or front.before(source[later], target[later]):
                return d
        return None

    def accesses(self, node: Node, held: frozenset[str]) -> Iterator[_Access]:
        """What a node loads and stores in memory, tiles at their ends included."""
        match node:
            case Run(statement=name):
                for array in dict.fromkeys(a.array for a in self.space.placed[name].accesses):
                    if array not in held:
                        yield name, array
            case Repeat() | If() | Held():
                for child in node.body:
                    yield from self.accesses(child, held)

    @property
    def outer(self) -> tuple[str, ...]:
        """What all instances of one program have in common."""
        launch = self.space.launch
        return tuple(self.space.variable(loop) for loop in (*launch.host, *launch.grid))


# -- setting barriers ------------------------------------------------------------------------


def separate(space: Space, deps: Dependences, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The program with a barrier wherever two accesses of it depend on each other."""
    exchanges = Exchanges(space, deps)
    with budget_errors():
        return _separated(exchanges, nodes, exchanges.outer, frozenset())


def _separated(
    x: Exchanges, nodes: tuple[Node, ...], equal: tuple[str, ...], held: frozenset[str]
) -> tuple[Node, ...]:
    result: list[Node] = []
    pending: dict[_Access, None] = {}
    for node in nodes:
        own = list(x.accesses(node, held))
        if any(x.between(a, b, equal) for a in pending for b in own):
            result.append(Barrier())
            pending = {}
        pending |= dict.fromkeys(own)
        match node:
            case Repeat():
                body = _separated(x, node.body, (*equal, node.name), held)
                if any(x.between(a, b, equal, node.name) for a in own for b in own):
                    body = (*body, Barrier())
                result.append(replace(node, body=body))
            case If():
                result.append(replace(node, body=_separated(x, node.body, equal, held)))
            case Held():
                inside = held | {t.array for t in node.tiles}
                result.append(replace(node, body=_separated(x, node.body, equal, inside)))
            case _:
                result.append(node)
    return tuple(result)


# -- proving them ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Flight:
    """An access that no barrier has followed yet.

    The variables in ``equal`` have the same values as now; ``earlier`` is the loop of which it ran
    in an earlier iteration.
    """

    access: _Access
    equal: tuple[str, ...]
    earlier: str = ""


@dataclass
class _Proof:
    x: Exchanges
    flying: dict[_Flight, None] = field(default_factory=dict)

    def arrive(self, access: _Access) -> None:
        for flight in self.flying:
            found = self.x.between(flight.access, access, flight.equal, flight.earlier)
            if found is not None:
                raise IllegalSchedule(
                    "Triton kernel", found.describe(),
                    "two lanes of one program exchange it without a barrier",
                )  # fmt: skip

    def take_off(self, access: _Access, equal: tuple[str, ...]) -> None:
        self.flying[_Flight(access, equal)] = None

    def block(
        self, nodes: tuple[Node, ...], equal: tuple[str, ...], held: frozenset[str]
    ) -> None:
        for node in nodes:
            match node:
                case Barrier():
                    self.flying = {}
                case Run():
                    own = list(self.x.accesses(node, held))
                    for access in own:
                        self.arrive(access)
                    for access in own:
                        self.take_off(access, equal)
                case If():
                    skipped = dict(self.flying)
                    self.block(node.body, equal, held)
                    self.flying = skipped | self.flying
                case Repeat():
                    skipped = dict(self.flying)
                    for _ in range(2):
                        self.block(node.body, (*equal, node.name), held)
                        self.flying = dict.fromkeys(_next(f, node.name) for f in self.flying)
                    self.flying = skipped | dict.fromkeys(
                        replace(f, earlier="") if f.earlier == node.name else f
                        for f in self.flying
                    )
                case Held():
                    arrays = {t.array for t in node.tiles}
                    ends = [a for a in self.x.accesses(node, held) if a[1] in arrays]
                    for access in ends:
                        self.arrive(access)
                    self.block(node.body, equal, held | arrays)
                    for access in ends:
                        self.take_off(access, equal)


def _next(flight: _Flight, loop: str) -> _Flight:
    """The access as the next iteration of ``loop`` sees it."""
    if loop not in flight.equal:
        return flight
    return _Flight(flight.access, flight.equal[: flight.equal.index(loop)], loop)


def prove(space: Space, deps: Dependences, nodes: tuple[Node, ...]) -> None:
    """Raise IllegalSchedule unless every exchange inside a program is separated by a barrier."""
    proof = _Proof(Exchanges(space, deps))
    with budget_errors():
        proof.block(nodes, proof.x.outer, frozenset())


__all__ = ["Exchanges", "prove", "separate"]
