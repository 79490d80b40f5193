"""Expansion: give the values that share a variable storage of their own.

A variable that is written again and again orders everything that touches it, though no value passes
from one use to the next. Expansion removes these write-after-read and write-after-write dependences
(Feautrier, "Array expansion", 1988; Barthou, Cohen, Collard, "Maximal static expansion", 1998): a
variable is split into its *webs* (writes and reads that share values), and a web gets one dimension
for every loop whose iterations do not exchange its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import islpy as isl

from perfkit.errors import TransformError
from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access, map_loads
from perfkit.ir.isl import Polyhedra, affine_of, budget_errors, domain_of
from perfkit.ir.scop import Array, Scop, Statement
from perfkit.ir.tree import Loop, Node, enclosing
from perfkit.schedule.copies import after, copy_statement, element_iterators, unused_name
from perfkit.schedule.flow import LIVE_IN, OUT, Flows, pieces_of
from perfkit.schedule.state import State

WRITE = -1
"""The position that stands for a statement's write in ``(statement, position)``."""


@dataclass(frozen=True)
class Dimension:
    """A dimension to add: the loop, its extent, and the index that every access uses."""

    loop: str
    extent: Affine
    index: tuple[tuple[tuple[str, int], Affine], ...]

    def index_of(self, statement: str, position: int) -> Affine:
        return dict(self.index)[statement, position]


@dataclass(frozen=True)
class Web:
    """Writes and reads of one variable that share values, with the dimensions they can get."""

    members: frozenset[tuple[str, int]]
    dimensions: tuple[Dimension, ...]


@dataclass(frozen=True)
class Expand:
    """Give every web of a variable its own storage, indexed by the loops around it.

    Before::

        for i for j { acc = 0; for k acc = acc + A[i,k]*B[k,j]; C[i,j] = acc }

    After ``Expand("acc")``::

        for i for j { acc[i,j] = 0; for k acc[i,j] = acc[i,j] + A[i,k]*B[k,j]; C[i,j] = acc[i,j] }

    By default the loops are those of the program's own order around all accesses of the web between
    whose iterations no value of the variable flows, and which reuse its elements. ``loops`` names
    loops of the current tree instead; an iteration may then also read what an earlier one wrote, if
    the distance is one affine function. The final values of an argument are copied back at the end.
    Refuses variables whose incoming value is read.
    """

    array: str
    loops: tuple[str, ...] = ()

    def apply(self, state: State) -> State:
        check_expandable(state.scop, self.array, str(self))
        poly = Polyhedra(state.scop)
        tree = state.tree if self.loops else state.scop.tree
        flows = Flows(poly, state.scop.tree, [self.array])
        with budget_errors():
            webs = plan(flows, tree, self.array, self.loops)
            if len(webs) == 1 and not webs[0].dimensions:
                raise TransformError(f"{self}: no loop reuses {self.array} for unrelated values")
            return apply_webs(state, flows, self.array, webs)

    def __str__(self) -> str:
        loops = f", ({', '.join(self.loops)},)" if self.loops else ""
        return f"Expand({self.array}{loops})"


@dataclass(frozen=True)
class Privatize:
    """Give every iteration of one loop its own copy of a variable, so that it can run in parallel.

    Before::

        for i { tmp = A[i]; B[i] = tmp*tmp }

    After ``Privatize("tmp", "i")`` (generated code keeps ``tmp[i]`` in a register where it can)::

        for i { tmp[i] = A[i]; B[i] = tmp[i]*tmp[i] }
    """

    array: str
    loop: str

    def apply(self, state: State) -> State:
        check_expandable(state.scop, self.array, str(self))
        poly = Polyhedra(state.scop)
        flows = Flows(poly, state.scop.tree, [self.array])
        with budget_errors():
            webs = plan(flows, state.tree, self.array, (self.loop,), shifted=False)
            return apply_webs(state, flows, self.array, webs)

    def __str__(self) -> str:
        return f"Privatize({self.array}, {self.loop})"


def check_expandable(scop: Scop, name: str, step: str) -> None:
    known = {a.name: a for a in scop.arrays}
    if name not in known:
        raise TransformError(f"{step}: no array or variable is named {name!r}")
    if name not in scop.written:
        raise TransformError(f"{step}: {name} is only read, so it orders nothing")


# -- planning --------------------------------------------------------------------------------


