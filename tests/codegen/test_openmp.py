"""Limits of what is generated."""

from __future__ import annotations

import pytest

from perfkit.codegen import openmp
from perfkit.errors import BudgetExceeded
from tests.codegen.harness import scheduled, source_of
from tests.programs_ir import JACOBI_1D


def test_code_that_no_compiler_manages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = scheduled(JACOBI_1D, "Unroll(i, 64)")
    size = len(source_of(state))
    monkeypatch.setattr(openmp, "MOST_CODE", size // 2)
    with pytest.raises(BudgetExceeded, match="smaller factors of Unroll and Jam"):
        source_of(state)
