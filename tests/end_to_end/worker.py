"""All variants of one program: make, compile, run, compare."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.polybench.registry import programs
from perfkit import config
from perfkit.analysis.dependences import Analysis
from perfkit.errors import BudgetExceeded
from perfkit.ir.isl import Polyhedra
from tests.end_to_end import compiled
from tests.end_to_end.memory import Guarded, arrays_of, difference
from tests.end_to_end.subjects import Subject, subject
from tests.end_to_end.variants import Plan, Variant, variants

SIZES = ("TINY", "MINI")
BUDGET = 20
"""One analysis serves so many times the schedules that it serves for a user."""
RETURNED = "the returned value"


@dataclass(frozen=True)
class Job:
    """One program from one frontend; ``warn`` names the compilers that must not warn."""

    program: str
    frontend: str
    plan: Plan
    sizes: tuple[str, ...] = SIZES
    full_every: int = 4  # each so many variants are fully optimized as well; 0: none
    warn: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """One variant that went wrong, with what is needed to see it again."""

    program: str
    frontend: str
    variant: str
    message: str
    script: str = ""
    fp: str = "strict"
    simd_bytes: int = 32
    source: str = ""

    def __str__(self) -> str:
        steps = "".join(f"\n    {line}" for line in self.script.splitlines())
        return (
            f"{self.program} {self.frontend} {self.variant} (fp={self.fp}, "
            f"{self.simd_bytes} bytes): {self.message}{steps}"
        )


@dataclass
class Report:
    """What one job did."""

    program: str
    frontend: str
    variants: int = 0
    random: int = 0
    runs: int = 0
    over_budget: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)


def run_job(job: Job, begin: Callable[[str], None] = lambda what: None) -> Report:
    """Everything for one job; ``begin`` is told what is about to run, for blaming a crash."""
    (program,) = programs(names=[job.program])
    begin("frontend")
    with tempfile.TemporaryDirectory(prefix="perfkit-e2e-") as place:
        return Run(job, subject(program, job.frontend), Path(place), begin).report()


class Run:
    """The steps of one job; ``extra`` variants are tried besides those of the plan."""

    def __init__(
        self,
        job: Job,
        which: Subject,
        folder: Path,
        begin: Callable[[str], None],
        extra: tuple[Variant, ...] = (),
    ) -> None:
        self.extra = extra
        self.job, self.subject, self.folder, self.begin = job, which, folder, begin
        self.analysis = Analysis(
            BUDGET * config.current().isl_max_operations,
            parallel_reductions=job.frontend == "python",
        )
        self.result = Report(job.program, job.frontend)
        self.by_label: dict[str, Variant] = {}
        self.sources: dict[str, str] = {}
        self.expected: dict[str, dict[str, Any]] = {}

    def report(self) -> Report:
        self.generate()
        if self.job.warn:
            self.check_warnings()
        if not self.job.sizes:
            return self.result
        hollow = {n: self.subject.hollow(s) for n, s in self.sources.items()}
        quick = dict(hollow)
        reference = self.subject.reference()
        if reference is not None:
            quick["reference"] = reference
        every = self.job.full_every
        full = dict(list(hollow.items())[::every]) if every else {}
        for flags, sources in ((compiled.QUICK, quick), (compiled.FULL, full)):
            if not sources:
                continue
            self.begin(f"compiling with {flags[0]}")
            library, problems = compiled.build(self.folder, sources, flags, f"all{flags[0]}.so")
            for label, problem in problems.items():
                self.fail(label, f"does not compile with {flags[0]}: {problem}")
            labels = [n for n in sources if n not in problems]
            if flags is compiled.QUICK:
                self.oracle(library)
            for size, expected in self.expected.items():
                for label in labels:
                    if label != "reference":
                        self.compare(library, label, size, expected, flags[0])
        return self.result

    # -- making ------------------------------------------------------------------------------

    def generate(self) -> None:
        for variant in self.made():
            label = f"v{len(self.by_label)}"
            self.by_label[label] = variant
            self.begin(f"generating {variant.name}\n{variant.script}")
            poly = Polyhedra(variant.state.scop)  # a budget of its own, as a user's kernel has
            try:
                self.sources[label] = self.subject.source(
                    label, variant.state, poly, variant.simd_bytes
                )
            except BudgetExceeded:
                self.result.over_budget += 1  # with a message for the user, who gets no code
            except Exception as error:
                self.fail(label, f"the generator raised {_brief(error)}")
            else:
                self.result.variants += 1
                self.result.random += variant.name.startswith("random")
            self.begin("scheduling")

    def made(self) -> Iterator[Variant]:
        self.begin("scheduling")
        try:
            yield from variants(self.subject, self.analysis, self.job.plan)
        except Exception as error:
            self.fail("", f"the scheduler raised {_brief(error)}")
        yield from self.extra

    def check_warnings(self) -> None:
        for compiler in self.job.warn:
            self.begin(f"warnings of {compiler}")
            for label, problem in compiled.warnings(self.folder, compiler, self.sources).items():
                self.fail(label, f"{compiler} warns: {problem}")

    # -- running -----------------------------------------------------------------------------

    def oracle(self, library: Path) -> None:
        """What the original computes, from which every strict schedule must not differ by a bit.

        For C that is the original file, compiled. A Python function gives the reference within
        rounding (its library functions are NumPy's); the bits are those of the original order.
        """
        program = self.subject.program
        for size in self.job.sizes:
            sizes = program.sizes[size]
            memory = Guarded.of(program.arguments(size))
            self.begin(f"the original at {size}")
            if self.subject.frontend == "python":
                returned = program.function(**memory.arguments)
            else:
                returned = self.subject.run(library, "reference", sizes, memory.arguments)
            expected = self.outputs(memory.arguments, returned)
            if size == self.job.sizes[0]:
                self.interpreter(size, expected)
            self.expected[size] = expected
            if self.subject.frontend == "python" and "v0" in self.sources:
                own = Guarded.of(program.arguments(size))
                self.begin(f"the compiled original at {size}")
                returned = self.subject.run(library, "v0", sizes, own.arguments)
                found = self.outputs(own.arguments, returned)
                problem = difference(expected, found, program.tolerance * 1e-3)
                if problem:
                    self.fail("v0", f"at {size}: differs from the function: {problem}")
                self.expected[size] = found

    def interpreter(self, size: str, expected: Mapping[str, Any]) -> None:
        program = self.subject.program
        memory = Guarded.of(program.arguments(size))
        self.begin(f"the interpreter at {size}")
        if not self.subject.interpret(
            program.sizes[size], memory.arguments, self.subject.scop, None
        ):
            return
        problem = difference(
            {n: v for n, v in expected.items() if n != RETURNED}, memory.arguments,
            program.tolerance * 1e-3,
        )  # fmt: skip
        if problem:
            self.fail("v0", f"at {size}: the interpreter differs from the original: {problem}")

    def outputs(self, arguments: Mapping[str, Any], returned: Any) -> dict[str, Any]:
        names = self.subject.compared(arguments)
        found = {name: np.array(arguments[name]) for name in names}
        if self.subject.returns:
            found[RETURNED] = np.float64(returned)
        return found

    def compare(
        self, library: Path, label: str, size: str, expected: Mapping[str, Any], flag: str
    ) -> None:
        program, variant = self.subject.program, self.by_label[label]
        sizes = program.sizes[size]
        memory = Guarded.of(program.arguments(size))
        self.begin(f"running {variant.name} ({flag}) at {size}\n{variant.script}")
        self.result.runs += 1
        try:
            returned = self.subject.run(library, label, sizes, memory.arguments)
        except Exception as error:
            self.fail(label, f"at {size}, {flag}: the call raised {_brief(error)}")
            return
        over = memory.overrun()
        if over:
            self.fail(label, f"at {size}, {flag}: writes outside of {over}")
        strict = variant.state.fp == "strict"
        found = self.outputs(memory.arguments, returned)
        if not strict:
            expected, found = self.meaningful(size, expected), self.meaningful(size, found)
        problem = difference(expected, found, None if strict else program.tolerance)
        if problem:
            self.fail(label, f"at {size}, {flag}: {problem}{self.blame(label)}")

    def meaningful(self, size: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """What remains comparable when sums are reordered: no scratch, no undefined parts."""
        program = self.subject.program
        defined = program.defined(program.sizes[size])
        return {
            n: np.asarray(v)[defined.get(n, ...)]
            for n, v in values.items() if n not in program.temporaries
        }  # fmt: skip

    def blame(self, label: str) -> str:
        """Whether the interpreter, in the order of the schedule, goes wrong as well."""
        program, variant = self.subject.program, self.by_label[label]
        size = self.job.sizes[0]
        first = Guarded.of(program.arguments(size))
        second = Guarded.of(program.arguments(size))
        state = variant.state
        sizes = program.sizes[size]
        try:
            self.subject.interpret(sizes, first.arguments, self.subject.scop, None)
            self.subject.interpret(sizes, second.arguments, state.scop, state.tree)
        except Exception as error:
            return f"; the interpreter raises {error!r}"
        tolerance = None if state.fp == "strict" else program.tolerance
        wrong = difference(
            self.meaningful(size, arrays_of(first.arguments)),
            self.meaningful(size, arrays_of(second.arguments)),
            tolerance,
        )
        return "; the schedule is wrong" if wrong else "; the generated code is wrong"

    def fail(self, label: str, message: str) -> None:
        job, variant = self.job, self.by_label.get(label)
        made = Failure(job.program, job.frontend, variant.name if variant else "", message)
        if variant is not None:
            made = replace(
                made, script=variant.script, fp=variant.state.fp, simd_bytes=variant.simd_bytes,
                source=self.sources.get(label, ""),
            )  # fmt: skip
        self.result.failures.append(made)


def _brief(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
