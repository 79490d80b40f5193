"""OpenMP C from a SCoP and a loop tree.

The pipeline is :func:`loop_ast`: isl's bounds, then jamming and SIMD, then registers, then the
parallel region. :func:`generate_region` writes the loops alone, for a user's C file;
:func:`generate_kernel` wraps them into a function with the ABI of
:mod:`perfkit.runtime.signature`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perfkit.analysis.contraction import Contraction, contractions
from perfkit.analysis.dependences import Dependences, compute, value_flows
from perfkit.analysis.reductions import chained
from perfkit.analysis.reductions import reductions as find_reductions
from perfkit.codegen.ast import lower
from perfkit.codegen.blocks import BlockWriter
from perfkit.codegen.ctext import C_TYPES, Helpers, Registers, Writer
from perfkit.codegen.inorder import mark_sums
from perfkit.codegen.localize import buffered, declare, localize
from perfkit.codegen.memory import heap
from perfkit.codegen.names import Names, safe_names
from perfkit.codegen.nodes import Node
from perfkit.codegen.parallel import Reducer, parallelize, settle
from perfkit.codegen.prefetch import prefetch
from perfkit.codegen.promote import Promoter
from perfkit.codegen.target import Target
from perfkit.codegen.vector import Expander
from perfkit.errors import BudgetExceeded, CodeTooLarge
from perfkit.ir import tree as trees
from perfkit.ir.isl import Polyhedra, budget_errors
from perfkit.ir.scop import Scop
from perfkit.runtime.signature import Signature
from perfkit.schedule.legality import carried_reductions, reduction_parallel

MOST_CODE = 500_000
"""Characters of one region; gcc needs minutes and gigabytes for a function of a few times that."""


@dataclass(frozen=True)
class Options:
    """What the generator may assume.

    ``names`` maps IR names (parameters, arrays, scalars) to C expressions where they differ.
    """

    fp: str = "strict"
    target: Target = field(default_factory=Target)
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Generated:
    """C text: ``prelude`` belongs at file scope, ``body`` into a function.

    The body jumps to nothing: when there is no memory for its local arrays it runs ``on_failure``,
    before anything was written.
    """

    prelude: str
    body: str


def loop_ast(
    poly: Polyhedra, scop: Scop, tree: trees.Node, options: Options, names: Names | None = None
) -> tuple[Scop, tuple[Node, ...], frozenset[str]]:
    """Every pass of the generator, in order.

    Returns the SCoP with its short-lived arrays shrunk, the loops, and the names of the local
    arrays that are declared inside them.
    """
    reductions = find_reductions(poly, options.fp)
    found = {n: r.op for n, r in reductions.items()}
    scop = chained(scop, reductions)
    short = _short_lived(poly, scop, tree)
    names = names or Names.of(scop, tree)
    reducer = Reducer(scop, found, _carried(poly, tree, options.fp), names)
    nodes = settle(lower(poly, scop, tree), reducer)
    scop, buffers = buffered(nodes, scop, short)
    independent = _Independence(poly, tree, options.fp)
    own = frozenset(a.name for a in scop.arrays if a.local)
    nodes = Expander(scop.by_name(), options.target, found, independent, names, own).expand(nodes)
    scalars = {n: c.loop for n, c in short.items() if c.is_scalar and c.loop}
    nodes, inside = localize(nodes, scop, scalars, names)
    nodes = tuple(declare(n, buffers) for n in nodes)
    nodes = prefetch(Promoter(poly, scop, found, inside, names).promote(nodes), scop)
    declared = inside | {a.name for arrays in buffers.values() for a in arrays}
    return scop, mark_sums(parallelize(nodes), scop), declared


@dataclass
class _Independence:
    """Whether the iterations of a loop may run in any order, reordered reductions apart."""

    poly: Polyhedra
    tree: trees.Node
    fp: str
    dependences: Dependences | None = None

    def __call__(self, loop: str) -> bool:
        try:
            self.dependences = self.dependences or compute(self.poly, self.fp)
            return reduction_parallel(self.dependences, self.tree, loop)
        except BudgetExceeded:
            return False


def _carried(poly: Polyhedra, tree: trees.Node, fp: str) -> dict[str, frozenset[str]]:
    """Statements whose reductions the parallel loops of ``tree`` carry, by loop."""
    marked = [loop.name for loop in trees.loops(tree) if loop.mark("parallel")]
    if not marked or not find_reductions(poly, fp):
        return {}
    dependences = compute(poly, fp)
    return {n: frozenset(carried_reductions(dependences, tree, n)) for n in marked}


def _short_lived(poly: Polyhedra, scop: Scop, tree: trees.Node) -> Mapping[str, Contraction]:
    """How much of each expanded local array one iteration of a loop needs."""
    ranks = {a.name: a.rank for a in scop.arrays if a.local}
    if not any(ranks.values()):
        return {}
    found = contractions(poly, tree, value_flows(poly))
    return {n: c for n, c in found.items() if ranks[n]}


def generate_region(
    scop: Scop,
    tree: trees.Node,
    options: Options,
    poly: Polyhedra | None = None,
    on_failure: str = "return 1;",
) -> Generated:
    """The loops of ``tree`` as a C block, from column 0.

    Arrays are accessed as ``A[i][j]`` under their names (or ``options.names``); sizes must be in
    scope. ``on_failure`` is the statement that runs when memory for a local array is missing,
    before anything was written. Raises CodeTooLarge where loops were unrolled or split too often.
    """
    poly = poly or Polyhedra(scop)
    names = Names.of(scop, tree, options.names.values())
    with budget_errors():
        scop, nodes, inside = loop_ast(poly, scop, tree, options, names)
    helpers = Helpers(vector_math=options.fp == "reassociate")
    writer = Writer(helpers, options.names, {})
    used = (scop.written | scop.read) - inside
    local = [a for a in scop.arrays if a.local and a.rank and a.name in used]
    lines: list[str] = []
    for array in scop.arrays:
        if array.local and not array.rank and array.name in used:
            lines.append(f"{C_TYPES[array.dtype]} {writer.name(array.name)} = 0;")
    take, give = heap(local, writer, names, on_failure)
    lines += take
    blocks = BlockWriter(scop, helpers, options.names, names, options.target.threads)
    lines += blocks.lines(nodes, Registers({}), 0)
    lines += give
    includes = ["#include <math.h>", "#include <stdint.h>"]
    if local:
        includes.append("#include <stdlib.h>")
    prelude = "\n".join([*includes, "", *helpers.used.values()])
    body = "\n".join(lines) + "\n"
    if len(body) > MOST_CODE:
        raise CodeTooLarge(len(body), MOST_CODE)
    return Generated(prelude.rstrip() + "\n", body)


def generate_kernel(
    scop: Scop,
    tree: trees.Node,
    signature: Signature,
    options: Options,
    poly: Polyhedra | None = None,
) -> str:
    """A whole C file: ``<name>_kernel`` with typed parameters and its entry ``<name>_call``."""
    arrays = {a.name: a for a in scop.arrays}
    safe = {**safe_names(scop, tree), **options.names}
    writer = Writer(Helpers(), safe, {})
    results = {
        a.name: f"(*{writer.name(a.name)})" for a in scop.arrays if not a.rank and not a.local
    }
    region = generate_region(scop, tree, replace(options, names={**safe, **results}), poly)
    formals = [f"int64_t {writer.name(p)}" for p in signature.sizes]
    actuals = [f"*(int64_t *)args[{k}]" for k in range(len(signature.sizes))]
    position = len(signature.sizes)
    for parameter in signature.parameters:
        if parameter.kind == "size":
            continue
        array = arrays.get(parameter.name)
        c = C_TYPES[parameter.dtype]
        if array is None:
            formals.append(f"{c} {writer.name(parameter.name)}")
            actuals.append(f"*({c} *)args[{position}]")
        else:
            const = "" if array.name in scop.written else "const "
            inner = "".join(f"[{writer.affine(e)}]" for e in array.shape[1:])
            name = writer.name(array.name)
            pointer = f"(*restrict {name}){inner}" if inner else f"*restrict {name}"
            formals.append(f"{const}{c} {pointer}")
            actuals.append(f"args[{position}]")
        position += 1
    unused = [p for p in signature.sizes] + [s.name for s in scop.scalars]
    silence = "".join(f"  (void){writer.name(n)};\n" for n in unused)
    body = "".join(f"  {line}\n" if line else "\n" for line in region.body.splitlines())
    name = signature.name
    return (
        f"{region.prelude}\n"
        f"static int64_t {name}_kernel({', '.join(formals) or 'void'})\n{{\n{silence}{body}"
        f"  return 0;\n}}\n\n"
        f"int64_t {name}_call(void **args)\n{{\n"
        f"{'' if actuals else '  (void)args;' + chr(10)}"
        f"  return {name}_kernel({', '.join(actuals)});\n}}\n"
    )
