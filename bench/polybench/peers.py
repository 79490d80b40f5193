"""Who is compared: how each peer's candidates are made from a program, or why there are none.

A peer may have several candidates (Polly on two forms of the source, Pluto through two
compilers, numba with and without prange); all are measured and listed, the best one counts.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.polybench import forms, prange
from bench.polybench.registry import Program

ORIGINAL = "gcc"
OURS = "perfkit"
NATIVE = ("-O3", "-march=native")
REFERENCE = ("-O2", "-ffp-contract=off")
POLLY = (
    *("-mllvm", "-polly", "-mllvm", "-polly-parallel"),
    *("-mllvm", "-polly-vectorizer=stripmine"),
)
PLUTO = ("--tile", "--parallel")
_SHARED = ("-std=gnu11", "-shared", "-fPIC", "-w")
_CLANGS = ("clang-22", "clang-23", "clang-21", "clang-20", "clang")
_COMPILE_TIMEOUT = 300.0

_POLLY_PROBE = """
void probe(double A[restrict 500][500], double B[restrict 500][500], double C[restrict 500][500])
{
    for (int i = 0; i < 500; i++)
        for (int j = 0; j < 500; j++)
            for (int k = 0; k < 500; k++)
                C[i][j] += A[i][k] * B[k][j];
}
"""


class Unavailable(Exception):
    """A peer, or one of its candidates, cannot take part; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """One thing to run: what a worker needs to load it."""

    name: str  # "polly:fixed"
    peer: str  # the column it belongs to
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """The candidates of a peer for one program, and the reasons of those that are missing."""

    candidates: tuple[Candidate, ...]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Tools:
    """What was found on this machine; a missing tool is a reason in words."""

    gcc: str
    clang: str
    polly: str
    polycc: str
    reasons: Mapping[str, str]

    @classmethod
    def detect(cls) -> Tools:
        """Look for the peers' tools and try out Polly.

        Raises:
            Unavailable: there is no gcc, so there is nothing to compare with.
        """
        gcc = shutil.which("gcc")
        if gcc is None:
            raise Unavailable("gcc was not found: it compiles the original")
        clangs = [path for path in map(shutil.which, _CLANGS) if path]
        polly, why = "", "clang was not found" if not clangs else ""
        for clang in clangs:
            why = _polly_problem(clang)
            if not why:
                polly = clang
                break
        polycc = shutil.which("polycc") or shutil.which("pluto") or ""
        reasons = {
            "clang": "" if clangs else "clang was not found",
            "polly": why,
            "pluto": "" if polycc else "polycc was not found on PATH",
            "numba": _missing_module("numba"),
            "blas": _missing_module("scipy"),
        }
        return cls(gcc, polly or (clangs[0] if clangs else ""), polly, polycc, reasons)

    def versions(self) -> dict[str, str]:
        """First line of each tool's own version text."""
        found = {"gcc": self.gcc, "clang": self.clang, "polycc": self.polycc}
        return {name: _first_line([path, "--version"]) for name, path in found.items() if path}


def _polly_problem(clang: str) -> str:
    """Why this clang cannot compile for Polly's parallel loops; "" when it can."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "probe.c"), Path(folder, "probe.so")
        source.write_text(_POLLY_PROBE)
        command = [clang, *_SHARED, *NATIVE, *POLLY, str(source), "-lomp", "-o", str(output)]
        try:
            _run(command)
        except Unavailable as error:
            return f"{Path(clang).name} cannot use it: {error}"
        # A clang that ignores the flags makes no parallel region.
        content = output.read_bytes()
        parallel = b"GOMP_parallel" in content or b"__kmpc_fork" in content
        return "" if parallel else f"{Path(clang).name} makes no parallel loops with it"


def _missing_module(name: str) -> str:
    return "" if importlib.util.find_spec(name) else f"{name} is not installed"


def _first_line(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return ((done.stdout or done.stderr).splitlines() or ["unknown"])[0]


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    """Run a tool; Unavailable with the message that matters when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMPILE_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{Path(command[0]).name} took over {_COMPILE_TIMEOUT:g} s") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        telling = [line for line in lines if "error" in line.lower()] or lines or ["no message"]
        raise Unavailable(f"{Path(command[0]).name} failed: {telling[0][:200]}")


@dataclass(frozen=True)
class Job:
    """One program at one size, and a folder to build in."""

    program: Program
    dataset: str
    tools: Tools
    folder: Path

    @property
    def text(self) -> str:
        return self.program.c_path.read_text()

    @property
    def fixed(self) -> str:
        sizes = self.program.sizes[self.dataset]
        return forms.with_fixed_sizes(self.text, self.program.c_function, sizes)

    def library(self, label: str, text: str, compiler: str, flags: Sequence[str]) -> dict[str, Any]:
        """Compile a form of the program with its call wrapper; what a worker loads."""
        stem = label.replace(":", "-")
        source, call = self.folder / f"{stem}.c", self.folder / "bench_call.c"
        output = self.folder / f"{stem}.so"
        source.write_text(text)
        call.write_text(forms.wrapper(self.program))
        # Libraries last: the linker drops those that nothing before them needs.
        options = [flag for flag in flags if not flag.startswith("-l")]
        libraries = [flag for flag in flags if flag.startswith("-l")]
        files = [str(source), str(call), "-o", str(output)]
        _run([compiler, *_SHARED, *options, *files, *libraries, "-lm"])
        return {"kind": "c", "library": str(output)}


