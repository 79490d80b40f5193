"""Recognising scans: recurrences of one step with an associative operation.

``A[f(t)] = A[f(t - 1)] op rest``, along a loop with values t, is a scan when ``op`` is associative
on the dtype and ``rest`` reads nothing of ``A`` but the element's own old value: the iterations can
then be combined in a tree (G. Blelloch, *Prefix sums and their applications*, 1990). Sums of floats
are scanned only where the user allowed ``fp="reassociate"``, as for reductions.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.analysis.footprint import iterator_moves
from perfkit.analysis.reductions import combined
from perfkit.ir.affine import Affine
from perfkit.ir.expr import FLOATS, Access, loads
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Loop

OPERATIONS = frozenset(("add", "mul", "min", "max"))


@dataclass(frozen=True, slots=True)
class Scan:
    """``statement`` combines ``previous``, what the iteration before wrote, with ``op``."""

    statement: str
    op: str
    previous: Access


def scan_of(
    scop: Scop, statement: Statement, around: tuple[Loop, ...], loop: str, fp: str
) -> Scan | None:
    """The scan that a statement performs along one of the loops around it, by its form.

    That the loop carries no other dependence is not looked at.
    """
    dtype = scop.array(statement.write.array).dtype
    if dtype in FLOATS and fp != "reassociate":
        return None
    values = tuple(x.expression(statement.name) for x in around)
    place = next(k for k, x in enumerate(around) if x.name == loop)
    move = iterator_moves(statement.iterators, values)[place]
    if any(step.denominator != 1 for step in move.values()):
        return None
    before = {n: Affine.variable(n) - int(step) for n, step in move.items()}
    previous = statement.write.substitute(before)
    found = combined(statement.value, previous, dtype)
    if previous == statement.write or found is None or found[0] not in OPERATIONS:
        return None
    own = (a for e in found[1] for a in loads(e) if a.array == statement.write.array)
    if any(a != statement.write for a in own):
        return None
    return Scan(statement.name, found[0], previous)


__all__ = ["OPERATIONS", "Scan", "scan_of"]
