"""Where the elements of a tensor live: an isl relation from elements to (rank, local index).

A :class:`Placement` says, for each axis of a mesh of ranks, which dimension of the tensor that
axis shards, or that it replicates. Shards are balanced: of ``n`` indices over ``N`` ranks the
first ``n mod N`` ranks hold ``ceil(n / N)`` and the others ``floor(n / N)``, so a rank may hold
nothing and nothing is ever padded. Two mesh axes that shard the same dimension nest: the later
one splits what the earlier one left. Dynamic sequence parallelism (arXiv 2403.10266) is the
change from one placement to another; :mod:`perfkit.dsp.transfers` says what then moves.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import islpy as isl

from perfkit.comm.shards import Interval, shard_interval, shard_length, shard_lengths
from perfkit.errors import PlacementError

__all__ = [
    "Box", "Interval", "Placement", "shard_interval", "shard_length", "shard_lengths", "volume",
]  # fmt: skip

Box = tuple[Interval, ...]
"""One interval for each dimension of a tensor."""


def volume(box: Box) -> int:
    """Elements in a box."""
    return math.prod(stop - start for start, stop in box)


@dataclass(frozen=True, slots=True)
class Placement:
    """A tensor of ``shape`` on a ``mesh`` of ranks, numbered in row-major order.

    ``shards[a]`` is the dimension that mesh axis ``a`` shards, or None where it replicates.

    Raises:
        PlacementError: negative sizes, an empty mesh, or a dimension that does not exist.
    """

    shape: tuple[int, ...]
    mesh: tuple[int, ...]
    shards: tuple[int | None, ...]

    def __post_init__(self) -> None:
        if any(n < 0 for n in self.shape):
            raise PlacementError(f"shape {self.shape}: a length is negative")
        if not self.mesh or any(n < 1 for n in self.mesh):
            raise PlacementError(f"mesh {self.mesh}: needs at least one axis, each of 1 or more")
        if len(self.shards) != len(self.mesh):
            raise PlacementError(
                f"{len(self.shards)} entries of shards {self.shards} for the "
                f"{len(self.mesh)} axes of mesh {self.mesh}"
            )
        for dim in self.shards:
            if dim is not None and not 0 <= dim < len(self.shape):
                raise PlacementError(f"shape {self.shape} has no dimension {dim} to shard")

    @staticmethod
    def sharded(shape: tuple[int, ...], ranks: int, dim: int) -> Placement:
        """Dimension ``dim`` sharded over a flat group of ranks."""
        return Placement(shape, (ranks,), (dim,))

    @staticmethod
    def replicated(shape: tuple[int, ...], ranks: int) -> Placement:
        """Every rank of a flat group holds the whole tensor."""
        return Placement(shape, (ranks,), (None,))

    @property
    def ranks(self) -> int:
        return math.prod(self.mesh)

    def coordinates(self, rank: int) -> tuple[int, ...]:
        """The place of a rank on the mesh."""
        if not 0 <= rank < self.ranks:
            raise PlacementError(f"mesh {self.mesh} has no rank {rank}")
        place: list[int] = []
        for extent in reversed(self.mesh):
            rank, at = divmod(rank, extent)
            place.append(at)
        return tuple(reversed(place))

    def rank(self, coordinates: tuple[int, ...]) -> int:
        """The rank at a place on the mesh."""
        rank = 0
        for extent, at in zip(self.mesh, coordinates, strict=True):
            rank = rank * extent + at
        return rank

    def box(self, rank: int) -> Box:
        """The global indices that a rank holds (closed form of :meth:`relation`)."""
        bounds = [(0, n) for n in self.shape]
        for dim, extent, at in zip(self.shards, self.mesh, self.coordinates(rank), strict=True):
            if dim is not None:
                start, stop = bounds[dim]
                low, high = shard_interval(stop - start, extent, at)
                bounds[dim] = (start + low, start + high)
        return tuple(bounds)

    def local_shape(self, rank: int) -> tuple[int, ...]:
        """The shape of the tensor that a rank holds."""
        return tuple(stop - start for start, stop in self.box(rank))

    def relation(self, ctx: isl.Context) -> isl.Map:
        """``[element] -> [mesh coordinates, local index]``, the definition of the placement."""
        rank = len(self.shape)
        element = [f"e{d}" for d in range(rank)]
        place = [f"m{a}" for a in range(len(self.mesh))]
        local = [f"l{d}" for d in range(rank)]
        common = [f"0 <= e{d} < {n}" for d, n in enumerate(self.shape)]
        common += [f"0 <= m{a} < {n}" for a, n in enumerate(self.mesh)]
        cases = itertools.product(*(self._cases(dim) for dim in range(rank)))
        pieces = [" and ".join([*common, *case]) or "true" for case in cases] or ["false"]
        head = f"[{', '.join(element)}] -> [{', '.join(place + local)}]"
        text = "; ".join(f"{head} : {piece}" for piece in pieces)
        return isl.Map.read_from_str(ctx, f"{{ {text} }}")

    def _cases(self, dim: int) -> list[str]:
        """What ties element index, mesh coordinates and local index of one dimension, by case.

        Each mesh axis that shards the dimension has ``n mod N`` ranks of the longer length and
        the rest of the shorter one; with these two cases every constraint is affine.
        """
        cases: list[tuple[tuple[str, ...], str, int]] = [((), f"e{dim}", self.shape[dim])]
        for axis, sharded in enumerate(self.shards):
            if sharded != dim:
                continue
            split: list[tuple[tuple[str, ...], str, int]] = []
            at, ranks = f"m{axis}", self.mesh[axis]
            for constraints, index, length in cases:
                short, longer = divmod(length, ranks)
                for low, high, width in ((0, longer, short + 1), (longer, ranks, short)):
                    if low < high and width:
                        local = f"{index} - {width} {at} - {low * (short + 1 - width)}"
                        mine = (f"{low} <= {at} < {high}", f"0 <= {local} < {width}")
                        split.append(((*constraints, *mine), local, width))
            cases = split
        return [" and ".join((*constraints, f"l{dim} = {i}")) for constraints, i, _ in cases]
