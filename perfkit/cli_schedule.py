"""Choosing a schedule for one region of a C file, and trying it on made-up data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perfkit import config
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.openmp import Options, generate_region
from perfkit.codegen.rewrite import ON_FAILURE
from perfkit.codegen.target import Target
from perfkit.cost.calibration import shipped_for
from perfkit.errors import CheckFailed, ScriptError, SettingError
from perfkit.ir.expr import FLOATS
from perfkit.ir.scop import Scop
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.signature import Parameter, Signature
from perfkit.schedule.seeds import Seed, original
from perfkit.schedule.state import State
from perfkit.search.auto import Problem
from perfkit.search.choose import NAMED, Choice
from perfkit.search.compiled import Builder
from perfkit.search.decide import Trials, decide
from perfkit.search.gpu import GpuChoice, choose_gpu

CHECK_EXTENTS = (17, 23, 19, 29, 13, 21)
"""Sizes for ``--check`` when nothing else is known: small, unequal, no multiples of vectors."""


@dataclass(frozen=True)
class Request:
    """What the user asked for. ``schedule``: auto, original, parallel, pluto or a script's path."""

    schedule: str = "auto"
    fp: str = "strict"
    measure: int = 0
    check: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)


Optimizer = Callable[[Scop, Request, config.Settings], Choice]


def optimize_scop(scop: Scop, request: Request, settings: config.Settings) -> Choice:
    """The schedule that the request asks for, measured and checked where it says so.

    Raises:
        SettingError: a size that measuring needs is missing.
        ScheduleError: a script that does not fit the program, or is not legal.
        CheckFailed: ``check`` found a difference.
    """
    state = State.start(scop, request.fp)
    analysis = Analysis(max_operations=settings.isl_max_operations)
    builder = Builder.detect(settings)
    text = request.schedule if request.schedule in NAMED else read_script(request.schedule)
    trials = None
    if request.measure and text == "auto":
        sizes = known_sizes(scop, request.sizes)
        trials = Trial(scop, sizes, builder).trials()
    else:
        sizes = likely_sizes(scop, request.sizes)
    model = shipped_for(builder.machine, settings)
    problem = Problem(state, analysis, builder.machine, sizes, settings.threads, model)
    choice = decide(problem, settings, builder.toolchain, text, request.measure, trials)
    if request.check:
        Trial(scop, check_sizes(scop, request.sizes), builder).check(choice.seed, original(state))
    return choice


def map_scop(scop: Scop, request: Request, settings: config.Settings) -> GpuChoice:
    """The mapping to a GPU that the request asks for, and its code.

    Raises:
        ScheduleError: a script that does not fit or is not legal; no mapping has Triton code.
        BudgetExceeded: isl used more operations than allowed.
    """
    text = request.schedule
    if text not in NAMED:
        text = read_script(text)
    analysis = Analysis(max_operations=settings.isl_max_operations)
    return choose_gpu(
        State.start(scop, request.fp), _symbolic(scop), analysis, text,
        likely_sizes(scop, request.sizes),
    )  # fmt: skip


def _symbolic(scop: Scop) -> Signature:
    """A region's sizes, scalars and arrays, in this order, as a launcher takes them.

    An extent that is not a plain size is left at 0: the launcher checks it by the SCoP's.
    """
    parameters = [Parameter(n, "size", "int64") for n in scop.parameters]
    parameters += [Parameter(s.name, "scalar", s.dtype) for s in scop.scalars]
    for a in scop.arrays:
        if not a.local:
            shape = tuple(str(e) if str(e) in scop.parameters else 0 for e in a.shape)
            written = a.name in scop.written
            parameters.append(Parameter(a.name, "array", a.dtype, a.rank, shape, written))
    return Signature(scop.name, tuple(parameters), scop.parameters)


def read_script(path: str) -> str:
    """The text of a schedule script. Raises ScriptError when it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError as error:
        raise ScriptError(
            f"--schedule {path}: neither {', '.join(NAMED)} nor a file that can be read "
            f"({error.strerror or error})"
        ) from error


def generate(state: State, settings: config.Settings, simd_bytes: int) -> tuple[str, str]:
    """Prelude and body of the region's C."""
    options = Options(fp=state.fp, target=Target(simd_bytes, settings.threads))
    made = generate_region(state.scop, state.tree, options, on_failure=ON_FAILURE)
    return made.prelude, made.body


# -- trying ----------------------------------------------------------------------------------


