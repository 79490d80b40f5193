"""What perfkit finds on this machine, and for each missing thing how to get it.

Nothing heavy is imported: optional packages are looked up by their metadata.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal

from perfkit import config
from perfkit.errors import BuildError, CacheError, PerfkitError
from perfkit.runtime import build, machine

Status = Literal["ok", "missing", "problem"]
LOW_SPACE = 1 << 30
CLANGS = ("clang", *(f"clang-{version}" for version in range(24, 13, -1)))

OPENMP_TEST = """
#include <omp.h>
#include <stdint.h>
int64_t probe_call(void **args) {
  int64_t n = 0;
  #pragma omp parallel num_threads(2) reduction(+ : n)
  n += omp_get_num_threads();
  return n;
}
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: what was looked for.
        status: "ok"; "missing", an optional thing that is not there; "problem", something that
            keeps the main job (optimizing for this CPU) from running.
        detail: what was found.
        remedy: how to get it, "" when nothing is to be done.
    """

    topic: str
    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings; ``usable`` tells whether the main job can run."""

    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        return all(finding.status != "problem" for finding in self.findings)

    def text(self) -> str:
        """The report as lines of text, one per finding, remedies below."""
        marks = {"ok": "ok", "missing": "--", "problem": "!!"}
        width = max(len(finding.topic) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"{marks[finding.status]}  {finding.topic:<{width}}  {finding.detail}")
            if finding.remedy:
                lines.append(f"    {'':<{width}}  -> {finding.remedy}")
        verdict = "perfkit can optimize for this CPU" if self.usable else "perfkit cannot run yet"
        return "\n".join([*lines, "", f"{verdict} (ok: found, --: optional, !!: needed)"])


def inspect(*, full: bool = False, settings: config.Settings | None = None) -> Report:
    """Look at everything perfkit uses.

    Args:
        full: also compile and run a small OpenMP program (a fraction of a second).
    """
    settings = settings or config.current()
    findings = [
        Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        *_machine(settings),
        *_compiler(settings, full),
        *(_required(name) for name in ("numpy", "islpy", "pycparser", "safetensors")),
        _cache(settings),
        _package("torch", "tensors, distributed work, training the cost model", "torch"),
        _package("triton", "GPU kernels from schedules", "gpu"),
        _package("cupy", "GPU arrays and peer memory", "gpu", "cupy-cuda12x", "cupy-cuda13x"),
        _package("rich", "progress bars and tables", "ui"),
        _gpu(),
        _tool("nvcc", "builds perfkit's CUDA kernels", "install the CUDA toolkit, 12.8 or later"),
        _polly(full),
        _tool("polycc", "Pluto, a peer in the benches", "build Pluto 0.13 and put polycc on PATH"),
    ]
    return Report(tuple(findings))


def _size(count: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.4g} {unit}"
    return f"{count} B"


def _machine(settings: config.Settings) -> list[Finding]:
    found = machine.Machine.detect()
    caches = ", ".join(
        f"L{c.level} {_size(c.bytes)}" + (f" for {c.shared_by} cores" if c.shared_by > 1 else "")
        for c in found.caches
    )
    simd = [name for name in found.isa if name.startswith(("avx", "fma", "amx", "neon", "sve"))]
    cores = f"{found.logical_cores} usable ({found.physical_cores} physical)"
    return [
        Finding("cpu", "ok", f"{found.cpu}, {found.architecture}"),
        Finding("cores", "ok", f"{cores}, kernels use {settings.threads} threads"),
        Finding("caches", "ok", caches or "unknown; the cost model assumes common sizes"),
        Finding("vectors", "ok", f"{8 * found.simd_bytes} bits: {' '.join(simd) or 'base set'}"),
        Finding(
            "pages",
            "ok",
            f"{_size(found.page_bytes)}, huge pages {found.huge_pages or 'unknown'}"
            + (f" ({_size(found.huge_page_bytes)})" if found.huge_page_bytes else ""),
        ),
    ]


