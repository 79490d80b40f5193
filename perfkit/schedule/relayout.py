"""Another layout for an array: the same elements with permuted dimensions.

A row-major array walked along its first dimension wastes all of a cache line but one element and
cannot be loaded as a vector. A transposed copy costs one pass over the array and pays whenever the
array is read more than a few times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfkit.errors import TransformError
from perfkit.ir.expr import Access, map_accesses
from perfkit.ir.scop import Array, Scop
from perfkit.schedule.copies import before, copy_statement, unused_name
from perfkit.schedule.flow import preserves_flow
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

    A variable of the region is simply laid out anew. Anything else is copied at the start. Where
    the region writes the array, the access must be given and must read only what was there before:
    the copy is a snapshot then, which the order ``(0, 1)`` leaves as it is, and writing the array
    no longer has to wait for those reads (``B[i,j] = B[i,j] + A[k,i]*B[k,j]`` for k > i).
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
        snapshot = self.array in scop.written and not old.local
        if self.order == tuple(range(old.rank)) and not snapshot:
            raise TransformError(f"{self}: the layout would stay as it is")
        shape = tuple(old.shape[d] for d in self.order)
        if old.local and not self.access:
            arrays = tuple(
                replace(a, shape=shape) if a.name == self.array else a for a in scop.arrays
            )
            return replace(state, scop=self._redirect(replace(scop, arrays=arrays), self.array))
        if self.array in scop.written and not self.access:
            raise TransformError(f"{self}: {self.array} is written, so a copy would go stale")
        if not any(self._selects(a) for s in scop.statements for a in s.reads):
            raise TransformError(f"{self}: no access {self.access or self.array} is read")
        taken = {a.name for a in scop.arrays} | {s.name for s in scop.scalars}
        name = unused_name(self.array, taken)
        copy = copy_statement(
            scop,
            old,
            f"copy_{self.array}",
            lambda x: (Access(name, tuple(x[d] for d in self.order)), Access(self.array, x)),
        )
        scop = self._redirect(scop, name)
        scop = replace(
            scop,
            arrays=(*scop.arrays, Array(name, old.dtype, shape, local=True, live_out=False)),
            statements=(copy, *scop.statements),
        )
        changed = replace(
            state,
            scop=replace(scop, tree=before(scop.tree, copy)),
            tree=before(state.tree, copy),
        )
        if snapshot:
            preserves_flow(state.original, changed)
        return changed

    def _selects(self, access: Access) -> bool:
        return access.array == self.array and (
            not self.access or str(access).replace(" ", "") == self.access.replace(" ", "")
        )

    def _redirect(self, scop: Scop, name: str) -> Scop:
        mine = scop.array(self.array).local  # nobody outside waits for what is written

        def change(access: Access) -> Access:
            if not self._selects(access):
                return access
            return Access(name, tuple(access.indices[d] for d in self.order))

        return replace(
            scop,
            statements=tuple(
                replace(
                    s,
                    write=change(s.write) if mine else s.write,
                    value=map_accesses(s.value, change),
                )
                for s in scop.statements
            ),
        )

    def __str__(self) -> str:
        access = f', "{self.access}"' if self.access else ""
        return f"Relayout({self.array}, ({', '.join(map(str, self.order))},){access})"
