"""Tiles of contractions: as many rows as the second cache holds and the threads can share."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.schedule.blocking import Sizes, block
from perfkit.schedule.state import State
from perfkit.schedule.transforms import Tile
from tests.programs_ir import parse_scop

KIB = 1 << 10


def rows_of(limits: str, values: Mapping[str, int], threads: int = 2, cache: int = 512) -> int:
    """Rows of the tile of ``C[i, j] += A[i, k] * B[k, j]`` over ``limits``, n x m x p."""
    scop = parse_scop(
        "params n m p\n"
        "context n >= 1 and m >= 1 and p >= 1\n"
        "array C[n, m] float64\n"
        "array A[n, p] float64\n"
        "array B[p, m] float64\n"
        f"S[i, j, k]: 0 <= i < n and {limits} and 0 <= k < p: "
        "C[i, j] = C[i, j] + A[i, k] * B[k, j]\n"
        "tree\n"
        "for i(S: i) for j(S: j) for k(S: k) S"
    )
    sizes = Sizes(32, cache * KIB, threads, values)
    steps, _ = block(State.start(scop), Analysis(), sizes)
    tile = next(s for s in steps if isinstance(s, Tile))
    return dict(tile.sizes)["i"]


@pytest.mark.parametrize(
    ("n", "threads", "rows"),
    [
        (1000, 1, 144),
        (1000, 2, 126),  # 8 tiles: 7 would not share out evenly
        (1000, 3, 114),  # 9 tiles
        (100, 2, 54),
        (5, 2, 6),
    ],
)
def test_rows_fit_the_cache_and_share_out_evenly(n: int, threads: int, rows: int) -> None:
    found = rows_of("0 <= j < m", {"n": n, "m": 700, "p": 900}, threads)
    assert found == rows
    assert found * 256 * 8 <= 512 * KIB


def test_a_larger_cache_holds_more_rows() -> None:
    values = {"n": 4000, "m": 700, "p": 900}
    assert rows_of("0 <= j < m", values, cache=2048) == 504
    assert rows_of("0 <= j < m", values, cache=256) == 72


def test_uneven_tiles_are_smaller() -> None:
    values = {"n": 600, "m": 600, "p": 900}
    assert rows_of("0 <= j <= i and j < m", values) == 78
    assert rows_of("0 <= j < m", values) == 102


def test_unknown_sizes_get_a_default() -> None:
    assert rows_of("0 <= j < m", {}) == Sizes().panel_jam_tile
    assert rows_of("0 <= j < m", {"n": 1000}) == Sizes().panel_jam_tile
