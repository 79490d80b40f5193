"""OpenMP constructs on the loop AST: one parallel region with worksharing loops inside.

A region that starts and ends inside a sequential loop would start its threads anew every
iteration; here the outermost sequential loop around parallel ones is run by every thread, with
worksharing loops (whose implied barrier keeps the order) inside it and everything else executed by
one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from perfkit.codegen.names import Names
from perfkit.codegen.nodes import (
    Bound,
    For,
    Guard,
    Instance,
    Let,
    Node,
    Region,
    Register,
    bound_names,
    extreme,
    instances,
    leaves,
    walk,
)
from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Mark


class Reducer:
    """Finds the elements that the threads of a loop reduce together.

    ``carried`` names, per loop, the statements whose reduction the loop carries.
    """

    def __init__(
        self,
        scop: Scop,
        reductions: Mapping[str, str],
        carried: Mapping[str, frozenset[str]],
        names: Names,
    ) -> None:
        self.scop = scop
        self.reductions = reductions
        self.carried = carried
        self.names = names

    def registers(self, loop: For) -> tuple[Register, ...] | None:
        """Shared variables for the loop; None when it must not run in parallel.

        Only single elements are reduced: whole arrays would need a copy per thread.
        """
        names = self.carried.get(loop.name, frozenset())
        if not names:
            return ()
        inside = {n.name for n in walk(loop) if isinstance(n, For | Let)}
        found: dict[Access, Register] = {}
        for instance in instances(loop.body):
            statement = self.scop.statement(instance.statement)
            if statement.name not in names:
                continue
            access = instance.resolve_access(statement.write)
            if any(inside & i.names() for i in access.indices):
                return None
            array = self.scop.array(access.array)
            if access not in found:
                found[access] = Register(
                    self.names.fresh(f"{array.name}_all"), access, array.dtype,
                    combine=self.reductions[statement.name],
                )  # fmt: skip
        return tuple(found.values())


def settle(nodes: tuple[Node, ...], reducer: Reducer) -> tuple[Node, ...]:
    """Attach the reductions to the parallel loops; loops that cannot have them run in order."""

    def visit(node: Node) -> Node:
        if isinstance(node, Instance):
            return node
        if isinstance(node, For) and node.mark("parallel") is not None:
            registers = reducer.registers(node)
            if registers is not None:
                # One level of threads: inside, later passes must not take a loop for parallel.
                node = replace(node, body=tuple(map(_without_parallel, node.body)))
                if registers and any(m.kind != "parallel" for m in node.marks):
                    return _chunked(node, registers, reducer.names.derived(node.name, "chunk"))
                return replace(node, combined=registers)
            node = replace(node, marks=tuple(m for m in node.marks if m.kind != "parallel"))
        return replace(node, body=tuple(map(visit, node.body)))

    return tuple(map(visit, nodes))


CHUNK = 4096
"""Iterations that a thread takes at a time when it also runs them in lanes."""


def _chunked(loop: For, registers: tuple[Register, ...], name: str) -> For:
    """Threads on the outside, lanes inside: partial sums of both kinds do not mix."""
    outer = Affine.variable(name)
    last = outer + (CHUNK - 1) * loop.step
    inner = replace(
        loop,
        lower=outer,
        upper=extreme("min", (loop.upper, last)),
        marks=tuple(m for m in loop.marks if m.kind != "parallel"),
    )
    return For(
        name, loop.lower, loop.upper, (inner,), CHUNK * loop.step,
        marks=(Mark("parallel"),), combined=registers,
    )  # fmt: skip


def parallelize(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Wrap the parallel loops into one region; nothing changes when there is none."""
    if not any(_has_parallel(n) for n in nodes):
        return nodes
    first = next(k for k, n in enumerate(nodes) if _has_parallel(n))
    last = max(k for k, n in enumerate(nodes) if _has_parallel(n))
    inside = _share(nodes[first : last + 1])
    return (*nodes[:first], Region("parallel", inside), *nodes[last + 1 :])


