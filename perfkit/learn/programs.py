"""A stream of distinct random programs with sizes: what the cost model learns from.

The stream is a function of its seed alone: program 17 of seed 3 is the same everywhere. Sizes are
drawn so that the data range from the first cache to main memory, on a logarithmic scale, while the
original order takes no more than a few milliseconds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from random import Random

from perfkit.frontends.syntax import (
    Assign,
    Block,
    Element,
    For,
    If,
    Name,
    Number,
    Operation,
    Region,
    Stmt,
    Value,
)
from perfkit.ir.expr import ITEMSIZE
from perfkit.learn.families import FAMILIES, Family
from perfkit.learn.sketch import Sketch
from perfkit.learn.source import region_of

FOOTPRINT = (12e3, 48e6)
"""Bytes of all arrays together, from within a first-level cache to beyond a third."""

WORK = (4e4, 8e6)
"""Arithmetic and memory operations of one run; a core does about one per nanosecond."""

STEPS = (3, 60)
"""Time steps, where a program has them."""

_FUNCTION_COST = {"sqrt": 4.0, "exp": 12.0, "fabs": 1.0}


@dataclass(frozen=True)
class Sample:
    """A random program and the sizes it is measured at.

    ``number`` is its place in the stream of ``seed``; ``family`` names its structure.
    """

    seed: int
    number: int
    family: str
    text: str
    sizes: tuple[tuple[str, int], ...]
    fp: str

    @property
    def key(self) -> str:
        """Equal for programs that count as the same: text, and sizes within a factor of two."""
        scale = ", ".join(f"{n}~2^{round(math.log2(v))}" for n, v in self.sizes)
        return hashlib.sha256(f"{self.text}\n{scale}\n{self.fp}".encode()).hexdigest()


def programs(seed: int, start: int = 0) -> Iterator[Sample]:
    """The stream from number ``start`` on; never ends, never repeats a program."""
    seen: set[str] = set()
    number = 0
    for attempt in count():
        sample = draw(Random(f"{seed}-{attempt}"), seed, number)
        if sample is None or sample.key in seen:
            continue
        seen.add(sample.key)
        if number >= start:
            yield sample
        number += 1


def draw(rng: Random, seed: int = 0, number: int = 0) -> Sample | None:
    """One program; None where no sizes give it a suitable length."""
    family = rng.choices(FAMILIES, [f.weight for f in FAMILIES])[0]
    text = write(family, rng)
    region = region_of(text)
    sizes = choose_sizes(region, rng)
    if sizes is None:
        return None
    fp = "reassociate" if rng.random() < 0.3 else "strict"
    return Sample(seed, number, family.name, text, tuple(sizes.items()), fp)


def write(family: Family, rng: Random) -> str:
    """The text of one random program of a family."""
    sketch = Sketch(rng)
    family.draw(sketch)
    return sketch.text("program", rng.choice(("float64", "float64", "float32")))


# -- sizes -----------------------------------------------------------------------------------


def choose_sizes(region: Region, rng: Random) -> dict[str, int] | None:
    """Sizes for one of the footprints of FOOTPRINT, cut to the work of WORK."""
    names = [v.name for v in region.variables if v.kind == "size"]
    target = math.exp(rng.uniform(*map(math.log, FOOTPRINT)))
    limit = math.exp(rng.uniform(math.log(WORK[1] / 16), math.log(WORK[1])))
    shape = {n: math.exp(rng.gauss(0.0, 0.45)) for n in names}
    steps = round(math.exp(rng.uniform(*map(math.log, STEPS))))

    def at(scale: float) -> dict[str, int]:
        found = {n: max(6, round(scale * shape[n])) for n in names}
        return {n: steps if n == "steps" else v for n, v in found.items()}

    low, high = 6.0, 3e7
    for _ in range(40):
        middle = math.sqrt(low * high)
        sizes = at(middle)
        fits = footprint(region, sizes) <= target and work(region, sizes) <= limit
        low, high = (middle, high) if fits else (low, middle)
    sizes = _rounded(at(low), rng)
    return sizes if WORK[0] <= work(region, sizes) <= WORK[1] else None


def _rounded(sizes: dict[str, int], rng: Random) -> dict[str, int]:
    """Some programs have round sizes, as people choose them."""
    style = rng.random()
    if style < 0.25:
        return {n: max(8, v // 8 * 8) if n != "steps" else v for n, v in sizes.items()}
    if style < 0.4:
        powers = {n: 1 << (v.bit_length() - 1) for n, v in sizes.items() if v >= 8}
        return {**sizes, **powers}
    if style < 0.6:
        return {n: v // 10 * 10 if v >= 40 else v for n, v in sizes.items()}
    return sizes


def footprint(region: Region, sizes: Mapping[str, int]) -> float:
    """Bytes of all arrays."""
    total = 0.0
    for v in region.variables:
        if v.kind == "array":
            total += math.prod(_number(e, sizes) for e in v.shape) * ITEMSIZE[v.dtype]
    return total


def work(region: Region, sizes: Mapping[str, int]) -> float:
    """Operations and accesses of one run, loops taken at the middle of their range."""
    return _work(region.body, dict(sizes), 1.0)


def _work(body: tuple[Stmt, ...], values: dict[str, float], times: float) -> float:
    total = 0.0
    for s in body:
        match s:
            case For(variable=name, first=first, last=last, step=step):
                a, b = _number(first, values), _number(last, values)
                trip = max(0.0, (b - a) / step + 1.0)
                total += _work(s.body, {**values, name: (a + b) / 2}, times * trip)
            case If(then=then, otherwise=otherwise):
                total += 0.5 * (_work(then, values, times) + _work(otherwise, values, times))
            case Block(body=inner):
                total += _work(inner, values, times)
            case Assign(value=value):
                total += times * (1.0 + _operations(value))
    return total


def _operations(value: Value) -> float:
    match value:
        case Element():
            return 0.5
        case Operation(op="call", function=function, args=args):
            return _FUNCTION_COST.get(function, 10.0) + sum(map(_operations, args))
        case Operation(op=op, args=args):
            return (4.0 if op == "div" else 0.5) + sum(map(_operations, args))
    return 0.0


def _number(value: Value, values: Mapping[str, float]) -> float:
    match value:
        case Number(value=number):
            return float(number)
        case Name(name=name):
            return float(values[name])
        case Operation(op=op, args=(left, right)):
            a, b = _number(left, values), _number(right, values)
            return {"add": a + b, "sub": a - b, "mul": a * b}.get(op, a / b if b else 0.0)
    return 0.0


__all__ = ["Sample", "choose_sizes", "draw", "footprint", "programs", "work", "write"]
