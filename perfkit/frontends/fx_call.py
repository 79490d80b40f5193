"""One call of a torch function: its tensors, and what the rules say about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from perfkit.frontends.fx import Access, Axis

Places = dict[str, Axis]
"""Where a tensor has the axes that are followed, by name."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Call:
    """A call by name, with the shapes of its tensors and the places of their axes.

    ``tensors`` lists tensor arguments in order, those of one level of lists and tuples included,
    then those of keywords.
    """

    def __init__(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_tensor: Callable[[Any], bool],
        places: Callable[[Any], Places],
    ) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs
        self.is_tensor = is_tensor
        self.tensors = list(_tensors(args, kwargs, is_tensor))
        self.shapes = [tuple(t.shape) for t in self.tensors]
        self.places = [places(t) for t in self.tensors]

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by keyword."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    def dim(self, position: int, name: str, default: Any = None) -> int | None:
        """A dimension of the first tensor, counted from the front; None if it is no integer."""
        found = self.arg(position, name, default)
        return found % len(self.shapes[0]) if isinstance(found, int) else None

    def rebuilt(self, tensors: Sequence[Any]) -> Arguments:
        """The arguments with other tensors in the place of ``self.tensors``."""
        left = iter(tensors)

        def replace(x: Any) -> Any:
            if self.is_tensor(x):
                return next(left)
            if type(x) in (list, tuple):
                return type(x)([next(left) if self.is_tensor(y) else y for y in x])
            return x

        args = tuple([replace(x) for x in self.args])
        return args, {name: replace(x) for name, x in self.kwargs.items()}


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def _tensors(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], is_tensor: Callable[[Any], bool]
) -> Iterator[Any]:
    for x in [*args, *kwargs.values()]:
        if is_tensor(x):
            yield x
        elif type(x) in (list, tuple):
            for y in x:
                if is_tensor(y):
                    yield y


Rewrite = Callable[[tuple[Any, ...], dict[str, Any], str, int], Arguments]
"""(args, kwargs, axis held, indices of it here) -> the arguments of the local call."""


class Reading(NamedTuple):
    """What a rule says: where results have which axes, and which axes the call mixes.

    Every tensor among the results has the same places. ``accesses`` has one entry for each tensor
    of the call. ``rewrite`` changes sizes and indices among the other arguments. ``shape`` is that
    of the result, where it cannot be told from a part of it (an axis that spans dimensions).
    ``as_reshape`` says that the rewritten arguments are those of ``torch.reshape``.
    """

    places: Places
    mixed: frozenset[str]
    accesses: tuple[Access, ...]
    rewrite: Rewrite | None = None
    shape: tuple[int, ...] | None = None
    as_reshape: bool = False


def read(
    call: Call,
    accesses: Sequence[Access],
    rewrite: Rewrite | None = None,
    *,
    share: float = 0.25,
) -> Reading:
    """The reading that follows from accesses: an axis is mixed where it is not carried.

    Where two operands bring one axis to different places, the first one keeps it. The other is then
    needed whole on every rank; that counts as mixing unless it has at most ``share`` of the
    elements of the largest operand (the bias of triangle attention).
    """
    places: Places = {}
    mixed: set[str] = set()
    largest = max([0, *[math.prod(shape) for shape in call.shapes]])
    for access, held, shape in zip(accesses, call.places, call.shapes, strict=True):
        for name, axis in held.items():
            found = access.carry(axis)
            elsewhere = found is not None and places.setdefault(name, found) != found
            if found is None or (elsewhere and math.prod(shape) > share * largest):
                mixed.add(name)
    return Reading(places, frozenset(mixed), tuple(accesses), rewrite)
