"""Sums that gcc's vectorizer must leave alone.

Older gcc (before 11.5, 12.4 and 13.2; PR tree-optimization/110381) computes wrong values when an
iteration adds several terms to one floating-point sum and reads them from the highest address
down, as here after ``Reverse(q)``::

    for (p = 0; p < n; p++)
      for (q = 3; q >= 0; q--)
        s += x[4 * p + q];

It unrolls the loop over ``q``, loads the four elements as one vector from the lowest address up,
and then forgets that they have another order. It happens at ``-O3`` without any option that allows
sums to be reordered. :func:`mark_sums` finds the loops (the one over ``p``) which that can hit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from perfkit.codegen.ctext import Helpers
from perfkit.codegen.nodes import Extreme, For, Instance, Node
from perfkit.ir.expr import Access, Binary, Cast, Expr, Load
from perfkit.ir.scop import Scop, Statement

_FLOATS = ("float32", "float64")

_TEXT = """\
/* Keeps a loop from the vectorizer of a gcc that sums in the wrong order: PR 110381. */
#if defined(__GNUC__) && !defined(__clang__) && (__GNUC__ < 11 \\
    || (__GNUC__ == 11 && __GNUC_MINOR__ < 5) || (__GNUC__ == 12 && __GNUC_MINOR__ < 4) \\
    || (__GNUC__ == 13 && __GNUC_MINOR__ < 2))
#define PERFKIT_IN_ORDER __asm__ volatile("" ::: "memory");
#else
#define PERFKIT_IN_ORDER
#endif"""


def in_order(helpers: Helpers) -> str:
    """The line that stands first in a loop which :func:`mark_sums` has marked."""
    return helpers.need("PERFKIT_IN_ORDER", _TEXT)


def mark_sums(nodes: tuple[Node, ...], scop: Scop) -> tuple[Node, ...]:
    """Set ``in_order`` on every loop whose iterations add several terms, not from the lowest
    address up, to a floating-point element that stays the same from one iteration to the next."""
    statements = scop.by_name()
    floats = frozenset(a.name for a in scop.arrays if a.dtype in _FLOATS)

    def visit(node: Node) -> Node:
        if isinstance(node, Instance):
            return node
        changed = replace(node, body=tuple(map(visit, node.body)))
        if isinstance(changed, For):
            return replace(changed, in_order=_risky(changed, statements, floats))
        return changed

    return tuple(map(visit, nodes))


@dataclass(frozen=True, slots=True)
class _Term:
    """What one statement instance adds to ``target``: how many terms, reading what.

    ``inner`` are the loops of few iterations around it that gcc may unroll.
    """

    target: Access
    count: int
    reads: tuple[Access, ...]
    inner: tuple[For, ...]


def _risky(loop: For, statements: Mapping[str, Statement], floats: frozenset[str]) -> bool:
    terms = _terms(loop.body, (), statements)
    if terms is None:
        return False  # not an innermost loop, even after unrolling
    sums: dict[Access, list[_Term]] = {}
    for term in terms:
        if term.target.array in floats and not _varies(term.target, loop.name):
            sums.setdefault(term.target, []).append(term)
    for target, found in sums.items():
        repeated = any(not _varies(target, n.name) for t in found for n in t.inner)
        several = repeated or sum(t.count for t in found) > 1
        if several and not _ascending(found):
            return True
    return False


def _terms(
    nodes: tuple[Node, ...], inner: tuple[For, ...], statements: Mapping[str, Statement]
) -> list[_Term] | None:
    """The sums of a loop's body in order; None where a loop of unknown length is in it."""
    result: list[_Term] = []
    for node in nodes:
        if isinstance(node, For) and not _few(node):
            return None
        if isinstance(node, Instance):
            result += _of_instance(node, inner, statements[node.statement])
            continue
        below = _terms(node.body, (*inner, node) if isinstance(node, For) else inner, statements)
        if below is None:
            return None
        result += below
    return result


def _of_instance(
    instance: Instance, inner: tuple[For, ...], statement: Statement
) -> Iterator[_Term]:
    count = _depth(statement.value, statement.write)
    if instance.lanes is None and count:
        reads = tuple(map(instance.resolve_access, statement.reads))
        target = instance.resolve_access(statement.write)
        yield _Term(target, count, tuple(r for r in reads if r.array != target.array), inner)


def _depth(value: Expr, target: Access) -> int:
    """Operations between ``target`` and the value that replaces it; 0: it is no sum."""
    if isinstance(value, Cast):
        return _depth(value.arg, target)
    if not isinstance(value, Binary):
        return 0
    for side in (value.left, value.right):
        if isinstance(side, Load) and side.access == target:
            return 1
        if below := _depth(side, target):
            return below + 1
    return 0


def _few(loop: For) -> bool:
    """Whether gcc knows how often the loop runs, and that is not often."""
    if isinstance(loop.lower, Extreme) or isinstance(loop.upper, Extreme):
        return False
    length = loop.upper - loop.lower
    return length.is_constant and length.const < 64


def _varies(access: Access, loop: str) -> bool:
    return any(loop in i.names() for i in access.indices)


def _ascending(terms: list[_Term]) -> bool:
    """Whether every array that the terms read is read from lower to higher addresses."""
    by_array: dict[str, list[Access]] = {}
    for term in terms:
        for read in term.reads:
            by_array.setdefault(read.array, []).append(read)
            for loop in (n for n in term.inner if _varies(read, n.name)):
                leading = next((c for i in read.indices if (c := i.coefficient(loop.name))), 0)
                if leading == 0 or (leading < 0) != loop.descending:
                    return False
    return all(_rises(a, b) for reads in by_array.values() for a, b in pairwise(reads))


def _rises(first: Access, second: Access) -> bool:
    """Whether the second element is known to lie above the first one, or to be the same."""
    for a, b in zip(first.indices, second.indices, strict=True):
        difference = b - a
        if not difference.is_constant:
            return False
        if difference.const:
            return difference.const > 0
    return True


__all__ = ["in_order", "mark_sums"]
