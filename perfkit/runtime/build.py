"""Compile generated C text to a shared object with the host's compiler."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perfkit import config, log
from perfkit.errors import CacheError, CompileError, CompilerNotFound

# Needed for a loadable library, whatever the user's flags say.
SHARED_FLAGS = ("-std=gnu11", "-shared", "-fPIC")
LIBRARIES = ("-lm",)
SEARCH_ORDER = ("gcc", "cc", "clang")
INSTALL_HINT = (
    "install one (Debian and Ubuntu: apt install gcc; Fedora: dnf install gcc), "
    "or name one with PERFKIT_CC"
)
ERROR_LINES = 8


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A C compiler and how to call it.

    Attributes:
        path: absolute path of the compiler.
        version: first line of its ``--version`` and its target.
        flags: optimization flags, from ``Settings.cflags``.
        openmp_flag: "-fopenmp", or "" where headers or library of OpenMP are missing.
    """

    path: str
    version: str
    flags: tuple[str, ...]
    openmp_flag: str

    @classmethod
    def detect(cls, settings: config.Settings | None = None) -> Toolchain:
        """Find the compiler that ``settings.cc`` names, or the first of gcc, cc, clang.

        Raises:
            CompilerNotFound: there is none; says how to install one.
        """
        settings = settings or config.current()
        names = (settings.cc,) if settings.cc else SEARCH_ORDER
        found = next((path for path in map(shutil.which, names) if path), None)
        if found is None:
            wanted = f"PERFKIT_CC={settings.cc}" if settings.cc else ", ".join(names)
            raise CompilerNotFound(f"no C compiler found (looked for {wanted}): {INSTALL_HINT}")
        path = os.path.abspath(found)  # the compiler runs in another folder
        version = (_ask(path, "--version").splitlines() or ["unknown version"])[0]
        target = _ask(path, "-dumpmachine").strip()
        flag = "-fopenmp" if _has_openmp(path, "clang" in version) else ""
        return cls(path, f"{version} [{target}]", tuple(shlex.split(settings.cflags)), flag)

    def command(self, source: Path, output: Path, extra_flags: Sequence[str] = ()) -> list[str]:
        """The full command line that compiles ``source`` to the shared object ``output``."""
        return [
            *(self.path, *SHARED_FLAGS, *self.flags, *self._openmp(), *extra_flags),
            *("-o", str(output), str(source), *LIBRARIES),
        ]

    def key_flags(self, extra_flags: Sequence[str] = ()) -> tuple[str, ...]:
        """Every flag that shapes the machine code, for a cache key."""
        return (*SHARED_FLAGS, *self.flags, *self._openmp(), *extra_flags, *LIBRARIES)

    def _openmp(self) -> tuple[str, ...]:
        return (self.openmp_flag,) if self.openmp_flag else ()


def _ask(compiler: str, *arguments: str) -> str:
    """What the compiler prints; "" when it fails."""
    try:
        done = subprocess.run(
            [compiler, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(),
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _has_openmp(compiler: str, clang: bool) -> bool:
    """Whether the OpenMP library is where the compiler looks; quicker than compiling a test.

    A compiler prints the bare name again when it does not find the file.
    """
    names = ("libomp.so", "libiomp5.so") if clang else ("libgomp.so", "libgomp.spec")
    return any(os.path.isabs(_ask(compiler, f"-print-file-name={name}").strip()) for name in names)


def _environment() -> dict[str, str]:
    # Messages in English, since their lines are quoted and searched.
    return {**os.environ, "LC_ALL": "C"}


def private_directory(parent: Path, prefix: str = "build-") -> Path:
    """A new folder that only this user can enter, under ``parent`` or, failing that, in /tmp.

    Raises:
        CacheError: neither place can be written.
    """
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        log.get("build").warning("%s cannot be written (%s); building in /tmp", parent, error)
    try:
        return Path(tempfile.mkdtemp(prefix=f"perfkit-{prefix}"))
    except OSError as error:
        raise CacheError(
            f"cannot make a folder to compile in, neither under {parent} nor in the temporary "
            f"folder ({error}): free some space, or set PERFKIT_CACHE_DIR to a writable folder"
        ) from error


def compile_c(
    source: str,
    *,
    toolchain: Toolchain,
    settings: config.Settings,
    extra_flags: Sequence[str] = (),
) -> Path:
    """Compile C text to a shared object.

    Returns:
        The path of ``kernel.so`` in a private folder that holds ``kernel.c`` too. The folder
        belongs to the caller, who removes it.

    Raises:
        CompileError: the compiler refused the source or exceeded ``settings.compile_timeout``;
            the source is kept and the message names it.
        CompilerNotFound: the compiler is no longer there.
        CacheError: no folder to build in.
    """
    return _compile_in(settings.cache_dir / "build", source, toolchain, settings, extra_flags)


def _compile_in(
    parent: Path,
    source: str,
    toolchain: Toolchain,
    settings: config.Settings,
    extra_flags: Sequence[str],
) -> Path:
    folder = private_directory(parent)
    text, output = folder / "kernel.c", folder / "kernel.so"
    command = toolchain.command(text, output, extra_flags)
    try:
        text.write_text(source)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CacheError(
            f"{folder}: cannot write the source ({error}): free some space, or set "
            "PERFKIT_CACHE_DIR to a folder on another disk"
        ) from error
    try:
        code, messages = _run(command, folder, settings.compile_timeout)
    except FileNotFoundError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CompilerNotFound(f"{toolchain.path} is gone: {INSTALL_HINT}") from error
    except subprocess.TimeoutExpired as error:
        raise CompileError(
            f"{toolchain.path} did not finish within {settings.compile_timeout:g} s on {text} "
            "(kept): raise PERFKIT_COMPILE_TIMEOUT, or lower the unroll and tile factors"
        ) from error
    except BaseException:  # Ctrl-C: leave nothing half done
        shutil.rmtree(folder, ignore_errors=True)
        raise
    elsewhere = Path(tempfile.gettempdir())
    if code != 0 and "No space left on device" in messages and parent != elsewhere:
        shutil.rmtree(folder, ignore_errors=True)
        log.get("build").warning("%s is full; building in %s", parent, elsewhere)
        return _compile_in(elsewhere, source, toolchain, settings, extra_flags)
    if code != 0 or not output.exists():
        raise CompileError(_explain(toolchain, text, command, code, messages))
    if messages.strip():
        log.get("build").debug("%s: %s", text, messages.strip())
    return output


def _run(command: list[str], folder: Path, timeout: float) -> tuple[int, str]:
    """Exit status and stderr. The compiler's own children end with it on a timeout or Ctrl-C."""
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=_environment(),
        start_new_session=True,
    ) as process:
        try:
            _, messages = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, messages


def _explain(toolchain: Toolchain, source: Path, command: list[str], code: int, text: str) -> str:
    lines = [line for line in text.splitlines() if "error" in line.lower()]
    shown = (lines or text.splitlines())[:ERROR_LINES]
    killed = f" (ended by signal {-code}; out of memory?)" if code < 0 else ""
    return "\n  ".join(
        [
            f"{toolchain.path} refused {source} (kept), exit status {code}{killed}:",
            *(shown or ["no message"]),
            f"command: {shlex.join(command)}",
        ]
    )
