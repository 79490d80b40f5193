"""Every setting of perfkit: one typed table, read from ``PERFKIT_*``, overridden by :func:`scope`.

There is no process-global mutable state: :func:`current` gives the settings of the running
context (thread or task), which are those of the environment until a :func:`scope` replaces them.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from perfkit.errors import SettingError

PREFIX = "PERFKIT_"

# Read by setup.py, not by the package; listed so that they are not taken for typing mistakes.
BUILD_VARIABLES = ("PERFKIT_CUDA",)


class SettingWarning(UserWarning):
    """A ``PERFKIT_*`` variable has no meaning; probably a typing mistake."""


def available_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- parsers: environment text -> value, ValueError with words when it does not fit ---------


def _text(text: str) -> str:
    return text


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _integer(text: str) -> int:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise ValueError("expected a whole number") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("expected a number of seconds") from None


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("expected 1 or 0")


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


# --- checks of a typed value, for the environment and for scope() alike ---------------------


def _positive(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "expected a number"
    return None if value > 0 else "must be greater than 0"


def _count(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return "expected a whole number"
    return None if value > 0 else "must be at least 1"


def _not_negative(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return "expected a whole number"
    return None if value >= 0 else "must be 0 or more"


def _is_flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "expected True or False"


def _is_path(value: Any) -> str | None:
    return None if isinstance(value, Path) else "expected a pathlib.Path"


def _is_text(value: Any) -> str | None:
    return None if isinstance(value, str) else "expected text"


def _shell_words(value: Any) -> str | None:
    if not isinstance(value, str):
        return "expected text"
    try:
        shlex.split(value)
    except ValueError as error:
        return f"cannot be split into words ({error})"
    return None


def _is_words(value: Any) -> str | None:
    fits = isinstance(value, tuple) and all(isinstance(word, str) for word in value)
    return None if fits else "expected a tuple of words"


def _one_of(*choices: str) -> Callable[[Any], str | None]:
    return lambda value: None if value in choices else f"expected one of {', '.join(choices)}"


def _setting(
    default: Callable[[], Any],
    doc: str,
    parse: Callable[[str], Any],
    check: Callable[[Any], str | None],
) -> Any:
    metadata = {"doc": doc, "parse": parse, "check": check}
    return dataclasses.field(default_factory=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings table. A field ``name`` is read from the variable ``PERFKIT_NAME``.

    Raises:
        SettingError: a value has the wrong type or is out of range.
    """

    cache_dir: Path = _setting(
        lambda: platformdirs.user_cache_path("perfkit"),
        "folder of compiled kernels and of tuning results",
        _path,
        _is_path,
    )
    cache_bytes: int = _setting(
        lambda: 1 << 30,
        "size the kernel cache is trimmed to, least recently used first",
        _integer,
        _count,
    )
    cc: str = _setting(
        lambda: "",
        "C compiler, a name or a path; empty: gcc, else cc, else clang",
        _text,
        _is_text,
    )
    cflags: str = _setting(
        lambda: "-O3 -march=native",
        "flags that generated C is compiled with",
        _text,
        _shell_words,
    )
    threads: int = _setting(
        available_cores,
        "threads of generated kernels; default: the cores this process may use",
        _integer,
        _count,
    )
    logs: tuple[str, ...] = _setting(
        tuple,
        "topics to log to stderr, separated by commas (search,build=info); all for every topic",
        _words,
        _is_words,
    )
    fp: str = _setting(
        lambda: "strict",
        "strict keeps the order of every floating-point sum, reassociate may change it",
        _text,
        _one_of("strict", "reassociate"),
    )
    isl_max_operations: int = _setting(
        lambda: 20_000_000,
        "isl operations one compilation may use before the original is kept; 0: no limit",
        _integer,
        _not_negative,
    )
    search: str = _setting(
        lambda: "beam",
        "how schedules are searched: beam, looper (LOOPer's procedure), seeds (no search)",
        _text,
        _one_of("beam", "looper", "seeds"),
    )
    search_seconds: float = _setting(
        lambda: 1.0,
        "seconds that a search may go on from the seeds",
        _seconds,
        _positive,
    )
    search_width: int = _setting(
        lambda: 16,
        "schedules that a search carries on from level to level",
        _integer,
        _count,
    )
    search_pluto: bool = _setting(
        lambda: True,
        "start searches from the orders of isl's scheduler, too",
        _flag,
        _is_flag,
    )
    reuse: bool = _setting(
        lambda: True,
        "use schedules that an earlier search for the same program and machine found",
        _flag,
        _is_flag,
    )
    check: bool = _setting(
        lambda: False,
        "compare every optimized kernel with the interpreter before it is returned",
        _flag,
        _is_flag,
    )
    dsp_check: bool = _setting(
        lambda: False,
        "ranks compare shapes and call sites before each collective; for debugging",
        _flag,
        _is_flag,
    )
    dsp_timeout: float = _setting(
        lambda: 60.0,
        "seconds a rank waits for the others in that comparison",
        _seconds,
        _positive,
    )
    lock_timeout: float = _setting(
        lambda: 600.0,
        "seconds to wait for another process's lock (cache entry, measuring)",
        _seconds,
        _positive,
    )
    compile_timeout: float = _setting(
        lambda: 120.0,
        "seconds one run of the C compiler may take",
        _seconds,
        _positive,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            problem = field.metadata["check"](getattr(self, field.name))
            if problem:
                value = getattr(self, field.name)
                raise SettingError(f"setting {field.name}={value!r}: {problem}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Settings from ``PERFKIT_*`` variables over the defaults.

        An unknown variable of that prefix is a :class:`SettingWarning` with the nearest name.

        Raises:
            SettingError: a variable's text does not fit its setting.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        fields = {PREFIX + field.name.upper(): field for field in dataclasses.fields(cls)}
        for variable in sorted(name for name in environ if name.startswith(PREFIX)):
            if variable in BUILD_VARIABLES:
                continue
            field = fields.get(variable)
            if field is None:
                message = f"{variable} is not a setting of perfkit{_nearest(variable, fields)}"
                warnings.warn(message, SettingWarning, stacklevel=2)
                continue
            text = environ[variable]
            try:
                value = field.metadata["parse"](text)
            except ValueError as error:
                raise SettingError(f"{variable}={text!r}: {error}") from None
            problem = field.metadata["check"](value)
            if problem:
                raise SettingError(f"{variable}={text!r}: {problem}")
            values[field.name] = value
        return cls(**values)


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"


def describe() -> list[tuple[str, str, str]]:
    """(variable, default as text, explanation) of every setting, for help texts."""
    defaults = Settings()
    rows = []
    for field in dataclasses.fields(Settings):
        value = getattr(defaults, field.name)
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        if isinstance(value, bool):
            text = str(int(value))
        rows.append((PREFIX + field.name.upper(), text, field.metadata["doc"]))
    return rows


_scoped: ContextVar[Settings | None] = ContextVar("perfkit_settings", default=None)


def current() -> Settings:
    """The settings of this context: those of the innermost :func:`scope`, else the environment's.

    Raises:
        SettingError: a ``PERFKIT_*`` variable does not fit.
    """
    return _scoped.get() or Settings.from_env()


@contextmanager
def scope(**overrides: Any) -> Iterator[Settings]:
    """Replace settings inside a ``with`` block, for this thread or task only.

    Raises:
        SettingError: an unknown name, or a value that does not fit.
    """
    known = {field.name: field for field in dataclasses.fields(Settings)}
    for name in overrides:
        if name not in known:
            raise SettingError(f"{name} is not a setting of perfkit{_nearest(name, known)}")
    token = _scoped.set(dataclasses.replace(current(), **overrides))
    try:
        yield current()
    finally:
        _scoped.reset(token)
