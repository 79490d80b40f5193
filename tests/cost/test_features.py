"""Features of schedules whose strides, footprints and trip counts are known by hand."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.cost import columns as c
from perfkit.cost import pooling
from perfkit.cost import tokens as t
from perfkit.cost.analytic import estimate
from perfkit.cost.device import Device, Level
from perfkit.cost.features import Extractor
from perfkit.learn.source import read
from perfkit.schedule import script
from perfkit.schedule.state import State

N, M = 64, 128
DEVICE = Device(
    threads=2, simd_bytes=32, registers=16, hertz=1e9,
    levels=(Level(1 << 15, 2e10, 4e10, 1.2, False), Level(1 << 19, 1e10, 2e10, 1.4, False),
            Level(1 << 25, 4e9, 8e9, 1.6, True)),
)  # fmt: skip
COPY = """\
def program(n, m, A: "float64[n, m]", B: "float64[m, n]"):
    for i in range(n):
        for j in range(m):
            B[j, i] = 0.5 * A[i, j]
"""
GEMM = """\
def program(n, A: "float32[n, n]", B: "float32[n, n]", C: "float32[n, n]"):
    for i in range(n):
        for j in range(n):
            for k in range(n):
                C[i, j] += A[i, k] * B[k, j]
"""
TRIANGLE = """\
def program(n, x: "float64[n]", y: "float64[n]"):
    for i in range(n):
        for j in range(i + 1):
            y[i] += x[j]
