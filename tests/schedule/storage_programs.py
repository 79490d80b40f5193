"""Programs with temporaries, and a way to run a state and compare it with the original."""

from __future__ import annotations

import numpy as np

from perfkit.codegen.interpret import run
from perfkit.ir.scop import Scop
from perfkit.schedule.state import State
from tests.programs_ir import parse_scop

SYMM = """
params m n
context m >= 1 and n >= 1
array C[m, n] float64
array A[m, m] float64
array B[m, n] float64
array acc float64 local
S0[i, j]: 0 <= i < m and 0 <= j < n: acc = 0.0
S1[i, j, k]: 0 <= i < m and 0 <= j < n and 0 <= k < i: C[k, j] = C[k, j] + B[i, j] * A[i, k]
S2[i, j, k]: 0 <= i < m and 0 <= j < n and 0 <= k < i: acc = acc + B[k, j] * A[i, k]
S3[i, j]: 0 <= i < m and 0 <= j < n: C[i, j] = C[i, j] + acc
tree
for i(S0: i, S1: i, S2: i, S3: i) for j(S0: j, S1: j, S2: j, S3: j) {
  S0; for k(S1: k, S2: k) { S1; S2 }; S3 }
"""

RECURSIVE_FILTER = """
params w h
context w >= 1 and h >= 1
array X[w, h] float64
array Y[w, h] float64
array xm float64 local
array ym float64 local
S0[i]: 0 <= i < w: ym = 0.0
S1[i]: 0 <= i < w: xm = 0.0
S2[i, j]: 0 <= i < w and 0 <= j < h: Y[i, j] = X[i, j] + 0.5 * xm + 0.25 * ym
S3[i, j]: 0 <= i < w and 0 <= j < h: xm = X[i, j]
S4[i, j]: 0 <= i < w and 0 <= j < h: ym = Y[i, j]
tree
for i(S0: i, S1: i, S2: i, S3: i, S4: i) {
  S0; S1; for j(S2: j, S3: j, S4: j) { S2; S3; S4 } }
"""

TWO_WEBS = """
params n
context n >= 1
array A[n] float64
array B[n] float64
array t float64 local
S0[i]: 0 <= i < n: t = A[i] * 2.0
S1[i]: 0 <= i < n: B[i] = t
S2[i]: 0 <= i < n: t = B[i] + 1.0
S3[i]: 0 <= i < n: A[i] = t * t
tree
{ for i(S0: i, S1: i) { S0; S1 }; for i_2(S2: i, S3: i) { S2; S3 } }
"""

LAGGED = """
params n
context n >= 2
array A[n] float64
array t float64 local
S0[]: true: t = 1.0
S1[i]: 0 <= i < n: A[i] = A[i] + t
S2[i]: 0 <= i < n: t = A[i] * 0.5
tree
{ S0; for i(S1: i, S2: i) { S1; S2 } }
"""

LIVE_TEMPORARY = """
params n m
context n >= 1 and m >= 1
array A[n, m] float64
array C[m, m] float64
array acc[m] float64
S0[r, p]: 0 <= r < n and 0 <= p < m: acc[p] = 0.0
S1[r, p, s]: 0 <= r < n and 0 <= p < m and 0 <= s < m: acc[p] = acc[p] + A[r, s] * C[s, p]
S2[r, p]: 0 <= r < n and 0 <= p < m: A[r, p] = acc[p]
tree
for r(S0: r, S1: r, S2: r) {
  for p(S0: p, S1: p) { S0; for s(S1: s) S1 }; for p_2(S2: p) S2 }
"""

FLOYD = """
params n
context n >= 1
array P[n, n] float64
S0[k, i, j]: 0 <= k < n and 0 <= i < n and 0 <= j < n: P[i, j] = min(P[i, j], P[i, k] + P[k, j])
tree
for k(S0: k) for i(S0: i) for j(S0: j) S0
"""

SYRK = """
params n m
context n >= 1 and m >= 1
array C[n, n] float64
array A[n, m] float64
S0[i, k, j]: 0 <= i < n and 0 <= k < m and 0 <= j <= i: C[i, j] = C[i, j] + A[i, k] * A[j, k]
tree
for i(S0: i) for k(S0: k) for j(S0: j) S0
"""

PROGRAMS = {
    "symm": SYMM, "filter": RECURSIVE_FILTER, "two_webs": TWO_WEBS, "lagged": LAGGED,
    "live_temporary": LIVE_TEMPORARY, "floyd": FLOYD, "syrk": SYRK,
}  # fmt: skip


def program(name: str) -> Scop:
    return parse_scop(PROGRAMS[name], name)


def sizes_of(scop: Scop) -> dict[str, int]:
    return {name: 5 + k for k, name in enumerate(scop.parameters)}


def results(state: State) -> dict[str, np.ndarray]:
    """The arguments after running the state in the order of its tree."""
    sizes = sizes_of(state.scop)
    rng = np.random.default_rng(7)
    arrays = {
        a.name: rng.random(tuple(e.evaluate(sizes) for e in a.shape)).astype(a.dtype)
        for a in state.original.arrays
        if not a.local
    }
    scalars = {s.name: 1.5 for s in state.scop.scalars}
    run(state.scop, sizes, arrays, scalars, state.tree)
    return arrays


def same_results(original: Scop, state: State) -> None:
    """The transformed program computes the same bits."""
    expected = results(State.start(original))
    found = results(state)
    for array in original.arrays:
        if not array.local and array.live_out:
            np.testing.assert_array_equal(found[array.name], expected[array.name], array.name)
