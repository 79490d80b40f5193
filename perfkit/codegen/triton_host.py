"""The function that launches the kernels of a program: sizes, scratch memory, host loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from perfkit.analysis.dependences import Dependences
from perfkit.codegen import triton_text as text
from perfkit.codegen.nodes import Bound, map_bound
from perfkit.codegen.triton_kernel import Kernel
from perfkit.codegen.triton_space import Sets, Space, loop_bounds
from perfkit.ir.affine import Affine
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Array, Scop
from perfkit.ir.tree import Node
from perfkit.runtime.signature import Parameter, Signature
from perfkit.schedule.launches import HostLoop, HostNode, Launch, launches


class Host:
    """Writes the launcher of one program."""

    def __init__(
        self, scop: Scop, signature: Signature, bounds: Mapping[str, tuple[Bound, Bound]],
        kernels: Mapping[Launch, Kernel],
    ) -> None:  # fmt: skip
        self.scop = scop
        self.signature = signature
        self.bounds = bounds
        self.kernels = kernels

    def function(self, nodes: tuple[HostNode, ...]) -> str:
        """The text of the launcher, named like the signature."""
        formals = ", ".join(text.safe(p.name) for p in self.signature.inputs)
        lines = [f"def {text.safe(self.signature.name)}({formals}):"]
        lines.append('    """In place, on the current stream. Arguments:')
        lines += ["", *(f"    {line}" for line in self._documented()), '    """']
        lines += [f"    {line}" for line in self._prologue()]
        for node in nodes:
            lines += [f"    {line}" for line in self._node(node)]
        results = [p for p in self.signature.parameters if p.kind == "result"]
        if results:
            values = ", ".join(f"{text.safe(p.name)}.item()" for p in results)
            lines.append(f"    return {values}")
        elif not nodes:
            lines.append("    return None")
        return "\n".join(lines) + "\n"

    def _documented(self) -> Iterator[str]:
        """One line per argument: ``A[n, m + 1]: float64, written``; ``s[]`` has no dimension."""
        for p in self.signature.inputs:
            written = ", written" if p.written else ""
            extents = f"[{', '.join(self._shape(p))}]" if p.kind == "array" else ""
            yield f"{text.safe(p.name)}{extents}: {p.dtype}{written}"

    def _shape(self, p: Parameter) -> tuple[str, ...]:
        if p.kind != "array":
            return ()
        return tuple(text.affine(e, host=True) for e in self.scop.array(p.name).shape)

    # -- before the first launch -----------------------------------------------------------------

    def _prologue(self) -> Iterator[str]:
        """Sizes from shapes, scratch memory, and the type of indices."""
        known: set[str] = {p.name for p in self.signature.inputs if p.kind == "size"}
        for p in self.signature.inputs:
            for k, symbol in enumerate(p.shape):
                if isinstance(symbol, str) and symbol not in known:
                    known.add(symbol)
                    yield f"{text.safe(symbol)} = {text.safe(p.name)}.shape[{k}]"
        yield from self._checks()
        touched = {a.name for k in self.kernels.values() for a in k.spec.arguments}
        given = [p for p in self.signature.inputs if p.kind == "array"]
        results = {p.name for p in self.signature.parameters if p.kind == "result"}
        device = f"{text.safe(given[0].name)}.device" if given else '"cuda"'
        made: list[str] = []
        inputs = {p.name for p in self.signature.inputs}
        for array in self.scop.arrays:
            if array.name in inputs or (array.name not in touched and array.name not in results):
                continue
            made.append(text.safe(array.name))
            yield f"{made[-1]} = {self._scratch(array, device)}"
        tensors = [text.safe(p.name) for p in given] + made
        if tensors:
            largest = ", ".join(f"{t}.numel()" for t in tensors)
            largest = f"max({largest})" if len(tensors) > 1 else largest
            # twice as far: lanes go on behind the ends of arrays
            yield f"INDEX = tl.int32 if {largest} < 2**30 else tl.int64"
        else:
            yield "INDEX = tl.int32"

    def _checks(self) -> Iterator[str]:
        """Refuse arguments that the kernels would misread."""
        for p in self.signature.inputs:
            if p.kind == "array":
                name, shape = text.safe(p.name), self._shape(p)
                extents = f"({', '.join(shape)}{',' if len(shape) == 1 else ''})"
                yield f'expect("{name}", {name}, torch.{p.dtype}, {extents})'
        known = [
            tuple(c for c in piece if len(c.expr.terms) > 1 or c.expr.const or c.expr.divs)
            for piece in self.scop.context.pieces
        ]
        if all(known):
            cases = [" and ".join(text.constraint(c, host=True) for c in piece) for piece in known]
            yield f"if not ({' or '.join(cases)}):"
            yield f'    raise ValueError("{text.safe(self.signature.name)} is not for these sizes")'

    def _scratch(self, array: Array, device: str) -> str:
        dtype = f"torch.{array.dtype}"
        if not array.rank:
            return f"torch.zeros(1, dtype={dtype}, device={device})"
        extents = ", ".join(f"max(1, {text.affine(e, host=True)})" for e in array.shape)
        return f"torch.empty(({extents},), dtype={dtype}, device={device})"

    # -- launches --------------------------------------------------------------------------------

    def _node(self, node: HostNode) -> Iterator[str]:
        if isinstance(node, HostLoop):
            low, high = self.bounds[node.loop.name]
            end = map_bound(high, lambda a: a + 1)
            head = f"range({text.bound(low, host=True)}, {text.bound(end, host=True)})"
            yield f"for {text.safe(node.loop.name)} in {head}:"
            for child in node.body:
                for line in self._node(child):
                    yield f"    {line}"
        else:
            yield from self._launch(self.kernels[node])

    def _launch(self, kernel: Kernel) -> Iterator[str]:
        counts: list[str] = []
        for g in kernel.grid:
            low, high = text.bound(g.low, host=True), text.bound(g.high, host=True)
            if g.low != Affine():
                yield f"{g.variable}_low = {low}"
            if isinstance(g.low, Affine) and isinstance(g.high, Affine):
                count = text.affine(g.high - g.low + 1, host=True)
            else:
                count = f"{high} - {text.wrapped(low)} + 1"
            yield f"{g.variable}_count = {count}"
            counts.append(f"{g.variable}_count")
        spec = kernel.spec
        arguments = ", ".join([*(text.safe(a.name) for a in spec.arguments), "INDEX"])
        stages = str(spec.stages)
        if spec.half_of:
            narrow = f"{text.safe(spec.half_of)}.element_size() < 4"
            stages = f"{spec.half_stages} if {narrow} else {stages}"
        options = f"num_warps={spec.warps}, num_stages={stages}"
        options += f", enable_fp_fusion={spec.fp_fusion}"
        call = f"{spec.name}[({' * '.join(counts) or '1'},)]({arguments}, {options})"
        if not counts:
            yield call
            return
        yield f"if {' and '.join(f'{c} > 0' for c in counts)}:"
        yield f"    {call}"


def host_bounds(
    poly: Polyhedra, deps: Dependences, tree: Node, nodes: tuple[HostNode, ...]
) -> dict[str, tuple[Bound, Bound]]:
    """The first and last value of every host loop, over all that it launches."""
    found: dict[str, tuple[Bound, Bound]] = {}
    for node in nodes:
        if isinstance(node, HostLoop):
            spaces = [Space(poly, deps, tree, launch) for launch in launches(node.body)]
            instances = [p.instances for space in spaces for p in space.placed.values()]
            sets = Sets(poly, poly.scop.parameters)
            outer = tuple(loop.name for loop in node.outer)
            found[node.loop.name] = loop_bounds(sets, instances, node.loop.name, outer)
            found |= host_bounds(poly, deps, tree, node.body)
    return found


__all__ = ["Host", "host_bounds"]
