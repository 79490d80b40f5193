"""Part (b): a training step and an inference of an ST-DiT, over links of several rates."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.dsp.stdit import Size
from bench.dsp.world import Transport, World, WorldError
from perfkit.cost.transfer import Link, transfer

OURS = "dsp"
NAMES = (OURS, "dsp, 4 chunks", "ulysses", "megatron", "ring")
PEERS = ("ulysses", "megatron", "ring")
AGREE = 1e-4  # of the largest value, fp32


@dataclass(frozen=True)
class Row:
    """One method in one setting; seconds are of the slowest rank, per step.

    ``low`` and ``high`` are the quartiles of ``seconds``. ``exposed`` is the median over the
    rounds of a step's time minus that of the same step with nothing sent. ``peak`` is the most
    bytes of tensors alive in a step, ``sent`` the bytes of activations and their gradients that
    the busiest rank sends per step, ``gradients`` those for adding up parameter gradients.
    ``rate`` is bits per second in each direction, None where nothing limits it. ``predicted`` is
    what the alpha-beta model says of the counted bytes and calls with the link as it was probed,
    nothing overlapping: to be held against ``exposed``.
    """

    transport: Transport
    ranks: int
    rate: float | None
    mode: str
    method: str
    seconds: float
    low: float
    high: float
    samples_per_second: float
    compute: float
    exposed: float
    predicted: float
    peak: int
    sent: int
    gradients: int
    difference: float
    rounds: int
    against: float | None = None  # this method's time over DSP's: median of the rounds' ratios
    against_low: float | None = None
    against_high: float | None = None


def measure(
    ranks: int,
    size: Size,
    transport: Transport,
    rates: Sequence[float | None],
    rounds: int,
    names: Sequence[str] = NAMES,
) -> Iterator[Row]:
    """Every method at every rate, training and inference; checked against one process first.

    Raises:
        WorldError: a worker failed, or a method's result differs from one process.
    """
    methods = list(names)
    with World(ranks, size, transport) as world:
        differences = {
            name: max(answer[name] for answer in world.run("check", names=methods))
            for name in methods
        }
        wrong = {name: worst for name, worst in differences.items() if not worst <= AGREE}
        if wrong:
            raise WorldError(f"results differ from those of one process: {wrong}")
        counts = world.run("count", names=methods)
        for mode in ("training", "inference"):
            training = mode == "training"
            peaks = world.run("memory", names=methods, training=training)
            for rate in rates:
                world.limit(rate)
                link = probed(world.run("probe"))
                answers = world.run("time", names=methods, training=training, rounds=rounds)
                world.limit(None)
                pairs = {name: slowest([a[name] for a in answers]) for name in methods}
                for name in methods:
                    traffic = [Traffic.of(c[name], training) for c in counts]
                    busiest = max(traffic, key=lambda t: t.sent)
                    yield row(
                        pairs[name],
                        pairs[OURS] if name != OURS else None,
                        transport=transport, ranks=ranks, rate=rate, mode=mode, method=name,
                        batch=size.batch,
                        predicted=transfer(busiest.sent + busiest.gradients, busiest.calls, link),
                        peak=max(p[name] for p in peaks),
                        sent=busiest.sent,
                        gradients=busiest.gradients,
                        difference=differences[name],
                    )  # fmt: skip


@dataclass(frozen=True)
class Traffic:
    """What a rank sends in a step: bytes and calls."""

    sent: int
    gradients: int
    calls: int

    @staticmethod
    def of(count: dict[str, int], training: bool) -> Traffic:
        return Traffic(
            count["forward"] + training * count["backward"],
            training * count["gradients"],
            count["forward calls"] + training * (count["backward calls"] + 1),
        )


def probed(answers: Sequence[dict[str, float]]) -> Link:
    """The slowest rank's link."""
    return Link(min(a["bandwidth"] for a in answers), max(a["latency"] for a in answers))


def slowest(of_ranks: list[list[list[float]]]) -> list[tuple[float, float]]:
    """(real, silent) seconds of the slowest rank in each round."""
    return [
        (max(real for real, _ in turn), max(silent for _, silent in turn))
        for turn in zip(*of_ranks, strict=True)
    ]


def row(
    pairs: list[tuple[float, float]],
    ours: list[tuple[float, float]] | None,
    batch: int,
    **facts: Any,
) -> Row:
    real = [pair[0] for pair in pairs]
    low, middle, high = quartiles(real)
    against: tuple[float | None, ...] = (None, None, None)
    if ours is not None:
        found = quartiles([mine / dsp for (mine, _), (dsp, _) in zip(pairs, ours, strict=True)])
        against = (found[1], found[0], found[2])
    return Row(
        seconds=middle,
        low=low,
        high=high,
        samples_per_second=batch / middle,
        compute=statistics.median(silent for _, silent in pairs),
        exposed=statistics.median(real - silent for real, silent in pairs),
        rounds=len(pairs),
        against=against[0],
        against_low=against[1],
        against_high=against[2],
        **facts,
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def rate_text(rate: float | None) -> str:
    if rate is None:
        return "unlimited"
    return f"{rate / 1e9:g} Gbit/s" if rate >= 1e9 else f"{rate / 1e6:g} Mbit/s"


HEAD = (
    "| Ranks | Links | Step | Method | samples/s | step (quartiles), ms | exposed (model), ms "
    "| peak MB | sent MB | times DSP's (quartiles) |"
)


def table(rows: Sequence[Row]) -> str:
    """The rows as a table, then where DSP is not ahead."""
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for r in rows:
        ratio = ""
        if r.against is not None:
            ratio = f"{r.against:.2f} ({r.against_low:.2f} - {r.against_high:.2f})"
        sent = f"{r.sent / 1e6:.2f}" + (f" + {r.gradients / 1e6:.2f}" if r.gradients else "")
        exposed = f"{r.exposed * 1e3:.0f} ({r.predicted * 1e3:.0f})"
        lines.append(
            f"| {r.ranks} | {rate_text(r.rate)} | {r.mode} | {r.method} "
            f"| {r.samples_per_second:.2f} "
            f"| {r.seconds * 1e3:.0f} ({r.low * 1e3:.0f} - {r.high * 1e3:.0f}) "
            f"| {exposed} | {r.peak / 1e6:.1f} | {sent} | {ratio} |"
        )
    return "\n".join([*lines, "", *verdict(rows)])


def verdict(rows: Sequence[Row]) -> list[str]:
    """Sentences on where DSP is not ahead of a peer: not faster, or not clearly."""
    behind, open_ = [], []
    for r in rows:
        if r.method not in PEERS or r.against is None or r.against_low is None:
            continue
        where = (
            f"{r.method}, {r.ranks} ranks, {rate_text(r.rate)}, {r.mode}: {r.against:.2f} times "
            "DSP's time"
        )
        if r.against <= 1:
            behind.append(where)
        elif r.against_low <= 1:
            open_.append(where)
    count = sum(r.method in PEERS for r in rows)
    return [
        f"DSP is faster than its peer in {count - len(behind)} of {count} comparisons (medians).",
        *(f"DSP is NOT ahead of {where}." for where in behind),
        *(f"Not clear (the quartiles include 1): {where}." for where in open_),
    ]
