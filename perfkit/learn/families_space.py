"""Random stencils, and pipelines of stages over one space."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from random import Random

from perfkit.learn.sketch import Sketch, at


def _taps(rng: Random, rank: int, radius: int) -> list[tuple[int, ...]]:
    """The offsets that a stencil reads: a star, a box, or some of a box."""
    box = list(product(range(-radius, radius + 1), repeat=rank))
    star = [o for o in box if sum(map(bool, o)) <= 1]
    kind = rng.random()
    if kind < 0.6 or (rank == 3 and kind < 0.9):
        return star
    if kind < 0.8 and len(box) <= 27:
        return box
    return rng.sample(box, min(len(box), rng.randint(2, 6)))


def _shifted(iterator: str, offset: int) -> str:
    return iterator if not offset else f"{iterator} {'+' if offset > 0 else '-'} {abs(offset)}"


def _weighted(array: str, around: Sequence[str], taps: Sequence[tuple[int, ...]]) -> str:
    """A mean of neighbours: repeated steps neither grow nor die out."""
    parts = [at(array, *(_shifted(i, o) for i, o in zip(around, t, strict=True))) for t in taps]
    return f"{1.0 / len(taps):.6f} * ({' + '.join(parts)})"


def _space(s: Sketch, rank: int, radius: int) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    around = list("ijk"[:rank])
    extents = [s.size(f"n{x}") for x in around]
    if s.chance(0.4):
        extents = [s.size("n")] * rank
        s.sizes = [x for x in s.sizes if x == "n" or not x.startswith("n")]
    loops = [
        (i, f"{radius}, {e} - {radius}") for i, e in zip(around, extents, strict=True)
    ]
    return around, extents, loops


def jacobi(s: Sketch) -> None:
    """A stencil from one array to another, in time steps."""
    rng = s.rng
    rank, radius = rng.choice((1, 2, 2, 2, 3)), rng.choice((1, 1, 1, 2))
    around, extents, loops = _space(s, rank, radius)
    for name in "AB":
        s.array(name, *extents)
    here = at("", *around)
    value = _weighted("A", around, _taps(rng, rank, radius))
    if s.chance(0.3):
        value = f"{value} * {s.array('c', *extents)}{here}"
    back = "B" + here if s.chance(0.3) else value.replace("A[", "B[")
    timed = s.chance(0.85)
    if timed:
        s.nest(0, [("t", s.size("steps"))])
    s.nest(int(timed), loops, f"B{here} = {value}")
    if timed or s.chance(0.5):
        s.nest(int(timed), loops, f"A{here} = {back}")


def seidel(s: Sketch) -> None:
    """A stencil in place: every point reads neighbours that are already new."""
    rng = s.rng
    rank, radius = rng.choice((1, 2, 2, 3)), 1
    around, extents, loops = _space(s, rank, radius)
    s.array("A", *extents)
    taps = _taps(rng, rank, radius)
    timed = s.chance(0.8)
    if timed:
        s.nest(0, [("t", s.size("steps"))])
    s.nest(int(timed), loops, f"{at('A', *around)} = {_weighted('A', around, taps)}")


def fdtd(s: Sketch) -> None:
    """Staggered fields that update each other by differences, in time steps."""
    rng = s.rng
    rank = rng.choice((1, 2, 2, 3))
    around, extents, _ = _space(s, rank, 1)
    loops = [(i, f"0, {e} - 1") for i, e in zip(around, extents, strict=True)]
    fields = [s.array(f"E{k}", *extents) for k in range(rng.randint(1, rank))]
    s.array("H", *extents)
    here = at("", *around)
    s.nest(0, [("t", s.size("steps"))])
    bodies = []
    for k, name in enumerate(fields):
        before = at("H", *(f"{i} - 1" if d == k else i for d, i in enumerate(around)))
        inner = [(i, f"1, {e} - 1") for i, e in zip(around, extents, strict=True)]
        bodies.append((inner, f"{name}{here} = {name}{here} - 0.3 * (H{here} - {before})"))
    terms = []
    for k, name in enumerate(fields):
        after = at(name, *(f"{i} + 1" if d == k else i for d, i in enumerate(around)))
        terms.append(f"{after} - {name}{here}")
    bodies.append((loops, f"H{here} = H{here} - 0.2 * ({' + '.join(terms)})"))
    for nest, line in bodies:
        s.nest(1, nest, line)


def convolution(s: Sketch) -> None:
    """A window of weights over an image, with channels or without."""
    rng = s.rng
    w = str(rng.choice((3, 3, 5, 7)))
    n, m = s.size("n"), s.size("m")
    loops = [("i", f"{n} - {int(w) - 1}"), ("j", f"{m} - {int(w) - 1}")]
    window = [("p", w), ("q", w)]
    if s.chance(0.5):
        c, f = s.size("c"), s.size("f")
        s.array("X", c, n, m), s.array("W", f, c, w, w), s.array("Y", f, n, m)
        target, value = "Y[g, i, j]", "X[h, i + p, j + q] * W[g, h, p, q]"
        loops, window = [("g", f), *loops], [("h", c), *window]
    else:
        s.array("X", n, m), s.array("W", w, w), s.array("Y", n, m)
        target, value = "Y[i, j]", "X[i + p, j + q] * W[p, q]"
    s.nest(0, loops, f"{target} = 0.0")
    if s.chance(0.5):
        s.nest(0, [*loops, *window], f"{target} += {value}")
    else:
        s.nest(len(loops), window, f"{target} += {value}")


# -- producers and consumers -------------------------------------------------------------------


def pipeline(s: Sketch) -> None:
    """Stages over one space, each computed from earlier ones: blurs, filters, updates."""
    rng = s.rng
    rank = rng.choice((1, 2, 2, 2, 3))
    around, extents, _ = _space(s, rank, 1)
    inside = [(i, f"2, {e} - 2") for i, e in zip(around, extents, strict=True)]
    whole = list(zip(around, extents, strict=True))
    here = at("", *around)
    stages = [s.array("X", *extents)]
    count = rng.randint(2, 7 if rank < 3 else 4)
    for k in range(count):
        name = s.array(f"T{k}" if k + 1 < count else "Y", *extents)
        source = rng.choice(stages[-3:])
        kind = rng.random()
        if kind < 0.45:
            taps = _taps(rng, rank, 1) if s.chance(0.6) else [
                tuple(o if d == rng.randrange(rank) else 0 for d in range(rank)) for o in (-1, 0, 1)
            ]  # fmt: skip
            loops, value = inside, _weighted(source, around, sorted(set(taps)))
        else:
            loops = whole
            second = rng.choice(stages)
            value = rng.choice(
                (f"{source}{here} * {second}{here}", f"0.5 * ({source}{here} + {second}{here})",
                 f"{source}{here} - 0.25 * {second}{here}", f"max({source}{here}, 0.5)",
                 f"{source}{here} / (1.0 + {second}{here})", f"sqrt(fabs({source}{here}))")
            )  # fmt: skip
        s.nest(0, loops if s.chance(0.85) else loops[::-1], f"{name}{here} = {value}")
        stages.append(name)


def products(s: Sketch) -> None:
    """Chains of matrix products, with elementwise stages between."""
    rng = s.rng
    sizes = [s.size(f"n{k}") for k in range(rng.choice((3, 4, 4, 5)))]
    left = s.array("A", sizes[0], sizes[1])
    for k in range(1, len(sizes) - 1):
        right = s.array(f"B{k}", sizes[k], sizes[k + 1])
        out = s.array(f"C{k}", sizes[0], sizes[k + 1])
        loops = [("i", sizes[0]), ("j", sizes[k + 1])]
        update = f"{out}[i, j] += {left}[i, k] * {right}[k, j]"
        if s.chance(0.5):
            s.nest(0, loops, f"{out}[i, j] = 0.0")
            s.nest(2, [("k", sizes[k])], update)
        else:
            s.nest(0, loops, f"{out}[i, j] = 0.0")
            third = ("k", sizes[k])
            s.nest(0, rng.choice(([*loops, third], [loops[0], third, loops[1]])), update)
        if s.chance(0.35):
            s.nest(0, loops, rng.choice(
                (f"{out}[i, j] = max({out}[i, j], 0.0)",
                 f"{out}[i, j] = {out}[i, j] * 0.5 + {s.array(f'b{k}', sizes[k + 1])}[j]")
            ))  # fmt: skip
        left = out


def normalise(s: Sketch) -> None:
    """Statistics of rows or columns, then the elements scaled by them."""
    rng = s.rng
    n, m = s.size("n"), s.size("m")
    rows = s.chance(0.6)
    out, extent = ("i", n) if rows else ("j", m)
    inner = ("j", m) if rows else ("i", n)
    s.array("X", n, m), s.array("Y", n, m), s.array("s", extent)
    kind = rng.choice(("softmax", "mean", "scale"))
    both = [("i", n), ("j", m)]
    fused = rows and s.chance(0.5)

    def reduce(start: str, line: str) -> None:
        if fused:
            s.nest(1, [], start)
            s.nest(1, [inner], line)
        else:
            s.nest(0, [(out, extent)], start)
            s.nest(0, both if s.chance(0.8) else both[::-1], line)

    def spread(line: str) -> None:
        s.nest(1, [inner], line) if fused else s.nest(0, both, line)

    if fused:
        s.nest(0, [("i", n)])
    if kind == "softmax":
        s.array("top", extent)
        reduce(f"top[{out}] = 0.0", f"top[{out}] = max(top[{out}], X[i, j])")
        spread(f"Y[i, j] = exp(X[i, j] - top[{out}])")
        reduce(f"s[{out}] = 0.0", f"s[{out}] += Y[i, j]")
        spread(f"Y[i, j] = Y[i, j] / s[{out}]")
    elif kind == "mean":
        s.array("v", extent)
        reduce(f"s[{out}] = 0.0", f"s[{out}] += X[i, j] * 0.01")
        reduce(f"v[{out}] = 0.1", f"v[{out}] += (X[i, j] - s[{out}]) * (X[i, j] - s[{out}])")
        spread(f"Y[i, j] = (X[i, j] - s[{out}]) / sqrt(v[{out}])")
    else:
        reduce(f"s[{out}] = 1.0", f"s[{out}] += X[i, j] * X[i, j]")
        spread(f"Y[i, j] = X[i, j] / s[{out}]")
