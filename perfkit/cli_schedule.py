"""Choosing a schedule for one region of a C file, and trying it on made-up data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from perfkit import config
from perfkit.codegen.openmp import Options, generate_region
from perfkit.codegen.rewrite import ON_FAILURE
from perfkit.codegen.target import Target
from perfkit.errors import PerfkitError, ScriptError, SettingError
from perfkit.ir.expr import FLOATS
from perfkit.ir.scop import Scop
from perfkit.ir.tree import show as show_tree
from perfkit.runtime import measure
from perfkit.runtime.signature import Parameter, Signature
from perfkit.schedule import script as scripts
from perfkit.schedule import seeds
from perfkit.schedule.state import State
from perfkit.search.compiled import Builder

PLUTO = ("pluto-smart", "pluto-max", "pluto-min")
ROUNDS = 11


@dataclass(frozen=True)
class Request:
    """What the user asked for. ``schedule``: "", original, parallel, pluto or a script's path."""

    schedule: str = ""
    fp: str = "strict"
    measure: int = 0
    check: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)


class Choice(Protocol):
    """A schedule for one region."""

    @property
    def state(self) -> State: ...

    @property
    def script(self) -> str: ...

    def explain(self) -> str: ...


@dataclass(frozen=True)
class Chosen:
    """A :class:`Choice` as data."""

    name: str
    state: State
    script: str
    notes: tuple[str, ...] = ()

    def explain(self) -> str:
        """The schedule's name and script, its loops, and what was measured."""
        tree = show_tree(self.state.tree)
        steps = self.script.rstrip() or "(no step: the original order)"
        return "\n".join([f"schedule {self.name}:", steps, "loops:", tree, *self.notes])


Optimizer = Callable[[Scop, Request, config.Settings], Choice]


def optimize_scop(scop: Scop, request: Request, settings: config.Settings) -> Chosen:
    """The schedule that the request asks for.

    Raises:
        SettingError: a size that measuring needs is missing.
        ScheduleError: a script that does not fit the program.
    """
    state = State.start(scop, request.fp)
    builder = Builder.detect(settings)
    simd = builder.machine.simd_bytes or 16
    if request.schedule not in ("", "original", "parallel", "pluto"):
        chosen = _from_file(state, request.schedule)
    else:
        chosen = _from_seeds(state, request, simd)
    if request.measure:
        found = seeds.candidates(state, simd)[: request.measure + 1]
        candidates = [Chosen(s.name, s.state, s.script) for s in found]
        if chosen.state.tree not in [c.state.tree for c in candidates]:
            candidates.append(chosen)
        chosen = Trial(scop, request, builder).fastest(candidates)
    if request.check:
        Trial(scop, request, builder).check(chosen)
    return chosen


def _from_file(state: State, path: str) -> Chosen:
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ScriptError(
            f"--schedule {path}: neither original, parallel nor pluto, and no script can be "
            f"read there ({error.strerror or error})"
        ) from error
    return Chosen(Path(path).name, scripts.replay(state, text), text)


def _from_seeds(state: State, request: Request, simd: int) -> Chosen:
    if request.schedule == "original":
        return Chosen("original", state, "")
    found = {s.name: s for s in seeds.candidates(state, simd)}
    order = ("parallel",) if request.schedule == "parallel" else (*PLUTO, "parallel")
    for name in (*order, "original"):
        if name in found:
            return Chosen(name, found[name].state, found[name].script)
    return Chosen("original", state, "")


def generate(state: State, settings: config.Settings, simd_bytes: int) -> tuple[str, str]:
    """Prelude and body of the region's C."""
    options = Options(fp=state.fp, target=Target(simd_bytes, settings.threads))
    made = generate_region(state.scop, state.tree, options, on_failure=ON_FAILURE)
    return made.prelude, made.body


# -- trying ----------------------------------------------------------------------------------


