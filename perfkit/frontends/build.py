"""From the small loop language to a SCoP: what C and Python have in common.

:func:`build` walks the statements once, in order. Loops and affine conditions narrow the domain;
conditions on data turn assignments into selects; every assignment becomes one statement, or
several where its subscripts have different plain forms in different parts of its domain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends import affine as terms
from perfkit.frontends.affine import NotAffine, Pieces, Term
from perfkit.frontends.finish import finish
from perfkit.frontends.names import declared_in, names_in, sole_assign, targets_of
from perfkit.frontends.prover import Prover
from perfkit.frontends.syntax import (
    Assign,
    Block,
    Declare,
    For,
    If,
    Name,
    Operation,
    Region,
    Stmt,
    Value,
    Variable,
)
from perfkit.frontends.values import (
    At,
    Binding,
    Iterator,
    Lowering,
    Place,
    ScalarInput,
    Size,
    Split,
)
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.scop import Array, ScalarArgument, Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, statements
from perfkit.ir.tree import Sequence as Order

MAX_SPLITS = 10
MAX_STATEMENTS = 2000
INDEX_TYPES = ("int32", "int64", "uint32", "uint64")
# isl reads these as operators, whatever their case.
RESERVED = frozenset(
    {"exists", "and", "or", "implies", "not", "infty", "infinity", "nan", "min", "max", "rat"}
    | {"true", "false", "ceild", "floord", "mod", "ceil", "floor"}
)


def build(region: Region, *, checked_calls: bool = False) -> Scop:
    """Lower a region. Raises UnsupportedError for what is outside the affine class.

    ``checked_calls``: the bounds found by :mod:`perfkit.analysis.bounds` are checked before every
    call, so an access under a condition on data need not be proved to be within its array.
    """
    return _Builder(region, checked_calls).build()


@dataclass(frozen=True)
class _Scope:
    """What holds at one point of the walk. ``known`` is updated as assignments are passed."""

    domain: Domain
    bindings: dict[str, Binding]
    known: dict[str, Term] = field(default_factory=dict)
    guard: ir.Expr | None = None

    def inside(self, domain: Domain, guard: ir.Expr | None = None) -> _Scope:
        """A nested block: its declarations and its knowledge end with it."""
        return _Scope(domain, dict(self.bindings), dict(self.known), guard or self.guard)

    def at(self, location: Location) -> At:
        return At(self.domain, self.bindings, self.known, location, self.guard is not None)


class _Builder:
    def __init__(self, region: Region, checked_calls: bool) -> None:
        self.region = region
        self.arrays: dict[str, Array] = {}
        self.scalars: list[ScalarArgument] = []
        self.statements: list[Statement] = []
        self.loop_names: set[str] = set()
        self.taken = {v.name for v in region.variables} | set(declared_in(region.body))
        sizes = tuple(v.name for v in region.variables if v.kind == "size")
        self.prover = Prover(sizes)
        self.values = Lowering(self.prover, self.arrays, checked_calls)

    def build(self) -> Scop:
        scope = _Scope(Domain(()), {})
        for variable in sorted(self.region.variables, key=lambda v: v.kind != "size"):
            self.declare_argument(variable, scope)
        at = scope.at(self.region.location)
        for assumption in self.region.assumptions:
            for outcome in self.values.condition(assumption, at):
                if outcome.residual is True:
                    self.prover.assume(outcome.pieces)
                elif outcome.residual is not False:
                    raise UnsupportedError(at.location, "assumption", "is not affine in the sizes")
        nodes = self.block(self.region.body, scope)
        if not nodes:
            raise UnsupportedError(
                self.region.location, self.region.name, "has no assignment that can run"
            )
        # Arguments come in the order of the region's variables, locals after them.
        order = {v.name: k for k, v in enumerate(self.region.variables)}
        arrays = sorted(self.arrays.values(), key=lambda a: order.get(a.name, len(order)))
        scop = Scop(
            self.region.name,
            tuple(v.name for v in self.region.variables if v.kind == "size"),
            self.prover.context,
            tuple(arrays),
            tuple(self.scalars),
            tuple(self.statements),
            _sequence(nodes),
        )
        return finish(scop, self.region.location)

    # -- declarations ------------------------------------------------------------------------

    def declare_argument(self, variable: Variable, scope: _Scope) -> None:
        location = self.region.location
        _check_name(variable.name, location)
        if variable.dtype not in ir.DTYPES:
            raise UnsupportedError(
                location, variable.name, f"has type {variable.dtype}, which perfkit does not know"
            )
        match variable.kind:
            case "size":
                scope.bindings[variable.name] = Size(variable.name)
            case "scalar":
                self.scalars.append(ScalarArgument(variable.name, variable.dtype))
                scope.bindings[variable.name] = ScalarInput(variable.name, variable.dtype)
            case "variable" | "array":
                shape = self.shape(variable.name, variable.shape, scope, location)
                array = Array(variable.name, variable.dtype, shape, False, variable.live_out)
                self.arrays[array.name] = array
                scope.bindings[variable.name] = Place(array.name)

    def declare(self, s: Declare, scope: _Scope) -> None:
        _check_name(s.name, s.location)
        shape = self.shape(s.name, s.shape, scope, s.location)
        name = _fresh(s.name, self.arrays.keys() | {v.name for v in self.region.variables})
        self.arrays[name] = Array(name, s.dtype, shape, local=True, live_out=False)
        scope.bindings[s.name] = Place(name)

    def shape(
        self, name: str, extents: Sequence[Value], scope: _Scope, location: Location
    ) -> tuple[Affine, ...]:
        at = replace(scope.at(location), guarded=False)
        try:
            found = tuple(self.values.affine(e, at, f"extent of {name}") for e in extents)
        except Split:
            raise UnsupportedError(
                location, f"extent of {name}", "depends on the case; give it one plain formula"
            ) from None
        if any(not (e.names() <= set(self.prover.context.names())) for e in found):
            raise UnsupportedError(
                location, f"extent of {name}", "changes from iteration to iteration"
            )
        return found

    # -- statements --------------------------------------------------------------------------

    def block(self, body: Iterable[Stmt], scope: _Scope) -> list[Node]:
        nodes: list[Node] = []
        for s in body:
            match s:
                case Assign():
                    nodes += self.assign(s, scope)
                case Declare():
                    self.declare(s, scope)
                case For():
                    nodes += self.loop(s, scope)
                case If():
                    nodes += self.branch(s, scope)
                    self.forget((s,), scope)
                case Block():
                    inner = scope.inside(scope.domain)
                    nodes += self.block(s.body, inner)
                    self.forget((s,), scope)
        return nodes

    def forget(self, body: tuple[Stmt, ...], scope: _Scope) -> None:
        """Drop what was known of the variables that ``body`` assigns."""
        for target in targets_of(body):
            binding = scope.bindings.get(target)
            if isinstance(binding, Place):
                scope.known.pop(binding.array, None)

    def assign(self, s: Assign, scope: _Scope) -> list[Node]:
        at = scope.at(s.location)
        target = s.target.name if isinstance(s.target, Name) else s.target.array
        match scope.bindings.get(target):
            case Iterator():
                raise UnsupportedError(s.location, target, "a loop variable must not be assigned")
            case Size() | ScalarInput():
                raise UnsupportedError(s.location, target, "is read only here, but assigned")
        term: Term | None = None
        if isinstance(s.target, Name) and s.target.dtype in INDEX_TYPES and scope.guard is None:
            term = self.known_term(s.value, at)
        nodes = self.emit(s, scope, 0)
        place = scope.bindings.get(target)
        if isinstance(s.target, Name) and isinstance(place, Place):
            scope.known.pop(place.array, None)
            if term is not None:
                scope.known[place.array] = term
        return nodes

    def known_term(self, value: Value, at: At) -> Term | None:
        try:
            return self.values.term(value, at) if value.dtype in INDEX_TYPES else None
        except NotAffine:
            return None

    def emit(self, s: Assign, scope: _Scope, splits: int) -> list[Node]:
        at = scope.at(s.location)
        try:
            write = self.values.access(s.target, at)
            value = self.values.expression(s.value, at)
        except Split as split:
            return [
                node
                for part in self.parts(split, scope, s.location, splits)
                for node in self.emit(s, part, splits + 1)
            ]
        except NotAffine as error:
            raise UnsupportedError(s.location, s.text or "assignment", str(error)) from None
        dtype = self.arrays[write.array].dtype
        if value.dtype != dtype:
            value = ir.Cast(dtype, value)
        if scope.guard is not None:
            value = ir.Select(dtype, scope.guard, value, ir.Load(dtype, write))
        return [self.statement(scope.domain, write, value, s.location, s.text)]

    def statement(
        self, domain: Domain, write: ir.Access, value: ir.Expr, location: Location, text: str
    ) -> Node:
        if len(self.statements) >= MAX_STATEMENTS:
            raise UnsupportedError(location, "region", f"has over {MAX_STATEMENTS} statements")
        name = f"S{len(self.statements)}"
        self.statements.append(Statement(name, domain, write, value, location, text))
        return Leaf(name)

    def parts(self, split: Split, scope: _Scope, location: Location, splits: int) -> list[_Scope]:
        """The scope once for each part of its domain, empty parts left out."""
        if splits >= MAX_SPLITS:
            raise UnsupportedError(
                location, "statement", "needs too many case distinctions (min, max, /, %, ?:)"
            )
        parts = [self.prover.trim(scope.domain.intersect(p)) for p in split.parts]
        return [replace(scope, domain=part) for part in parts if part.pieces]

    # -- conditions --------------------------------------------------------------------------

    def branch(self, s: If, scope: _Scope) -> list[Node]:
        try:
            outcomes = self.values.feasible_outcomes(s.condition, scope.at(s.location))
        except NotAffine as error:
            raise UnsupportedError(s.location, "condition", str(error)) from None
        nodes: list[Node] = []
        for outcome in outcomes:
            domain = self.prover.trim(scope.domain.intersect(outcome.pieces))
            if not domain.pieces:
                continue
            if isinstance(outcome.residual, bool):
                body = s.then if outcome.residual else s.otherwise
                nodes += self.block(body, scope.inside(domain))
            else:
                nodes += self.data_branch(s, outcome.residual, scope.inside(domain), 0)
        return nodes

    def data_branch(self, s: If, condition: Value, scope: _Scope, splits: int) -> list[Node]:
        """Both branches run on every iteration; selects keep what the source would not write."""
        first, second = sole_assign(s.then), sole_assign(s.otherwise)
        if first and second and first.target == second.target:
            value = Operation(first.target.dtype, "select", (condition, first.value, second.value))
            return self.emit(replace(first, value=value), scope, 0)
        try:
            guard = self.values.truth(condition, scope.at(s.location))
        except Split as split:
            return [
                node
                for part in self.parts(split, scope, s.location, splits)
                for node in self.data_branch(s, condition, part, splits + 1)
            ]
        nodes: list[Node] = []
        if scope.guard is not None:
            guard = ir.Binary("bool", "land", scope.guard, guard)
        if self.changes(guard, s, scope):
            saved = self.fresh_local("cond", "bool")
            nodes.append(self.statement(scope.domain, saved, guard, s.location, ""))
            guard = ir.Load("bool", saved)
        nodes += self.block(s.then, scope.inside(scope.domain, guard))
        opposite: ir.Expr = ir.Unary("bool", "not", guard)
        if scope.guard is not None:
            opposite = ir.Binary("bool", "land", scope.guard, opposite)
        self.forget(s.then, scope)
        nodes += self.block(s.otherwise, scope.inside(scope.domain, opposite))
        return nodes

    def changes(self, guard: ir.Expr, s: If, scope: _Scope) -> bool:
        """Whether a branch may change what the guard reads before the guard is last used."""
        read = {access.array for access in ir.loads(guard)}
        body = (*s.then, *s.otherwise)
        if sole_assign(body) is not None:
            return False
        return any(
            not isinstance(binding := scope.bindings.get(name), Place) or binding.array in read
            for name in targets_of(body)
        )

    def fresh_local(self, base: str, dtype: str) -> ir.Access:
        name = _fresh(base, self.taken | self.arrays.keys())
        self.arrays[name] = Array(name, dtype, (), local=True, live_out=False)
        return ir.Access(name)

    # -- loops -------------------------------------------------------------------------------

    def loop(self, s: For, scope: _Scope) -> list[Node]:
        at = scope.at(s.location)
        if s.step == 0:
            raise UnsupportedError(s.location, f"loop over {s.variable}", "has a step of zero")
        try:
            first, last = self.values.term(s.first, at), self.values.term(s.last, at)
            variable = Affine.variable(self.free_name(s.variable, scope.domain.iterators))
            value, inside = _range(first, last, s.step, variable)
            domain = Domain((*scope.domain.iterators, *variable.names()), scope.domain.pieces)
            domain = self.prover.trim(domain.intersect(inside))
        except NotAffine as error:
            raise UnsupportedError(
                s.location, f"loop over {s.variable}", f"its range is not affine: {error}"
            ) from None
        changed = targets_of(s.body) & (names_in(s.first) | names_in(s.last))
        if changed:
            raise UnsupportedError(
                s.location, f"loop over {s.variable}", f"changes its bound {min(changed)!r}"
            )
        self.forget(s.body, scope)
        if not domain.pieces:
            return []
        inner = scope.inside(domain)
        inner.bindings[s.variable] = Iterator(value)
        name = self.free_name(s.variable, self.loop_names)
        self.loop_names.add(name)
        nodes = self.block(s.body, inner)
        if not nodes:
            return []
        body = _sequence(nodes)
        order = -variable if s.step < 0 and value == variable else variable
        return [Loop(name, tuple((n, order) for n in statements(body)), body)]

    def free_name(self, base: str, used: Iterable[str]) -> str:
        """The source's name for a loop, or the next free one like it."""
        variables = {v.name for v in self.region.variables}
        taken = variables | (self.taken - {base}) | set(used)
        return _fresh(f"{base}_" if base.lower() in RESERVED else base, taken)


