"""Builds the extensions with CMake; everything declarative is in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def find_nvcc() -> str | None:
    """The CUDA compiler: ``$CUDACXX``, on the path, or in ``$CUDA_HOME`` and its usual place."""
    named = os.environ.get("CUDACXX")
    if named:
        return shutil.which(named)
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which(str(Path(home) / "bin" / "nvcc"))


def cuda_compiler() -> str | None:
    """The compiler to build ``perfkit._cuda`` with, or None to leave it out."""
    choice = os.environ.get("PERFKIT_CUDA", "auto").lower()
    if choice not in ("auto", "on", "off"):
        raise SystemExit(f"PERFKIT_CUDA={choice!r}: use auto, on or off")
    if choice == "off":
        return None
    sources = (ROOT / "csrc/bind/cuda_module.cpp").exists() and any(
        (ROOT / "csrc/cuda").glob("*.cu")
    )
    nvcc = find_nvcc()
    if choice == "on":
        if nvcc is None:
            raise SystemExit(
                "PERFKIT_CUDA=on, but no nvcc was found: install the CUDA toolkit (12.8 or later), "
                "put nvcc on PATH or set CUDACXX, or use PERFKIT_CUDA=auto"
            )
        if not sources:
            raise SystemExit("PERFKIT_CUDA=on, but this source tree has no CUDA sources")
    return nvcc if sources else None


class CMakeBuild(build_ext):
    """Configures once, then builds each extension's target into the place setuptools wants."""

    def run(self) -> None:
        self.folder = Path(self.build_temp).resolve() / "cmake"
        nvcc = cuda_compiler()
        try:
            self.configure(nvcc)
        except subprocess.CalledProcessError as error:
            if nvcc is None or os.environ.get("PERFKIT_CUDA", "auto").lower() == "on":
                raise SystemExit("CMake could not configure; see its messages above") from error
            # An nvcc that does not work (say, a host compiler it refuses) must not keep users
            # of the CPU from installing.
            self.warn(f"{nvcc} does not work, see above: building without CUDA kernels")
            nvcc = None
            self.configure(nvcc)
        if nvcc is None:
            self.extensions = [e for e in self.extensions if e.name != "perfkit._cuda"]
        super().run()

    def configure(self, nvcc: str | None) -> None:
        import pybind11

        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            "cmake", "-S", str(ROOT), "-B", str(self.folder),
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPERFKIT_CUDA={'ON' if nvcc else 'OFF'}",
        ]  # fmt: skip
        if nvcc:
            command.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
        if shutil.which("ninja"):
            command += ["-G", "Ninja"]
        # What an earlier run found (another interpreter, another generator) is of no use.
        for stale in (self.folder / "CMakeCache.txt", self.folder / "CMakeFiles"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
        subprocess.run(command, check=True)

    def build_extension(self, ext: Extension) -> None:
        target = ext.name.rpartition(".")[2]
        jobs = str(self.parallel or os.cpu_count() or 1)
        subprocess.run(
            ["cmake", "--build", str(self.folder), "--target", target, "--parallel", jobs],
            check=True,
        )
        destination = Path(self.get_ext_fullpath(ext.name)).resolve()
        destination.parent.mkdir(parents=True, exist_ok=True)
        built = self.folder / "out" / destination.name
        # Replace, never overwrite: a running process may have the old file mapped.
        fresh = destination.with_name(destination.name + ".new")
        shutil.copy2(built, fresh)
        os.replace(fresh, destination)


def sources(*patterns: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(pattern))


setup(
    ext_modules=[
        Extension("perfkit._cpu", sources("csrc/bind/cpu_*.cpp", "csrc/cpu/*.cpp")),
        Extension("perfkit._cuda", sources("csrc/bind/cuda_module.cpp", "csrc/cuda/**/*.cu")),
    ],
    cmdclass={"build_ext": CMakeBuild},
)
