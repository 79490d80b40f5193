"""Which index-set splits free parallel loops.

In ``P[i,j] = min(P[i,j], P[i,k] + P[k,j])`` the instances with ``i = k`` or ``j = k`` write what
all others of their ``k`` read, so no loop is parallel. Away from these hyperplanes nothing is in
the way. They are where an index of a read equals that of the write (after Griebl, Feautrier and
Lengauer, "Index set splitting", 2000).
"""

from __future__ import annotations

from perfkit.analysis.dependences import Analysis
from perfkit.errors import TransformError
from perfkit.ir.affine import Affine
from perfkit.ir.scop import Statement
from perfkit.ir.tree import enclosing
from perfkit.schedule import legality, pluto
from perfkit.schedule.split import Split
from perfkit.schedule.state import State, Transform

MOST_STATEMENTS = 3
"""Programs with more statements are left alone: parts multiply dependences."""
MOST_PLANES = 2


def auto_split(state: State, analysis: Analysis) -> tuple[Transform, ...]:
    """Splits that give parallel loops to statements without any; () when nothing is gained.

    Raises BudgetExceeded.
    """
    scop = state.scop
    if len(scop.statements) > MOST_STATEMENTS:
        return ()
    deps = analysis.dependences(scop, state.fp)
    steps: list[Transform] = []
    for statement in scop.statements:
        around = enclosing(scop.tree, statement.name)
        planes = _planes(statement)
        if not planes or not deps.between(statement.name, statement.name):
            continue
        if any(legality.is_parallel(deps, scop.tree, loop.name) for loop in around):
            continue
        state, done = _split(state, statement.name, planes)
        steps += done
    if not steps:
        return ()
    found = pluto.schedule(analysis.dependences(state.scop, state.fp), pluto.Options("min"))
    return tuple(steps) if any(any(band.coincident) for band in found.bands) else ()


def _planes(statement: Statement) -> tuple[tuple[Affine, Affine], ...]:
    """Pairs of expressions, equal on a hyperplane where a read meets the write."""
    found: dict[tuple[Affine, Affine], None] = {}
    for read in dict.fromkeys(statement.reads):
        if read.array != statement.write.array:
            continue
        for written, used in zip(statement.write.indices, read.indices, strict=True):
            both = (written - used).names() & set(statement.iterators)
            if len(both) > 1 and written.is_linear and used.is_linear:
                found[written, used] = None
    return tuple(found)[:MOST_PLANES]


def _split(
    state: State, name: str, planes: tuple[tuple[Affine, Affine], ...]
) -> tuple[State, list[Transform]]:
    parts, done = [name], list[Transform]()
    for left, right in planes:
        for part in tuple(parts):
            rest = part
            for relation in ("<", "="):
                step = Split(rest, f"{left} {relation} {right}")
                known = {s.name for s in state.scop.statements}
                try:
                    state = step.apply(state)
                except TransformError:
                    continue  # all instances are on one side
                done.append(step)
                rest = next(s.name for s in state.scop.statements if s.name not in known)
                parts.append(rest)
    return state, done


__all__ = ["MOST_PLANES", "MOST_STATEMENTS", "auto_split"]
