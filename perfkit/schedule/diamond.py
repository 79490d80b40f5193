"""Diamond tiles: blocks of time and space that all threads can start on at once.

Tiles of a skewed time loop start one after the other, as wavefronts that grow and shrink. Where
no dependence is steeper than a line in either direction of space, tiles bounded by both families
of lines, (t + x) and (t - x), leave whole rows of tiles without a dependence between them
(V. Bandishti, I. Pananilath and U. Bondhugula, "Tiling stencil computations to maximize
parallelism", 2012).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from perfkit.analysis.dependences import Analysis, Dependences
from perfkit.errors import TransformError
from perfkit.ir.affine import Affine
from perfkit.ir.tree import Loop, Node, statements
from perfkit.schedule.base import (
    TreeTransform,
    chain,
    loop_names,
    nest,
    replace_node,
    require,
    tidy,
)
from perfkit.schedule.legality import leads
from perfkit.schedule.state import State
from perfkit.schedule.tiling import tile_name


@dataclass(frozen=True)
class Diamond(TreeTransform):
    """Tile a time loop and the skewed loop inside it by diamonds.

    Before ``for t(S: t) for i(S: i + t) S``, after ``Diamond(t, i, 8)``:
    ``for t_t(S: floor((i+t)/8) + floor((t-i)/8)) for i_t(S: floor((i+t)/8)) for t(S: t)
    for i(S: i + t) S``. ``t_t`` counts rows of tiles; ``i_t`` is parallel afterwards. A tile spans
    about 8 iterations of ``i``, and of ``t`` where it moves by one per step.

    The second family of lines is found from the dependences: the least steep one, and for each
    statement the smallest delay, that no dependence crosses backwards. Where there is none, as with
    sweeps in place, the step is refused.
    """

    time: str
    loop: str
    size: int

    def __str__(self) -> str:
        return f"Diamond({self.time}, {self.loop}, {self.size})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        whole = isinstance(self.size, int) and self.size >= 2
        require(whole, self, "the size must be an integer above 1")
        tree = tidy(state.tree)
        band = chain(tree, self.time)[:2]
        inside = len(band) == 2 and band[1].name == self.loop
        require(inside, self, f"{self.loop} is not the only loop directly inside {self.time}")
        time, space = band
        slope = _slope(time, space)
        require(slope > 0, self, f"{self.loop} is not skewed by a positive multiple of {self.time}")
        deps = analysis.dependences(state.scop, state.fp)
        back = _lines(deps, tree, time, space, slope)
        if back is None:
            raise TransformError(
                f"{self}: dependences cross every line of the second family backwards, as those "
                "of a sweep in place do"
            )
        taken = loop_names(tree)
        names = statements(space)
        ahead = {s: space.expression(s).floordiv(self.size) for s in names}
        rows = tuple((s, ahead[s] + back[s].floordiv(self.size)) for s in names)
        outer = replace(time, name=tile_name(time.name, taken), schedule=rows, marks=())
        inner = replace(
            space, name=tile_name(space.name, taken | {outer.name}), marks=(),
            schedule=tuple(ahead.items()),
        )  # fmt: skip
        return (replace_node(tree, time, nest((outer, inner, *band), space.body)),)


def _slope(time: Loop, space: Loop) -> int:
    """By how much ``space`` moves with one step of ``time``; 0 when statements differ in it."""
    found: set[int] = set()
    for name in statements(space):
        when, where = time.expression(name), space.expression(name)
        for iterator in when.names():
            step = when.coefficient(iterator)
            found.add(where.coefficient(iterator) // step if step else 0)
    return found.pop() if len(found) == 1 else 0


def _lines(
    deps: Dependences, tree: Node, time: Loop, space: Loop, slope: int
) -> Mapping[str, Affine] | None:
    """What grows along time and against space for every statement, and along every dependence."""
    for steep in range(1, 2 * slope + 1):
        lines = {
            s: time.expression(s) * (slope + steep) - space.expression(s) for s in statements(space)
        }
        needed = leads(deps, tree, time.name, lines)
        delays = _delays(statements(space), needed)
        if delays is not None:
            return {s: line + delays[s] for s, line in lines.items()}
    return None


def _delays(
    names: tuple[str, ...], needed: Mapping[tuple[str, str], int | None]
) -> dict[str, int] | None:
    """The smallest delays with ``delay[b] - delay[a] >= needed[a, b]`` (Bellman and Ford)."""
    delays = dict.fromkeys(names, 0)
    for _ in range(len(names) + 1):
        changed = False
        for (a, b), least in needed.items():
            if least is None:
                return None
            if delays[a] + least > delays[b]:
                delays[b] = delays[a] + least
                changed = True
        if not changed:
            return delays
    return None


__all__ = ["Diamond"]
