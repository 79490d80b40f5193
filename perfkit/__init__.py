"""perfkit decides when and where a program's statements run, and generates the code.

``import perfkit`` is cheap: nothing heavy (torch, islpy, numpy) loads before the first use of
one of the names below.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfkit.api import Kernel, explain, kernel, optimize

__version__ = "0.1.0"
__all__ = ["Kernel", "__version__", "explain", "kernel", "optimize"]


def __getattr__(name: str) -> Any:
    if name in ("optimize", "kernel", "Kernel", "explain"):
        return getattr(import_module("perfkit.api"), name)
    raise AttributeError(f"module 'perfkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
