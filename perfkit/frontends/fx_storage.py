"""The arrays and stages that a region's lowering makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from perfkit.frontends.fx_graph import Shape, Tensor
from perfkit.frontends.fx_index import Index, Lazy
from perfkit.frontends.fx_stages import Axis, Part, Stage, Write
from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access, Expr, Load, walk


@dataclass(frozen=True, slots=True)
class Stored:
    """An array of the region; ``extents`` as stored."""

    name: str
    dtype: str
    extents: Shape
    local: bool


@dataclass
class Storage:
    """Arrays by name, and the stages that fill them, in order."""

    arrays: dict[str, Stored] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)

    def fresh(self, base: str) -> str:
        name, k = base, 1
        while name in self.arrays:
            name, k = f"{base}{k}", k + 1
        return name

    def axes(self, shape: Sequence[Affine]) -> list[Axis]:
        """New axes over a shape; they are named after the stage and the dimension."""
        return [Axis.of(f"i{len(self.stages)}_{d}", n) for d, n in enumerate(shape)]

    def array(self, name: str, tensor: Tensor, local: bool = True) -> Lazy:
        """Declare an array and give the tensor that lies in it."""
        extents = tensor.extents or (Affine.constant(1),)
        self.arrays[name] = Stored(name, tensor.dtype, extents, local)

        def at(index: Index) -> Expr:
            return Load(tensor.dtype, element(name, tensor, index))

        return Lazy(tensor.shape, tensor.dtype, at)

    def dense(self, shape: Shape, dtype: str, base: str = "t") -> tuple[str, Tensor]:
        """Declare a local array of a shape; its name and layout."""
        name, tensor = self.fresh(base), Tensor.dense(dtype, shape)
        self.array(name, tensor)
        return name, tensor

    def stored(self, value: Lazy) -> Lazy:
        """The same value, in a local array whose elements lie as most of its operands' do."""
        axes = self.axes(value.shape)
        inner = fastest(value.at(tuple(Affine.variable(a.name) for a in axes)), axes)
        tensor = Tensor.dense(value.dtype, value.shape)
        if inner in tensor.order:
            order = (*(d for d in tensor.order if d != inner), inner)
            tensor = Tensor.dense(value.dtype, value.shape, order)
        return self.store(value, self.fresh("t"), tensor, True)

    def store(self, value: Lazy, name: str, tensor: Tensor, local: bool) -> Lazy:
        """Compute every element into a new array of that layout."""
        axes = self.axes(value.shape)
        index = tuple(Affine.variable(a.name) for a in axes)
        written = value.at(index)
        result = self.array(name, tensor, local)
        rest = (axes[d] for d in range(len(axes)) if d not in tensor.order)
        ordered = (*(axes[d] for d in tensor.order), *rest)
        part = Part(ordered, (Write(element(name, tensor, index), written),))
        self.add(Stage((part,), tuple(a.name for a in ordered), name))
        return result

    def add(self, stage: Stage) -> None:
        """Append a stage, without the axes that have one iteration."""
        single = {
            a.name: a.first
            for p in stage.parts
            for a in p.axes
            if len(a.lasts) == 1 and a.lasts[0] == a.first
        }
        parts = tuple(
            Part(tuple(a for a in p.axes if a.name not in single), p.body).substitute(single)
            for p in stage.parts
        )
        shared = tuple(n for n in stage.shared if n not in single)
        self.stages.append(Stage(parts, shared, stage.text))


def element(name: str, tensor: Tensor, index: Index) -> Access:
    """Where an element of a tensor lies in its array."""
    where = tuple(index[d] for d in tensor.order)
    return Access(name, where or (Affine.constant(0),))


def fastest(expr: Expr, axes: Sequence[Axis]) -> int | None:
    """The axis along which most operands lie one element after the other.

    Only the operands that move along the most axes count: one value per row says nothing.
    """
    names = frozenset(a.name for a in axes)
    found = [e.access for e in walk(expr) if isinstance(e, Load)]
    moving = [len(names & {n for i in a.indices for n in i.names()}) for a in found]
    votes = [0] * len(axes)
    for access, count in zip(found, moving, strict=True):
        if count < max(moving):
            continue
        last = access.indices[-1]
        for d, axis in enumerate(axes):
            votes[d] += last.coefficient(axis.name) in (1, -1)
    best = max(range(len(axes)), key=lambda d: (votes[d], d), default=None)
    return best if best is not None and votes[best] else None


__all__ = ["Storage", "Stored", "element", "fastest"]
