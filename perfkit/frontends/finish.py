"""The last steps of lowering: dead index variables, uninitialised reads, statement names."""

from __future__ import annotations

from dataclasses import replace

import islpy as isl

from perfkit.errors import Location, UnsupportedError
from perfkit.ir.affine import Domain
from perfkit.ir.expr import INTEGERS, Access, Const, Load, Select
from perfkit.ir.isl import Polyhedra, budget_errors
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, restrict
from perfkit.ir.verify import verify


def finish(scop: Scop, location: Location) -> Scop:
    """Drop what forwarding left dead, refuse uninitialised reads, number the statements."""
    scop = _drop_dead(scop, location)
    scop = _check_initialised(scop)
    scop = _number(scop)
    verify(scop)
    return scop


def _drop_dead(scop: Scop, location: Location) -> Scop:
    """Integer variables whose every use was forwarded are never read: forget their values."""
    while True:
        dead = {
            a.name
            for a in scop.arrays
            if a.local and not a.shape and a.dtype in INTEGERS and a.name not in scop.read
        }
        kept = tuple(s for s in scop.statements if s.write.array not in dead)
        arrays = tuple(a for a in scop.arrays if a.name not in dead)
        if len(kept) == len(scop.statements):
            return replace(scop, arrays=arrays)
        tree = restrict(scop.tree, frozenset(s.name for s in kept))
        if tree is None:
            raise UnsupportedError(location, scop.name, "has no assignment that can run")
        scop = replace(scop, arrays=arrays, statements=kept, tree=tree)


def _check_initialised(scop: Scop) -> Scop:
    """Refuse a read of a local that nothing has written before.

    The load that a conditional assignment makes of its own target is not the source's; where it
    comes first, the variable is cleared at the start of the region.
    """
    locals_read = {a.name for a in scop.arrays if a.local} & scop.read
    if not locals_read:
        return scop
    p = Polyhedra(scop)
    clear: dict[str, None] = {}
    with budget_errors():
        orders = p.schedule_maps(scop.tree)
        for s in scop.statements:
            own = _own_load(s)
            for access in dict.fromkeys(s.reads):
                if access.array not in locals_read:
                    continue
                p.renew_budget()
                if _uninitialised(p, scop, orders, s, access).is_empty():
                    continue
                genuine = sum(a == access for a in s.reads) > 1 or own != access
                if genuine:
                    raise UnsupportedError(
                        s.location, access.array, "is read before anything was assigned to it"
                    )
                clear[access.array] = None
    return _cleared(scop, tuple(clear), scop.statements[0].location)


def _uninitialised(
    p: Polyhedra, scop: Scop, orders: dict[str, isl.Map], reader: Statement, access: Access
) -> isl.Set:
    """The instances of ``reader`` whose load has no earlier write."""
    read = p.access_map(reader, access)
    missing = p.domains[reader.name]
    for writer in scop.statements:
        if writer.write.array != access.array:
            continue
        pairs = read.apply_range(p.writes[writer.name].reverse())
        later = orders[reader.name].lex_gt_map(orders[writer.name])
        missing = missing.subtract(pairs.intersect(later).domain())
        if missing.is_empty():
            break
    return missing


def _own_load(s: Statement) -> Access | None:
    """The load of its own target that a conditional assignment ends with."""
    match s.value:
        case Select(if_false=Load(access=access)) if access == s.write:
            return access
    return None


def _cleared(scop: Scop, names: tuple[str, ...], location: Location) -> Scop:
    added: list[Statement] = []
    for name in names:
        array = scop.array(name)
        if array.shape:
            raise UnsupportedError(
                location, name, "a local array is assigned under a condition on data before it "
                "has values; initialise it first",
            )  # fmt: skip
        zero = Const(array.dtype, 0.0 if array.dtype.startswith("float") else 0)
        added.append(
            Statement(f"I{len(added)}", Domain(()), Access(name), zero, location, f"{name} = 0")
        )
    if not added:
        return scop
    below = scop.tree.children if isinstance(scop.tree, Sequence) else (scop.tree,)
    tree = Sequence((*(Leaf(s.name) for s in added), *below))
    return replace(scop, statements=(*added, *scop.statements), tree=tree)


def _number(scop: Scop) -> Scop:
    """Call the statements S0, S1, ... in textual order; leave out arrays' names."""
    taken = {a.name for a in scop.arrays} | {a.name for a in scop.scalars} | set(scop.parameters)
    prefix = "S"
    while any(name.startswith(prefix) and name[len(prefix) :].isdigit() for name in taken):
        prefix += "S"
    names = {s.name: f"{prefix}{k}" for k, s in enumerate(scop.statements)}

    def visit(node: Node) -> Node:
        match node:
            case Leaf():
                return Leaf(names[node.statement])
            case Loop():
                return replace(
                    node,
                    schedule=tuple((names[s], e) for s, e in node.schedule),
                    body=visit(node.body),
                )
            case Sequence():
                return Sequence(tuple(visit(c) for c in node.children))

    renamed = tuple(replace(s, name=names[s.name]) for s in scop.statements)
    return scop.with_statements(renamed, visit(scop.tree))
