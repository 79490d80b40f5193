"""Names for the variables that the generator adds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, count

from perfkit.ir import tree as trees
from perfkit.ir.scop import Scop


class Names:
    """Hands out names that nothing else in the generated function has."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._derived: dict[tuple[str, str], str] = {}

    @staticmethod
    def of(scop: Scop, tree: trees.Node) -> Names:
        """Around the names of a program and of the loops of its schedule."""
        arrays = (a.name for a in scop.arrays)
        scalars = (s.name for s in scop.scalars)
        loops = (loop.name for loop in trees.loops(tree))
        return Names(chain(scop.parameters, arrays, scalars, loops))

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


__all__ = ["Names"]
