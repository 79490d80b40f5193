"""The canonical text and the view of a loop nest."""

from dataclasses import replace

import numpy as np

from perfkit.errors import Location
from perfkit.frontends.python import from_function
from perfkit.ir.show import nest, text
from perfkit.ir.tree import parse


def smooth(A, x):
    n = A.shape[0]
    total = 0.0
    for i in range(1, n):
        total += x * A[i - 1]
        if A[i] > 0.5:
            A[i] = total + i
    for i in range(n - 1, -1, -2):
        A[i] = min(A[i], 1.0)


def scop():
    return from_function(smooth, np.zeros(4), 2.0)[0]


TEXT = """\
scop smooth(n)
where (n >= 0)
array A: float64[n]
array total: float64[] local
scalar x: float64
S0(): total[] = float64(0.0)
  for (true)
S1(i): total[] = (total[] + (x * A[i - 1]))
  for (i - 1 >= 0 and -i + n - 1 >= 0)
S2(i): A[i] = ((A[i] > float64(0.5)) ? (total[] + (float64) int64(i)) : A[i])
  for (i - 1 >= 0 and -i + n - 1 >= 0)
S3(i): A[i] = min(float64(1.0), A[i])
  for (-i + n - 1 >= 0 and i >= 0 and -i + n - 2*floor((-i + n - 1)/2) - 1 = 0)
{
  S0;
  for i(S1: i, S2: i)
    {
      S1;
      S2
    };
  for i_2(S3: -i)
    S3
}
"""

NEST = """\
S0: total = 0.0
for i
  S1: total += x * A[i - 1]
  S2: A[i] = total + i
for i_2 = -i
  S3: A[i] = min(A[i], 1.0)
"""


def test_text() -> None:
    assert text(scop()) == TEXT


def test_text_ignores_locations_and_sees_everything_else() -> None:
    base = scop()
    first = base.statements[0]
    moved = replace(first, location=Location("elsewhere", 99), text="other")
    assert text(base.with_statements((moved, *base.statements[1:]), base.tree)) == text(base)
    renamed = replace(base, name="g")
    longer = replace(base, arrays=(*base.arrays[:1], replace(base.arrays[1], dtype="float32")))
    dead = replace(base, arrays=(replace(base.arrays[0], live_out=False), *base.arrays[1:]))
    assert len({text(s) for s in (base, renamed, longer, dead)}) == 4


def test_nest() -> None:
    assert nest(scop()) == NEST


def test_nest_of_a_schedule_shows_marks() -> None:
    tree = parse("{S0; for i(S1: i, S2: i + 1) {S1; S2}; for k(S3: i) parallel S3}")
    shown = nest(scop(), tree)
    assert "for i = S1: i, S2: i + 1\n" in shown
    assert "for k = i parallel\n" in shown
