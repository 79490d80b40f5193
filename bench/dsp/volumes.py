"""Part (a): bytes counted against the closed forms, for 2 to 128 ranks.

Up to four ranks are real processes that talk over gloo; more are one rank of a fake process group
of torch, where the same code runs and nothing moves. Even sizes, so that the forms are exact.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.dsp.stdit import Size
from bench.dsp.world import World
from perfkit.dsp.simulate import Method, backward_times, pair_volume

RANKS = (2, 4, 8, 16, 32, 64, 128)
REAL = 4
# Every count of ranks divides frames, positions and heads.
SIZE = Size(frames=128, positions=128, width=128, heads=128, pairs=1)
FORMS: dict[str, tuple[Method, float]] = {
    "dsp": ("dsp", 1.0),
    "ulysses": ("ulysses", 0.5),  # the block that mixes the sharded axis only
    "ulysses, both blocks": ("ulysses", 1.0),
    "megatron": ("megatron", 1.0),
    "ring": ("ring", 1.0),
}
_TEXT = {
    "dsp": "2 M f / N",
    "ulysses": "4 M f / N",
    "ulysses, both blocks": "8 M f / N",
    "megatron": "8 M f",
    "ring": "2 M f (backward 4 M f)",
}


@dataclass(frozen=True)
class Row:
    """Bytes that a rank sends in a spatial and a temporal block; DSP switches back at the end."""

    ranks: int
    group: str
    method: str
    form: str
    total: int
    forward: int
    backward: int
    forward_form: int
    backward_form: int

    @property
    def exact(self) -> bool:
        return (self.forward, self.backward) == (self.forward_form, self.backward_form)


def closed_form(name: str, total: int, ranks: int) -> tuple[int, int]:
    """(forward, backward) bytes per rank by DSP.md's table."""
    method, share = FORMS[name]
    forward = pair_volume(method, float(total), ranks) * share
    return round(forward), round(forward * backward_times(method))


def count(ranks: Sequence[int] = RANKS, size: Size = SIZE) -> Iterator[Row]:
    """Every method for every number of ranks."""
    for number in ranks:
        group = "gloo" if number <= REAL else "fake"
        with World(number, size, "loopback", fake=group == "fake") as world:
            answers = world.run("count", names=list(FORMS), home=True)
        for name in FORMS:
            forward, backward = closed_form(name, size.bytes * size.pairs, number)
            yield Row(
                number, group, name, _TEXT[name], size.bytes,
                farthest([answer[name]["forward"] for answer in answers], forward),
                farthest([answer[name]["backward"] for answer in answers], backward),
                forward, backward,
            )  # fmt: skip


def farthest(found: Sequence[int], wanted: int) -> int:
    """The rank's count that is worst, so that a row is exact only if all ranks are."""
    return max(found, key=lambda n: abs(n - wanted))


def table(rows: Sequence[Row]) -> str:
    """The counts, in units of M and in bytes, beside the closed forms."""
    lines = [
        "| Ranks | Group | Method | Closed form | forward / M | forward, bytes | backward, bytes "
        "| equal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.ranks} | {r.group} | {r.method} | {r.form} | {r.forward / r.total:.4f} "
            f"| {r.forward} | {r.backward} | {'yes' if r.exact else 'NO'} |"
        )
    good = sum(r.exact for r in rows)
    lines.append(f"\n{good} of {len(rows)} equal their closed forms exactly; M = {rows[0].total}.")
    return "\n".join(lines)


def check_sizes(ranks: Sequence[int], size: Size) -> None:
    """Refuse numbers of ranks for which the closed forms are not exact."""
    common = math.gcd(size.frames, size.positions, size.heads)
    bad = [n for n in ranks if n < 1 or common % n]
    if bad:
        sys.exit(f"ranks {bad} do not divide frames, positions and heads of {size}")