def _share(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Rewrite what every thread executes: parallel loops are shared, the rest is done once."""
    result: list[Node] = []
    alone: list[Node] = []

    def flush() -> None:
        if alone:
            result.append(Region("single", tuple(alone)))
            alone.clear()

    for node in nodes:
        if not _has_parallel(node):
            alone.append(node)
            continue
        flush()
        match node:
            case For() if node.mark("parallel") is not None:
                inner = tuple(map(_without_parallel, node.body))
                marks = tuple(m for m in node.marks if m.kind != "parallel")
                clause = _clause(node)
                backwards = clause == DYNAMIC and node.step == node.width == 1 and _grows(node)
                result.append(
                    replace(
                        node, marks=marks, body=inner, schedule=clause, descending=backwards
                    )
                )
            case For() | Guard() | Let():
                result.append(replace(node, body=_share(node.body)))
            case _:
                result.append(Region("single", (_without_parallel(node),)))
    flush()
    return tuple(result)


def _has_parallel(node: Node) -> bool:
    return any(isinstance(n, For) and n.mark("parallel") is not None for n in walk(node))


def _without_parallel(node: Node) -> Node:
    """Parallel marks inside a parallel loop have no effect: one level of threads is used."""
    match node:
        case Instance():
            return node
        case For():
            marks = tuple(m for m in node.marks if m.kind != "parallel")
            body = tuple(map(_without_parallel, node.body))
            return replace(node, marks=marks, combined=(), body=body)
        case _:
            return replace(node, body=tuple(map(_without_parallel, node.body)))


DYNAMIC = "schedule(dynamic)"


def _clause(loop: For) -> str:
    """Static for even iterations; dynamic where the work inside depends on the iteration.

    A loop over tiles has few, heavy iterations: they are handed out one at a time where they
    differ, and where they are so heavy, register tiles with sums inside, that a thread with one
    tile more than the others would be noticed.
    """
    inside = [n for n in walk(loop) if isinstance(n, For) and n is not loop]
    uneven = any(
        loop.name in bound_names(n.lower) | bound_names(n.upper) and not _same_length(n, loop.name)
        for n in inside
    )
    tiles = any(
        c > 1 for n in inside for leaf in leaves(n.lower) for name, c in leaf.terms
        if name == loop.name
    )  # fmt: skip
    if tiles and (uneven or any(_is_register_tile(n) for n in inside)):
        return DYNAMIC
    return "schedule(guided)" if uneven else "schedule(static)"


def _grows(loop: For) -> bool:
    """Whether later iterations do more: then they go first, so that no long one is left for last.

    (Longest processing time first: R. Graham, SIAM J. Appl. Math. 17, 1969.)
    """
    inside = [n for n in walk(loop) if isinstance(n, For) and n is not loop]
    return any(
        _rises(n.upper, loop.name) and not _rises(n.lower, loop.name) for n in inside
    )


def _rises(bound: Bound, name: str) -> bool:
    return any(
        leaf.coefficient(name) + sum(c * d.inner.coefficient(name) for d, c in leaf.divs) > 0
        for leaf in leaves(bound)
    )


def _is_register_tile(loop: For) -> bool:
    """Jammed rows around SIMD columns around a loop."""
    if loop.width == 1:
        return False
    columns = (n for n in walk(loop) if isinstance(n, For) and n is not loop and n.width > 1)
    return any(isinstance(n, For) and n is not c for c in columns for n in walk(c))


def _same_length(loop: For, outer: str) -> bool:
    """A point loop of a tile: starts at ``c * outer`` and ends a constant later (or clipped)."""
    lowers, uppers = leaves(loop.lower), leaves(loop.upper)
    low = {a.coefficient(outer) for a in lowers if outer in a.names()}
    high = {a.coefficient(outer) for a in uppers if outer in a.names()}
    return low == high and len(low) == 1
