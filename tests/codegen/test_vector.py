"""Jamming, lanes and unrolling: nothing is lost, and nothing is reordered that must not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.codegen.nodes import Bound, Extreme, For, Guard, Instance, Node, Pieces, walk
from perfkit.codegen.target import Target
from perfkit.codegen.vector import Expander
from perfkit.ir.affine import Affine, Constraint
from perfkit.ir.tree import Mark
from tests.codegen.harness import Point, assert_same, executed, nodes_of, scheduled
from tests.programs_ir import parse_scop

I, J, K = (Affine.variable(n) for n in "ijk")  # noqa: E741
SCOP = parse_scop("""
params n
array A[n, n] float64
array B[n, n, n] float64
S0[i, j]: 0 <= i < n and 0 <= j < n: A[i, j] = A[i, j] + 1.0
S1[i, j, k]: 0 <= i < n and 0 <= j < n and 0 <= k < n: A[i, j] = A[i, j] + B[i, j, k]
tree
for i(S0: i, S1: i) for j(S0: j, S1: j) { S0; for k(S1: k) S1 }
""")
S0 = Instance("S0", (("i", I), ("j", J)))
S1 = Instance("S1", (("i", I), ("j", J), ("k", K)))
ALL: Callable[[str], bool] = lambda loop: True  # noqa: E731


def expanded(nodes: tuple[Node, ...], independent: Callable[[str], bool] = ALL) -> tuple[Node, ...]:
    return Expander(SCOP.by_name(), Target(32, 1), {}, independent).expand(nodes)


# -- random nests ----------------------------------------------------------------------------

small = st.integers(-3, 9)
slopes = st.sampled_from((-1, 0, 0, 1, 2))


@st.composite
def bounds(draw: st.DrawFn, kind: str, around: tuple[Affine, ...]) -> Bound:
    def leaf() -> Affine:
        total = Affine.constant(draw(small))
        for outer in around:
            total = total + outer * draw(slopes)
        return total

    parts = tuple(leaf() for _ in range(draw(st.integers(1, 2))))
    return parts[0] if len(parts) == 1 else Extreme(kind, parts)  # type: ignore[arg-type]


@st.composite
def nests(draw: st.DrawFn) -> For:
    """``for i for j { S0; for k S1 }`` with random bounds and marks on the two outer loops."""

    def marks(kinds: tuple[str, ...]) -> tuple[Mark, ...]:
        kind = draw(st.sampled_from((*kinds, "")))
        return (Mark(kind, draw(st.integers(2, 5))),) if kind else ()  # type: ignore[arg-type]

    def loop(name: str, around: tuple[Affine, ...], body: tuple[Node, ...]) -> For:
        lower, upper = draw(bounds("max", around)), draw(bounds("min", around))
        kinds = {"i": ("jam", "unroll"), "j": ("jam", "vector", "unroll"), "k": ("unroll",)}
        step = draw(st.sampled_from((1, 1, 1, 2)))
        return For(name, lower, upper, body, step, marks=marks(kinds[name]))

    inner: tuple[Node, ...] = (loop("k", (I, J), (S1,)),)
    if draw(st.booleans()):
        inner = (S0, *inner)
    if draw(st.booleans()):
        test = Constraint(I * draw(slopes) + J * draw(slopes) + draw(small))
        inner = (Guard(((test,),), inner),)
    return loop("i", (), (loop("j", (I,), inner),))


def by_element(points: list[Point]) -> dict[tuple[int, ...], list[Point]]:
    """What happens to each element ``A[i, j]``, in order."""
    found: dict[tuple[int, ...], list[Point]] = {}
    for point in points:
        found.setdefault(point[1][:2], []).append(point)
    return found


@settings(deadline=None, max_examples=400)
@given(nests())
def test_every_instance_runs_once_and_sums_keep_their_order(nest: For) -> None:
    before = executed((nest,), {})
    after = executed(expanded((nest,)), {})
    assert Counter(after) == Counter(before)
    assert by_element(after) == by_element(before)


@settings(deadline=None, max_examples=100)
@given(nests())
def test_unrolling_changes_no_order(nest: For) -> None:
    def only_unrolled(node: Node) -> Node:
        if not isinstance(node, For):
            return node
        body = tuple(map(only_unrolled, node.body))
        marks = tuple(Mark("unroll", m.factor) for m in node.marks)
        return For(node.name, node.lower, node.upper, body, node.step, marks=marks)

    unrolled = (only_unrolled(nest),)
    assert executed(expanded(unrolled), {}) == executed((nest,), {})


# -- what jamming does to a nest -------------------------------------------------------------


def jam(lower: Bound, upper: Bound, factor: int = 3) -> For:
    inner = For("j", lower, upper, (S0,))
    return For("i", Affine.constant(0), Affine.constant(7), (inner,), marks=(Mark("jam", factor),))


def test_a_rectangle_is_jammed_whole() -> None:
    (let,) = expanded((jam(Affine.constant(0), Affine.constant(4)),))
    main = next(n for n in walk(let) if isinstance(n, For) and n.width == 3)
    (inner,) = main.body
    assert isinstance(inner, For) and len(inner.body) == 3
    assert [n for n in walk(let) if isinstance(n, Guard)] == []


def test_a_triangle_is_jammed_in_its_middle() -> None:
    """Rows i, i + 1 and i + 2 share columns 0..i; the other two run with guards."""
    (let,) = expanded((jam(Affine.constant(0), I),))
    main = next(n for n in walk(let) if isinstance(n, For) and n.width == 3)
    shared, edge = main.body
    assert isinstance(shared, For) and len(shared.body) == 3 and shared.upper == I
    assert isinstance(edge, For) and edge.upper == I + 2


def test_lanes_stop_where_strips_do() -> None:
    loop = For("j", Affine.constant(1), Affine.constant(10), (S0,), marks=(Mark("vector", 8),))
    nest = For("i", Affine.constant(0), Affine.constant(0), (loop,))
    after = expanded((nest,))
    lanes = [n.lanes for top in after for n in walk(top) if isinstance(n, Instance)]
    assert [x and (x.count, x.name) for x in lanes] == [(4, "j"), (4, "j"), None]
    assert executed(after, {}) == executed((nest,), {})


def aligned_loop(last: int, **marks: bool) -> tuple[Node, ...]:
    """``for j vector(4) S0`` from 1 to ``last``, around it one row."""
    kinds = (Mark("vector", 4), *((Mark("parallel"),) if marks.get("parallel") else ()))
    return expanded((For("j", Affine.constant(1), Affine.constant(last), (S0,), marks=kinds),))


def test_long_loops_start_their_vectors_where_stores_are_aligned() -> None:
    row = {"i": 0}
    after = aligned_loop(47)
    heads = [n for top in after for n in walk(top) if isinstance(n, For) and n.until]
    assert [h.until and h.until[1] for h in heads] == [32]
    assert executed(after, row) == [("S0", (0, j)) for j in range(1, 48)]


def test_short_or_shared_loops_are_not_peeled() -> None:
    for after in (aligned_loop(20), aligned_loop(47, parallel=True)):
        assert not any(n.until for top in after for n in walk(top) if isinstance(n, For))


ROWS = """
params n
context n >= 1
array A[n, n] float64
array B[n, n] float64
S0[i, j]: 0 <= i < n and 1 <= j < n - 1: B[i, j] = A[i, j - 1] + A[i, j + 1]
tree
for i(S0: i) for j(S0: j) S0
"""


@pytest.mark.parametrize("simd_bytes", [16, 32, 64])
def test_rows_at_every_alignment(tmp_path: Path, simd_bytes: int) -> None:
    """Rows of odd lengths start at every offset from a multiple of the vector size."""
    sizes = ({"n": n} for n in (1, 2, 3, 37, 39, 70))
    text = assert_same(
        tmp_path, scheduled(ROWS, "Vectorize(j, 8)"), *sizes, simd_bytes=simd_bytes
    )
    assert f"(uintptr_t)&B[i][j] % {simd_bytes} != 0" in text


# -- loops that isl split --------------------------------------------------------------------


def split_nest() -> For:
    """``for i { for j < i; for j >= i }``: one loop over j, cut at i."""
    low = For("j", Affine.constant(0), I - 1, (S0,))
    high = For("j", I, Affine.constant(5), (S0,))
    pieces = Pieces((I - 1, I), (low, high))
    return For(
        "i", Affine.constant(0), Affine.constant(5), (pieces,), marks=(Mark("jam", 2),)
    )  # fmt: skip


def test_parts_that_differ_between_copies_are_not_jammed() -> None:
    nest = split_nest()
    assert executed(expanded((nest,), lambda loop: False), {}) == executed((nest,), {})


def test_parts_of_independent_iterations_are_jammed() -> None:
    nest = split_nest()
    after = executed(expanded((nest,)), {})
    assert after != executed((nest,), {})
    assert Counter(after) == Counter(executed((nest,), {}))


def test_parts_that_all_copies_share_are_jammed() -> None:
    four = Affine.constant(4)
    pieces = Pieces(
        (four,),
        (For("j", Affine.constant(0), four, (S0,)), For("j", four + 1, four * 2, (S0,))),
    )
    nest = For("i", Affine.constant(0), Affine.constant(5), (pieces,), marks=(Mark("jam", 2),))
    after = executed(expanded((nest,), lambda loop: False), {})
    assert after[:4] == [("S0", (0, 0)), ("S0", (1, 0)), ("S0", (0, 1)), ("S0", (1, 1))]


SPLIT = """
params n
context n >= 1
array A[n, n] float64
array B[n, n] float64
S0[i, j]: 1 <= i < n and 0 <= j < i: A[i, j] = A[i - 1, j] + B[i, j]
S1[i, j]: 1 <= i < n and i <= j < n: A[i, j] = A[i - 1, j] * B[i, j]
tree
for i(S0: i, S1: i) for j(S0: j, S1: j) { S1; S0 }
"""


@pytest.mark.parametrize("steps", ["Jam(i, 2)", "Jam(i, 3)"])
def test_a_column_recurrence_over_a_split_loop(tmp_path: Path, steps: str) -> None:
    """Part by part, row i + 1 would read row i at the diagonal before it is written."""
    assert_same(tmp_path, scheduled(SPLIT, steps), {"n": 11}, {"n": 12}, {"n": 1})


TRIANGLE = """
params n m
context n >= 1 and m >= 1
array C[n, n] float64
array A[n, m] float64
S0[i, j, k]: 0 <= i < n and 0 <= j <= i and 0 <= k < m: C[i, j] = C[i, j] + A[i, k] * A[j, k]
tree
for i(S0: i) for j(S0: j) for k(S0: k) S0
"""


@pytest.mark.parametrize("simd_bytes", [16, 32, 64])
@pytest.mark.parametrize(
    "steps",
    [
        "Jam(i, 4)\nVectorize(j, 8)",
        "Jam(i, 3)\nJam(j, 2)",
        "Reverse(j)\nJam(i, 2)\nVectorize(j, 4)",
        "Tile(i=5, j=7)\nJam(i, 3)\nVectorize(j, 4)",
        "Interchange(j, k)\nJam(i, 4)\nVectorize(j, 4)",
    ],
)
def test_register_tiles_of_a_triangle(tmp_path: Path, steps: str, simd_bytes: int) -> None:
    """Main strips, both ragged edges and the rest, each with the bits of the plain loops."""
    sizes = ({"n": n, "m": 3} for n in (1, 2, 5, 12, 23))
    assert_same(tmp_path, scheduled(TRIANGLE, steps), *sizes, simd_bytes=simd_bytes)


def test_lanes_need_an_innermost_sum_or_a_moving_element() -> None:
    """Under strict order a sum along the lanes stays scalar."""
    state = scheduled(TRIANGLE)
    lanes = [n.lanes for top in nodes_of(state) for n in walk(top) if isinstance(n, Instance)]
    assert lanes == [None]


@pytest.mark.parametrize("dtype", ["float64", "int32"])
@pytest.mark.parametrize("index", ["i // 2", "2*i % 3", "i - 2 * (i // 2)"])
def test_lanes_never_add_to_one_element(tmp_path: Path, index: str, dtype: str) -> None:
    """A reduction whose element moves with the loop, but not with every iteration."""
    text = f"""
