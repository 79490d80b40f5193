"""Shared fixtures: no test touches the user's cache or settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfkit import config


@pytest.fixture(autouse=True)
def own_settings(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Settings at their defaults, with a cache folder that all tests of this run share."""
    for name in [name for name in os.environ if name.startswith(config.PREFIX)]:
        monkeypatch.delenv(name)
    # Through the environment, so that child processes see it too.
    folder = tmp_path_factory.getbasetemp() / "perfkit-cache"
    monkeypatch.setenv("PERFKIT_CACHE_DIR", str(folder))
    yield folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected texts in tests/golden"
    )
