"""Several recurrences at once: what waits for itself can wait side by side with its neighbours.

An innermost loop that carries a recurrence runs at the latency of its chain of operations. Rows
that do not depend on each other, or only on what the row before computed a few steps ago, run
together: the loop around is unrolled and jammed, if need be after the rows are skewed against each
other (hyperplanes: L. Lamport, 1974; unroll and jam: D. Callahan, S. Carr and K. Kennedy, 1990).
"""

from __future__ import annotations

from perfkit.analysis.footprint import WRITE, walks
from perfkit.ir.tree import Loop, Node, find_loop, loops, statements
from perfkit.schedule.legality import is_parallel, reduction_parallel
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import Interchange, Jam, Skew

ROWS = 8
"""Rows that run together: about the latency of an addition times additions per cycle."""

SKEWS = (0, 1, 2, 3)
"""How far each row may stay behind the one before it."""


def jam_recurrences(steps: Steps, rows: int = ROWS) -> bool:
    """Jam the loop around every innermost loop that carries a recurrence, where that is legal.

    Before ``for i for j A[i,j] = A[i,j-1] + A[i-1,j+1]``, after ``Skew(j, by=i, factor=2)`` and
    ``Jam(i, 8)``: 8 rows, each two elements behind the one above. Returns whether a loop was
    jammed. Sums into one element are left to :mod:`perfkit.schedule.blocking`.
    """
    done = False
    for inner in [x.name for x in loops(steps.tree) if not loops(x.body) and not x.mark("vector")]:
        around = _parent(steps.tree, inner)
        if around is None or around.mark("jam") or not _is_recurrence(steps, inner):
            continue
        for skew in SKEWS:
            trial = steps.copy()
            moved = not skew or trial.attempt(Skew(inner, around.name, skew))
            if moved and _side_by_side(trial, around.name, inner) and trial.attempt(
                Jam(around.name, rows)
            ):
                steps.reset(trial)
                done = True
                break
    return done


def _side_by_side(steps: Steps, outer: str, inner: str) -> bool:
    """Does no iteration of ``outer`` wait for another at the same place of ``inner``?"""
    if is_parallel(steps.dependences, steps.tree, outer):
        return True
    swapped = steps.copy()
    return swapped.attempt(Interchange(outer, inner)) and is_parallel(
        swapped.dependences, swapped.tree, outer
    )


def _parent(tree: Node, name: str) -> Loop | None:
    """The loop directly around a loop."""
    around = [x for x in loops(tree) if any(y.name == name for y in loops(x.body))]
    return around[-1] if around else None


def _is_recurrence(steps: Steps, name: str) -> bool:
    """Does the loop carry a dependence between elements that it walks along?"""
    inside = statements(find_loop(steps.tree, name))
    moving = any(
        w.loop == name and w.position == WRITE and w.statement in inside and not w.is_invariant
        for w in walks(steps.state.scop, steps.tree)
    )
    return moving and not reduction_parallel(steps.dependences, steps.tree, name)


__all__ = ["ROWS", "jam_recurrences"]