def _compiler(settings: config.Settings, full: bool) -> list[Finding]:
    try:
        toolchain = build.Toolchain.detect(settings)
    except PerfkitError as error:
        return [Finding("compiler", "problem", str(error).partition(": ")[0], build.INSTALL_HINT)]
    compiler = Finding(
        "compiler", "ok", f"{toolchain.path}: {toolchain.version}, {' '.join(toolchain.flags)}"
    )
    library = "libomp-dev" if "clang" in toolchain.version else "libgomp1 and gcc"
    remedy = f"install the OpenMP library of this compiler (Debian and Ubuntu: {library})"
    if not toolchain.openmp_flag:
        openmp = Finding("openmp", "missing", "not found; kernels would use one core", remedy)
    else:
        openmp = Finding("openmp", "ok", f"library found for {toolchain.openmp_flag}")
    return [compiler, _openmp_run(toolchain, settings, openmp) if full else openmp]


def _openmp_run(toolchain: build.Toolchain, settings: config.Settings, found: Finding) -> Finding:
    """Compile and run a parallel region: also shows whether the compiler works at all."""
    with tempfile.TemporaryDirectory(prefix="perfkit-doctor-") as folder:
        try:
            path = build.compile_c(
                OPENMP_TEST, toolchain=toolchain, settings=replace(settings, cache_dir=Path(folder))
            )
            probe = ctypes.CDLL(str(path)).probe_call
        except (BuildError, CacheError, OSError) as error:
            return Finding("openmp", "problem", f"a test program failed: {error}", found.remedy)
        probe.restype = ctypes.c_int64
        threads = probe(None)
    if threads == 4:
        return Finding("openmp", "ok", "a test program ran on 2 threads")
    return Finding("openmp", "missing", "a test program ran on one thread only", found.remedy)


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return None


def _required(name: str) -> Finding:
    version = _version(name)
    if version:
        return Finding(name, "ok", version)
    return Finding(name, "problem", "not installed", f"pip install {name}")


def _package(topic: str, use: str, extra: str, *names: str) -> Finding:
    version = _version(topic, *names)
    if version:
        return Finding(topic, "ok", version)
    return Finding(topic, "missing", f"not installed ({use})", f"pip install 'perfkit[{extra}]'")


def _cache(settings: config.Settings) -> Finding:
    folder = settings.cache_dir
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "cache",
            "missing",
            f"{folder} cannot be written; every process compiles again in a temporary folder",
            "make it writable, or set PERFKIT_CACHE_DIR to a folder of yours",
        )
    free = shutil.disk_usage(existing).free
    detail = f"{folder}, {_size(free)} free"
    if free < LOW_SPACE:
        return Finding("cache", "missing", f"{detail}: little space", "free some space")
    return Finding("cache", "ok", detail)


def _gpu() -> Finding:
    try:
        names = sorted(Path("/proc/driver/nvidia/gpus").iterdir())
    except OSError:
        names = []
    if names:
        extension = _has_module("perfkit._cuda")
        return Finding(
            "gpu",
            "ok" if extension else "missing",
            f"{len(names)} NVIDIA" + ("" if extension else ", but perfkit._cuda is not built"),
            "" if extension else "install nvcc, then reinstall perfkit with PERFKIT_CUDA=on",
        )
    return Finding("gpu", "missing", "no NVIDIA driver; everything runs on the CPU")


def _has_module(name: str) -> bool:
    parent = Path(__file__).resolve().parents[1]
    return any(parent.glob(name.rpartition(".")[2] + ".*.so"))


def _tool(name: str, use: str, remedy: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name, "missing", f"not found ({use})", remedy)
    return Finding(name, "ok", path)


def _polly(full: bool) -> Finding:
    """A clang that accepts Polly's flags; one without Polly refuses the unknown option.

    Starting clang takes a tenth of a second, so only a full report does.
    """
    remedy = "install clang with Polly (Debian and Ubuntu: apt install clang)"
    paths = [path for path in map(shutil.which, CLANGS) if path]
    if paths and not full:
        return Finding("polly", "ok", f"{paths[0]} found (--full asks it for Polly)")
    for path in paths:
        if _succeeds([path, "-mllvm", "-polly", "-S", "-x", "c", "-", "-o", os.devnull]):
            return Finding("polly", "ok", f"{path} accepts -mllvm -polly")
    return Finding("polly", "missing", "no clang with Polly found (a peer in the benches)", remedy)


def _succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, input=b"", capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
