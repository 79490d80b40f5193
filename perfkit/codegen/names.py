"""Names: for the variables that the generator adds, and for those that C would not take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain, count

from perfkit.ir import tree as trees
from perfkit.ir.scop import Scop

_KEYWORDS = """
auto break case char const continue default do double else enum extern float for goto if inline int
long register restrict return short signed sizeof static struct switch typedef union unsigned void
volatile while asm typeof bool true false linux unix i386
"""  # of C and GNU C, and the macros that GNU C defines
_CALLED = """
abs aligned_alloc free syscall NAN INFINITY args
sqrt exp exp2 log log2 log10 pow fabs sin cos tan asin acos atan
atan2 sinh cosh tanh floor ceil trunc round rint fmin fmax fmod hypot cbrt erf expm1 log1p copysign
fma
"""  # by generated code; the functions with an f for float, too
_TAKEN = re.compile(
    r"_[_A-Z].*|u?int(8|16|32|64)_t|U?INT\d+_\w+|(min|max|mod|quotient|abs)_\w+|floor_div"
    r"|[a-z]\d+x\d+(_u)?|(omp|perfkit|PERFKIT)_\w*"
    rf"|{'|'.join(_KEYWORDS.split())}|({'|'.join(_CALLED.split())})f?"
)


def safe_names(scop: Scop, tree: trees.Node) -> Mapping[str, str]:
    """Other names for what a program calls by a word that means something in C."""
    names = Names.of(scop, tree)
    return {n: names.fresh(f"{n}_") for n in names.known() if _TAKEN.fullmatch(n)}


class Names:
    """Hands out names that nothing else in the generated function has."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._derived: dict[tuple[str, str], str] = {}

    @staticmethod
    def of(scop: Scop, tree: trees.Node, texts: Iterable[str] = ()) -> Names:
        """Around the names of a program, of the loops of its schedule, and those in C texts."""
        arrays = (a.name for a in scop.arrays)
        scalars = (s.name for s in scop.scalars)
        loops = (loop.name for loop in trees.loops(tree))
        words = (word for text in texts for word in re.findall(r"\w+", text))
        return Names(chain(scop.parameters, arrays, scalars, loops, words))

    def known(self) -> tuple[str, ...]:
        """The names that are taken, sorted."""
        return tuple(sorted(self._taken))

    def fresh(self, base: str) -> str:
        """``base`` with the first number that makes it new."""
        name = next(n for k in count(1) if (n := f"{base}{k}") not in self._taken)
        self._taken.add(name)
        return name

    def derived(self, name: str, suffix: str) -> str:
        """``name_suffix``, or something like it when that is taken; the same every time."""
        key = (name, suffix)
        if key not in self._derived:
            wanted = f"{name}_{suffix}"
            self._derived[key] = self.fresh(f"{wanted}_") if wanted in self._taken else wanted
            self._taken.add(self._derived[key])
        return self._derived[key]


__all__ = ["Names", "safe_names"]