params n
context n >= 1
array x[n] {dtype}
array z[n] {dtype}
S0[i]: 0 <= i < n: z[{index}] = z[{index}] + x[i]
tree
for i(S0: i) S0
"""
    state = scheduled(text, "Vectorize(i, 4)", "reassociate")
    source = assert_same(tmp_path, state, {"n": 3}, {"n": 50}, rtol=1e-13)
    assert "x4" not in source and "ivdep" not in source


def test_lanes_and_jammed_copies_never_add_to_one_element(tmp_path: Path) -> None:
    text = """
params n
context n >= 1
array x[n, n] float64
array z[n] float64
S0[i, j]: 0 <= i < n and 0 <= j < n: z[i // 2] = z[i // 2] + x[i, j]
tree
for i(S0: i) for j(S0: j) S0
"""
    state = scheduled(text, "Vectorize(j, 4)\nJam(i, 3)", "reassociate")
    assert_same(tmp_path, state, {"n": 3}, {"n": 50}, rtol=1e-12)


@pytest.mark.parametrize("op", ["min", "max"])
def test_extremes_of_gathered_lanes(tmp_path: Path, op: str) -> None:
    text = f"""
params n m
context n >= 1 and m >= 2
array x[n, m] float32
array y[n] float32
S0[i]: 0 <= i < n: y[i] = {op}(y[i], {op}(x[i, 0], x[i, 1]))
tree
for i(S0: i) S0
"""
    sizes = {"n": 3, "m": 2}, {"n": 50, "m": 3}
    source = assert_same(tmp_path, scheduled(text, "Vectorize(i, 4)"), *sizes)
    assert f"{op}_f32x4" in source
