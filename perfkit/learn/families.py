"""Families of random programs: each draws the text of one program from a generator of numbers.

The families and their shares follow what affine codes consist of: contractions and reductions,
stencils, triangular loops, chains of producers and consumers, elementwise and layout changes, and
solvers with imperfect nests. Within a family the draw varies what matters to a schedule: depth,
order of the loops, layout of the operands, fusion of the source, dependences, arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perfkit.learn import families_dense as dense
from perfkit.learn import families_solve as solve
from perfkit.learn import families_space as space
from perfkit.learn.sketch import Sketch


@dataclass(frozen=True)
class Family:
    """``weight`` is the share of programs; ``group`` the kind of code that the mix is stated in."""

    name: str
    group: str
    weight: float
    draw: Callable[[Sketch], None]


FAMILIES: tuple[Family, ...] = (
    Family("contraction", "contractions and reductions", 0.13, dense.contraction),
    Family("reduction", "contractions and reductions", 0.06, dense.reduction),
    Family("matvec", "contractions and reductions", 0.06, dense.matvec),
    Family("jacobi", "stencils", 0.09, space.jacobi),
    Family("seidel", "stencils", 0.04, space.seidel),
    Family("fdtd", "stencils", 0.04, space.fdtd),
    Family("convolution", "stencils", 0.03, space.convolution),
    Family("triangular-product", "triangular", 0.09, dense.triangular_product),
    Family("triangular-reduce", "triangular", 0.06, dense.triangular_reduce),
    Family("pipeline", "producers and consumers", 0.11, space.pipeline),
    Family("products", "producers and consumers", 0.05, space.products),
    Family("normalise", "producers and consumers", 0.04, space.normalise),
    Family("elementwise", "elementwise and transposes", 0.06, dense.elementwise),
    Family("transpose", "elementwise and transposes", 0.04, dense.transpose),
    Family("factorise", "solvers", 0.03, solve.factorise),
    Family("substitute", "solvers", 0.02, solve.substitute),
    Family("sweep", "solvers", 0.02, solve.sweep),
    Family("orthogonalise", "solvers", 0.01, solve.orthogonalise),
    Family("dynamic", "solvers", 0.02, solve.dynamic),
)

HELD_OUT = frozenset({"fdtd", "normalise", "sweep", "triangular-reduce"})
"""Families that no model is trained on: how well does it carry over to other structures?"""

__all__ = ["FAMILIES", "HELD_OUT", "Family"]