class Trial:
    """A region compiled alone and run on random data of given sizes."""

    def __init__(self, scop: Scop, sizes: Mapping[str, int], builder: Builder) -> None:
        self.scop, self.sizes, self.builder = scop, sizes, builder
        self.signature = self._signature()

    def _signature(self) -> Signature:
        parameters = [Parameter(n, "size", "int64") for n in self.scop.parameters]
        parameters += [Parameter(s.name, "scalar", s.dtype) for s in self.scop.scalars]
        for a in self.scop.arrays:
            if not a.local:
                shape = tuple(max(e.evaluate(self.sizes), 0) for e in a.shape)
                written = a.name in self.scop.written
                parameters.append(Parameter(a.name, "array", a.dtype, a.rank, shape, written))
        return Signature(self.scop.name, tuple(parameters), self.scop.parameters)

    def data(self) -> list[Any]:
        """Arguments in the signature's order, the same every time."""
        random = np.random.default_rng(0)
        values: list[Any] = []
        for p in self.signature.parameters:
            shape = tuple(int(e) for e in p.shape)
            if p.kind == "size":
                values.append(self.sizes[p.name])
            elif p.kind == "scalar":
                values.append(1.25 if p.dtype in FLOATS else 3)
            elif p.dtype in FLOATS:
                array = random.uniform(0.5, 1.5, shape)
                if array.ndim == 2 and array.shape[0] == array.shape[1]:
                    # Solvers and factorisations need a well-conditioned matrix.
                    np.fill_diagonal(array, array.shape[0] + 1.0)
                values.append(np.array(array, p.dtype))
            else:
                high = 2 if p.dtype == "bool" else 4
                values.append(np.array(random.integers(0, high, shape), p.dtype))
        return values

    def trials(self) -> Trials:
        """How candidates are measured on this data."""
        return Trials(self.source, self.kernel, lambda k: k.bind(*self.data()).seconds)

    def source(self, seed: Seed) -> str:
        return self.builder.source(seed.state, self.signature)

    def kernel(self, seed: Seed, source: str) -> Kernel:
        return self.builder.kernel(self.signature, source, seed.script)

    def outputs(self, seed: Seed) -> dict[str, Any]:
        values = self.data()
        self.kernel(seed, self.source(seed))(*values)
        live = {a.name for a in self.scop.arrays if a.live_out} & self.scop.written
        names = [p.name for p in self.signature.parameters]
        return {n: v for n, v in zip(names, values, strict=True) if n in live}

    def check(self, seed: Seed, base: Seed) -> None:
        """Compare with the original order. Raises CheckFailed naming the array that differs."""
        expected = self.outputs(base)
        for name, value in self.outputs(seed).items():
            tolerance = 1e-3 if value.dtype == np.float32 else 1e-8
            if not np.allclose(value, expected[name], rtol=tolerance, equal_nan=True):
                raise CheckFailed(
                    f"{self.scop.name}: {name} differs from the original order under schedule "
                    f"{seed.name} at sizes {dict(self.sizes)}: please report this with the script"
                )


def known_sizes(scop: Scop, given: Mapping[str, int]) -> dict[str, int]:
    """A value for every size: the one given, else the largest that the program allows.

    Raises:
        SettingError: names the sizes that need ``--size``, or one that the program excludes.
    """
    sizes: dict[str, int] = {}
    missing: list[str] = []
    for name in scop.parameters:
        value = given.get(name, _largest(scop, name))
        if value is None:
            missing.append(name)
        else:
            sizes[name] = value
    if missing:
        pairs = " ".join(f"--size {n}=1000" for n in missing)
        raise SettingError(
            f"{scop.name}: measuring needs values for {', '.join(missing)}: add {pairs}"
        )
    return _allowed(scop, sizes)


def likely_sizes(scop: Scop, given: Mapping[str, int]) -> dict[str, int]:
    """The sizes that are given or that the program bounds; the others stay open."""
    found = {n: given.get(n, _largest(scop, n)) for n in scop.parameters}
    return {n: value for n, value in found.items() if value is not None}


def check_sizes(scop: Scop, given: Mapping[str, int]) -> dict[str, int]:
    """Values for ``--check``: those given, small ones for the rest."""
    sizes: dict[str, int] = {}
    for k, name in enumerate(scop.parameters):
        limit = _largest(scop, name)
        small = CHECK_EXTENTS[k % len(CHECK_EXTENTS)]
        sizes[name] = given.get(name, small if limit is None else min(small, limit))
    if not given and not scop.context.contains(sizes):
        sizes = {n: min(max(CHECK_EXTENTS), _largest(scop, n) or 29) for n in scop.parameters}
    return _allowed(scop, sizes)


def _allowed(scop: Scop, sizes: dict[str, int]) -> dict[str, int]:
    if not scop.context.contains(sizes):
        values = ", ".join(f"{n}={v}" for n, v in sizes.items())
        raise SettingError(
            f"{scop.name}: the program is not for sizes {values} (it needs {scop.context}); "
            "give others with --size"
        )
    return sizes


def _largest(scop: Scop, name: str) -> int | None:
    """The constant that every case of the context bounds a size by."""
    bounds: list[int] = []
    for piece in scop.context.pieces:
        limits = [c.expr.const for c in piece if c.expr.terms == ((name, -1),) and not c.expr.divs]
        if not limits:
            return None
        bounds.append(min(limits))
    return max(bounds, default=None)


__all__ = ["Choice", "Optimizer", "Request", "Trial", "generate", "map_scop", "optimize_scop"]
