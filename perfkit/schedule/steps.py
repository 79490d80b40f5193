"""Growing a script step by step, keeping only the steps that are legal."""

from __future__ import annotations

from perfkit.analysis.dependences import Analysis, Dependences
from perfkit.errors import ScheduleError
from perfkit.ir.tree import Node
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


__all__ = ["Steps"]
