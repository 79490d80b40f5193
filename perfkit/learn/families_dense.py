"""Random contractions, reductions, triangular loops, and elementwise programs."""

from __future__ import annotations

from random import Random

from perfkit.learn.sketch import Sketch, at

# -- contractions and reductions -------------------------------------------------------------


def contraction(s: Sketch) -> None:
    """Sums of products over random index sets: matrix products and what generalises them."""
    rng = s.rng
    depth = rng.choice((2, 3, 3, 3, 3, 4, 4, 5))
    letters = list("ijklm"[:depth])
    summed = rng.sample(letters, 1 if depth < 4 or s.chance(0.6) else 2)
    out = [x for x in letters if x not in summed]
    rng.shuffle(out)
    operands = _operands(rng, letters, out, summed)
    bounds = {x: s.size(f"n{x}") for x in letters}
    target = at(s.array("C", *(bounds[x] for x in out)), *out)
    value = " * ".join(
        at(s.array(name, *(bounds[x] for x in operand)), *operand)
        for name, operand in zip("ABD", operands, strict=False)
    )
    if s.chance(0.4):
        value = f"{s.scalar('alpha')} * {value}"
    start = rng.choice(("", f"{target} = 0.0", f"{target} = 0.0"))
    if s.chance(0.2):
        start = f"{target} = {target} * {s.scalar('beta')}"
    order = [*out, *summed] if s.chance(0.6) else rng.sample(letters, depth)
    loops = [(x, bounds[x]) for x in order]
    joined = start and order[: len(out)] == out
    if start and not (joined and s.chance(0.7)):
        s.nest(0, [(x, bounds[x]) for x in out], start)
        start = ""
    if start:
        s.nest(0, loops[: len(out)], start)
        s.nest(len(out), loops[len(out) :], f"{target} += {value}")
    else:
        s.nest(0, loops, f"{target} += {value}")


def _operands(
    rng: Random, letters: list[str], out: list[str], summed: list[str]
) -> list[list[str]]:
    count = 3 if rng.random() < 0.12 else 2
    found: list[list[str]] = [[] for _ in range(count)]
    for x in letters:
        holders = rng.sample(range(count), 2 if x in summed and rng.random() < 0.85 else 1)
        for k in holders:
            found[k].append(x)
    for operand in found:
        if not operand:
            operand.append(rng.choice(letters))
        rng.shuffle(operand)
    return found


def reduction(s: Sketch) -> None:
    """Sums, norms and extremes over some dimensions of an array."""
    rng = s.rng
    depth = rng.choice((1, 2, 2, 2, 3, 3))
    letters = list("ijk"[:depth])
    kept = sorted(rng.sample(letters, rng.randint(0 if depth < 3 else 1, depth - 1)))
    bounds = {x: s.size(f"n{x}") for x in letters}
    stored = letters if s.chance(0.7) else rng.sample(letters, depth)
    element = at(s.array("A", *(bounds[x] for x in stored)), *stored)
    weight = [x for x in letters if x not in kept]
    other = at(s.array("w", *(bounds[x] for x in weight)), *weight)
    if s.chance(0.4):
        del s.arrays["w"]
        other = element
    shape = tuple(bounds[x] for x in kept) or ("1",)
    where = kept or ["0"]
    order = letters if s.chance(0.6) else rng.sample(letters, depth)
    loops = [(x, bounds[x]) for x in order]
    body = []
    for k in range(rng.choice((1, 1, 2, 3))):
        target = at(s.array(f"s{k}", *shape), *where)
        term = rng.choice(
            (element, f"{element} * {other}", f"({element} - {other}) * {element}",
             f"sqrt({element})", f"fabs({element} - 0.5)")
        )  # fmt: skip
        update = f"{target} = max({target}, {term})" if s.chance(0.12) else f"{target} += {term}"
        s.nest(0, [(x, bounds[x]) for x in kept], f"{target} = 0.0")
        body.append(update)
    if s.chance(0.6):
        s.nest(0, loops, *body)
    else:
        for line in body:
            s.nest(0, loops, line)


