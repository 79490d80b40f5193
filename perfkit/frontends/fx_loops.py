"""From a region of an aten graph to a SCoP.

Operators that only move indices or compute elementwise stay expressions until somebody needs them
in memory (:class:`perfkit.frontends.fx_index.Lazy`). A value is stored when it is a result of the
region, when a sum, scan or product makes it, or when several others use it and it costs something
to compute again. Each stored value is a stage; stages share outer loops where they can
(:mod:`perfkit.frontends.fx_stages`). Intermediate arrays keep all their dimensions here: schedules
may then order everything freely, and the generator shrinks them afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends import fx_accumulate
from perfkit.frontends.build import build
from perfkit.frontends.fx_graph import Graph, Node, Ref, Tensor
from perfkit.frontends.fx_index import HANDLERS, Index, Lazy, broadcast
from perfkit.frontends.fx_pointwise import RULES, Unsuited, cost
from perfkit.frontends.fx_stages import emit, fuse, index_value
from perfkit.frontends.fx_stencil import tiles
from perfkit.frontends.fx_storage import Storage, Stored
from perfkit.frontends.syntax import Declare, Name, Number, Operation, Region, Stmt, Variable
from perfkit.ir.affine import Affine
from perfkit.ir.expr import DTYPES, Expr
from perfkit.ir.scop import Scop
from perfkit.runtime.signature import Parameter, Signature

SMALLEST_SIZE = 2
"""torch compiles sizes 0 and 1 separately, so a symbolic size is at least this."""

CHEAP = 2
"""Operations that are rather repeated per use than stored."""


def lower(graph: Graph, name: str = "region") -> tuple[Scop, Signature]:
    """The SCoP of a region and the signature of its kernel.

    Raises:
        UnsupportedError: an operator or a form of it is not affine, or not known here.
    """
    return _lowered(graph).scop(name)


def tiled(graph: Graph) -> bool:
    """Whether the region is a chain of stencil steps that runs as overlapped tiles."""
    lowering = _lowered(graph)
    return tiles(lowering.stages, lowering.arrays, Location("<graph>")) is not None


def swept(graph: Graph) -> list[list[Stored]]:
    """The arrays that each nest of the lowering goes through.

    What only one nest uses never leaves the caches, nor does anything in tiles of a stencil; the
    inputs and outputs alone remain then.
    """
    lowering = _lowered(graph)
    arrays = lowering.arrays
    if tiles(lowering.stages, arrays, Location("<graph>")) is not None:
        return [[a for a in arrays.values() if not a.local]]
    nests = [
        {a.array for stage in group.stages for a in stage.accesses()}
        for group in fuse(lowering.stages)
    ]
    users = Counter(name for nest in nests for name in nest)
    return [
        [arrays[n] for n in sorted(nest) if not arrays[n].local or users[n] > 1] for nest in nests
    ]


def _lowered(graph: Graph) -> Lowering:
    lowering = Lowering(graph=graph)
    for node in graph.nodes:
        try:
            lowering.node(node)
        except Unsuited as error:
            raise UnsupportedError(Location("<graph>"), node.op, str(error)) from None
    return lowering


@dataclass
class Lowering(Storage):
    """The state of one lowering: values by node, and what they are stored in."""

    graph: Graph = field(kw_only=True)
    values: dict[str, Lazy | tuple[Lazy, ...]] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for name, tensor in self.graph.inputs:
            if tensor.dtype not in DTYPES:
                raise UnsupportedError(Location("<graph>"), name, f"is {tensor.dtype}")
            self.values[name] = self.array(name, tensor, local=False)
        for node in self.graph.nodes:
            self.uses.update(set(_references((node.args, dict(node.kwargs)))))
        self.uses.update(self.graph.outputs)

    # -- nodes -----------------------------------------------------------------------------------

    def node(self, node: Node) -> None:
        args, options = self.resolve(node.args), self.resolve(dict(node.kwargs))
        value = self.evaluate(node, args, options)
        results = (node.result,) if isinstance(node.result, Tensor) else node.result
        for tensor in results:
            if tensor.dtype not in DTYPES:
                raise Unsuited(f"a result of type {tensor.dtype}")
        if isinstance(value, Lazy) and isinstance(node.result, Tensor):
            if node.name in self.graph.outputs:
                value = self.store(value, f"out_{node.name}", node.result, local=False)
            elif value.computed and self.uses[node.name] > 1:
                value = self.kept(value, self.uses[node.name])
        self.values[node.name] = value

    def resolve(self, value: Any) -> Any:
        match value:
            case Ref(name=name):
                return self.values[name]
            case tuple():
                return tuple(map(self.resolve, value))
            case dict():
                return {k: self.resolve(v) for k, v in value.items()}
        return value

    def evaluate(self, node: Node, args: Any, options: Any) -> Lazy | tuple[Lazy, ...]:
        base = node.base
        if base == "getitem":
            found: Lazy = args[0][args[1]]
            return found
        if base in RULES:
            return self.pointwise(node, args, options)
        tensor = node.result
        if base in HANDLERS and isinstance(tensor, Tensor):
            return HANDLERS[base](args, options, tensor.shape, tensor.dtype)
        if base in fx_accumulate.HANDLERS:
            if base in ("amax", "amin") and self.nan_shows_anyway(node):
                options = {**options, "nan": "lost"}
            return fx_accumulate.HANDLERS[base](self, node, args, options)
        raise Unsuited("is not among the operators that perfkit lowers")

    def nan_shows_anyway(self, node: Node) -> bool:
        """Whether a maximum is only there to be subtracted from its own operand.

        Softmax and logsumexp do that, and a NaN is in the difference too, so that the maximum
        itself need not keep it.
        """
        followed, shown = {node.name}, False
        for other in self.graph.nodes:
            if followed.isdisjoint(_references((other.args, dict(other.kwargs)))):
                continue
            if other.base == "sub" and other.args[0] == node.args[0]:
                shown = True
            elif other.base in ("abs", "eq", "where", "squeeze", "view"):
                followed.add(other.name)
            elif other.base != "add":
                return False
        return shown and followed.isdisjoint(self.graph.outputs)

    def pointwise(self, node: Node, args: Sequence[Any], options: dict[str, Any]) -> Lazy:
        tensor = node.result
        assert isinstance(tensor, Tensor)
        shape, dtype, rule = tensor.shape, tensor.dtype, RULES[node.base]
        operands = [self.operand(a, shape) for a in args]
        options = {k: v for k, v in options.items() if k != "dtype"}
        if node.base == "clamp":
            options = {k: self.operand(v, shape) for k, v in options.items()}

        def at(index: Index) -> Expr:
            values = [a.at(index) if isinstance(a, Lazy) else a for a in operands]
            named = {k: v.at(index) if isinstance(v, Lazy) else v for k, v in options.items()}
            return rule(values, dtype, named)

        return Lazy(shape, dtype, at, computed=True)

    def operand(self, value: Any, shape: tuple[Affine, ...]) -> Any:
        """An operand at the sizes of the result; one that is repeated is computed once."""
        if isinstance(value, Affine):
            raise Unsuited("a size as an operand")
        if not isinstance(value, Lazy):
            return value
        if value.computed and value.shape != shape and _repeats(value.shape, shape):
            value = self.stored(value)
        return broadcast(value, shape)

    # -- storing ---------------------------------------------------------------------------------

    def kept(self, value: Lazy, uses: int) -> Lazy:
        """A value that several use: stored unless that costs more than computing it again."""
        probe = value.at(tuple(Affine.variable(f"probe{d}") for d in range(value.rank)))
        if cost(probe) <= CHEAP and uses <= 2:
            return value
        return self.stored(value)

    # -- the region ------------------------------------------------------------------------------

    def scop(self, name: str) -> tuple[Scop, Signature]:
        location = Location("<graph>")
        sizes = [Variable(s, "size", "int64") for s in self.graph.sizes]
        outside = [a for a in self.arrays.values() if not a.local]
        variables = [
            Variable(a.name, "array", a.dtype, tuple(map(index_value, a.extents))) for a in outside
        ]
        body = tiles(self.stages, self.arrays, location)
        if body is None:
            local = [a for a in self.arrays.values() if a.local]
            declared: list[Stmt] = [
                Declare(a.name, a.dtype, tuple(map(index_value, a.extents)), location)
                for a in local
            ]
            body = (*declared, *emit(fuse(self.stages), location))
        assumptions = tuple(
            Operation("bool", "ge", (Name("int64", s), Number("int64", SMALLEST_SIZE)))
            for s in self.graph.sizes
        )
        region = Region(name, (*sizes, *variables), body, location, assumptions)
        scop = build(region, checked_calls=True)
        return scop, signature(self.graph, name)


def signature(graph: Graph, name: str) -> Signature:
    """What the kernel of a region is called with: sizes, inputs, then outputs as ``out_<node>``.

    The layouts are part of the region, so the parameters do not repeat them.
    """
    parameters = [Parameter(s, "size", "int64") for s in graph.sizes]
    parameters += [Parameter(n, "array", tensor.dtype) for n, tensor in graph.inputs]
    parameters += [
        Parameter(f"out_{n}", "array", graph.tensor(n).dtype, written=True) for n in graph.outputs
    ]
    return Signature(name, tuple(parameters), graph.sizes)


def _references(value: Any) -> list[str]:
    match value:
        case Ref(name=name):
            return [name]
        case tuple():
            return [n for v in value for n in _references(v)]
        case dict():
            return [n for v in value.values() for n in _references(v)]
    return []


def _repeats(small: tuple[Affine, ...], large: tuple[Affine, ...]) -> bool:
    return len(small) < len(large) or any(
        a != b for a, b in zip(small, large[len(large) - len(small) :], strict=True)
    )


__all__ = ["lower", "signature", "swept", "tiled"]
