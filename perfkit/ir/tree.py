"""Loop trees: the order in which statement instances run.

A tree is built from three nodes. A :class:`Loop` orders the instances of every statement below it
by one quasi-affine expression per statement, smaller values first. A :class:`Sequence` orders its
children textually. A :class:`Leaf` is a statement. The schedule of an instance is the vector of
values met on the way from the root to its leaf; instances run in lexicographic order, except that
a loop marked parallel or vector claims that its order does not matter.

Loop names are unique in a tree, so a transform can name a loop without saying where it is. The text
form (:func:`show`, :func:`parse`) is stable and is what schedule scripts carry::

    for t(S0: t, S1: t) {
      for i(S0: i) parallel for j(S0: j) vector(4) S0;
      for i_2(S1: i) for j_2(S1: j) S1
    }
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from perfkit.errors import ScriptError
from perfkit.ir.affine import Affine

MARKS = {
    "parallel": 0, "vector": 1, "unroll": 1, "jam": 1,
    "grid": 0, "block": 1, "stages": 1, "warps": 1,
}  # fmt: skip
"""Marks that a loop may carry, with their number of integer arguments."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How a loop is executed.

    ``parallel``: iterations on several threads. ``vector(n)``: n iterations in SIMD lanes.
    ``unroll(n)``: body repeated n times. ``jam(n)``: unroll by n and jam the copies into the loops
    inside, so that n instances of the innermost body share loads (register tiling).

    On a GPU ``grid``: iterations in different programs. ``block(n)``: n iterations as lanes of a
    tensor, or n of a ``grid`` loop per program. ``stages(n)``: loads n iterations ahead.
    ``warps(n)``: warps per program of the grid.
    """

    kind: str
    factor: int = 0

    def __str__(self) -> str:
        return f"{self.kind}({self.factor})" if MARKS[self.kind] else self.kind


@dataclass(frozen=True, slots=True)
class Leaf:
    statement: str


@dataclass(frozen=True, slots=True)
class Sequence:
    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """``schedule`` holds one expression per statement below, in the order of the leaves."""

    name: str
    schedule: tuple[tuple[str, Affine], ...]
    body: Node
    marks: tuple[Mark, ...] = ()

    def expression(self, statement: str) -> Affine:
        return dict(self.schedule)[statement]

    def mark(self, kind: str) -> Mark | None:
        return next((m for m in self.marks if m.kind == kind), None)


Node = Leaf | Sequence | Loop


def statements(node: Node) -> tuple[str, ...]:
    """Names of the statements below, in textual order."""
    match node:
        case Leaf(statement=name):
            return (name,)
        case Loop(body=body):
            return statements(body)
        case Sequence(children=children):
            return tuple(s for c in children for s in statements(c))


def walk(node: Node) -> Iterator[Node]:
    """Every node, parents first."""
    yield node
    match node:
        case Loop(body=body):
            yield from walk(body)
        case Sequence(children=children):
            for child in children:
                yield from walk(child)


def loops(node: Node) -> tuple[Loop, ...]:
    """Every loop, outer before inner, in textual order."""
    return tuple(n for n in walk(node) if isinstance(n, Loop))


def find_loop(node: Node, name: str) -> Loop:
    for loop in loops(node):
        if loop.name == name:
            return loop
    known = [loop.name for loop in loops(node)]
    close = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ScriptError(
        f"no loop is named {name!r}; {hint}the loops are: {', '.join(known) or 'none'}"
    )


def rewrite(node: Node, name: str, change: Callable[[Loop], Node]) -> Node:
    """Replace the loop called ``name`` by ``change(loop)``; the rest is shared."""
    find_loop(node, name)

    def visit(n: Node) -> Node:
        match n:
            case Loop() if n.name == name:
                return change(n)
            case Loop():
                return replace(n, body=visit(n.body))
            case Sequence():
                return Sequence(tuple(visit(c) for c in n.children))
            case _:
                return n

    return visit(node)


def map_loops(node: Node, change: Callable[[Loop], Loop]) -> Node:
    """Apply ``change`` to every loop, inner loops first."""
    match node:
        case Loop():
            return change(replace(node, body=map_loops(node.body, change)))
        case Sequence():
            return Sequence(tuple(map_loops(c, change) for c in node.children))
        case _:
            return node


def enclosing(node: Node, statement: str) -> tuple[Loop, ...]:
    """The loops around a statement, outermost first."""
    match node:
        case Leaf(statement=name):
            if name == statement:
                return ()
        case Loop():
            if statement in dict(node.schedule):
                return (node, *enclosing(node.body, statement))
        case Sequence():
            for child in node.children:
                if statement in statements(child):
                    return enclosing(child, statement)
    raise KeyError(statement)


def paths(node: Node) -> dict[str, tuple[tuple[Loop, Affine], ...]]:
    """For every statement, in textual order, the loops around it and its expressions in them."""
    match node:
        case Leaf(statement=name):
            return {name: ()}
        case Loop(schedule=schedule):
            inside = paths(node.body)
            values = dict(schedule)
            return {name: ((node, values[name]), *path) for name, path in inside.items()}
        case Sequence(children=children):
            return {name: path for child in children for name, path in paths(child).items()}


def restrict(node: Node, keep: frozenset[str]) -> Node | None:
    """The tree without the statements outside ``keep``; None when nothing is left."""
    match node:
        case Leaf(statement=name):
            return node if name in keep else None
        case Loop():
            body = restrict(node.body, keep)
            if body is None:
                return None
            return replace(
                node, schedule=tuple((s, e) for s, e in node.schedule if s in keep), body=body
            )
        case Sequence():
            kept = [c for c in (restrict(c, keep) for c in node.children) if c is not None]
            if not kept:
                return None
            return kept[0] if len(kept) == 1 else Sequence(tuple(kept))


def vectors(node: Node) -> dict[str, tuple[Affine, ...]]:
    """The schedule vector of every statement; sequence positions are constants.

    Vectors have different lengths; two statements differ at the latest where their paths part, so
    padding with zeros (done by :func:`padded_vectors`) keeps the order.
    """
    match node:
        case Leaf(statement=name):
            return {name: ()}
        case Loop():
            inner = vectors(node.body)
            return {s: (e, *inner[s]) for s, e in node.schedule}
        case Sequence():
            return {
                s: (Affine.constant(k), *vector)
                for k, child in enumerate(node.children)
                for s, vector in vectors(child).items()
            }


def padded_vectors(node: Node) -> dict[str, tuple[Affine, ...]]:
    found = vectors(node)
    depth = max((len(v) for v in found.values()), default=0)
    return {s: v + (Affine(),) * (depth - len(v)) for s, v in found.items()}


def fresh_name(node: Node, base: str, taken: frozenset[str] = frozenset()) -> str:
    """``base``, or ``base_2``, ``base_3``... whichever no loop carries yet."""
    used = {loop.name for loop in loops(node)} | taken
    name, k = base, 2
    while name in used:
        name, k = f"{base}_{k}", k + 1
    return name


# -- text ------------------------------------------------------------------------------------


def show(node: Node, indent: int = 0) -> str:
    """The text form, one loop per line; :func:`parse` reads it back."""
    pad = "  " * indent
    match node:
        case Leaf(statement=name):
            return f"{pad}{name}"
        case Loop():
            head = ", ".join(f"{s}: {e}" for s, e in node.schedule)
            marks = "".join(f" {m}" for m in node.marks)
            return f"{pad}for {node.name}({head}){marks}\n{show(node.body, indent + 1)}"
        case Sequence():
            inner = ";\n".join(show(c, indent + 1) for c in node.children)
            return f"{pad}{{\n{inner}\n{pad}}}"


_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_]\w*)|(.))", re.S)


class _Parser:
    """Recursive descent over the text form; shared with the script parser for affine text."""

    def __init__(self, text: str) -> None:
        self.tokens = [m.group(m.lastindex or 0) for m in _TOKEN.finditer(text.strip())]
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise ScriptError(
                f"schedule text: expected {expected or 'more'}, found {token or 'the end'!r} "
                f"after {' '.join(self.tokens[max(0, self.position - 6) : self.position])!r}"
            )
        self.position += 1
        return token

    def name(self) -> str:
        token = self.take()
        if not re.fullmatch(r"[A-Za-z_]\w*", token):
            raise ScriptError(f"schedule text: expected a name, found {token!r}")
        return token

    def integer(self) -> int:
        sign = -1 if self.peek() == "-" else 1
        if sign < 0:
            self.take()
        token = self.take()
        if not token.isdigit():
            raise ScriptError(f"schedule text: expected an integer, found {token!r}")
        return sign * int(token)

    def node(self, depth: int = 0) -> Node:
        if depth > 200:
            raise ScriptError("schedule text: nested too deeply")
        if self.peek() == "{":
            self.take("{")
            children = [self.node(depth + 1)]
            while self.peek() == ";":
                self.take(";")
                children.append(self.node(depth + 1))
            self.take("}")
            return Sequence(tuple(children))
        if self.peek() == "for":
            self.take("for")
            name = self.name()
            self.take("(")
            schedule = [self.entry()]
            while self.peek() == ",":
                self.take(",")
                schedule.append(self.entry())
            self.take(")")
            marks = []
            while self.peek() in MARKS:
                marks.append(self.mark())
            return Loop(name, tuple(schedule), self.node(depth + 1), tuple(marks))
        return Leaf(self.name())

    def mark(self) -> Mark:
        kind = self.take()
        if not MARKS[kind]:
            return Mark(kind)
        self.take("(")
        factor = self.integer()
        self.take(")")
        return Mark(kind, factor)

    def entry(self) -> tuple[str, Affine]:
        statement = self.name()
        self.take(":")
        return statement, self.affine()

    def affine(self) -> Affine:
        result = self.term(-1 if self.peek() == "-" and self.take() else 1)
        while self.peek() in ("+", "-"):
            result = result + self.term(1 if self.take() == "+" else -1)
        return result

    def term(self, sign: int) -> Affine:
        value = self.factor()
        while self.peek() == "*":
            self.take("*")
            other = self.factor()
            if value.is_constant:
                value, other = other, value
            if not other.is_constant:
                raise ScriptError("schedule text: a product of two variables is not affine")
            value = value * other.const
        return value * sign

    def factor(self) -> Affine:
        token = self.peek()
        if token == "(":
            self.take("(")
            inner = self.affine()
            self.take(")")
            return inner
        if token.isdigit():
            return Affine.constant(self.integer())
        if token == "floor":
            self.take("floor")
            self.take("(")
            inner = self.affine()
            self.take("/")
            divisor = self.integer()
            self.take(")")
            if divisor <= 0:
                raise ScriptError(f"schedule text: floor division by {divisor}")
            return inner.floordiv(divisor)
        return Affine.variable(self.name())

    def end(self) -> None:
        if self.peek():
            raise ScriptError(f"schedule text: unexpected {self.peek()!r}")


def parse(text: str) -> Node:
    """Read the text form. Raises ScriptError for text that is not a well-formed tree."""
    parser = _Parser(text)
    node = parser.node()
    parser.end()
    check(node)
    return node


def parse_affine(text: str) -> Affine:
    parser = _Parser(text)
    result = parser.affine()
    parser.end()
    return result


def check(node: Node) -> None:
    """Raise ScriptError unless names are unique and every loop schedules just its statements."""
    names = statements(node)
    if len(set(names)) != len(names):
        raise ScriptError(f"a statement stands twice in the tree: {', '.join(names)}")
    seen: set[str] = set()
    for loop in loops(node):
        if loop.name in seen:
            raise ScriptError(f"two loops are named {loop.name!r}")
        seen.add(loop.name)
        scheduled = [s for s, _ in loop.schedule]
        if sorted(scheduled) != sorted(statements(loop.body)):
            raise ScriptError(
                f"loop {loop.name!r} schedules {scheduled}, but encloses {statements(loop.body)}"
            )


def depth_of(node: Node) -> int:
    """The largest number of loops around a statement."""
    match node:
        case Leaf():
            return 0
        case Loop(body=body):
            return 1 + depth_of(body)
        case Sequence(children=children):
            return max(map(depth_of, children), default=0)


def substitute(node: Node, mapping: Mapping[str, Mapping[str, Affine]]) -> Node:
    """Rewrite the iterators of statements: ``mapping[statement][iterator]``."""

    def change(loop: Loop) -> Loop:
        return replace(
            loop, schedule=tuple((s, e.substitute(mapping.get(s, {}))) for s, e in loop.schedule)
        )

    return map_loops(node, change)