def matvec(s: Sketch) -> None:
    """One to three products of matrices and vectors, transposed or not, and rank-1 updates."""
    rng = s.rng
    n, m = s.size("n"), s.size("m")
    loops = [("i", n), ("j", m)]
    lines = []
    s.array("A", n, m)
    for k in range(rng.randint(1, 3)):
        kind = rng.choice(("plain", "plain", "transposed", "rank1", "second"))
        if kind == "rank1":
            lines.append(f"A[i, j] += {s.array(f'u{k}', n)}[i] * {s.array(f'v{k}', m)}[j]")
            continue
        matrix = s.array(f"B{k}", n, m) if kind == "second" else "A"
        out, column = ("j", "i") if kind == "transposed" else ("i", "j")
        y, x = s.array(f"y{k}", n if out == "i" else m), s.array(f"x{k}", m if out == "i" else n)
        source = x
        if k and s.chance(0.5):
            same = [a for a, e in s.arrays.items() if a[0] == "y" and a != y and e == s.arrays[x]]
            source = rng.choice(same) if same else x
        if source != x:
            del s.arrays[x]
        if s.chance(0.5):
            s.nest(0, [(out, n if out == "i" else m)], f"{y}[{out}] = 0.0")
        lines.append(f"{y}[{out}] += {matrix}[i, j] * {source}[{column}]")
    if s.chance(0.5):
        s.nest(0, loops if s.chance(0.75) else loops[::-1], *lines)
    else:
        for line in lines:
            s.nest(0, loops if s.chance(0.75) else loops[::-1], line)


# -- triangular --------------------------------------------------------------------------------


def _triangle(rng: Random, outer: str, inner: str, n: str) -> tuple[str, str]:
    """An inner loop over a part of a square."""
    return (inner, rng.choice((f"{outer} + 1", outer, f"{outer}, {n}", f"{outer} + 1, {n}")))


def triangular_product(s: Sketch) -> None:
    """Products whose result or operand is a triangle: rank-k updates, triangular matrices."""
    rng = s.rng
    n, m = s.size("n"), s.size("m")
    part = _triangle(rng, "i", "j", n)
    if s.chance(0.5):  # the result is triangular
        turned = s.chance(0.5)
        a, b = ("A", "A" if s.chance(0.5) else "B")
        for name in {a, b}:
            s.array(name, *((m, n) if turned else (n, m)))
        s.array("C", n, n)
        term = f"{a}[k, i] * {b}[k, j]" if turned else f"{a}[i, k] * {b}[j, k]"
        if a != b and s.chance(0.5):
            term += f" + {b}[k, i] * {a}[k, j]" if turned else f" + {b}[i, k] * {a}[j, k]"
        start = "C[i, j] = 0.0"
        if s.chance(0.4):
            start = f"C[i, j] = C[i, j] * {s.scalar('beta')}"
        inner = ("k", m)
        if s.chance(0.4):
            s.nest(0, [("i", n)])
            s.nest(1, [part], start)
            s.nest(1, [inner, part] if s.chance(0.6) else [part, inner], f"C[i, j] += {term}")
        else:
            s.nest(0, [("i", n), part], start)
            s.nest(2, [inner], f"C[i, j] += {term}")
        if "+ 1" in part[1] and s.chance(0.3):
            s.nest(0, [("i", n), part], "C[j, i] = C[i, j]")
    else:  # an operand is triangular
        s.array("A", n, n)
        s.array("B", n, m)
        target = "B" if "1" in part[1] and s.chance(0.5) else s.array("C", n, m)
        element = "A[i, j]" if s.chance(0.5) else "A[j, i]"
        value = f"{target}[i, k] += {element} * B[j, k]"
        loops = [("i", n), part, ("k", m)]
        if s.chance(0.5):
            loops = [loops[0], loops[2], loops[1]]
        elif s.chance(0.4):
            loops = [loops[2], loops[0], loops[1]]
        s.nest(0, loops, value)


