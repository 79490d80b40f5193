"""Random SCoPs in the text form of :mod:`tests.programs_ir`.

Several nests, imperfect and triangular, guards and strides, scalars, reductions, constant rows,
1 to 8 statements, depth up to 3. Array extents leave room for every subscript.
"""

from __future__ import annotations

from random import Random

MAX_STATEMENTS = 8
EXTENT = "3*n + 8"


class _Writer:
    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.dtype = rng.choice(("float64",) * 6 + ("int64", "int64", "int32", "float32"))
        ranks = {
            name: rng.choice((1, 1, 2, 2, 3)) for name in rng.sample("ABCD", rng.randint(1, 3))
        }
        if rng.random() < 0.35:
            ranks["t"] = 0
        self.ranks = ranks
        self.statements: list[str] = []
        self.loops = 0
        self.limit = rng.choice((1, 2, 2, 3, 3, 4, 5, MAX_STATEMENTS))

    # -- tree ----------------------------------------------------------------------------------

    def body(self, around: list[str], bounds: list[str], depth: int) -> str:
        """One node or a sequence of nodes as tree text."""
        children = []
        for _ in range(self.rng.choice((1, 1, 1, 2, 2, 3))):
            if len(self.statements) >= self.limit and children:
                break
            leaf = depth == 0 or (around and self.rng.random() < 0.4)
            children.append(
                self.statement(around, bounds) if leaf else self.loop(around, bounds, depth)
            )
        return children[0] if len(children) == 1 else "{ " + "; ".join(children) + " }"

    def loop(self, around: list[str], bounds: list[str], depth: int) -> str:
        name = f"i{self.loops}"
        self.loops += 1
        first = len(self.statements)
        body = self.body([*around, name], [*bounds, self.bound(name, around)], depth - 1)
        entries = ", ".join(f"S{k}: {name}" for k in range(first, len(self.statements)))
        return f"for {name}({entries}) {body}"

    def bound(self, name: str, around: list[str]) -> str:
        rng = self.rng
        lower, upper = "0", "n"
        if around and rng.random() < 0.35:
            outer = rng.choice(around)
            if rng.random() < 0.5:
                lower = rng.choice((outer, f"{outer} + 1"))
            else:
                upper = rng.choice((outer, f"{outer} + 1"))
        elif rng.random() < 0.3:
            lower, upper = rng.choice((("1", "n"), ("0", "n - 1"), ("1", "n - 1"), ("0", "4")))
        text = f"{lower} <= {name} < {upper}"
        if rng.random() < 0.08:
            text += f" and {name} % {rng.choice((2, 3))} = {rng.choice((0, 1))}"
        return text

    # -- statements ------------------------------------------------------------------------------

    def statement(self, around: list[str], bounds: list[str]) -> str:
        rng = self.rng
        name = f"S{len(self.statements)}"
        conditions = list(bounds)
        if around and rng.random() < 0.15:
            a = rng.choice(around)
            b = rng.choice(around)
            guards = [f"{a} + {b} < n", f"{a} > 0", f"{a} = 2", f"{a} >= n - 2"]
            if a != b:
                guards += [f"{a} = {b}", f"{a} != {b}"]
            guard = rng.choice(guards)
            if "!=" in guard:
                base = " and ".join(conditions)
                conditions = [f"{base} and {a} < {b} or {base} and {a} > {b}"]
            else:
                conditions.append(guard)
        write = self.access(around)
        domain = " and ".join(conditions) or "true"
        self.statements.append(
            f"{name}[{', '.join(around)}]: {domain}: {write} = {self.value(write, around)}"
        )
        return name

    def access(self, around: list[str]) -> str:
        array = self.rng.choice(list(self.ranks))
        rank = self.ranks[array]
        if not rank:
            return array
        order = self.rng.sample(around, len(around))
        subscripts = [
            self.subscript(order[d] if d < len(order) else "", around) for d in range(rank)
        ]
        return f"{array}[{', '.join(subscripts)}]"

    def subscript(self, preferred: str, around: list[str]) -> str:
        rng = self.rng
        offset = rng.choice((1, 1, 1, 1, 0, 2, 3))
        if not preferred or rng.random() < 0.08:
            return str(offset)
        shape = rng.random()
        if shape < 0.8:
            return f"{preferred} + {offset}"
        if shape < 0.87:
            return f"n + 4 - {preferred} + {offset}"
        if shape < 0.94:
            return f"{preferred} + {rng.choice(around)} + {offset}"
        return f"2*{preferred} + {offset}"

    def value(self, write: str, around: list[str]) -> str:
        rng = self.rng
        reads = [self.access(around) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.2:
            reads.append(f"val({rng.choice(around)})" if around else "3")
        floating = self.dtype.startswith("float")
        if rng.random() < 0.35:
            # an update: maybe a reduction
            rest = " * ".join(reads[:2])
            if floating:
                return rng.choice(
                    (f"{write} + 0.25 * {reads[0]}", f"{write} - 0.125 * {reads[0]}",
                     f"max({write}, {reads[0]})", f"{write} * 0.5")
                )  # fmt: skip
            return rng.choice(
                (f"{write} + {rest}", f"{write} - {reads[0]}", f"min({write}, {reads[0]})",
                 f"{write} * {reads[0]}", f"{write} ^ {reads[0]}")
            )  # fmt: skip
        if floating:
            return " + ".join(f"{rng.choice(('0.5', '0.25', '0.375'))} * {r}" for r in reads) + (
                f" + {rng.choice(('1.0', '0.1', '0.0'))}"
            )
        return " + ".join(f"{rng.choice((1, 2, 3))} * {r}" for r in reads)

    def text(self) -> str:
        tree = self.body([], [], self.rng.choice((1, 2, 2, 3, 3)))
        lines = ["params n", "context n >= 1"]
        for name, rank in self.ranks.items():
            shape = f"[{', '.join([EXTENT] * rank)}]" if rank else ""
            lines.append(f"array {name}{shape} {self.dtype}")
        return "\n".join([*lines, *self.statements, "tree", tree, ""])


def random_program(rng: Random) -> str:
    """The text of one random program."""
    return _Writer(rng).text()
