"""Forms of the programs that peers are given: restrict, fixed sizes, prange, call wrappers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.polybench import forms, prange
from bench.polybench.measure_round import difference, far, rounds_for
from bench.polybench.registry import Program, programs

PROGRAMS = programs()
FLAGS = ("-std=gnu11", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-fsyntax-only")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_form_compiles(program: Program, tmp_path: Path) -> None:
    text = program.c_path.read_text()
    fixed = forms.with_fixed_sizes(text, program.c_function, program.sizes["SMALL"])
    made = {
        "fixed.c": fixed,
        "restrict.c": forms.with_restrict(fixed, program.c_function),
        "wrapper.c": forms.wrapper(program),
    }
    for name, content in made.items():
        (tmp_path / name).write_text(content)
    files = [str(tmp_path / name) for name in made]
    subprocess.run(["gcc", *FLAGS, *files], check=True)


def test_restrict_on_every_kind_of_pointer() -> None:
    text = (
        "void f(int n, double a[n][n], const double *b, "
        "double (*c)[n], int *restrict d, int e[2 * n][n])\n{\n}\n"
    )
    expected = (
        "void f(int n, double a[restrict n][n], const double *restrict b, "
        "double (*restrict c)[n], int *restrict d, int e[restrict 2 * n][n])\n{\n}\n"
    )
    assert forms.with_restrict(text, "f") == expected


def test_fixed_sizes_keep_the_call() -> None:
    text = "#include <math.h>\nvoid f(int n, int m, double a[n])\n{\n}\n"
    made = forms.with_fixed_sizes(text, "f", {"n": 7})
    assert "enum { n = 7 };\nvoid f(int n_given, int m, double a[n])" in made


def test_a_function_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no definition of g"):
        forms.with_restrict("void f(int n)\n{\n}\n", "g")


# --- prange -------------------------------------------------------------------------------


def rows_apart(A, B):  # type: ignore[no-untyped-def]
    for i in range(4):
        s = 0.0
        for j in range(4):
            s += A[i, j]
        B[i] = s


def carried(A):  # type: ignore[no-untyped-def]
    for i in range(1, 4):
        A[i] = A[i - 1]


def running_total(A, B):  # type: ignore[no-untyped-def]
    s = 0.0
    for i in range(4):
        s += A[i]
        B[i] = s


def diagonal(A):  # type: ignore[no-untyped-def]
    for i in range(4):
        for j in range(4):
            A[i, j] = A[j, i]


def set_in_a_branch(A, B):  # type: ignore[no-untyped-def]
    s = 0.0
    for i in range(4):
        if A[i] > 0.0:
            s = A[i]
        B[i] = s


def backwards(A):  # type: ignore[no-untyped-def]
    for i in range(3, -1, -1):
        A[i] = 0.0


def time_steps(A, B):  # type: ignore[no-untyped-def]
    for t in range(2):  # noqa: B007
        for i in range(1, 3):
            B[i] = A[i - 1]
        for i in range(1, 3):
            A[i] = B[i]


@pytest.mark.parametrize("function", [carried, running_total, diagonal, set_in_a_branch, backwards])
def test_a_loop_that_may_not_be_parallel_stays(function: Any) -> None:
    assert prange.parallel_source(function) is None


def test_a_parallel_loop_is_marked() -> None:
    text = prange.parallel_source(rows_apart)
    assert text is not None
    assert "for i in prange(4)" in text and "for j in range(4)" in text


def test_loops_below_a_sequential_one_are_marked() -> None:
    text = prange.parallel_source(time_steps)
    assert text is not None
    assert "for t in range(2)" in text and text.count("in prange(1, 3)") == 2


# --- deciding -----------------------------------------------------------------------------


def test_difference() -> None:
    left = np.array([1.0, 4.0])
    assert difference(left, left.copy()) == 0.0
    assert difference(left, np.array([1.0, 4.8])) == pytest.approx(0.1)
    assert difference(left, np.array([1.0, np.nan])) == np.inf
    assert difference(left, left[:1]) == np.inf
    assert difference(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])) == 0.0
    assert difference(np.array([1, 2]), np.array([1, 3])) == np.inf
    assert difference(np.zeros(2), np.zeros(2)) == 0.0
    assert difference(np.zeros(2), np.ones(2)) == np.inf
    assert difference(left, left.astype(np.float32)) == np.inf


def test_rounds_for() -> None:
    assert rounds_for(60.0, {"gcc": 1.0, "perfkit": 1.0}, 11) == 11
    assert rounds_for(60.0, {"gcc": 8.0, "clang": 8.0}, 11) == 3
    assert rounds_for(1.0, {"gcc": 8.0}, 11) == 3
    assert rounds_for(1.0, {"gcc": 8.0}, 2) == 2
    assert rounds_for(0.0, {"gcc": 100.0}, 11) == 11


def test_far_slower_peers_are_run_once() -> None:
    assert far({"gcc": 9.0, "perfkit": 5.0, "numba": 1.1, "blas": 3.4}) == {"blas"}
    assert far({"gcc": 0.001, "blas": 0.9}) == frozenset()  # short runs cost little
    assert far({}) == frozenset()

