"""Is a loop tree a legal order, and may its loops carry their marks?

All questions are walks down the schedule vectors of the two statements of a dependence. At every
level the pairs that are still undecided must not be reversed; those with equal values go on to the
next level. A mark widens what counts as undecided or concurrent:

- ``parallel``, ``vector``, and on a GPU ``grid`` and ``block``: a pair that reaches the loop must
  have equal values there, but for the lanes of a ``block`` that scan;
- ``jam(n)``: any two iterations may share a chunk, whose order is decided by the loops inside. So
  the answer does not hang on where chunks start, nor on the stride of the generated loop (values 3
  apart are neighbours where only every third one occurs). The copies run innermost, all of a
  statement's before the next statement's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import islpy as isl

from perfkit.analysis.dependences import (
    Analysis,
    Dependence,
    Dependences,
    sample_pair,
    show_pair,
)
from perfkit.analysis.fronts import Front
from perfkit.analysis.scans import scan_of
from perfkit.errors import IllegalSchedule
from perfkit.ir.affine import Affine
from perfkit.ir.isl import budget_errors
from perfkit.ir.tree import Leaf, Loop, Mark, Node, Sequence, find_loop, loops, statements
from perfkit.schedule.state import State

# A level of a statement's schedule: the value there, and the loop (None inside a sequence).
_Level = tuple[Affine, Loop | None]


@dataclass(frozen=True, slots=True, eq=False)
class Violation:
    """``pairs`` are instances of ``dependence`` that ``reason`` says run in the wrong order."""

    dependence: Dependence
    pairs: isl.Set
    reason: str

    def sample(self) -> str:
        """``S1[0, 3] -> S0[1, 2]``: one violated pair."""
        return show_pair(sample_pair(self.dependence, self.pairs))

    def error(self, transform: str) -> IllegalSchedule:
        detail = f"{self.sample()}: {self.reason}"
        return IllegalSchedule(transform, self.dependence.describe(), detail)


def _levels(node: Node) -> dict[str, tuple[_Level, ...]]:
    match node:
        case Leaf(statement=name):
            return {name: ()}
        case Loop():
            inner = _levels(node.body)
            return {s: ((e, node), *inner[s]) for s, e in node.schedule}
        case Sequence():
            return {
                s: ((Affine.constant(k), None), *levels)
                for k, child in enumerate(node.children)
                for s, levels in _levels(child).items()
            }


def _named(
    deps: Dependences, key: tuple[str, str], pairs: isl.Set, reason: str, relaxed: bool
) -> Violation:
    """Which of the merged dependences the violated pairs belong to."""
    for d in deps.between(*key):
        if d.reduction == relaxed:
            part = pairs.intersect(d.pairs)
            if not part.is_empty():
                return Violation(d, part, reason)
    raise AssertionError("a violated pair belongs to no dependence")


# -- order -----------------------------------------------------------------------------------


def violations(deps: Dependences, tree: Node) -> Violation | None:
    """The first dependence that the tree's sequential order does not keep; None when legal.

    Raises BudgetExceeded when isl needs more operations than allowed.
    """
    levels = _levels(tree)
    with budget_errors():
        deps.polyhedra.renew_budget()
        for key, front in deps.ordered.items():
            found = _order(deps, key, front, levels[key[0]], levels[key[1]])
            if found is not None:
                return found
    return None


def is_legal(deps: Dependences, tree: Node) -> bool:
    return violations(deps, tree) is None


def _order(
    deps: Dependences,
    key: tuple[str, str],
    front: Front,
    source: tuple[_Level, ...],
    target: tuple[_Level, ...],
) -> Violation | None:
    for (a, loop), (b, _) in zip(source, target, strict=False):
        if front.reversed(a, b):
            place = f"loop {loop.name} runs them backwards" if loop else "textually backwards"
            return _named(deps, key, front.reversed_pairs(a, b), place, False)
        rest = front.same(a, b)
        if rest is None:
            return None
        front = rest
    return _named(deps, key, front.pairs, "no loop separates them", False)


# -- marks -----------------------------------------------------------------------------------


def _reaching(
    levels: dict[str, tuple[_Level, ...]], key: tuple[str, str], front: Front, loop: str, jam: bool
) -> tuple[Front, Affine, Affine] | None:
    """The pairs not yet decided when ``loop`` is reached, and its two expressions.

    With ``jam``, iterations of loops that are jammed around it count as concurrent.
    """
    for (a, first), (b, second) in zip(levels[key[0]], levels[key[1]], strict=False):
        if (first and first.name) != (second and second.name):
            return None
        if first is not None and first.name == loop:
            return front, a, b
        if jam and first is not None and first.mark("jam"):
            continue
        rest = front.same(a, b)
        if rest is None:
            return None
        front = rest
    return None


def _carried_pairs(
    deps: Dependences, tree: Node, loop: str, reduction: bool, jam: bool = False
) -> Iterator[tuple[tuple[str, str], isl.Set]]:
    find_loop(tree, loop)
    levels = _levels(tree)
    with budget_errors():
        deps.polyhedra.renew_budget()
        fronts = deps.relaxed if reduction else deps.ordered
        for key, front in fronts.items():
            reached = _reaching(levels, key, front, loop, jam)
            if reached is not None:
                rest, a, b = reached
                if rest.before(a, b) or rest.reversed(a, b):
                    yield key, rest.different_pairs(a, b)


def carried(deps: Dependences, tree: Node, loop: str) -> tuple[Dependence, ...]:
    """Dependences, reductions included, between different iterations of ``loop``.

    Only pairs that agree on every outer level count: the others are carried outside.
    """
    found: list[Dependence] = []
    for reduction in (False, True):
        for key, pairs in _carried_pairs(deps, tree, loop, reduction):
            found += [
                d
                for d in deps.between(*key)
                if d.reduction == reduction and not d.pairs.intersect(pairs).is_empty()
            ]
    return tuple(found)


def largest_lead(deps: Dependences, tree: Node, a: str, b: str) -> int | None:
    """The maximum of ``value_a - value_b`` over the dependences from a loop to its sibling.

    Only pairs that agree on every level outside count; 0 when there is none, None when the
    maximum is unbounded.
    """
    levels = _levels(tree)
    lead: int | None = None
    with budget_errors():
        deps.polyhedra.renew_budget()
        for key, front in deps.ordered.items():
            if key[0] not in statements(find_loop(tree, a)):
                continue
            if key[1] not in statements(find_loop(tree, b)):
                continue
            rest: Front | None = front
            for (x, first), (y, second) in zip(levels[key[0]], levels[key[1]], strict=False):
                if rest is None:
                    break
                if first and second and (first.name, second.name) == (a, b):
                    found = rest.largest_lead(x, y)
                    if found is None:
                        return None
                    lead = found if lead is None else max(lead, found)
                    break
                if first is not None or second is not None:
                    rest = rest.same(x, y)
    return lead or 0


def leads(
    deps: Dependences, tree: Node, loop: str, values: Mapping[str, Affine]
) -> dict[tuple[str, str], int | None]:
    """By how much sources of dependences below ``loop`` are ahead of their targets.

    ``values`` has the expression that is compared for each statement. The result is the maximum
    over the pairs that agree on every level outside of the loop, by source and target statement;
    None when it is unbounded.
    """
    levels = _levels(tree)
    found: dict[tuple[str, str], int | None] = {}
    with budget_errors():
        deps.polyhedra.renew_budget()
        for key, front in deps.ordered.items():
            if key[0] not in values or key[1] not in values:
                continue
            reached = _reaching(levels, key, front, loop, jam=False)
            if reached is not None:
                found[key] = reached[0].largest_lead(values[key[0]], values[key[1]])
    return found


def is_parallel(deps: Dependences, tree: Node, loop: str) -> bool:
    """Does ``loop`` carry nothing, not even a reduction?"""
    return not any(
        True for r in (False, True) for _ in _carried_pairs(deps, tree, loop, reduction=r)
    )


def reduction_parallel(deps: Dependences, tree: Node, loop: str) -> bool:
    """Does ``loop`` carry nothing but reductions (or nothing at all)?"""
    return not any(True for _ in _carried_pairs(deps, tree, loop, reduction=False))


def carried_reductions(deps: Dependences, tree: Node, loop: str) -> tuple[str, ...]:
    """Statements whose reduction ``loop`` carries: concurrent code must privatise their arrays.

    That includes what a loop jammed around it carries, for its copies run inside of ``loop``.
    """
    pairs = _carried_pairs(deps, tree, loop, reduction=True, jam=True)
    found = {s for key, _ in pairs for s in key}
    return tuple(s.name for s in deps.scop.statements if s.name in found)


def mark_violation(
    deps: Dependences, tree: Node, parallel_reductions: bool = False
) -> Violation | None:
    """The first dependence that a mark of the tree would break, given a legal order."""
    marked = [loop for loop in loops(tree) if loop.marks]
    if not any(m.kind != "unroll" for loop in marked for m in loop.marks):
        return None
    concerned = {s for loop in marked for s in statements(loop.body)}
    levels = _levels(tree)
    with budget_errors():
        deps.polyhedra.renew_budget()
        for relaxed, fronts in ((False, deps.ordered), (True, deps.relaxed)):
            for key, front in fronts.items():
                if key[0] in concerned and key[1] in concerned:
                    found = _marks(
                        deps, key, front, levels[key[0]], levels[key[1]], relaxed,
                        parallel_reductions,
                    )  # fmt: skip
                    if found is not None:
                        return found
    return None


def _marks(
    deps: Dependences,
    key: tuple[str, str],
    front: Front,
    source: tuple[_Level, ...],
    target: tuple[_Level, ...],
    relaxed: bool,
    parallel_reductions: bool,
) -> Violation | None:
    jammed: list[str] = []
    for (a, loop), (b, other) in zip(source, target, strict=False):
        marks = loop.marks if loop is not None and other is not None else ()
        concurrent = _concurrent(marks, relaxed, parallel_reductions)
        if concurrent and loop and (front.before(a, b) or front.reversed(a, b)):
            if concurrent == "block" and _is_scan(deps, key, front, source, loop):
                return None
            pairs = front.different_pairs(a, b)
            return _named(deps, key, pairs, f"carried by {concurrent} loop {loop.name}", relaxed)
        if jammed and not relaxed and front.reversed(a, b):
            reason = f"reversed when {', '.join(jammed)} is unrolled and jammed"
            return _named(deps, key, front.reversed_pairs(a, b), reason, relaxed)
        if loop is not None and any(m.kind == "jam" for m in marks):
            jammed.append(loop.name)
            continue
        rest = front.same(a, b)
        if rest is None:
            return None
        front = rest
    return None


def _is_scan(
    deps: Dependences, key: tuple[str, str], front: Front, levels: tuple[_Level, ...], loop: Loop
) -> bool:
    """Is all that the lanes of ``loop`` carry from one statement to itself a scan?

    Every pair that reaches the loop must then be of neighbours that agree on all levels inside.
    """
    name = key[0]
    around = tuple(x for _, x in levels if x is not None)
    statement = deps.scop.statement(name)
    if name != key[1] or scan_of(deps.scop, statement, around, loop.name, deps.fp) is None:
        return False
    place = next(k for k, (_, x) in enumerate(levels) if x is loop)
    here = levels[place][0]
    neighbours = front.same(here + 1, here)
    if neighbours is None or not front.pairs.is_subset(neighbours.pairs):
        return False
    inner = [e for e, _ in levels[place + 1 :]]
    return not any(neighbours.before(e, e) or neighbours.reversed(e, e) for e in inner)


def carries_itself(deps: Dependences, tree: Node, loop: str, statement: str) -> bool:
    """Does the loop carry an ordered dependence from a statement to itself?"""
    pairs = _carried_pairs(deps, tree, loop, reduction=False)
    return any(key == (statement, statement) for key, _ in pairs)


def _concurrent(marks: tuple[Mark, ...], relaxed: bool, parallel_reductions: bool) -> str:
    """The mark that makes iterations concurrent for this kind of dependence, or ''.

    Lanes combine reductions among themselves; the programs of a grid have no way to. (Lanes also
    scan, see :func:`_is_scan`.)
    """
    for mark in marks:
        if mark.kind == "parallel" and not (relaxed and parallel_reductions):
            return "parallel"
        if mark.kind == "grid":
            return "grid"
        if mark.kind in ("vector", "block") and not relaxed:
            return mark.kind
    return ""


# -- whole trees -----------------------------------------------------------------------------


def check_marks(
    deps: Dependences, tree: Node, transform: str = "schedule", parallel_reductions: bool = False
) -> None:
    """Prove every mark on the final tree, or raise IllegalSchedule / TransformError."""
    found = mark_violation(deps, tree, parallel_reductions)
    if found is not None:
        raise found.error(transform)


def check(analysis: Analysis, state: State, tree: Node, transform: str) -> None:
    """Raise unless ``tree`` is a legal order of ``state.scop`` with legal marks.

    The error names the dependence and one pair of instances that would run in the wrong order.
    """
    deps = analysis.dependences(state.scop, state.fp)
    found = violations(deps, tree)
    if found is not None:
        raise found.error(transform)
    check_marks(deps, tree, transform, analysis.parallel_reductions)


def check_final(analysis: Analysis, state: State) -> None:
    """Order and marks of ``state.tree`` against the dependences recomputed from ``state.scop``."""
    check(analysis, state, state.tree, "the final schedule")


__all__ = [
    "Violation", "carried", "carried_reductions", "carries_itself", "check", "check_final",
    "check_marks", "is_legal", "is_parallel", "largest_lead", "leads", "mark_violation",
    "reduction_parallel", "violations",
]  # fmt: skip
