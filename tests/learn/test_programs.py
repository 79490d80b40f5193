"""Random programs: what they are, that they are distinct, and that all their forms agree."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perfkit.codegen.interpret import run
from perfkit.errors import UnsupportedError
from perfkit.frontends.c import parse_file
from perfkit.ir.show import text as canonical
from perfkit.ir.tree import depth_of
from perfkit.learn.families import FAMILIES, HELD_OUT
from perfkit.learn.programs import FOOTPRINT, WORK, footprint, programs, work, write
from perfkit.learn.source import read, region_of, to_c

GEMM = """\
def gemm(n, m, alpha: "float32", A: "float32[n, m]", B: "float32[m, n]", C: "float32[n, n]"):
    for i in range(n):
        for j in range(i + 1):
            t = 0.0
            for k in range(m):
                t += alpha * A[i, k] * B[k, j]
            C[i, j] = max(t, C[i, j]) if False else t
"""


def _take(count: int, seed: int = 5) -> list[Any]:
    return list(itertools.islice(programs(seed), count))


def test_the_stream_is_a_function_of_its_seed() -> None:
    assert _take(12) == _take(12)
    assert _take(6, seed=6) != _take(6)
    assert list(itertools.islice(programs(5, start=4), 4)) == _take(8)[4:]


def test_no_program_comes_twice() -> None:
    found = _take(150)
    assert len({s.key for s in found}) == len(found)
    assert [s.number for s in found] == list(range(150))


def test_the_shares_of_the_groups() -> None:
    shares = Counter()
    for family in FAMILIES:
        shares[family.group] += round(100 * family.weight)
    assert shares == {
        "contractions and reductions": 25, "stencils": 20, "triangular": 15,
        "producers and consumers": 20, "elementwise and transposes": 10, "solvers": 10,
    }  # fmt: skip
    assert {f.name for f in FAMILIES} >= HELD_OUT


def test_sizes_keep_data_and_work_within_bounds() -> None:
    for sample in _take(60):
        region, sizes = region_of(sample.text), dict(sample.sizes)
        assert WORK[0] <= work(region, sizes) <= WORK[1]
        assert footprint(region, sizes) <= 1.5 * FOOTPRINT[1]


def test_work_of_a_triangle_is_half_of_a_square() -> None:
    square = 'def p(n, A: "float64[n, n]"):\n    for i in range(n):\n        for j in range(n):\n'
    triangle = square.replace("j in range(n)", "j in range(i + 1)")
    body = "            A[i, j] = A[i, j] * 0.5\n"
    full, half = (work(region_of(p + body), {"n": 100}) for p in (square, triangle))
    assert math.isclose(half / full, 0.5, rel_tol=0.02)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_form_of_a_program_means_the_same(family: Any, tmp_path: Any) -> None:
    """The SCoP of the text, the text run as Python, and the SCoP of its C form."""
    rng = Random(family.name)
    for k in range(3):
        text = write(family, rng)
        program = read(text)
        assert 1 <= len(program.scop.statements) <= 12
        assert 1 <= depth_of(program.scop.tree) <= 6
        sizes = {n: 9 + 2 * j for j, n in enumerate(program.scop.parameters)}
        if "steps" in sizes:
            sizes["steps"] = 3
        data = np.random.default_rng(k)
        arrays = {
            p.name: data.uniform(0.5, 1.5, [sizes.get(e, e) for e in p.shape]).astype(p.dtype)
            for p in program.signature.parameters if p.kind == "array"
        }  # fmt: skip
        scalars = {s.name: np.dtype(s.dtype).type(0.75) for s in program.scop.scalars}
        expected = {n: a.copy() for n, a in arrays.items()}
        path = tmp_path / f"{k}.c"
        path.write_text(to_c(text))
        region = parse_file(path).regions[0]
        with np.errstate(all="ignore"):
            run(program.scop, sizes, arrays, scalars)
            _plain(text)(**sizes, **scalars, **expected)
        for name, value in expected.items():
            np.testing.assert_allclose(arrays[name], value, rtol=2e-4, err_msg=text)
        if region.scop is not None:
            assert len(region.scop.statements) == len(program.scop.statements)


def _plain(text: str) -> Any:
    names: dict[str, Any] = {n: getattr(np, n) for n in ("sqrt", "exp", "fabs")}
    names |= {"min": min, "max": max, "range": range}
    exec(compile(text, "<program>", "exec"), names)
    return SimpleNamespace(**names).program


def test_types_of_the_text_reach_the_kernel() -> None:
    text = GEMM.replace("max(t, C[i, j]) if False else t", "max(t, C[i, j])")
    program = read(text)
    kinds = {p.name: (p.kind, p.dtype, p.shape) for p in program.signature.parameters}
    assert kinds["A"] == ("array", "float32", ("n", "m"))
    assert kinds["alpha"] == ("scalar", "float32", ())
    assert {p.name for p in program.signature.parameters if p.written} == {"C"}
    assert "local" in canonical(program.scop)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GEMM, "language"),
        ("x = 1", "not one function"),
        ("def f(n:", "never closed"),
        ('def f(n, A: "int3[n]"):\n    A[0] = 1.0', "unknown type"),
        ('def f(n, A: "float32[n]", B: "float64[n]"):\n    A[0] = B[0]', "mixes"),
        ('def f(n, A: "float32[n]"):\n    while True:\n        A[0] = 1.0', "language"),
    ],
)
def test_text_outside_the_language_is_refused(text: str, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        read(text)
