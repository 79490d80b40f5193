"""Hand-written SCoPs through the code generator: executed loop ASTs and compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from perfkit.analysis.dependences import Analysis
from perfkit.codegen.interpret import run as interpret
from perfkit.codegen.nodes import Bound, For, Guard, Instance, Let, Node
from perfkit.codegen.openmp import Options, generate_kernel, loop_ast
from perfkit.codegen.target import Target
from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.signature import Parameter, Signature
from perfkit.schedule import script
from perfkit.schedule.state import State
from tests.end_to_end.compiled import build
from tests.programs_ir import parse_scop

FLAGS = ("-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")
Point = tuple[str, tuple[int, ...]]


# -- executing the loop AST ------------------------------------------------------------------


def executed(nodes: tuple[Node, ...], sizes: dict[str, int]) -> list[Point]:
    """The instances that the loops run, in order; lanes count from the first to the last."""
    return list(_run(nodes, dict(sizes)))


def _run(nodes: tuple[Node, ...], env: dict[str, int]) -> Iterator[Point]:
    for node in nodes:
        match node:
            case For():
                yield from _for(node, env)
            case Let():
                around = env.get(node.name)
                value = bound_value(node.lower, env)
                if node.after is not None:
                    upper, strip = bound_value(node.after[0], env), node.after[1]
                    value += max(0, (upper - value + 1)) // strip * strip
                env[node.name] = value
                yield from _run(node.body, env)
                _restore(env, node.name, around)
            case Guard():
                if any(all(c.holds(env) for c in piece) for piece in node.condition):
                    yield from _run(node.body, env)
            case Instance():
                yield from _instance(node, env)
            case _:
                yield from _run(node.body, env)


def _for(loop: For, env: dict[str, int]) -> Iterator[Point]:
    around = env.get(loop.name)
    if not loop.resumes:
        env[loop.name] = bound_value(loop.lower, env)
    reach = (loop.width - 1) * loop.step
    while env[loop.name] + reach <= bound_value(loop.upper, env):
        if loop.until is not None and _starts_line(*loop.until, env):
            break
        yield from _run(loop.body, env)
        env[loop.name] += loop.width * loop.step
    if not loop.resumes:
        _restore(env, loop.name, around)


def _starts_line(element: Access, size: int, env: dict[str, int]) -> bool:
    """Does the element's address, for rows of doubles from address 8 on, divide by ``size``?"""
    return (8 + 8 * element.indices[-1].evaluate(env)) % size == 0


def _restore(env: dict[str, int], name: str, value: int | None) -> None:
    env.pop(name)
    if value is not None:
        env[name] = value


def _instance(node: Instance, env: dict[str, int]) -> Iterator[Point]:
    lanes = node.lanes
    for k in range(lanes.count if lanes else 1):
        here = {**env, lanes.name: env[lanes.name] + k * lanes.step} if lanes else env
        yield node.statement, tuple(e.evaluate(here) for _, e in node.values)


def bound_value(bound: Bound, env: dict[str, int]) -> int:
    if isinstance(bound, Affine):
        return bound.evaluate(env)
    values = [bound_value(b, env) for b in bound.args]
    return max(values) if bound.kind == "max" else min(values)


# -- compiled kernels ------------------------------------------------------------------------


def scheduled(text: str, steps: str = "", fp: str = "strict") -> State:
    """The program under a script, threads privatising reductions as in the Python interface."""
    state = State.start(parse_scop(text), fp)
    return script.replay(state, steps, Analysis(parallel_reductions=True))


def nodes_of(state: State, simd_bytes: int = 32) -> tuple[Node, ...]:
    options = Options(state.fp, Target(simd_bytes, 2))
    return loop_ast(Polyhedra(state.scop), state.scop, state.tree, options)[1]


def source_of(state: State, simd_bytes: int = 32, name: str = "kernel") -> str:
    options = Options(state.fp, Target(simd_bytes, 2))
    return generate_kernel(state.scop, state.tree, signature(state.original, name), options)


def signature(scop: Scop, name: str) -> Signature:
    sizes = [Parameter(p, "size", "int64") for p in scop.parameters]
    scalars = [Parameter(s.name, "scalar", s.dtype) for s in scop.scalars]
    arrays = [
        Parameter(
            a.name, "array", a.dtype, a.rank, tuple(map(_dimension, a.shape)),
            a.name in scop.written,
        )
        for a in scop.arrays if not a.local
    ]  # fmt: skip
    return Signature(name, (*sizes, *scalars, *arrays), scop.parameters)


def _dimension(extent: Affine) -> str | int:
    return extent.const if extent.is_constant else next(iter(extent.names()))


def random_arrays(scop: Scop, sizes: dict[str, int], seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for array in scop.arrays:
        if array.local:
            continue
        shape = tuple(e.evaluate(sizes) for e in array.shape)
        if array.dtype.startswith("float"):
            made[array.name] = np.asarray(rng.uniform(0.5, 1.5, shape), array.dtype)
        else:
            made[array.name] = np.asarray(rng.integers(-9, 10, shape), array.dtype)
    return made


def assert_same(
    folder: Path,
    state: State,
    *sizes: dict[str, int],
    simd_bytes: int = 32,
    rtol: float = 0.0,
    flags: tuple[str, ...] = FLAGS,
) -> str:
    """Compile the schedule and compare with the interpreter of the original; returns the C."""
    source = source_of(state, simd_bytes)
    library, problems = build(folder, {"kernel": source}, flags, "kernel.so")
    assert not problems, problems
    kernel = Kernel(signature(state.original, "kernel"), library, source)
    for values in sizes:
        expected = random_arrays(state.original, values)
        found = {n: v.copy() for n, v in expected.items()}
        interpret(state.original, values, expected, {})
        kernel(**values, **found)
        for name, want in expected.items():
            np.testing.assert_allclose(found[name], want, rtol=rtol, err_msg=f"{name} at {values}")
    return source
