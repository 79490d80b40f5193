"""The options of ``torch.compile(backend="perfkit", options={...})``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch._inductor import list_mode_options

from perfkit.errors import BackendError

FALLBACKS = ("inductor", "eager")
AUTOTUNE = "max-autotune"


@dataclass(frozen=True)
class Options:
    """Checked options.

    Attributes:
        fallback: who runs what is not perfkit's: "inductor", or "eager" for debugging.
        strict: problems raise BackendError instead of leaving a region to the fallback.
        measure: time candidate regions against the fallback's own code and keep only faster ones;
            set by ``mode="max-autotune"``. Otherwise predictions decide.
        keep: keep every region that can be compiled, faster or not; for tests.
        fp: "reassociate" (default) lets sums be reordered, as torch itself does; "strict" does not.
        check: compare every new kernel with eager torch before it is used.
        inductor: Inductor's own options, passed on.
    """

    fallback: str = "inductor"
    strict: bool = False
    measure: bool = False
    keep: bool = False
    fp: str = "reassociate"
    check: bool = True
    inductor: Mapping[str, Any] = field(default_factory=dict)


_CHOICES = {"fallback": FALLBACKS, "fp": ("reassociate", "strict")}


def parse(mode: str | None, options: Mapping[str, Any] | None) -> Options:
    """Options from what torch.compile passes on.

    Raises:
        BackendError: a name that neither perfkit nor Inductor knows, or a value that does not fit.
    """
    own = {f.name for f in fields(Options)} - {"inductor"}
    modes = list_mode_options()
    if mode not in (None, "default", *modes):
        raise BackendError(f"mode={mode!r}: known are default, {', '.join(sorted(modes))}")
    inductor: dict[str, Any] = dict(modes.get(mode or "", {}))
    chosen: dict[str, Any] = {"measure": bool(mode) and str(mode).startswith(AUTOTUNE)}
    for name, value in (options or {}).items():
        key = name.replace("-", "_")
        if key in own:
            chosen[key] = _checked(key, value)
        elif _inductor_knows(key):
            inductor[key] = value
        else:
            close = difflib.get_close_matches(key, own, n=1)
            known = f"; known: {', '.join(sorted(own))}"
            hint = f"; did you mean {close[0]!r}?" if close else known
            raise BackendError(f"option {name!r} is neither perfkit's nor Inductor's{hint}")
    return Options(inductor=inductor, **chosen)


def _checked(name: str, value: Any) -> Any:
    choices = _CHOICES.get(name)
    if choices is not None:
        if value not in choices:
            raise BackendError(f"option {name}={value!r}: use {' or '.join(choices)}")
    elif not isinstance(value, bool):
        raise BackendError(f"option {name}={value!r}: use True or False")
    return value


def _inductor_knows(name: str) -> bool:
    from torch._inductor import config as inductor

    return name in inductor.get_config_copy()


__all__ = ["AUTOTUNE", "Options", "parse"]
