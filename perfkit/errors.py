"""The catalogue of errors that perfkit raises.

Every message says what is wrong, where (``file:line`` when there is a source) and what to do.
Callers catch :class:`PerfkitError`, or one of the families below it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a user's source file; ``line`` is 1-based, 0 when unknown."""

    file: str = "<unknown>"
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class PerfkitError(Exception):
    """Base class of every error that perfkit raises on purpose."""


# --- programs that cannot be handled -------------------------------------------------------


class SourceError(PerfkitError):
    """A problem at a place in the user's source: ``file:line: construct: why``."""

    def __init__(self, location: Location, construct: str, why: str) -> None:
        self.location = location
        self.construct = construct
        self.why = why
        super().__init__(f"{location}: {construct}: {why}")


class UnsupportedError(SourceError):
    """The construct is valid, but outside the affine class; the region is left as it was."""


class SyntaxProblem(SourceError):
    """The source cannot be parsed."""


# --- schedules -----------------------------------------------------------------------------


class ScheduleError(PerfkitError):
    """A schedule or a transform that cannot be applied."""


class ScriptError(ScheduleError):
    """The text of a schedule script cannot be parsed, or names what does not exist."""


class TransformError(ScheduleError):
    """A transform does not fit the loops it names (shape of the tree, factors, names)."""


class IllegalSchedule(ScheduleError):
    """A transform would violate a dependence; ``dependence`` names it."""

    def __init__(self, transform: str, dependence: str, detail: str = "") -> None:
        self.transform = transform
        self.dependence = dependence
        super().__init__(
            f"{transform}: violates the dependence {dependence}" + (f" ({detail})" if detail else "")
        )


class BudgetExceeded(PerfkitError):
    """isl used more operations than allowed; the caller falls back to the original schedule."""


class InternalError(PerfkitError):
    """A broken invariant inside perfkit: a bug to report, never the user's fault."""
