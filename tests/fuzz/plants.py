"""Bugs to plant into perfkit for a while, to see that the fuzz finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from perfkit.analysis import dependences
from perfkit.analysis.fronts import Front
from perfkit.errors import IllegalSchedule
from perfkit.ir.affine import Affine
from perfkit.schedule import legality
from perfkit.schedule.loops import Interchange


def _drop_anti() -> Any:
    compute = dependences._value_based

    def without(poly: Any, keep: Any, kinds: Any) -> Any:
        return compute(poly, keep, [k for k in kinds if k != "anti"])

    return patch.object(dependences, "_value_based", without)


def _ge_for_gt() -> Any:
    same = Front.same

    def satisfied(self: Front, source: Affine, target: Affine) -> Front | None:
        constant = source.is_constant and target.is_constant
        return same(self, source, target) if constant else None

    return patch.object(Front, "same", satisfied)


def _marks_unproved() -> Any:
    return patch.object(legality, "mark_violation", lambda *_: None)


def _jam_outer() -> Any:
    marks = legality._marks

    def without(*arguments: Any) -> Any:
        deps, key, front, source, target, *rest = arguments
        strip = [
            tuple((e, x and replace(x, marks=tuple(m for m in x.marks if m.kind != "jam")))
                  for e, x in levels)
            for levels in (source, target)
        ]  # fmt: skip
        return marks(deps, key, front, *strip, *rest)

    return patch.object(legality, "_marks", without)


def _too_strict() -> Any:
    def refuse(self: Interchange, state: Any, analysis: Any = None) -> Any:
        raise IllegalSchedule(str(self), "nothing at all")

    return patch.object(Interchange, "apply", refuse)


PLANTS: dict[str, Callable[[], Any]] = {
    "drop-anti": _drop_anti,
    "ge-for-gt": _ge_for_gt,
    "marks-unproved": _marks_unproved,
    "jam-outer": _jam_outer,
    "too-strict": _too_strict,
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """perfkit with the named bug; an empty name plants nothing."""
    if not name:
        yield
        return
    with PLANTS[name]():
        yield
