"""The spec of the IR: what every SCoP satisfies, whoever built or transformed it."""

from __future__ import annotations

from collections.abc import Iterable

from perfkit.errors import InternalError, ScriptError
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Loop, Node, check, loops, statements

_BOOL_OPS = ("land", "lor")
_FLOAT_OPS = ("div",)
_INTEGER_OPS = ("tdiv", "tmod", "shl", "shr")
_BIT_OPS = ("and", "or", "xor")


def verify(scop: Scop, tree: Node | None = None) -> None:
    """Raise InternalError for the first broken rule; ``tree`` replaces the SCoP's own."""
    _Verifier(scop).run(scop.tree if tree is None else tree)


class _Verifier:
    def __init__(self, scop: Scop) -> None:
        self.scop = scop
        self.arrays = {a.name: a for a in scop.arrays}
        self.scalars = {s.name: s for s in scop.scalars}
        self.parameters = frozenset(scop.parameters)

    def run(self, tree: Node) -> None:
        self.names()
        for array in self.scop.arrays:
            self.require(array.dtype in ir.DTYPES, f"array {array.name} has type {array.dtype}")
            for extent in array.shape:
                self.affine(extent, self.parameters, f"the shape of {array.name}")
            self.require(
                not (array.local and array.live_out), f"array {array.name} is local and live out"
            )
        self.require(not self.scop.context.iterators, "the context has iterators")
        self.constraints(self.scop.context.names(), self.parameters, "the context")
        for statement in self.scop.statements:
            self.statement(statement)
        self.tree(tree)

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            raise InternalError(f"broken SCoP {self.scop.name!r}: {text}")

    def names(self) -> None:
        outer = [
            *self.scop.parameters,
            *(a.name for a in self.scop.arrays),
            *(s.name for s in self.scop.scalars),
        ]
        self.unique(outer, "two arrays, scalars or parameters are named")
        self.unique((s.name for s in self.scop.statements), "two statements are named")
        for scalar in self.scop.scalars:
            self.require(scalar.dtype in ir.DTYPES, f"scalar {scalar.name} has type {scalar.dtype}")

    def unique(self, names: Iterable[str], text: str) -> None:
        seen: set[str] = set()
        for name in names:
            self.require(name not in seen, f"{text} {name!r}")
            seen.add(name)

    def constraints(self, used: frozenset[str], known: frozenset[str], where: str) -> None:
        self.require(used <= known, f"{where} mentions unknown {sorted(used - known)}")

    def affine(self, expr: Affine, known: frozenset[str], where: str) -> None:
        self.constraints(expr.names(), known, where)

    def statement(self, s: Statement) -> None:
        self.unique(s.iterators, f"statement {s.name}: two iterators are named")
        clash = self.parameters & set(s.iterators)
        self.require(not clash, f"statement {s.name}: iterators {sorted(clash)} are parameters")
        known = self.parameters | set(s.iterators)
        self.constraints(s.domain.names(), known, f"the domain of {s.name}")
        self.access(s, s.write, known)
        for e in ir.walk(s.value):
            self.expression(s, e, known)
        dtype = self.arrays[s.write.array].dtype
        self.require(
            s.value.dtype == dtype,
            f"statement {s.name} writes {s.value.dtype} into {s.write.array}, which is {dtype}",
        )

    def access(self, s: Statement, access: ir.Access, known: frozenset[str]) -> None:
        array = self.arrays.get(access.array)
        if array is None:
            raise InternalError(
                f"broken SCoP {self.scop.name!r}: {s.name} accesses unknown {access.array!r}"
            )
        self.require(
            len(access.indices) == array.rank,
            f"{s.name}: {access} has {len(access.indices)} subscripts, the array {array.rank}",
        )
        for index in access.indices:
            self.affine(index, known, f"{s.name}: {access}")

    def expression(self, s: Statement, e: ir.Expr, known: frozenset[str]) -> None:
        where = f"{s.name}: {type(e).__name__}"
        self.require(e.dtype in ir.DTYPES, f"{where} has type {e.dtype!r}")
        match e:
            case ir.Load(access=access):
                self.access(s, access, known)
                self.same(where, e.dtype, self.arrays[access.array].dtype)
            case ir.Scalar(name=name):
                self.require(name in self.scalars, f"{where} names unknown scalar {name!r}")
                self.same(where, e.dtype, self.scalars[name].dtype)
            case ir.AffineValue(affine=affine):
                self.affine(affine, known, where)
                self.require(e.dtype in ir.INTEGERS, f"{where} has type {e.dtype}")
            case ir.Unary(op="not"):
                self.same(where, e.dtype, "bool", e.arg.dtype)
            case ir.Unary():
                self.same(where, e.dtype, e.arg.dtype)
            case ir.Binary(op=op):
                self.binary(where, op, e)
            case ir.Compare():
                self.same(where, e.dtype, "bool")
                self.same(where, e.left.dtype, e.right.dtype)
            case ir.Select():
                self.same(where, e.condition.dtype, "bool")
                self.same(where, e.dtype, e.if_true.dtype, e.if_false.dtype)
            case ir.Call(function=function, args=args):
                self.require(
                    ir.FUNCTIONS.get(function) == len(args),
                    f"{where} calls {function} with {len(args)} arguments",
                )
            case _:
                pass

    def binary(self, where: str, op: str, e: ir.Binary) -> None:
        where = f"{where} {op}"
        if op in ("shl", "shr"):
            self.same(where, e.dtype, e.left.dtype)
        else:
            self.same(where, e.dtype, e.left.dtype, e.right.dtype)
        if op in _BOOL_OPS:
            self.same(where, e.dtype, "bool")
        if op in _FLOAT_OPS:
            self.require(e.dtype in ir.FLOATS, f"{where} on {e.dtype}")
        if op in _INTEGER_OPS:
            self.require(e.dtype in ir.INTEGERS, f"{where} on {e.dtype}")
        if op in _BIT_OPS:
            self.require(e.dtype not in ir.FLOATS, f"{where} on {e.dtype}")

    def same(self, where: str, *dtypes: str) -> None:
        self.require(len(set(dtypes)) == 1, f"{where} mixes the types {', '.join(dtypes)}")

    def tree(self, tree: Node) -> None:
        try:
            check(tree)
        except ScriptError as error:
            raise InternalError(f"broken SCoP {self.scop.name!r}: {error}") from None
        listed = sorted(s.name for s in self.scop.statements)
        found = sorted(statements(tree))
        self.require(listed == found, f"the tree orders {found}, the statements are {listed}")
        by_name = self.scop.by_name()
        for loop in loops(tree):
            self.loop(loop, {s: frozenset(by_name[s].iterators) for s, _ in loop.schedule})

    def loop(self, loop: Loop, iterators: dict[str, frozenset[str]]) -> None:
        for statement, expr in loop.schedule:
            self.affine(
                expr,
                self.parameters | iterators[statement],
                f"loop {loop.name}, statement {statement}",
            )


__all__ = ["verify"]