def _range(first: Term, last: Term, step: int, variable: Affine) -> tuple[Term, Pieces]:
    """The value of the source's loop variable, and the constraints on the iterator."""
    sign = 1 if step > 0 else -1
    if abs(step) != 1 and not isinstance(first, Affine):
        # first + step * k cannot be told from the value alone, so count iterations instead.
        value = terms.add(first, variable * step)
        begins = terms.at_least_zero(variable)
    else:
        value = variable
        begins = terms.at_least_zero(terms.scale(terms.subtract(variable, first), sign))
    inside = terms.conjunction(
        begins, terms.at_least_zero(terms.scale(terms.subtract(last, value), sign))
    )
    if abs(step) != 1 and isinstance(first, Affine):
        stride = Constraint(((variable - first) * sign).mod(abs(step)), "eq")
        inside = terms.conjunction(inside, ((stride,),))
    return value, inside


# -- syntax helpers --------------------------------------------------------------------------


def _sequence(nodes: Sequence[Node]) -> Node:
    return nodes[0] if len(nodes) == 1 else Order(tuple(nodes))


def _fresh(base: str, taken: Iterable[str]) -> str:
    used = set(taken)
    name, k = base, 2
    while name in used:
        name, k = f"{base}_{k}", k + 1
    return name


def _check_name(name: str, location: Location) -> None:
    if name.lower() in RESERVED or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UnsupportedError(location, name, "this name cannot be used here; rename it")
