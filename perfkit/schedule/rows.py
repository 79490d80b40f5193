"""Neighbouring rows at once: what a stencil loads for one row serves the next one too."""

from __future__ import annotations

from perfkit.analysis.footprint import WRITE, Walk, accesses, walks
from perfkit.ir.scop import Statement
from perfkit.ir.tree import Leaf, Loop, loops
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import Jam

ROWS = 4
"""Rows that run together: more of them want more registers than there are."""


def jam_rows(steps: Steps, rows: int = ROWS) -> bool:
    """Jam the loop around every loop in lanes whose loads its next iterations repeat.

    Before ``for i for j vector(4) B[i,j] = A[i-1,j] + A[i,j] + A[i+1,j]``, after ``Jam(i, 4)``:
    four rows at a time, for which 6 vectors are loaded and not 12. Returns whether one was jammed.
    """
    done = False
    for outer in loops(steps.tree):
        inner = outer.body
        if not isinstance(inner, Loop) or not inner.mark("vector") or outer.marks:
            continue
        if not isinstance(inner.body, Leaf):
            continue
        statement = steps.state.scop.statement(inner.body.statement)
        along = [
            w for w in walks(steps.state.scop, steps.tree)
            if w.loop == outer.name and w.statement == statement.name
        ]  # fmt: skip
        if _repeats(statement, along, rows):
            done |= steps.attempt(Jam(outer.name, rows))
    return done


def _repeats(statement: Statement, along: list[Walk], rows: int) -> bool:
    """Does a load read what another one reads some iterations of the loop later or earlier?"""
    loads = [a for position, a in accesses(statement) if position != WRITE]
    moves = {statement.reads[w.position]: w.steps for w in along if w.position != WRITE}
    for a in loads:
        for b in loads:
            if a.array != b.array or not any(moves[a]):
                continue
            apart = [y - x for x, y in zip(a.indices, b.indices, strict=True)]
            if not all(d.is_constant for d in apart):
                continue
            distance = tuple(d.const for d in apart)
            if any(distance == tuple(k * m for m in moves[a]) for k in range(1, rows)):
                return True
    return False


__all__ = ["ROWS", "jam_rows"]