Maker = Callable[[Job, str], Mapping[str, Any]]


def reference(job: Job) -> Candidate:
    """The original without any machine-specific flag: what is right is what this computes."""
    spec = job.library("reference", job.text, job.tools.gcc, REFERENCE)
    return Candidate("reference", "reference", spec)


def _gcc(job: Job, label: str) -> Mapping[str, Any]:
    return job.library(label, job.text, job.tools.gcc, NATIVE)


def _gcc_fast(job: Job, label: str) -> Mapping[str, Any]:
    return job.library(label, job.text, job.tools.gcc, (*NATIVE, "-ffast-math"))


def _gcc_fixed(job: Job, label: str) -> Mapping[str, Any]:
    return job.library(label, job.fixed, job.tools.gcc, NATIVE)


def _clang(job: Job, label: str) -> Mapping[str, Any]:
    return job.library(label, job.text, job.tools.clang, NATIVE)


def _clang_fast(job: Job, label: str) -> Mapping[str, Any]:
    return job.library(label, job.text, job.tools.clang, (*NATIVE, "-ffast-math"))


def _polly(job: Job, label: str, text: str) -> Mapping[str, Any]:
    return job.library(label, text, job.tools.polly, (*NATIVE, *POLLY, "-lomp"))


def _polly_plain(job: Job, label: str) -> Mapping[str, Any]:
    return _polly(job, label, job.text)


def _polly_fixed(job: Job, label: str) -> Mapping[str, Any]:
    return _polly(job, label, job.fixed)


def _polly_restrict(job: Job, label: str) -> Mapping[str, Any]:
    return _polly(job, label, forms.with_restrict(job.fixed, job.program.c_function))


def _pluto(job: Job, label: str, compiler: str, flags: Sequence[str]) -> Mapping[str, Any]:
    """Source to source, in a folder of its own: polycc leaves files beside its output."""
    folder = job.folder / label.replace(":", "-")
    folder.mkdir(exist_ok=True)
    source, output = folder / "input.c", folder / "output.c"
    source.write_text(job.fixed)
    _run([job.tools.polycc, *PLUTO, source.name, "-o", output.name], folder)
    if not output.exists():
        raise Unavailable("polycc wrote nothing")
    return job.library(label, output.read_text(), compiler, flags)


def _pluto_gcc(job: Job, label: str) -> Mapping[str, Any]:
    return _pluto(job, label, job.tools.gcc, (*NATIVE, "-fopenmp"))


def _pluto_clang(job: Job, label: str) -> Mapping[str, Any]:
    if not job.tools.clang:
        raise Unavailable("clang was not found")
    return _pluto(job, label, job.tools.clang, (*NATIVE, "-fopenmp=libomp"))


def _numba(job: Job, label: str) -> Mapping[str, Any]:
    return {"kind": "numba", "module": ""}


def _numba_prange(job: Job, label: str) -> Mapping[str, Any]:
    text = prange.parallel_source(job.program.function)
    if text is None:
        raise Unavailable("no loop is plainly parallel")
    path = job.folder / "numba_prange.py"
    path.write_text(text)
    return {"kind": "numba", "module": str(path)}


def _numpy(job: Job, label: str) -> Mapping[str, Any]:
    if job.program.numpy_form is None:
        raise Unavailable("the program has no whole-array form")
    return {"kind": "numpy"}


def _searched(job: Job, label: str) -> Mapping[str, Any]:
    """perfkit's code generator under LOOPer's search, no search, or only the model."""
    return {"kind": OURS, "schedule": "auto", "search": OTHER_SEARCHES[label], "measure": 0}


def _own_pluto(job: Job, label: str) -> Mapping[str, Any]:
    """perfkit's code generator on the order of isl's Pluto-like scheduler, tiled by 32."""
    return {"kind": OURS, "schedule": "pluto", "measure": 0}


OTHER_SEARCHES = {"looper": "looper", "model": "beam", "seeds": "seeds"}

# Columns in order, and the candidates of each.
PEERS: Mapping[str, Mapping[str, Maker]] = {
    "gcc": {"gcc": _gcc},
    "clang": {"clang": _clang},
    "polly": {
        "polly:plain": _polly_plain,
        "polly:fixed": _polly_fixed,
        "polly:restrict": _polly_restrict,
    },
    "pluto": {"pluto:gcc": _pluto_gcc, "pluto:clang": _pluto_clang},
    "numba": {"numba": _numba, "numba:prange": _numba_prange},
    "blas": {"blas": _numpy},
    "gcc-fast": {"gcc-fast": _gcc_fast},
    "clang-fast": {"clang-fast": _clang_fast},
    "gcc-fixed": {"gcc-fixed": _gcc_fixed},
    "looper": {"looper": _searched},
    "isl-pluto": {"isl-pluto": _own_pluto},
    "seeds": {"seeds": _searched},
    "model": {"model": _searched},
}
DEFAULT = ("gcc", "clang", "polly", "pluto", "numba", "blas")
_TOOL = {"clang-fast": "clang"}


def make(peer: str, job: Job) -> Made:
    """A peer's candidates for a program; what fails is a reason, never an exception."""
    reason = job.tools.reasons.get(_TOOL.get(peer, peer), "")
    made, missing = [], {}
    for label, maker in PEERS[peer].items():
        try:
            if reason:
                raise Unavailable(reason)
            made.append(Candidate(label, peer, maker(job, label)))
        except Unavailable as error:
            missing[label] = str(error)
    return Made(tuple(made), missing)
