"""Long trials run on request only: ``pytest -m slow tests/dist``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.markexpr:
        return
    here = Path(__file__).parent
    late = [i for i in items if here in i.path.parents and i.get_closest_marker("slow")]
    if late:
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in late]
