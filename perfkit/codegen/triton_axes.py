"""Which tensor axis each lane loop of a kernel is, and how variables look in each context.

All tensors of a kernel have one rank: a lane loop's axis is the number of lane loops around it. A
loop over whose lanes every statement reduces has no axis of its own: its products go through
``tl.dot``, or a trailing axis appears that ``tl.sum`` removes at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfkit.codegen.triton_space import Placed, Space
from perfkit.errors import TransformError


@dataclass(frozen=True)
class Axes:
    """``position`` of the lane loops that have an axis; ``contracted`` are the others."""

    position: Mapping[str, int]
    contracted: frozenset[str]
    sizes: Mapping[str, int]

    @staticmethod
    def of(space: Space) -> Axes:
        under: dict[str, list[Placed]] = {}
        for p in space.placed.values():
            for loop in p.lanes:
                under.setdefault(loop.name, []).append(p)
        grid = {loop.name for loop in space.launch.grid}
        contracted = frozenset(
            name
            for name, users in under.items()
            if name not in grid and all(name in p.reduced for p in users)
        )
        position: dict[str, int] = {}
        for p in space.placed.values():
            if len(p.reduced) > 1:
                raise TransformError(
                    f"{p.name} reduces over the lanes of {' and '.join(p.reduced)}; one at a time"
                )
            with_axis = [loop.name for loop in p.lanes if loop.name not in contracted]
            position |= {name: k for k, name in enumerate(with_axis)}
        return Axes(position, contracted, space.sizes)

    @property
    def rank(self) -> int:
        return max(self.position.values(), default=-1) + 1

    def shape(self, lanes: tuple[str, ...] | frozenset[str]) -> str:
        """The shape of a tensor that differs along ``lanes``, as text: ``(64, 1)``, or ``()``."""
        if not lanes:
            return "()"
        extents = ["1"] * self.rank
        for lane in lanes:
            extents[self.position[lane]] = str(self.sizes[lane])
        return f"({', '.join(extents)}{',' if len(extents) == 1 else ''})"

    def subscript(self, lane: str) -> str:
        """What gives ``tl.arange`` of a lane loop its axis: ``[:, None]``."""
        if lane in self.contracted or self.rank == 1:
            return ""
        axis = self.position[lane]
        return f"[{', '.join(':' if k == axis else 'None' for k in range(self.rank))}]"

    def trailing(self, lane: str) -> str:
        """The same with one more axis at the end, which is that of a contracted loop."""
        if self.rank == 0:
            return ""
        if lane in self.contracted:
            return f"[{'None, ' * self.rank}:]"
        return f"[{':, ' * self.rank}None]"


__all__ = ["Axes"]
