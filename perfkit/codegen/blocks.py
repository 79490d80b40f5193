"""C statements from the loop AST: loops, guards, registers and runs of statement instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

from perfkit.codegen.binding import need_binding
from perfkit.codegen.ctext import C_TYPES, Helpers, Registers, Writer
from perfkit.codegen.inorder import in_order
from perfkit.codegen.names import Names
from perfkit.codegen.nodes import (
    Buffer,
    For,
    Guard,
    Instance,
    Let,
    Node,
    Region,
    Register,
    Scope,
    walk,
)
from perfkit.codegen.promote import Place, place_of
from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access
from perfkit.ir.scop import Scop, Statement

_INDENT = "  "
_NEUTRAL = {"add": "0", "mul": "1", "min": "INFINITY", "max": "-INFINITY"}
_OPENMP = {"add": "+", "mul": "*", "and": "&", "or": "|", "xor": "^", "min": "min", "max": "max"}


class BlockWriter:
    """Writes nodes as indented lines; one comment names each statement where it starts."""

    def __init__(
        self,
        scop: Scop,
        helpers: Helpers,
        names: Mapping[str, str],
        fresh: Names,
        threads: int = 0,
    ) -> None:
        """``threads`` of parallel regions; 0 leaves the number to OpenMP.

        ``names`` are C expressions for names of the SCoP; ``fresh`` gives out new ones.
        """
        self.threads = threads
        self.scop = scop
        self.statements: Mapping[str, Statement] = scop.by_name()
        self.helpers = helpers
        self.writer = Writer(helpers, names, {a.name: a.dtype for a in scop.arrays})
        self.fresh = fresh

    def lines(self, nodes: tuple[Node, ...], registers: Registers, depth: int) -> list[str]:
        if len(nodes) == 1 and isinstance(nodes[0], Let | Scope | Buffer):
            return self._open(nodes[0], registers, depth)  # the block around it has braces
        result: list[str] = []
        run: list[Instance] = []
        for node in nodes:
            if isinstance(node, Instance):
                run.append(node)
                continue
            result += self._run(run, registers, depth)
            run = []
            result += self._node(node, registers, depth)
        return result + self._run(run, registers, depth)

    def _node(self, node: Node, registers: Registers, depth: int) -> list[str]:
        pad = _INDENT * depth
        match node:
            case For():
                return self._for(node, registers, depth)
            case Guard():
                if node.condition == ((),):
                    return self.lines(node.body, registers, depth)
                head = f"{pad}if ({self.writer.condition(node.condition)}) {{"
                return [head, *self.lines(node.body, registers, depth + 1), f"{pad}}}"]
            case Region(kind="parallel"):
                return self._parallel(node, registers, depth)
            case Region():
                body = self.lines(node.body, registers, depth + 1)
                return [f"{pad}#pragma omp {node.kind}", f"{pad}{{", *body, f"{pad}}}"]
            case Let() | Scope() | Buffer():
                return [f"{pad}{{", *self._open(node, registers, depth + 1), f"{pad}}}"]
        raise TypeError(type(node).__name__)

    def _parallel(self, region: Region, registers: Registers, depth: int) -> list[str]:
        """A parallel region: its threads bound to cores, its shared results declared before."""
        pad, inner = _INDENT * depth, _INDENT * (depth + 1)
        need_binding(self.helpers)
        combined = {r.name: r for n in walk(region) if isinstance(n, For) for r in n.combined}
        shared = [f"{inner}{C_TYPES[r.dtype]} {name};" for name, r in combined.items()]
        clause = f" num_threads({self.threads})" if self.threads else ""
        return [
            f"{pad}{{", f"{inner}const int perfkit_home = perfkit_here();", *shared,
            f"{inner}#pragma omp parallel{clause}", f"{inner}{{",
            f"{inner}{_INDENT}perfkit_bind(perfkit_home);",
            *self.lines(region.body, registers, depth + 2), f"{inner}}}", f"{pad}}}",
        ]  # fmt: skip

    def _open(self, node: Let | Scope | Buffer, registers: Registers, depth: int) -> list[str]:
        """The declarations and statements of a block, without its braces."""
        if isinstance(node, Buffer):
            extents = "".join(f"[{e}]" for e in node.extents)
            line = (
                f"{_INDENT * depth}{C_TYPES[node.dtype]} {self.writer.name(node.name)}{extents} "
                "__attribute__((aligned(64)));"
            )
            return [line, *self.lines(node.body, registers, depth)]
        if isinstance(node, Let):
            return self._let(node, registers, depth)
        return self._scope(node, registers, depth)

    def _let(self, node: Let, registers: Registers, depth: int) -> list[str]:
        inner = _INDENT * depth
        lines = [f"{inner}int64_t {self.writer.name(node.name)} = {self.writer.bound(node.lower)};"]
        if node.after is not None:
            upper, strip = node.after
            step = next(n.step for n in walk(node) if isinstance(n, For) and n.name == node.name)
            last = self.writer.bound(upper)
            name = self.writer.name(node.name)
            lines.append(f"{inner}if ({last} >= {name})")
            count = f"({last} - {name} + {step})"
            lines.append(f"{inner}{_INDENT}{name} += {count} / {strip} * {strip};")
        return [*lines, *self.lines(node.body, registers, depth)]

    def _for(self, loop: For, registers: Registers, depth: int) -> list[str]:
        pad = _INDENT * depth
        name = self.writer.name(loop.name)
        start = "" if loop.resumes else f"int64_t {name} = {self.writer.bound(loop.lower)}"
        reach = (loop.width - 1) * loop.step
        if reach and isinstance(loop.upper, Affine):
            test = f"{name} <= {self.writer.affine(loop.upper - reach)}"
        elif reach:
            test = f"{name} + {reach} <= {self.writer.bound(loop.upper)}"
        else:
            test = f"{name} <= {self.writer.bound(loop.upper)}"
        if loop.until is not None:
            element, size = loop.until
            test += f" && (uintptr_t)&{self.writer.element(element)} % {size} != 0"
        if loop.schedule and reach:
            # OpenMP wants a bare variable on the left of the test.
            test = f"{name} <= {self.writer.bound(loop.upper)} - {reach}"
        step = loop.width * loop.step
        advance = f"++{name}" if step == 1 else f"{name} += {step}"
        if loop.descending:
            start = f"int64_t {name} = {self.writer.bound(loop.upper)}"
            test, advance = f"{name} >= {self.writer.bound(loop.lower)}", f"--{name}"
        lines: list[str] = []
        if loop.comment:
            lines.append(f"{pad}/* {loop.comment} */")
        if loop.schedule:
            clauses = "".join(f" reduction({_OPENMP[r.combine]}:{r.name})" for r in loop.combined)
            lines.append(f"{pad}#pragma omp for {loop.schedule}{clauses}")
        if loop.ivdep and not loop.schedule:  # no pragma may stand between omp for and its loop
            self.helpers.need(
                "PERFKIT_IVDEP",
                "#if defined(__GNUC__) && !defined(__clang__)\n"
                '#define PERFKIT_IVDEP _Pragma("GCC ivdep")\n'
                "#else\n#define PERFKIT_IVDEP\n#endif",
            )
            lines.append(f"{pad}PERFKIT_IVDEP")
        head = f"{pad}for ({start}; {test}; {advance}) {{"
        body = self.lines(loop.body, registers.extended(loop.combined), depth + 1)
        if loop.in_order:
            body.insert(0, f"{pad}{_INDENT}{in_order(self.helpers)}")
        lines += [head, *body, f"{pad}}}"]
        if not loop.combined:
            return lines
        # The threads combine into shared variables, which stand for the elements meanwhile.
        elements = [(r.name, self.writer.element(r.access)) for r in loop.combined]
        inner = pad + _INDENT
        before = [f"{inner}{name} = {element};" for name, element in elements]
        after = [f"{inner}{element} = {name};" for name, element in elements]
        single = f"{pad}#pragma omp single"
        return [
            single, f"{pad}{{", *before, f"{pad}}}", *lines, single, f"{pad}{{", *after, f"{pad}}}",
        ]  # fmt: skip

    # -- registers -----------------------------------------------------------------------------

    def _scope(self, scope: Scope, registers: Registers, depth: int) -> list[str]:
        inner = _INDENT * depth
        lines: list[str] = []
        for register in scope.registers:
            start = self._initial(register, registers)
            lines.append(f"{inner}{self._type(register)} {register.name}{start};")
        for ahead in scope.ahead:
            ends = (f"&{self.writer.element(a)}" for a in (ahead.first, ahead.second))
            text = f"{self.helpers.prefetch()}({', '.join(ends)}, {ahead.start}, {ahead.stop});"
            lines.append(inner + text)
        lines += self.lines(scope.body, registers.extended(scope.registers), depth)
        for register in scope.registers:
            lines += [f"{inner}{text}" for text in self._final(register, registers)]
        return lines

    def _type(self, register: Register) -> str:
        if register.lanes is None:
            return C_TYPES[register.dtype]
        return self.helpers.vector(register.dtype, register.lanes.count)

    def _initial(self, register: Register, outer: Registers) -> str:
        if register.combine:
            neutral = _NEUTRAL[register.combine]
            assert register.lanes is not None
            return f" = {self._splat(neutral, register.dtype, register.lanes.count)}"
        if not register.load:
            return " = {0}" if register.lanes else " = 0"  # gcc cannot always see the first write
        place = Place(register.access, register.lanes)
        above = outer.find(place)
        return f" = {above.name if above else self._memory(place, register.dtype)}"

    def _final(self, register: Register, outer: Registers) -> list[str]:
        above = outer.find(Place(register.access, register.lanes))
        if register.combine:
            assert register.lanes is not None
            lanes = [f"{register.name}[{k}]" for k in range(register.lanes.count)]
            while len(lanes) > 1:
                half = len(lanes) // 2
                lanes = [self._combined(register, lanes[k], lanes[k + half]) for k in range(half)]
            above = outer.find(Place(register.access))
            target = above.name if above else self.writer.element(register.access)
            if register.combine in ("min", "max"):
                return [f"{target} = {self._combined(register, target, lanes[0])};"]
            return [f"{target} {'*' if register.combine == 'mul' else '+'}= {lanes[0]};"]
        if not register.store:
            return []
        if above:
            return [f"{above.name} = {register.name};"]
        return self._write(Place(register.access, register.lanes), register.dtype, register.name)

    def _combined(self, register: Register, left: str, right: str) -> str:
        if register.combine in ("min", "max"):
            return f"{self.helpers.extreme(register.combine, register.dtype)}({left}, {right})"
        return f"({left} {'*' if register.combine == 'mul' else '+'} {right})"

    # -- statements ----------------------------------------------------------------------------

    def _run(self, run: list[Instance], registers: Registers, depth: int) -> list[str]:
        """A straight line of instances; an operand used twice is loaded once."""
        pad = _INDENT * depth
        lines: list[str] = []
        shared = self._shared_loads(run, registers)
        loaded: dict[Place, str] = {}
        named: set[str] = set()
        for instance in run:
            statement = self.statements[instance.statement]
            if statement.name not in named:
                named.add(statement.name)
                text = statement.text.strip().replace("*/", "* /").replace("/*", "/ *")
                lines.append(f"{pad}/* {statement.name}{': ' + text if text else ''} */")

            load = partial(self._operand, instance, registers, shared, loaded, pad, lines)
            text = self.writer.value(statement.value, instance, load)
            target = place_of(statement.write, instance, statement)
            register = registers.find(target)
            dtype = self.scop.array(target.access.array).dtype
            lanes = instance.lanes
            if lanes is not None and not self._is_vector(statement, instance, registers):
                name = self.fresh.fresh(f"{target.access.array}_t")
                lines.append(f"{pad}const {C_TYPES[dtype]} {name} = {text};")
                text = self._splat(name, dtype, lanes.count)
            if register is not None:
                lines.append(f"{pad}{register.name} = {text};")
            else:
                lines += [pad + line for line in self._write(target, dtype, text)]
        return lines

    def _operand(
        self,
        instance: Instance,
        registers: Registers,
        shared: frozenset[Place],
        loaded: dict[Place, str],
        pad: str,
        lines: list[str],
        access: Access,
        dtype: str,
    ) -> str:
        """The text of a load; one that is shared gets a name, and its line, at its first use."""
        place = place_of(access, instance, self.statements[instance.statement])
        register = registers.find(place)
        if register is not None:
            return register.name
        if place not in shared:
            return self._memory(place, dtype)
        if place not in loaded:
            name = self.fresh.fresh(f"{place.access.array}_t")
            lanes = place.lanes
            kind = C_TYPES[dtype] if lanes is None else self.helpers.vector(dtype, lanes.count)
            lines.append(f"{pad}const {kind} {name} = {self._memory(place, dtype)};")
            loaded[place] = name
        return loaded[place]

    def _is_vector(self, statement: Statement, instance: Instance, registers: Registers) -> bool:
        places = [place_of(a, instance, statement) for a in statement.reads]
        return any(
            p.lanes is not None or ((r := registers.find(p)) is not None and r.lanes is not None)
            for p in places
        )

    def _shared_loads(self, run: list[Instance], registers: Registers) -> frozenset[Place]:
        """Places loaded more than once whose array the run leaves alone."""
        written: set[str] = set()
        uses: Counter[Place] = Counter()
        for instance in run:
            statement = self.statements[instance.statement]
            target = place_of(statement.write, instance, statement)
            if registers.find(target) is None:
                written.add(target.access.array)
            for access in statement.reads:
                place = place_of(access, instance, statement)
                if registers.find(place) is None:
                    uses[place] += 1
        if len(run) == 1:
            return frozenset()
        return frozenset(p for p, n in uses.items() if n > 1 and p.access.array not in written)

    # -- memory --------------------------------------------------------------------------------

    def _memory(self, place: Place, dtype: str) -> str:
        if place.lanes is None:
            return self.writer.element(place.access)
        if _contiguous(place):
            kind = self.helpers.unaligned(dtype, place.lanes.count)
            return f"*(const {kind} *)&{self.writer.element(place.access)}"
        kind = self.helpers.vector(dtype, place.lanes.count)
        return f"({kind}){{{', '.join(self.writer.element(a) for a in _each_lane(place))}}}"

    def _write(self, place: Place, dtype: str, text: str) -> list[str]:
        if place.lanes is None:
            return [f"{self.writer.element(place.access)} = {text};"]
        if _contiguous(place):
            kind = self.helpers.unaligned(dtype, place.lanes.count)
            return [f"*({kind} *)&{self.writer.element(place.access)} = {text};"]
        name = self.fresh.fresh(f"{place.access.array}_t")
        kind = self.helpers.vector(dtype, place.lanes.count)
        lines = [f"const {kind} {name} = {text};"]
        for k, access in enumerate(_each_lane(place)):
            lines.append(f"{self.writer.element(access)} = {name}[{k}];")
        return lines

    def _splat(self, name: str, dtype: str, lanes: int) -> str:
        return f"({self.helpers.vector(dtype, lanes)}){{{', '.join([name] * lanes)}}}"


def _contiguous(place: Place) -> bool:
    lanes = place.lanes
    assert lanes is not None
    *outer, last = place.access.indices
    inside_floor = any(lanes.name in d.inner.names() for d, _ in last.divs)
    return (
        last.coefficient(lanes.name) * lanes.step == 1
        and not inside_floor
        and not any(lanes.name in i.names() for i in outer)
    )


def _each_lane(place: Place) -> list[Access]:
    lanes = place.lanes
    assert lanes is not None
    var = Affine.variable(lanes.name)
    return [place.access.substitute({lanes.name: var + k * lanes.step}) for k in range(lanes.count)]
