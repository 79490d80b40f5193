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


class GraphError(PerfkitError):
    """A region of an aten graph is not well formed, or its text was not written by perfkit."""


class BackendError(PerfkitError):
    """``torch.compile(backend="perfkit")``: an option is wrong, or ``strict`` met a problem."""


class SourceFileError(PerfkitError):
    """A source file cannot be read, or an optimized one cannot be written."""


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
            f"{transform}: violates the dependence {dependence}"
            + (f" ({detail})" if detail else "")
        )


class BudgetExceeded(PerfkitError):
    """isl used more operations than allowed; the caller falls back to the original schedule."""


class CodeTooLarge(BudgetExceeded):
    """A schedule whose code a compiler would spend minutes on."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(
            f"the schedule's code has {size / 1e6:.1f} MB, more than the {most / 1e6:.1f} MB that "
            "compilers manage in reasonable time: use smaller factors of Unroll and Jam, or "
            "distribute or tile less"
        )


class CheckFailed(PerfkitError):
    """A compiled kernel and the interpreter disagree: a bug to report."""


class InternalError(PerfkitError):
    """A broken invariant inside perfkit: a bug to report, never the user's fault."""


# --- settings and installation -------------------------------------------------------------


class SettingError(PerfkitError):
    """A setting (keyword or ``PERFKIT_*`` variable) is unknown or has a value out of range."""


class ExtensionMissing(PerfkitError):
    """The compiled extension of perfkit is not installed next to its Python sources."""


class LockTimeout(PerfkitError):
    """Another process held a lock for longer than ``Settings.lock_timeout``."""


# --- compiling and caching generated code --------------------------------------------------


class BuildError(PerfkitError):
    """Generated code could not be turned into a loadable kernel."""


class CompilerNotFound(BuildError):
    """No C compiler was found; the message says how to get one."""


class CompileError(BuildError):
    """The compiler refused generated code, or took too long; names the kept source file."""


class LoadError(BuildError):
    """A built shared object could not be loaded, or lacks the expected function."""


class GpuMissing(BuildError):
    """Triton, torch, or a GPU that a Triton kernel needs is missing; the message says which."""


class CacheError(PerfkitError):
    """Neither the kernel cache nor a temporary folder can be written."""


# --- calling a kernel ----------------------------------------------------------------------


class SignatureError(PerfkitError):
    """A kernel's signature contradicts itself; a bug in the code generator that made it."""


class CallError(PerfkitError):
    """A kernel refused a call before anything ran; each message names the argument."""


class ArgumentCountError(CallError, TypeError):
    """Too many or too few arguments, or a keyword that the kernel does not have."""


class ArgumentTypeError(CallError, TypeError):
    """An argument is not an array, or not a number, where one is needed."""


class DtypeError(CallError, TypeError):
    """An array's element type (or its byte order) differs from the kernel's."""


class RankError(CallError, ValueError):
    """An array has another number of dimensions than the kernel expects."""


class DeviceError(CallError, ValueError):
    """An array does not live in the memory of the CPU."""


class LayoutError(CallError, ValueError):
    """An array is not C-contiguous, or not aligned to its element size."""


class ReadOnlyError(CallError, ValueError):
    """The kernel writes to an array that may not be written."""


class SizeError(CallError, ValueError):
    """Sizes disagree with each other, with a constant, or exceed what fits."""


class OverlapError(CallError, ValueError):
    """A written array shares memory with another argument."""


class GradientError(CallError, RuntimeError):
    """A torch tensor asks for a gradient that a compiled kernel would silently lose."""


class BoundsError(CallError, IndexError):
    """With these sizes the program would access an array out of its bounds."""


class KernelFailure(PerfkitError, RuntimeError):
    """The compiled function reported a failure (a non-zero code) while it ran."""


# --- learning the cost model ---------------------------------------------------------------


class MeasureError(PerfkitError):
    """A program cannot be measured: its original order crashes, hangs or fails."""


class DatasetError(PerfkitError):
    """A data set cannot be read or written, is truncated, or has another version."""


class WeightsError(PerfkitError):
    """Weights of a cost model cannot be read, or belong to other features."""


class StoreError(PerfkitError):
    """The store of tuned schedules, or a file to import into it, cannot be used."""


# --- distributed: groups, collectives, placements, plans -----------------------------------


class DistributedError(PerfkitError):
    """Base of the errors of process groups, collectives, placements and sharding plans."""


class GroupError(DistributedError, ValueError):
    """A process group or mesh cannot be used: not one axis, unknown, or not of this process."""


class PlacementError(DistributedError, ValueError):
    """A placement contradicts itself, or two placements do not describe the same tensor."""


class SwitchError(DistributedError, ValueError):
    """A tensor, dimension or size does not fit split, switch, gather or reduce_scatter."""


class CollectiveError(DistributedError, RuntimeError):
    """A collective failed or timed out (a dead rank); names rank, stage and shapes."""


class MismatchError(CollectiveError):
    """Ranks called different collectives, or with different shapes or element types."""


class PlanError(DistributedError, ValueError):
    """No sharding plan exists for the stages given, or they contradict themselves."""


# --- the symmetric heap --------------------------------------------------------------------


class HeapError(DistributedError, RuntimeError):
    """A symmetric heap cannot be made, joined or used."""


class HeapMemoryError(HeapError, MemoryError):
    """There is too little shared memory, or a request exceeds the heap's slots or the limit."""


class HeapMismatch(HeapError, ValueError):
    """Ranks joined a heap with different sizes, numbers of ranks or generations."""


class HeapTimeout(HeapError, TimeoutError):
    """This rank waited too long for another one; the heap is dead on every rank."""


class HeapAborted(HeapError):
    """Rank ``by`` gave up waiting for rank ``waited_for``; the heap is dead on every rank."""

    def __init__(self, message: str, by: int, waited_for: int) -> None:
        self.by = by
        self.waited_for = waited_for
        super().__init__(message)
