"""The check that users ask for: what sizes it takes, and that it finds a wrong kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfkit.codegen.check import MOST, check_kernel, example_sizes, small_sizes, work
from perfkit.errors import CheckFailed
from perfkit.frontends.python import from_function


def scale(A, B):
    for i in range(A.shape[0]):
        B[i] = 2.0 * A[i]


def enlarge(A, B):
    for i in range(2 * A.shape[0]):
        B[i] = A[i // 2]


def convolve(x, w, y):
    n, c, h, v = x.shape
    o, _, p, q = w.shape
    for a in range(n):
        for b in range(o):
            for i in range(h - p + 1):
                for j in range(v - q + 1):
                    for k in range(c):
                        for r in range(p):
                            for s in range(q):
                                y[a, b, i, j] += x[a, k, i + r, j + s] * w[b, k, r, s]


def sizes_for(function: Any, *shapes: tuple[int, ...]) -> tuple[dict[str, int], int]:
    args = tuple(np.zeros(shape) for shape in shapes)
    scop, signature = from_function(function, *args)
    sizes = small_sizes(scop, signature, example_sizes(signature, args, {}))
    assert sizes is not None
    return sizes, work(scop, sizes)


def test_large_enough_for_tiles_and_small_enough_to_interpret() -> None:
    sizes, instances = sizes_for(scale, (10**6,), (10**6,))
    assert min(sizes.values()) > 32 and instances == sizes["A_0"]
    shapes = (2, 16, 34, 34), (32, 16, 3, 3), (2, 32, 32, 32)
    assert sizes_for(convolve, *shapes)[1] <= MOST


def test_ratios_of_sizes_are_kept_where_the_program_needs_them() -> None:
    sizes, _ = sizes_for(enlarge, (500,), (1000,))
    assert sizes["B_0"] == 2 * sizes["A_0"] > 32


def test_a_wrong_result_is_found_and_a_right_one_is_not() -> None:
    args = np.ones(5), np.ones(5)
    scop, signature = from_function(scale, *args)

    def wrong(A: Any, B: Any) -> None:
        scale(A, B)
        B[-1] += 1e-3

    assert check_kernel(scop, signature, scale) == 0.0
    with pytest.raises(CheckFailed, match="B differs from the interpreter"):
        check_kernel(scop, signature, wrong)
