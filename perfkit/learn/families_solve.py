"""Random solvers: factors, substitutions, sweeps, dynamic programming. Imperfect nests."""

from __future__ import annotations

from perfkit.learn.sketch import Sketch


def factorise(s: Sketch) -> None:
    """Triangular factors of a matrix in place; the orders of the loops differ."""
    rng = s.rng
    n = s.size("n")
    s.array("A", n, n)
    kind = rng.choice(("right", "right", "left", "symmetric", "symmetric-left"))
    if kind == "right":
        s.nest(0, [("k", n)])
        rows, columns = ("i", f"k + 1, {n}"), ("j", f"k + 1, {n}")
        update = "A[i, j] -= A[i, k] * A[k, j]"
        s.nest(1, [rows], "A[i, k] = A[i, k] / A[k, k]")
        if s.chance(0.5):
            s.nest(1, [rows, columns] if s.chance(0.7) else [columns, rows], update)
        else:
            s.nest(2, [columns], update)
        if s.chance(0.3):
            s.array("b", n)
            s.nest(1, [rows], "b[i] -= A[i, k] * b[k]")
    elif kind == "left":
        s.nest(0, [("i", n)])
        s.nest(1, [("j", "i")])
        s.nest(2, [("k", "j")], "A[i, j] -= A[i, k] * A[k, j]")
        s.put(2, "A[i, j] = A[i, j] / A[j, j]")
        s.nest(1, [("j", f"i, {n}"), ("k", "i")], "A[i, j] -= A[i, k] * A[k, j]")
    elif kind == "symmetric":
        s.nest(0, [("k", n)], "A[k, k] = sqrt(A[k, k])")
        s.nest(1, [("i", f"k + 1, {n}")], "A[i, k] = A[i, k] / A[k, k]")
        s.nest(1, [("i", f"k + 1, {n}"), ("j", "k + 1, i + 1")], "A[i, j] -= A[i, k] * A[j, k]")
    else:
        s.nest(0, [("i", n)])
        s.nest(1, [("j", "i")])
        s.nest(2, [("k", "j")], "A[i, j] -= A[i, k] * A[j, k]")
        s.put(2, "A[i, j] = A[i, j] / A[j, j]")
        s.nest(1, [("k", "i")], "A[i, i] -= A[i, k] * A[i, k]")
        s.put(1, "A[i, i] = sqrt(A[i, i])")


def substitute(s: Sketch) -> None:
    """Triangular systems with one or many right-hand sides, forward or backward."""
    n = s.size("n")
    s.array("L", n, n)
    element = "L[i, j]" if s.chance(0.65) else "L[j, i]"
    order = ("i", n) if s.chance(0.7) else ("i", f"{n} - 1, -1, -1")
    known = ("j", "i") if order[1] == n else ("j", f"i + 1, {n}")
    if s.chance(0.5):
        m = s.size("m")
        s.array("X", n, m)
        if s.chance(0.5):
            s.nest(0, [order, known, ("k", m)], f"X[i, k] -= {element} * X[j, k]")
            s.nest(1, [("k", m)], "X[i, k] = X[i, k] / L[i, i]")
        else:
            s.nest(0, [("k", m), order, known], f"X[i, k] -= {element} * X[j, k]")
            s.put(2, "X[i, k] = X[i, k] / L[i, i]")
    else:
        s.array("b", n), s.array("x", n)
        s.nest(0, [order], "x[i] = b[i]")
        s.nest(1, [known], f"x[i] -= {element} * x[j]")
        s.put(1, "x[i] = x[i] / L[i, i]")


def sweep(s: Sketch) -> None:
    """Recurrences along rows or columns of a plane, there and back (tridiagonal systems)."""
    n, m = s.size("n"), s.size("m")
    for name in ("P", "Q", "U"):
        s.array(name, n, m)
    row = s.chance(0.5)
    line, extent, along, length = ("i", n, "j", m) if row else ("j", m, "i", n)
    before = "[i, j - 1]" if row else "[i - 1, j]"
    after = "[i, j + 1]" if row else "[i + 1, j]"
    forward = [(line, extent), (along, f"1, {length}")]
    backward = [(line, extent), (along, f"{length} - 2, -1, -1")]
    if s.chance(0.4):
        forward, backward = forward[::-1], backward[::-1]
    timed = s.chance(0.4)
    if timed:
        s.nest(0, [("t", s.size("steps"))])
    depth = int(timed)
    s.nest(depth, forward, f"P[i, j] = 0.5 / (2.0 - 0.5 * P{before})",
           f"Q[i, j] = (U[i, j] + 0.5 * Q{before}) / (2.0 - 0.5 * P[i, j])")  # fmt: skip
    s.nest(depth, backward, f"U[i, j] = P[i, j] * U{after} + Q[i, j]")
    if s.chance(0.4):
        s.nest(depth, [("i", n), ("j", m)], "U[i, j] = 0.5 * (U[i, j] + Q[i, j])")


def orthogonalise(s: Sketch) -> None:
    """Column by column, each against the earlier ones."""
    n, m = s.size("n"), s.size("m")
    s.array("A", n, m), s.array("Q", n, m), s.array("R", m, m), s.array("d", m)
    s.nest(0, [("k", m)], "d[k] = 0.001")
    s.nest(1, [("i", n)], "d[k] += A[i, k] * A[i, k]")
    s.put(1, "R[k, k] = sqrt(d[k])")
    s.nest(1, [("i", n)], "Q[i, k] = A[i, k] / R[k, k]")
    if s.chance(0.5):
        s.nest(1, [("j", f"k + 1, {m}")], "R[k, j] = 0.0")
        s.nest(2, [("i", n)], "R[k, j] += Q[i, k] * A[i, j]")
        s.nest(2, [("i", n)], "A[i, j] -= Q[i, k] * R[k, j]")
    else:
        s.nest(1, [("j", f"k + 1, {m}")], "R[k, j] = 0.0")
        s.nest(1, [("i", n), ("j", f"k + 1, {m}")], "R[k, j] += Q[i, k] * A[i, j]")
        s.nest(1, [("i", n), ("j", f"k + 1, {m}")], "A[i, j] -= Q[i, k] * R[k, j]")


def dynamic(s: Sketch) -> None:
    """Tables filled by smallest or largest choices: paths, alignments, chains."""
    rng = s.rng
    n = s.size("n")
    kind = rng.choice(("paths", "align", "chain", "closure"))
    if kind in ("paths", "closure"):
        s.array("D", n, n)
        line = "D[i, j] = min(D[i, j], D[i, k] + D[k, j])"
        if kind == "closure":
            line = "D[i, j] = max(D[i, j], D[i, k] * D[k, j] * 0.5)"
        s.nest(0, [("k", n), ("i", n), ("j", n)], line)
    elif kind == "align":
        m = s.size("m")
        s.array("D", n, m), s.array("a", n), s.array("b", m)
        best = f"max(D[i - 1, j - 1] + a[i] * b[j], {rng.choice(('D[i - 1, j]', 'D[i, j - 1]'))})"
        if s.chance(0.7):
            best = f"max({best}, D[i, j - 1] - 0.5)"
        s.nest(0, [("i", f"1, {n}"), ("j", f"1, {m}")], f"D[i, j] = {best}")
    else:
        s.array("D", n, n), s.array("w", n)
        s.nest(0, [("i", f"{n} - 1, -1, -1"), ("j", f"i + 1, {n}"), ("k", "i, j")],
               "D[i, j] = max(D[i, j], D[i, k] + D[k + 1, j] * w[i])")  # fmt: skip