class Trial:
    """A region compiled alone and run on random data of given sizes."""

    def __init__(self, scop: Scop, request: Request, builder: Builder) -> None:
        self.scop, self.builder, self.fp = scop, builder, request.fp
        self.sizes = known_sizes(scop, request.sizes)
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
                array = random.uniform(0.5, 1.5, shape).astype(p.dtype)
                if array.ndim == 2 and array.shape[0] == array.shape[1]:
                    # Solvers and factorisations need a well-conditioned matrix.
                    np.fill_diagonal(array, array.shape[0] + 1.0)
                values.append(np.ascontiguousarray(array))
            else:
                high = 2 if p.dtype == "bool" else 4
                values.append(np.ascontiguousarray(random.integers(0, high, shape), p.dtype))
        return values

    def kernel(self, chosen: Chosen) -> Any:
        source = self.builder.source(chosen.state, self.signature)
        return self.builder.kernel(self.signature, source, chosen.script)

    def outputs(self, chosen: Chosen) -> dict[str, Any]:
        values = self.data()
        self.kernel(chosen)(*values)
        live = {a.name for a in self.scop.arrays if a.live_out}
        names = [p.name for p in self.signature.parameters]
        return {n: v for n, v in zip(names, values, strict=True) if n in live}

    def original(self) -> Chosen:
        return Chosen("original", State.start(self.scop, self.fp), "")

    def check(self, chosen: Chosen, expected: Mapping[str, Any] | None = None) -> None:
        """Compare with the original order. Raises PerfkitError naming the first difference."""
        expected = self.outputs(self.original()) if expected is None else expected
        for name, value in self.outputs(chosen).items():
            tolerance = 1e-3 if value.dtype == np.float32 else 1e-8
            if not np.allclose(value, expected[name], rtol=tolerance, equal_nan=True):
                raise PerfkitError(
                    f"{self.scop.name}: schedule {chosen.name} gives another {name} than the "
                    "original order; this is a bug, please report it with the schedule"
                )

    def fastest(self, candidates: Sequence[Chosen]) -> Chosen:
        """The fastest by interleaved measuring; one that does not work is left out."""
        expected = self.outputs(self.original())
        working: list[Chosen] = []
        calls: list[Callable[[], float]] = []
        notes: list[str] = []
        for candidate in candidates:
            try:
                self.check(candidate, expected)
                calls.append(self.kernel(candidate).bind(*self.data()).seconds)
                working.append(candidate)
            except PerfkitError as error:
                notes.append(f"measured {candidate.name}: left out: {error}")
        samples = measure.interleaved(calls, ROUNDS, keep=(0,))
        for candidate, sample in zip(working, samples, strict=True):
            if sample.seconds:
                notes.append(f"measured {candidate.name}: {sample.minimum * 1e3:.3f} ms")
        best = min(
            range(len(working)),
            key=lambda k: samples[k].median if samples[k].seconds else float("inf"),
        )
        # A tie is no reason to change the program.
        base, top = samples[0], samples[best]
        if best and base.seconds and top.median > 0.98 * base.median:
            best = 0
        won = working[best]
        return Chosen(won.name, won.state, won.script, tuple(notes))


def known_sizes(scop: Scop, given: Mapping[str, int]) -> dict[str, int]:
    """A value for every size: the one given, else the largest that the program allows.

    Raises:
        SettingError: names the sizes that need ``--size``, or one that the program excludes.
    """
    sizes: dict[str, int] = {}
    missing: list[str] = []
    for name in scop.parameters:
        limit = _largest(scop, name)
        value = given.get(name, limit)
        if value is None:
            missing.append(name)
        else:
            sizes[name] = value
    if missing:
        pairs = " ".join(f"--size {n}=1000" for n in missing)
        raise SettingError(
            f"{scop.name}: measuring and checking need values for {', '.join(missing)}: add {pairs}"
        )
    if not scop.context.contains(sizes):
        values = ", ".join(f"{n}={v}" for n, v in sizes.items())
        raise SettingError(f"{scop.name}: the program does not allow {values}: {scop.context}")
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