def triangular_reduce(s: Sketch) -> None:
    """Sums and updates over triangles: packed products, prefix sums, pairwise distances."""
    rng = s.rng
    n = s.size("n")
    part = _triangle(rng, "i", "j", n)
    kind = rng.choice(("vector", "prefix", "pairs", "update", "vector"))
    s.array("A", n, n)
    if kind == "vector":
        s.array("x", n), s.array("y", n)
        lines = ["y[i] += A[i, j] * x[j]"]
        if s.chance(0.5):
            lines.append(f"{s.array('z', n)}[j] += A[i, j] * x[i]")
        s.nest(0, [("i", n), part], *lines)
    elif kind == "prefix":
        m = s.size("m")
        s.array("X", n, m), s.array("Y", n, m)
        loops = [("i", n), ("j", "i + 1"), ("k", m)]
        if s.chance(0.5):
            loops = [loops[0], loops[2], loops[1]]
        s.nest(0, loops, "Y[i, k] += A[i, j] * X[j, k]" if s.chance(0.5) else "Y[i, k] += X[j, k]")
        if "A" not in s.lines[-1]:
            del s.arrays["A"]
    elif kind == "pairs":
        m = s.size("m")
        s.array("X", n, m)
        s.nest(0, [("i", n), part], "A[i, j] = 0.0")
        s.nest(2, [("k", m)], "A[i, j] += (X[i, k] - X[j, k]) * (X[i, k] - X[j, k])")
        if s.chance(0.4):
            s.put(2, "A[i, j] = sqrt(A[i, j])")
    else:
        s.array("B", n, n)
        s.nest(0, [("i", n), part], rng.choice(
            ("A[i, j] = A[i, j] + B[j, i]", "A[i, j] = 0.5 * (A[i, j] + B[i, j])",
             "B[i, j] = A[j, i] * A[i, j]", "B[j, i] = 0.5 * A[i, j] + 1.0")
        ))  # fmt: skip
        if s.chance(0.4):
            s.nest(0, [("i", n), ("j", n)], "B[i, j] = B[i, j] * 0.5 + A[i, j] * 0.25")


# -- elementwise and layouts -------------------------------------------------------------------


def elementwise(s: Sketch) -> None:
    """Arithmetic on whole arrays, with broadcasts."""
    rng = s.rng
    rank = rng.choice((1, 2, 2, 3, 4))
    around = list("ijkl"[:rank])
    extents = [s.size(f"n{x}") for x in around]
    loops = list(zip(around, extents, strict=True))
    for k in range(rng.choice((1, 1, 2, 3))):
        out = at(s.array(f"Y{k}", *extents), *around)
        terms = []
        for name in rng.sample(("A", "B", "D", *(f"Y{j}" for j in range(k))), rng.randint(1, 2)):
            if name not in s.arrays:
                kept = around if s.chance(0.7) else sorted(rng.sample(around, max(1, rank - 1)))
                s.array(name, *(f"n{x}" for x in kept))
            terms.append(at(name, *(e[1:] for e in s.arrays[name])))
        a, b = terms[0], terms[-1]
        value = rng.choice(
            (f"{a} + {b}", f"{a} * {b} + 0.5", f"{a} / (1.0 + {b})", f"sqrt({a}) * {b}",
             f"exp({a} * 0.1) + {b}", f"{a} - 0.5 * {b}", f"max({a}, {b})",
             f"{a} * (1.0 - {a} * {b}) * 0.5")
        )  # fmt: skip
        if s.chance(0.3):
            value = f"{s.scalar('alpha')} * ({value})"
        s.nest(0, loops if s.chance(0.75) else rng.sample(loops, rank), f"{out} = {value}")


def transpose(s: Sketch) -> None:
    """Permuted, reversed and strided copies."""
    rng = s.rng
    rank = rng.choice((2, 2, 2, 3, 3, 4))
    around = list("ijkl"[:rank])
    extents = {x: s.size(f"n{x}") for x in around}
    turned = rng.sample(around, rank)
    if turned == around and s.chance(0.8):
        turned = around[::-1]
    source = [f"{extents[x]} - 1 - {x}" if s.chance(0.08) else x for x in turned]
    s.array("A", *(extents[x] for x in turned)), s.array("B", *(extents[x] for x in around))
    value = at("A", *source)
    if s.chance(0.5):
        value = f"{value} * 0.5 + {at('B', *around)}"
    loops = [(x, extents[x]) for x in (around if s.chance(0.6) else rng.sample(around, rank))]
    s.nest(0, loops, f"{at('B', *around)} = {value}")
    if s.chance(0.25):
        s.array("D", *(extents[x] for x in around))
        s.nest(0, loops, f"{at('D', *around)} = {at('B', *around)} + {at('A', *turned)}")