"""


def tokens(text: str, steps: str = "", fp: str = "strict", **sizes: int) -> t.Tokens:
    program, analysis = read(text), Analysis(0, True)
    state = script.replay(State.start(program.scop), steps, analysis)
    extractor = Extractor(analysis.polyhedra(program.scop), program.scop, sizes, DEVICE, fp)
    return extractor.tokens(analysis.polyhedra(state.scop), state.scop, state.tree)


def column(found: t.Tokens, kind: str, name: str, row: int = 0) -> float:
    names = {"loop": c.LOOP, "access": c.ACCESS, "statement": c.STATEMENT, "program": c.PROGRAM}
    (place,) = [k for k, n in enumerate(names[kind]) if n.partition(":")[0] == name]
    return float(found.rows[kind][row, place])


def near(value: float) -> Any:
    return pytest.approx(value, abs=0.02)


def test_strides_and_lines_of_a_transposed_copy() -> None:
    found = tokens(COPY, n=N, m=M)
    write, read_ = 0, 1  # groups come in the order of the accesses
    assert column(found, "access", "write", write) == 1 and column(found, "access", "write", 1) == 0
    # B[j, i] moves by a row of n doubles per j, A[i, j] to its neighbour
    assert column(found, "access", "stride0", write) == near(log2(N * 8 / 64))
    assert column(found, "access", "unit0", write) == 0
    assert column(found, "access", "stride0", read_) == near(log2(8 / 64))
    assert column(found, "access", "unit0", read_) == 1
    assert column(found, "access", "stride1", read_) == near(log2(M * 8 / 64))
    # one run of the j loop: a line per element of B, eight elements of A per line
    assert column(found, "access", "lines0", write) == near(log2(M))
    assert column(found, "access", "lines0", read_) == near(log2(M / 8))
    assert column(found, "access", "all", read_) == near(log2(N * M / 8))
    assert column(found, "access", "array1", read_) == near(log2(N * M * 8 / 2**15))
    assert column(found, "access", "visits", read_) == near(3)  # eight per line


def test_loops_of_a_tiled_product() -> None:
    found = tokens(GEMM, "Tile(i=16, j=32)\nParallelize(i_t)\nVectorize(j, 8)", n=N)
    names = [column(found, "loop", "tile", k) for k in range(5)]
    assert names == [4, 5, 0, 0, 0]
    assert column(found, "loop", "trip", 0) == near(log2(N / 16))
    assert column(found, "loop", "parallel", 0) == 1
    assert [column(found, "loop", "depth", k) for k in range(5)] == [0, 1, 2, 3, 4]
    assert column(found, "loop", "innermost", 4) == 1
    assert column(found, "loop", "total", 4) == near(3 * log2(N))
    vector = [column(found, "loop", "vector", k) for k in range(5)]
    assert sorted(vector) == [0, 0, 0, 0, 3]
    assert column(found, "statement", "threads") == 1  # log2 of two
    assert column(found, "statement", "instances") == near(3 * log2(N))
    assert column(found, "program", "single") == 1


def test_what_does_not_move_is_reused() -> None:
    found = tokens(GEMM, n=N)
    rows = {column(found, "access", "write", k): k for k in range(3)}
    update = rows[1.0]
    assert column(found, "access", "still0", update) == 1
    assert column(found, "access", "reuse", update) == 1
    assert column(found, "statement", "sum") == 1
    assert column(found, "statement", "lanes") == 0


def test_a_triangle_has_half_of_the_iterations() -> None:
    found = tokens(TRIANGLE, n=1000)
    assert column(found, "loop", "trip", 1) == near(log2(500.5))
    assert column(found, "statement", "instances") == near(log2(500500))


def test_the_roofline_is_of_the_program_not_of_the_schedule() -> None:
    plain = tokens(GEMM, n=N)
    tiled = tokens(GEMM, "Tile(i=16, j=16, k=16)", n=N)
    assert plain.roofline == tiled.roofline
    # 2 vector FMA per cycle of 8 floats on 2 cores: n^3 / 32 cycles at 1 GHz
    assert plain.roofline == pytest.approx(N**3 / 32 * 1e-9)
    assert tokens(COPY, n=2048, m=2048).roofline == pytest.approx(2 * 2048**2 * 8 / 8e9)


def test_tokens_form_a_tree() -> None:
    found = tokens(GEMM, "Tile(i=16, j=32)", n=N)
    assert found.count == 1 + 5 + 1 + 3 == sum(len(r) for r in found.rows.values())
    assert found.parent.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 6, 6]
    related = t.relations(found.parent)
    words = np.asarray(t.RELATIONS)[related]
    assert words[6, 6] == "self" and words[6, 1] == "above" and words[1, 6] == "below"
    assert words[7, 8] == "sibling" and words[0, 9] == "below"


@pytest.mark.parametrize("text", [COPY, GEMM, TRIANGLE])
def test_every_column_is_finite_and_named(text: str) -> None:
    found = tokens(text, n=50, **({"m": 40} if "m," in text else {}))
    for kind, rows in found.rows.items():
        assert rows.shape[1] == c.WIDTHS[kind] and np.isfinite(rows).all()
    assert pooling.pooled(found).shape == (pooling.pooled_width(),)
    for names in (c.LOOP, c.ACCESS, c.STATEMENT, c.PROGRAM):
        assert len({n.partition(":")[0] for n in names}) == len(names)


def test_marks_change_the_features() -> None:
    plain, marked = tokens(COPY, n=N, m=M), tokens(COPY, "Parallelize(i)", n=N, m=M)
    assert not np.array_equal(pooling.pooled(plain), pooling.pooled(marked))


def test_terms_add_up_to_the_analytic_model() -> None:
    program, analysis = read(GEMM), Analysis(0, True)
    state = script.replay(
        State.start(program.scop), "Tile(i=16, j=32)\nParallelize(i_t)\nVectorize(j, 8)", analysis
    )
    poly = analysis.polyhedra(state.scop)
    found = Extractor(poly, program.scop, {"n": N}, DEVICE).tokens(poly, state.scop, state.tree)
    seconds = estimate(poly, state.scop, state.tree, {"n": N}, DEVICE).seconds
    assert np.exp(found.guess) * found.roofline == pytest.approx(seconds, rel=1e-4)
    assert column(found, "program", "guess") == pytest.approx(found.guess / np.log(2), abs=1e-4)
    assert (found.terms[-len(found.rows["access"]) :] == t.LEAST).all()


def test_strides_of_large_powers_of_two_leave_out_sets() -> None:
    # a column of B (64 doubles a row, 512 bytes) comes through 8 of the 64 sets of the first cache
    found = tokens(COPY, n=N, m=M)
    assert column(found, "access", "sets10", 0) == 3 and column(found, "access", "sets20", 0) == 3
    assert column(tokens(COPY, n=512, m=M), "access", "sets10", 0) == 6  # a page: one set
    assert column(tokens(COPY, n=511, m=M), "access", "sets10", 0) == 0
    assert column(found, "access", "sets10", 1) == 0


def test_directions_and_modes() -> None:
    plain, back = tokens(COPY, n=N, m=M), tokens(COPY, "Reverse(j)", n=N, m=M)
    assert column(plain, "access", "back", 1) == 0 and column(back, "access", "back", 1) == 1
    assert column(plain, "loop", "down", 1) == 0 and column(back, "loop", "down", 1) == 1
    assert column(plain, "program", "reassociate") == 0
    assert column(tokens(GEMM, fp="reassociate", n=N), "program", "reassociate") == 1


def test_the_dearest_statement_has_rows_of_its_own() -> None:
    found = tokens(GEMM, "Tile(i=16, j=32)\nParallelize(i_t)\nVectorize(j, 8)", n=N)
    row = pooling.pooled(found)[-pooling.DEAREST :]
    loop, statement, access = (c.WIDTHS[k] for k in c.KINDS[1:])
    assert np.array_equal(row[:statement], found.rows["statement"][0])
    assert (row[statement : 2 * statement] == pooling.MISSING).all()  # there is but one
    at = 2 * statement
    inner, second, third, outer, parallel, vector, jam = row[at : at + 7 * loop].reshape(7, loop)
    for got, place in ((inner, 4), (second, 3), (third, 2), (outer, 0), (parallel, 0), (vector, 3)):
        assert np.array_equal(got, found.rows["loop"][place])
    assert (jam == pooling.MISSING).all()
    assert np.array_equal(row[at + 7 * loop :][:access], found.rows["access"][0])
    assert (row[-access:] == pooling.MISSING).all()  # two reads, of three columns
