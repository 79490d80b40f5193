"""The Python interface: :func:`optimize` a function, or decorate it with :func:`kernel`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal, overload

import numpy as np

from perfkit import config, log
from perfkit.analysis.bounds import bounds_check
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.check import check_kernel, example_sizes
from perfkit.codegen.triton import assemble
from perfkit.cost.calibration import shipped_for
from perfkit.cost.device import Gpu
from perfkit.errors import BudgetExceeded, SettingError
from perfkit.frontends.python import from_function
from perfkit.ir.scop import Scop
from perfkit.runtime.arguments import as_array
from perfkit.runtime.call import ordered
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.signature import Signature
from perfkit.runtime.tensors import HALF
from perfkit.runtime.triton_kernel import TritonKernel
from perfkit.runtime.triton_module import TritonSource
from perfkit.runtime.triton_timing import trial_of
from perfkit.schedule import seeds
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.search.auto import Problem
from perfkit.search.choose import Choice
from perfkit.search.compiled import Builder
from perfkit.search.decide import Trials, decide
from perfkit.search.explain import explain_choice
from perfkit.search.gpu import GpuChoice, candidates_gpu, choose_gpu, fastest

TARGETS = ("cpu", "triton")


@overload
def optimize(
    function: Callable[..., Any], *args: Any, target: Literal["cpu"] = ..., schedule: str = ...,
    fp: str | None = ..., measure: int = ..., search: str | None = ..., check: bool | None = ...,
    threads: int | None = ..., **keywords: Any,
) -> Kernel: ...  # fmt: skip


@overload
def optimize(
    function: Callable[..., Any], *args: Any, target: Literal["triton"], schedule: str = ...,
    fp: str | None = ..., measure: int = ..., check: bool | None = ..., threads: int | None = ...,
    **keywords: Any,
) -> TritonKernel: ...  # fmt: skip


def optimize(
    function: Callable[..., Any],
    *args: Any,
    target: str = "cpu",
    schedule: str = "auto",
    fp: str | None = None,
    measure: int = 0,
    search: str | None = None,
    check: bool | None = None,
    threads: int | None = None,
    **keywords: Any,
) -> Kernel | TritonKernel:
    """Compile a loop function for arguments like these.

    Args:
        function: plain loops over arrays (see the README for the subset).
        args, keywords: an example call. Their types and ranks are compiled in, their sizes are
            not. They are only written when ``measure`` runs on copies of them; never themselves.
        target: "cpu" for OpenMP C; "triton" for Triton kernels, called with torch CUDA tensors or
            CuPy arrays (see :class:`TritonKernel`). No GPU is needed to make them.
        schedule: "auto", "original", "parallel" and "pluto" (both for CPUs), or the text of a
            script.
        fp: "strict" keeps the order of every floating-point sum, "reassociate" may change it.
        measure: how many of the best-looking candidates to run; the fastest is kept, the original
            order included. 0 measures nothing.
        search: "beam"; "looper", the procedure of LOOPer; "seeds", no search. A schedule that an
            earlier search found for the same program, sizes and machine is used again.
        check: compare the result with the interpreter on small sizes before returning it.
        threads: threads of the kernel; default, the cores this process may use.

    Returns:
        A kernel, called like the function; ``schedule``, ``source`` and ``explain()`` tell more.

    Raises:
        UnsupportedError: the function is outside the affine class (file, line, construct).
        ScheduleError: a given script does not fit or is not legal.
        CompilerNotFound: there is no C compiler.
        SettingError: ``target`` is unknown, or cannot do what is asked.
    """
    settings = config.current()
    settings = replace(
        settings,
        fp=settings.fp if fp is None else fp,
        search=settings.search if search is None else search,
        check=settings.check if check is None else check,
        threads=settings.threads if threads is None else threads,
    )
    if target not in TARGETS:
        raise SettingError(f"target {target!r} is none of {', '.join(TARGETS)}")
    given = (args, dict(keywords))
    halves = any(map(_is_half, (*args, *keywords.values())))
    if target == "triton":
        args = tuple(map(_widened, args))
        keywords = {n: _widened(v) for n, v in keywords.items()}
    scop, signature = from_function(function, *args, **keywords)
    if target == "triton":
        gpu = Gpu.half() if halves else Gpu()
        return compile_triton(
            scop, signature, settings, gpu, schedule=schedule, measure=measure, example=given
        )
    example = (args, keywords)
    return compile_scop(
        scop, signature, settings, schedule=schedule, measure=measure, example=example
    )


def compile_triton(
    scop: Scop,
    signature: Signature,
    settings: config.Settings,
    gpu: Gpu,
    *,
    schedule: str = "auto",
    measure: int = 0,
    example: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), {}),
) -> TritonKernel:
    """The pipeline behind ``optimize(..., target="triton")``: analyse, map, generate, check."""
    analysis = Analysis(settings.isl_max_operations)
    state = State.start(scop, settings.fp)
    sizes = example_sizes(signature, *example)
    precondition = bounds_check(scop).problem

    def kernel_of(choice: GpuChoice) -> TritonKernel:
        module = TritonSource(choice.part.name, assemble([choice.part]), choice.part.kernels)
        return TritonKernel(
            signature, module, choice.seed.script, explain=choice.explain,
            precondition=precondition,
            predicted=choice.estimate.seconds if choice.estimate else None,
        )  # fmt: skip

    if measure > 0 and schedule == "auto":
        values = ordered(signature, *example)
        found = candidates_gpu(state, signature, analysis, sizes, gpu, measure)
        choice = fastest(found, lambda c: trial_of(kernel_of(c), values))
    else:
        choice = choose_gpu(state, signature, analysis, schedule, sizes, gpu)
    kernel = kernel_of(choice)
    if settings.check:
        check_kernel(scop, signature, kernel.on_copies, example_sizes(signature, *example) or None)
    return kernel


def _is_half(value: Any) -> bool:
    return str(getattr(value, "dtype", "")).removeprefix("torch.") in HALF


def _widened(value: Any) -> Any:
    """What half precision is computed in stands for it: only types and sizes are looked at."""
    if _is_half(value) and hasattr(value, "shape"):
        return SimpleNamespace(dtype="float32", shape=tuple(value.shape))
    return value


def compile_scop(
    scop: Scop,
    signature: Signature,
    settings: config.Settings,
    *,
    schedule: str = "auto",
    measure: int = 0,
    example: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), {}),
) -> Kernel:
    """The pipeline behind :func:`optimize`: analyse, decide, generate, compile, check."""
    builder = Builder.detect(settings)
    analysis = Analysis(settings.isl_max_operations, parallel_reductions=True)
    state = State.start(scop, settings.fp)
    precondition = bounds_check(scop).problem
    args, keywords = example
    problem = Problem(
        state, analysis, builder.machine, example_sizes(signature, *example),
        settings.threads, shipped_for(builder.machine, settings),
    )  # fmt: skip
    trials = None
    if measure > 0:
        data = _Data.of(signature, args, keywords)
        trials = Trials(
            lambda seed: _source(builder, analysis, signature, seed),
            lambda seed, source: builder.kernel(
                signature, source, seed.script, precondition=precondition
            ),
            data.timer,
        )
    choice = decide(problem, settings, builder.toolchain, schedule, measure, trials)
    try:
        kernel = _finish(builder, analysis, signature, choice, precondition)
    except BudgetExceeded as error:
        log.get("search").warning("%s: the original order is kept: %s", signature.name, error)
        choice = Choice(seeds.original(state))
        kernel = _finish(builder, analysis, signature, choice, precondition)
    if settings.check:
        check_kernel(scop, signature, kernel, example_sizes(signature, *example) or None)
    return kernel


def _finish(
    builder: Builder,
    analysis: Analysis,
    signature: Signature,
    choice: Choice,
    precondition: Callable[[Mapping[str, int]], str | None],
) -> Kernel:
    source = _source(builder, analysis, signature, choice.seed)
    explain = functools.partial(explain_choice, choice)
    return builder.kernel(
        signature, source, choice.script, explain=explain, precondition=precondition
    )


def _source(builder: Builder, analysis: Analysis, signature: Signature, seed: Seed) -> str:
    return builder.source(seed.state, signature, analysis.polyhedra(seed.state.scop))


@dataclass(frozen=True)
class _Data:
    """The example's arguments for timing: one copy of its arrays, which all candidates share."""

    values: Mapping[str, Any]
    pristine: Mapping[str, Any]
    written: tuple[str, ...]

    @staticmethod
    def of(signature: Signature, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> _Data:
        named = dict(zip((p.name for p in signature.inputs), args, strict=False)) | dict(keywords)
        arrays = {p.name: as_array(named[p.name], p) for p in signature.inputs if p.kind == "array"}
        copies = {n: np.array(a, copy=True) for n, a in arrays.items()}
        written = tuple(p.name for p in signature.inputs if p.written)
        return _Data({**named, **copies}, arrays, written)

    def timer(self, kernel: Kernel) -> Callable[[], float]:
        """One run on the original data; restoring them is not timed."""
        bound = kernel.bind(*(self.values[p.name] for p in kernel.signature.inputs))

        def once() -> float:
            for name in self.written:
                np.copyto(self.values[name], self.pristine[name])
            return bound.seconds()

        return once


def explain(kernel: Kernel | TritonKernel) -> str:
    """Why a kernel looks as it does: the chosen script and what else was considered."""
    return kernel.explain()


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """Decorator: optimise on the first call with arguments of these types and about this size.

    ``options`` are those of :func:`optimize`. The undecorated function stays reachable as
    ``__wrapped__``.
    """
    if function is None:
        return functools.partial(kernel, **options)
    return _Specialized(function, options)


class _Specialized:
    """A function with one kernel per combination of argument types and bucket of sizes."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._options = dict(options)
        self._kernels: dict[tuple[Any, ...], Kernel | TritonKernel] = {}

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.specialize(*args, **keywords)(*args, **keywords)

    def specialize(self, *args: Any, **keywords: Any) -> Kernel | TritonKernel:
        """The kernel for arguments of these types and about this size, compiled on first use.

        It takes any size; for much larger or smaller arrays another schedule may be better.
        """
        values = [*args, *keywords.values()]
        types = (*map(_type_of, args), *((n, _type_of(v)) for n, v in sorted(keywords.items())))
        key = (*types, _size_bucket(values))
        found = self._kernels.get(key)
        if found is None:
            found = optimize(self._function, *args, **self._options, **keywords)
            self._kernels[key] = found
        return found


def _type_of(value: Any) -> tuple[Any, ...]:
    shape = getattr(value, "shape", None)
    if shape is None:
        return (type(value),)
    return (type(value), str(value.dtype), len(shape))


def _size_bucket(values: Sequence[Any]) -> int:
    """Steps of 16 in the bytes of all arrays, about the distance between two cache levels.

    Bucket 0 ends at 32 KiB: whatever fits the first level is alike.
    """
    bits = sum(getattr(v, "nbytes", 0) for v in values).bit_length()
    return (max(bits - 16, 0) + 3) // 4


__all__ = [
    "Kernel", "TritonKernel", "compile_scop", "compile_triton", "explain",
    "kernel", "optimize",
]  # fmt: skip
