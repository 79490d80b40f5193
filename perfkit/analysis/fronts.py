"""Ordering questions about a set of instance pairs, answered level by level and remembered.

A legality check walks down the schedule vectors of two statements. What is left of a dependence
after some levels, the pairs whose outer values agree, depends on nothing but the expressions of
those levels, so a :class:`Front` keeps its answers: schedules that share a prefix (and the search
tries little else) ask isl only about the levels where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping

import islpy as isl

from perfkit.ir.affine import Affine


class PairSpace:
    """The variables of pairs ``[S[i] -> T[j]]``: builds isl expressions over both sides."""

    def __init__(
        self,
        pairs: isl.Set,
        parameters: tuple[str, ...],
        source: tuple[str, ...],
        target: tuple[str, ...],
    ) -> None:
        self._local = isl.LocalSpace.from_space(pairs.get_space())
        shared = {name: (isl.dim_type.param, k) for k, name in enumerate(parameters)}
        self._source = shared | {n: (isl.dim_type.in_, k) for k, n in enumerate(source)}
        offset = len(source)
        self._target = shared | {n: (isl.dim_type.in_, offset + k) for k, n in enumerate(target)}

    def _aff(self, expr: Affine, places: Mapping[str, tuple[isl.dim_type, int]]) -> isl.Aff:
        aff = isl.Aff.zero_on_domain(self._local)
        if expr.const:
            aff = aff.set_constant_val(expr.const)
        for name, c in expr.terms:
            kind, position = places[name]
            aff = aff.set_coefficient_val(kind, position, c)
        for div, c in expr.divs:
            inner = self._aff(div.inner, places).scale_down_val(div.divisor).floor()
            aff = aff.add(inner.scale_val(c))
        return aff

    def difference(self, source: Affine, target: Affine) -> isl.Aff:
        """``target(j) - source(i)``: positive where the source comes first."""
        return self._aff(target, self._target).sub(self._aff(source, self._source))


class Front:
    """Pairs of instances whose values agree so far, with remembered answers about one level."""

    __slots__ = ("_before", "_reversed", "_same", "pairs", "space")

    def __init__(self, space: PairSpace, pairs: isl.Set) -> None:
        self.space = space
        self.pairs = pairs
        self._reversed: dict[tuple[Affine, Affine], bool] = {}
        self._before: dict[tuple[Affine, Affine], bool] = {}
        self._same: dict[tuple[Affine, Affine], Front | None] = {}

    def _some(self, condition: isl.BasicSet) -> bool:
        return not self.pairs.intersect(isl.Set.from_basic_set(condition)).is_empty()

    def _part(self, condition: isl.Set) -> Front | None:
        part = self.pairs.intersect(condition)
        return None if part.is_empty() else Front(self.space, part)

    def reversed(self, source: Affine, target: Affine) -> bool:
        """Does some target have a smaller value than its source?"""
        key = (source, target)
        found = self._reversed.get(key)
        if found is None:
            if source.is_constant and target.is_constant:
                found = target.const < source.const
            else:
                found = self._some(self.space.difference(source, target).neg_basic_set())
            self._reversed[key] = found
        return found

    def before(self, source: Affine, target: Affine) -> bool:
        """Does some target have a larger value than its source?"""
        key = (source, target)
        found = self._before.get(key)
        if found is None:
            if source.is_constant and target.is_constant:
                found = target.const > source.const
            else:
                found = self._some(self.space.difference(source, target).neg().neg_basic_set())
            self._before[key] = found
        return found

    def same(self, source: Affine, target: Affine) -> Front | None:
        """The pairs with equal values; None when there is none."""
        key = (source, target)
        if key in self._same:
            return self._same[key]
        found: Front | None
        if source.is_constant and target.is_constant:
            found = self if source.const == target.const else None
        else:
            zero = self.space.difference(source, target).zero_basic_set()
            found = self._part(isl.Set.from_basic_set(zero))
        self._same[key] = found
        return found

    def reversed_pairs(self, source: Affine, target: Affine) -> isl.Set:
        condition = self.space.difference(source, target).neg_basic_set()
        return self.pairs.intersect(isl.Set.from_basic_set(condition))

    def different_pairs(self, source: Affine, target: Affine) -> isl.Set:
        zero = self.space.difference(source, target).zero_basic_set()
        return self.pairs.subtract(isl.Set.from_basic_set(zero))

    def largest_lead(self, source: Affine, target: Affine) -> int | None:
        """The maximum of ``source - target`` over the pairs; None when it is unbounded."""
        value = self.pairs.max_val(self.space.difference(source, target).neg())
        return value.to_python() if value.is_int() else None


__all__ = ["Front", "PairSpace"]