def plan(
    flows: Flows, tree: Node, array: str, loops: tuple[str, ...] = (), shifted: bool = True
) -> tuple[Web, ...]:
    """The webs of an array and the dimensions to add; pure, see :func:`apply_webs`.

    Raises TransformError when a read has no write in the region, or when a loop named in ``loops``
    exchanges values in a way that one affine index cannot follow.
    """
    webs = []
    for members in _components(flows, array):
        around = common_loops(tree, [s for s, _ in members])
        found = []
        for loop in around:
            if loops and loop.name not in loops:
                continue
            dimension = _dimension(flows, array, members, loop, bool(loops) and shifted)
            if dimension is not None and (loops or _reused(flows, array, members, loop)):
                found.append(dimension)
            elif loops:
                raise TransformError(
                    f"Expand({array}): iterations of loop {loop.name!r} exchange its values"
                )
        missing = set(loops) - {loop.name for loop in around}
        if missing:
            raise TransformError(
                f"Expand({array}): loop {min(missing)!r} is not around all accesses of the variable"
            )
        webs.append(Web(members, tuple(found)))
    return tuple(webs)


def _components(flows: Flows, array: str) -> list[frozenset[tuple[str, int]]]:
    """Accesses connected by flow, in the order of the statements."""
    parent: dict[tuple[str, int], tuple[str, int]] = {}

    def root(x: tuple[str, int]) -> tuple[str, int]:
        while parent[x] != x:
            x = parent[x]
        return x

    for s in flows.scop.statements:
        if s.write.array == array:
            parent[s.name, WRITE] = (s.name, WRITE)
        for k, access in enumerate(s.reads):
            if access.array == array:
                parent[s.name, k] = (s.name, k)
    for key in list(parent):
        if key[1] == WRITE:
            continue
        for m in pieces_of(flows.sources[key]):
            source = m.get_tuple_name(OUT)
            if source.startswith(LIVE_IN):
                raise TransformError(
                    f"Expand({array}): {key[0]} reads a value that the region never wrote"
                )
            parent[root(key)] = root((source, WRITE))
    groups: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for key in parent:
        groups.setdefault(root(key), set()).add(key)
    return [frozenset(g) for g in groups.values()]


def common_loops(tree: Node, names: Iterable[str]) -> tuple[Loop, ...]:
    """The loops around all the named statements, outermost first."""
    paths = [enclosing(tree, name) for name in dict.fromkeys(names)]
    shared = []
    for level in zip(*paths, strict=False):
        if any(loop.name != level[0].name for loop in level):
            break
        shared.append(level[0])
    return tuple(shared)


def _dimension(
    flows: Flows, array: str, members: frozenset[tuple[str, int]], loop: Loop, shifted: bool
) -> Dimension | None:
    poly = flows.poly
    value = {s: _value_map(poly, s, loop.expression(s)) for s, _ in members}
    written = None
    for s, k in members:
        if k == WRITE:
            values = value[s].range()
            written = values if written is None else written.union(values)
    bounds = None if written is None else affine_bounds(written)
    if bounds is None:
        return None
    index: dict[tuple[str, int], Affine] = {}
    for s, k in sorted(members):
        own = loop.expression(s)
        if k != WRITE:
            from_source = poly.union_map(
                m.apply_range(value[m.get_tuple_name(OUT)]) for m in pieces_of(flows.sources[s, k])
            )
            found = _as_affine(poly, flows.scop.statement(s), from_source, own, shifted)
            if found is None:
                return None
            own = found
        index[s, k] = own - bounds[0]
    return Dimension(loop.name, bounds[1] - bounds[0] + 1, tuple(index.items()))


def _value_map(poly: Polyhedra, name: str, expr: Affine) -> isl.Map:
    iterators = ", ".join(poly.scop.statement(name).iterators)
    return poly.map(f"{{ {name}[{iterators}] -> [{expr}] }}").intersect_domain(poly.domains[name])


def _as_affine(
    poly: Polyhedra, statement: Statement, relation: isl.UnionMap, own: Affine, shifted: bool
) -> Affine | None:
    """One expression that agrees with ``relation`` wherever that is defined, or None."""
    for m in pieces_of(relation):  # all pieces have one space, so there is at most one
        graph = _value_map(poly, statement.name, own)
        if m.is_subset(graph):
            return own
        if not shifted:
            return None
        return _one_affine(m, statement.iterators, lambda e: _value_map(poly, statement.name, e))
    return own


def _one_affine(
    relation: isl.Map, iterators: tuple[str, ...], graph: Callable[[Affine], isl.Map]
) -> Affine | None:
    """The expression whose graph holds all of a relation to one number, or None."""
    if not relation.is_single_valued():
        return None
    for aff in _pieces(relation.as_pw_multi_aff().get_at(0)):
        try:
            expr = affine_of(aff, iterators)
        except ValueError:
            continue
        if relation.is_subset(graph(expr)):
            return expr
    return None


