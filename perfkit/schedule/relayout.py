"""Another layout for an array: the same elements with permuted dimensions.

A row-major array walked along its first dimension wastes all of a cache line but one element and
cannot be loaded as a vector. A transposed copy costs one pass over the array and pays whenever the
array is read more than a few times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfkit.errors import TransformError
from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.expr import Access, Load, map_accesses
from perfkit.ir.scop import Array, Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, loops
from perfkit.schedule.expand import unused_name
from perfkit.schedule.state import State


@dataclass(frozen=True)
class Relayout:
    """Permute the dimensions of an array: the new dimension ``d`` is the old ``order[d]``.

    Before::

        for i for k for j C[i,j] = C[i,j] + A[i,k]*A[j,k]

    After ``Relayout("A", (1, 0), "A[j, k]")``: only accesses written so are redirected (all of them
    without the third argument)::

        for a for b A_2[a,b] = A[b,a]
        for i for k for j C[i,j] = C[i,j] + A[i,k]*A_2[k,j]

    A variable of the region is simply laid out anew. An argument must be read only, and is copied
    at the start.
    """

    array: str
    order: tuple[int, ...]
    access: str = ""

    def apply(self, state: State) -> State:
        scop = state.scop
        old = next((a for a in scop.arrays if a.name == self.array), None)
        if old is None:
            raise TransformError(f"{self}: no array is named {self.array!r}")
        if sorted(self.order) != list(range(old.rank)):
            raise TransformError(f"{self}: not a permutation of the {old.rank} dimensions")
        if self.order == tuple(range(old.rank)):
            raise TransformError(f"{self}: the layout would stay as it is")
        shape = tuple(old.shape[d] for d in self.order)
        if old.local and not self.access:
            arrays = tuple(
                replace(a, shape=shape) if a.name == self.array else a for a in scop.arrays
            )
            return replace(state, scop=self._redirect(replace(scop, arrays=arrays), self.array))
        if self.array in scop.written:
            raise TransformError(f"{self}: {self.array} is written, so a copy would go stale")
        if not any(self._selects(a) for s in scop.statements for a in s.reads):
            raise TransformError(f"{self}: no access {self.access or self.array} is read")
        taken = {a.name for a in scop.arrays} | {s.name for s in scop.scalars}
        name = unused_name(self.array, taken)
        copy = self._copy(scop, old, name)
        scop = self._redirect(scop, name)
        scop = replace(
            scop,
            arrays=(*scop.arrays, Array(name, old.dtype, shape, local=True, live_out=False)),
            statements=(copy, *scop.statements),
        )
        return replace(
            state,
            scop=replace(scop, tree=_prefixed(scop.tree, copy)),
            tree=_prefixed(state.tree, copy),
        )

    def _selects(self, access: Access) -> bool:
        return access.array == self.array and (
            not self.access or str(access).replace(" ", "") == self.access.replace(" ", "")
        )

    def _redirect(self, scop: Scop, name: str) -> Scop:
        def change(access: Access) -> Access:
            if not self._selects(access):
                return access
            return Access(name, tuple(access.indices[d] for d in self.order))

        return replace(
            scop,
            statements=tuple(
                replace(s, write=change(s.write), value=map_accesses(s.value, change))
                for s in scop.statements
            ),
        )

    def _copy(self, scop: Scop, old: Array, name: str) -> Statement:
        taken = {s.name for s in scop.statements} | set(scop.parameters)
        iterators: list[str] = []
        for d in range(old.rank):
            iterators.append(unused_name(f"x{d}", taken))
            taken.add(iterators[-1])
        index = [Affine.variable(i) for i in iterators]
        box = [
            c
            for x, extent in zip(index, old.shape, strict=True)
            for c in (Constraint(x), Constraint(extent - x - 1))
        ]
        return Statement(
            unused_name(f"copy_{self.array}", taken),
            Domain(tuple(iterators), (tuple(box),)),
            Access(name, tuple(index[d] for d in self.order)),
            Load(old.dtype, Access(self.array, tuple(index))),
            text=f"{name}[...] = {self.array}[...]",
        )

    def __str__(self) -> str:
        access = f', "{self.access}"' if self.access else ""
        return f"Relayout({self.array}, ({', '.join(map(str, self.order))},){access})"


def _prefixed(tree: Node, copy: Statement) -> Node:
    """The tree that first runs the copy, in loops that write the new array in order."""
    taken = {loop.name for loop in loops(tree)}
    body: Node = Leaf(copy.name)
    for expr in reversed(copy.write.indices):
        name = unused_name(str(expr), taken)
        taken.add(name)
        body = Loop(name, ((copy.name, expr),), body)
    rest = tree.children if isinstance(tree, Sequence) else (tree,)
    return Sequence((body, *rest))
