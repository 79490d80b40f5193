"""Everything here needs an NVIDIA GPU of compute capability 9.0 and the built extension."""

from __future__ import annotations

from pathlib import Path

import pytest


def _missing() -> str:
    try:
        import torch
    except ImportError:
        return "needs torch"
    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU"
    if torch.cuda.get_device_capability() != (9, 0):
        return "needs compute capability 9.0"
    try:
        from perfkit import _cuda  # noqa: F401
    except ImportError as error:
        return f"needs perfkit._cuda: {error}"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = _missing() if here else ""
    for item in here:
        item.add_marker(pytest.mark.gpu)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
