"""Sums of several terms per iteration come out right at -O3, whatever the compiler thinks of them.

The gcc of Debian 12 gets every case wrong that is marked here (PR tree-optimization/110381).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.codegen.harness import FLAGS, assert_same, scheduled, source_of

HARD = ("-O3", *FLAGS[1:])
MARK = "    PERFKIT_IN_ORDER"

NEST = """
params n
context n >= 1
array x[n] float64
array y[n] float64
array z[1] float64
S0[i, q]: 0 <= i and 4*i + 4 <= n and 0 <= q < 4: z[0] = z[0] + x[4*i + q] * y[4*i + q]
tree
for i(S0: i) for q(S0: q) S0
"""
SUM = """
params n
context n >= 1
array x[n] float32
array z[1] float32
S0[i]: 0 <= i < n: z[0] = z[0] + x[i]
tree
for i(S0: i) S0
"""
REVERSED = NEST.replace("i + q", "i + 3 - q")


def chain(*offsets: int) -> str:
    """A loop that adds x[4*i + offset] to z[0] in the order of the offsets."""
    statements = [
        f"S{k}[i]: 0 <= i and 4*i + 4 <= n: z[0] = z[0] + x[4*i + {offset}]"
        for k, offset in enumerate(offsets)
    ]
    over = ", ".join(f"S{k}: i" for k in range(len(offsets)))
    body = "; ".join(f"S{k}" for k in range(len(offsets)))
    return "\n".join(
        ["params n", "context n >= 1", "array x[n] float64", "array z[1] float64",
         *statements, "tree", f"for i({over}) {{ {body} }}"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (NEST, "Reverse(q)"),
        (SUM, "Reverse(i)\nJam(i, 2)"),
        (SUM, "Reverse(i)\nUnroll(i, 4)"),
        (REVERSED, ""),
        (chain(1, 0), ""),
        (chain(3, 2, 1, 0), ""),
        (chain(0, 2, 1, 3), ""),
        (chain(0, 1, 3, 2), ""),
        ("\n".join([
            "params n", "context n >= 1", "array x[n] float32", "array z[1] float32",
            "S0[i]: 0 <= i and 2*i + 2 <= n: z[0] = (z[0] + x[2*i + 1]) - x[2*i]",
            "tree", "for i(S0: i) S0",
        ]), ""),
    ],
)  # fmt: skip
def test_sums_against_the_order_of_memory(tmp_path: Path, text: str, script: str) -> None:
    # A sum backwards is another sum under "strict", so the text is what reverses it, or the flag.
    state = scheduled(text, script, "reassociate" if script else "strict")
    rtol = 0.0 if not script else 1e-13 if "float64" in text else 1e-4
    source = assert_same(tmp_path, state, {"n": 149}, {"n": 4}, rtol=rtol, flags=HARD)
    assert MARK in source


@pytest.mark.parametrize("text", [NEST, chain(0, 1, 2, 3), chain(2)])
def test_the_vectorizer_may_have_all_other_sums(tmp_path: Path, text: str) -> None:
    source = assert_same(tmp_path, scheduled(text), {"n": 149}, flags=HARD)
    assert MARK not in source


def test_a_sum_that_moves_with_the_loop_is_no_chain() -> None:
    text = REVERSED.replace("array z[1]", "array z[n]").replace("z[0]", "z[i]")
    assert MARK not in source_of(scheduled(text))
    text = REVERSED.replace("array z[1]", "array z[4]").replace("z[0]", "z[q]")
    assert MARK not in source_of(scheduled(text))


def test_sums_of_integers_have_no_order() -> None:
    assert MARK not in source_of(scheduled(REVERSED.replace("float64", "int64")))
