"""Growing a script step by step, keeping only the steps that are legal."""

from __future__ import annotations

from collections.abc import Mapping

from perfkit.analysis.dependences import Analysis, Dependences
from perfkit.analysis.footprint import trips_of
from perfkit.errors import ScheduleError
from perfkit.ir.tree import Node, find_loop, paths, statements
from perfkit.schedule.script import apply_step
from perfkit.schedule.state import State, Transform


class Steps:
    """A state and the steps that led to it."""

    def __init__(self, state: State, analysis: Analysis, done: tuple[Transform, ...] = ()) -> None:
        self.state = state
        self.analysis = analysis
        self.done = done

    @property
    def tree(self) -> Node:
        return self.state.tree

    @property
    def dependences(self) -> Dependences:
        return self.analysis.dependences(self.state.scop, self.state.fp)

    def copy(self) -> Steps:
        return Steps(self.state, self.analysis, self.done)

    def reset(self, other: Steps) -> None:
        """Continue from where ``other`` is."""
        self.state, self.done = other.state, other.done

    def take(self, step: Transform) -> None:
        """Apply a step. Raises ScheduleError where it is refused."""
        self.state = apply_step(self.state, step, self.analysis)
        self.done = (*self.done, step)

    def attempt(self, *steps: Transform) -> bool:
        """Apply all the steps, or none when one of them is refused."""
        state, done = self.state, self.done
        try:
            for step in steps:
                self.take(step)
        except ScheduleError:
            self.state, self.done = state, done
            return False
        return True

    def trips(self, loop: str, values: Mapping[str, int]) -> float | None:
        """How often a loop runs on average, where ``values`` has all the program's sizes."""
        scop = self.state.scop
        if not values.keys() >= set(scop.parameters):
            return None
        name = statements(find_loop(self.tree, loop))[-1]
        path = paths(self.tree)[name]
        place = next(k for k, (x, _) in enumerate(path) if x.name == loop)
        poly = self.analysis.polyhedra(scop)
        return trips_of(poly, name, tuple(v for _, v in path), values)[place].mean


__all__ = ["Steps"]
