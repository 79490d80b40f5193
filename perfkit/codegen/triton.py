"""Triton kernels from a SCoP and a loop tree with GPU marks.

The pipeline is :func:`generate_module`: the tree is cut into launches
(:mod:`perfkit.schedule.launches`); for each, isl makes the loops of one program over blocks,
tiles are kept in registers, barriers are set and proved, and the text is written. What comes out is
a Python module of its own: kernels, and a function that launches them on the caller's stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perfkit.analysis.contraction import contractions
from perfkit.analysis.dependences import Analysis, Dependences, value_flows
from perfkit.codegen import triton_text as text
from perfkit.codegen.ast import lower
from perfkit.codegen.names import Names
from perfkit.codegen.triton_exchange import prove, separate
from perfkit.codegen.triton_hold import Holder
from perfkit.codegen.triton_host import Host, host_bounds
from perfkit.codegen.triton_kernel import Kernel, KernelWriter
from perfkit.codegen.triton_nodes import convert
from perfkit.codegen.triton_space import Space, within
from perfkit.errors import BudgetExceeded
from perfkit.ir.isl import Polyhedra, budget_errors
from perfkit.ir.tree import Node, enclosing
from perfkit.runtime.signature import Signature
from perfkit.runtime.triton_module import KernelSpec, TritonSource
from perfkit.schedule import legality
from perfkit.schedule.launches import Launch, launches, plan
from perfkit.schedule.state import State


@dataclass(frozen=True)
class Part:
    """Kernels and launcher of one program; a module has one or more."""

    name: str
    script: str
    text: str
    kernels: tuple[KernelSpec, ...]


def generate_module(
    state: State, signature: Signature, analysis: Analysis | None = None, script: str = ""
) -> TritonSource:
    """The Triton module of a scheduled program; raises what :func:`generate_part` does."""
    part = generate_part(state, signature, analysis, script)
    return TritonSource(part.name, assemble([part]), part.kernels)


def generate_part(
    state: State, signature: Signature, analysis: Analysis | None = None, script: str = ""
) -> Part:
    """The kernels and the launcher of a scheduled program.

    ``signature`` is that of the launching function. Marks are proved once more on the final tree:
    raises IllegalSchedule for a grid or lanes that carry a dependence, and for data exchanged
    inside a program without a barrier; TransformError for marks that no kernel can have;
    BudgetExceeded.
    """
    analysis = analysis or Analysis()
    deps = analysis.dependences(state.scop, state.fp)
    legality.check(analysis, state, state.tree, "Triton")
    poly = deps.polyhedra
    nodes = plan(state.tree)
    with budget_errors():
        dead = _Lifetimes.of(poly, state.tree)
        bounds = host_bounds(poly, deps, state.tree, nodes)
        known = {
            loop: tuple(within(loop, low, high)) for loop, (low, high) in bounds.items()
        }
        kernels: dict[Launch, Kernel] = {}
        for k, launch in enumerate(launches(nodes), 1):
            host = tuple(c for loop in launch.host for c in known[loop.name])
            space = Space(poly, deps, state.tree, launch, host)
            kernels[launch] = _kernel(f"{signature.name}_{k}", state, deps, space, dead)
        body = Host(state.scop, signature, bounds, kernels).function(nodes)
    texts = [*(_commented(k) for k in kernels.values()), body]
    specs = tuple(k.spec for k in kernels.values())
    return Part(text.safe(signature.name), script, _joined(texts), specs)


def assemble(parts: Sequence[Part]) -> str:
    """The text of a module of its own: imports, helpers, and every part."""
    bodies = _joined([p.text for p in parts])
    combiners = [made for name, made in map(text.combiner, text.COMBINE) if name in bodies]
    return _joined([_header(parts), text.HELPERS, *combiners, bodies])


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(t.rstrip("\n") + "\n" for t in texts)


def _kernel(
    name: str, state: State, deps: Dependences, space: Space, dead: _Lifetimes
) -> Kernel:
    """One kernel, pass by pass."""
    poly = deps.polyhedra
    poly.renew_budget()
    names = Names.of(state.scop, state.tree)
    program, tree = space.program()
    nodes = convert(lower(Polyhedra(program, poly.max_operations), program, tree))
    nodes = Holder.hold(space, nodes, dead.outside(space), names)
    nodes = separate(space, deps, nodes)
    prove(space, deps, nodes)
    return KernelWriter(space, name, state.fp, deps.reductions, names).kernel(nodes)


def _commented(kernel: Kernel) -> str:
    lines = "".join(f"# {line}\n" for line in kernel.comment)
    return lines + kernel.text


def _header(parts: Sequence[Part]) -> str:
    names = ", ".join(p.name for p in parts)
    lines = [f'"""{names}: Triton kernels and their launchers, {text.GENERATED}', "", *LEGEND, ""]
    for part in parts:
        if part.script:
            lines += [f"# Schedule of {part.name}:"]
            lines += [*(f"#     {line}" for line in part.script.splitlines()), ""]
    return "\n".join([
        *lines, "import torch", "import triton", "import triton.language as tl",
        "from triton.language.extra import libdevice",
    ])  # fmt: skip


LEGEND = (
    "Call the launchers, last in each part, with torch CUDA tensors; they need torch and triton.",
    "With TRITON_INTERPRET=1 they run on CPU tensors, slowly. In a kernel ``program`` counts the",
    "programs of the grid, ``i_b`` the blocks of loop i, and ``i`` holds the iterations of one.",
    '"""',
)


@dataclass
class _Lifetimes:
    """Which local arrays hold values only within one iteration of some loops."""

    inside: dict[str, frozenset[str]]  # array -> loops that no value of it crosses
    users: dict[str, frozenset[str]]  # array -> statements that access it

    @staticmethod
    def of(poly: Polyhedra, tree: Node) -> _Lifetimes:
        scop = poly.scop
        users: dict[str, set[str]] = {a.name: set() for a in scop.arrays if a.local}
        for s in scop.statements:
            for access in (s.write, *s.reads):
                if access.array in users:
                    users[access.array].add(s.name)
        inside: dict[str, frozenset[str]] = {}
        if users:
            try:
                found = contractions(poly, tree, value_flows(poly))
            except BudgetExceeded:
                found = {}
            for name, c in found.items():
                around: list[str] = []
                for loop in enclosing(tree, min(users[name])) if c.loop and users[name] else ():
                    around.append(loop.name)
                    if loop.name == c.loop:
                        break
                inside[name] = frozenset(around)
        return _Lifetimes(inside, {n: frozenset(s) for n, s in users.items()})

    def outside(self, space: Space) -> _Dies:
        return _Dies(self, space)


@dataclass
class _Dies:
    lifetimes: _Lifetimes
    space: Space

    def __call__(self, array: str, around: tuple[str, ...]) -> bool:
        """Nothing outside one iteration of the variables ``around`` reads what is written in it."""
        users = self.lifetimes.users.get(array)
        if users is None or not users <= set(self.space.placed):
            return False
        loops = {b: n for n, b in self.space.blocks.items()}
        return {loops.get(v, v) for v in around} <= self.lifetimes.inside.get(array, frozenset())


__all__ = ["Part", "assemble", "generate_module", "generate_part"]