def _reused(flows: Flows, array: str, members: frozenset[tuple[str, int]], loop: Loop) -> bool:
    """Whether some element is used in different iterations of the loop."""
    poly = flows.poly
    relation = None
    for s, k in members:
        statement = flows.scop.statement(s)
        access = poly.writes[s] if k == WRITE else poly.access_map(statement, statement.reads[k])
        element = access.reverse().apply_range(_value_map(poly, s, loop.expression(s)))
        relation = element if relation is None else relation.union(element)
    return relation is not None and not relation.is_single_valued()


def affine_bounds(values: isl.Set) -> tuple[Affine, Affine] | None:
    """Affine lower and upper bounds of a one-dimensional set in terms of its parameters."""
    low = _extreme(values, values.dim_min(0), lower=True)
    high = _extreme(values, values.dim_max(0), lower=False)
    return None if low is None or high is None else (low, high)


def _extreme(values: isl.Set, exact: isl.PwAff, lower: bool) -> Affine | None:
    for aff in _pieces(exact):
        bound = isl.PwAff.from_aff(aff)
        worse = (exact.lt_set(bound) if lower else exact.gt_set(bound)).is_empty()
        if worse:
            try:
                return affine_of(aff, ())
            except ValueError:
                continue
    return None


def _pieces(pw: isl.PwAff) -> list[isl.Aff]:
    found: list[isl.Aff] = []
    pw.foreach_piece(lambda _, aff: found.append(aff))
    return found


# -- rewriting -------------------------------------------------------------------------------


def apply_webs(state: State, flows: Flows, array: str, webs: tuple[Web, ...]) -> State:
    """The state in which every web of ``array`` has storage of its own.

    An argument keeps its declaration and, where its content lives on, gets its final values.
    """
    scop = state.scop
    old = scop.array(array)
    taken = {a.name for a in scop.arrays} | {s.name for s in scop.scalars}
    if old.local:
        taken.discard(array)
    rename: dict[tuple[str, int], tuple[str, Web]] = {}
    created: list[Array] = []
    for web in webs:
        name = unused_name(array, taken)
        taken.add(name)
        shape = tuple(d.extent for d in web.dimensions) + old.shape
        created.append(Array(name, old.dtype, shape, local=True, live_out=False))
        for member in web.members:
            rename[member] = (name, web)

    def redirect(statement: str, position: int, access: Access) -> Access:
        if (statement, position) not in rename:
            return access
        name, web = rename[statement, position]
        added = tuple(d.index_of(statement, position) for d in web.dimensions)
        return Access(name, added + access.indices)

    def rewritten(s: Statement) -> Statement:
        value = map_loads(s.value, lambda k, access: redirect(s.name, k, access))
        return replace(s, write=redirect(s.name, WRITE, s.write), value=value)

    arrays: list[Array] = []
    for a in scop.arrays:
        if a.name != array or not old.local:
            arrays.append(a)
        if a.name == array:
            arrays.extend(created)
    new = replace(scop, arrays=tuple(arrays), statements=tuple(map(rewritten, scop.statements)))
    state = replace(state, scop=new)
    if old.local or not old.live_out:
        return state
    for web, storage in zip(webs, created, strict=True):
        state = _with_copy_out(state, flows, old, web, storage)
    return state


def _with_copy_out(state: State, flows: Flows, old: Array, web: Web, storage: Array) -> State:
    """Copy the elements whose last value was written in this web back to the argument."""
    poly, scop = flows.poly, state.scop
    iterators = element_iterators(scop, old)
    space = f"{old.name}[{', '.join(iterators)}]"
    last = [m for m in pieces_of(flows.final[old.name])
            if (m.get_tuple_name(OUT), WRITE) in web.members]  # fmt: skip
    if not last:
        return state
    elements = last[0].domain()
    for m in last[1:]:
        elements = elements.union(m.domain())
    index: list[Affine] = []
    for d in web.dimensions:
        relation = poly.union_map(
            m.apply_range(_value_map(poly, source, d.index_of(source, WRITE)))
            for m in last
            for source in [m.get_tuple_name(OUT)]
        )
        found = _one_affine(pieces_of(relation)[0], iterators, lambda expr: poly.map(
            f"{{ {space} -> [{expr}] }}"))  # fmt: skip
        if found is None:
            raise TransformError(
                f"Expand({old.name}): no affine function says which value is the final one"
            )
        index.append(found)
    domain = domain_of(elements.coalesce().gist_params(poly.context), iterators)
    copy = copy_statement(
        scop,
        old,
        f"out_{storage.name}",
        lambda x: (Access(old.name, x), Access(storage.name, (*index, *x))),
        domain,
    )
    scop = replace(scop, statements=(*scop.statements, copy), tree=after(scop.tree, copy))
    return replace(state, scop=scop, tree=after(state.tree, copy))
