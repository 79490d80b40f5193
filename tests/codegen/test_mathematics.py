"""exp, log, log1p and tanh as generated: errors over all exponents, and special values."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest

from perfkit import config
from perfkit.codegen.mathematics import definitions
from perfkit.runtime.build import Toolchain, compile_c

FUNCTIONS = {"exp": np.exp, "log": np.log, "log1p": np.log1p, "tanh": np.tanh}


def run(function: str, x: np.ndarray, folder: Path) -> np.ndarray:
    text = definitions(function, "float32")
    assert text is not None
    source = "\n".join((
        "#include <math.h>", "#include <stdint.h>", *text,
        "void run(const float *restrict a, float *restrict b, int64_t n)",
        f"{{ for (int64_t i = 0; i < n; ++i) b[i] = perfkit_{function}f(a[i]); }}",
    ))  # fmt: skip
    with config.scope(cache_dir=folder):
        settings = config.current()
        made = compile_c(source, toolchain=Toolchain.detect(settings), settings=settings)
    try:
        library = ctypes.CDLL(str(made))
        y = np.empty_like(x)
        pointer = ctypes.POINTER(ctypes.c_float)
        library.run(x.ctypes.data_as(pointer), y.ctypes.data_as(pointer), ctypes.c_int64(x.size))
    finally:
        shutil.rmtree(made.parent)
    return y


@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_of_at_most_one_and_a_half_units(function: str, tmp_path: Path) -> None:
    x = np.arange(0, 1 << 32, 1009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.linspace(-110, 95, 200_001, dtype=np.float32)])
    found = run(function, x, tmp_path)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[function](x.astype(np.float64))
        rounded = exact.astype(np.float32)
    assert np.array_equal(np.isnan(found), np.isnan(rounded))
    infinite = np.isinf(rounded)
    assert np.array_equal(found[infinite], rounded[infinite])
    plain = np.isfinite(rounded)
    unit = np.spacing(np.abs(rounded[plain])).astype(np.float64)
    assert float((np.abs(found[plain] - exact[plain]) / unit).max()) <= 1.5


def test_special_values(tmp_path: Path) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0], np.float32)
    e, inf, nan = np.float32(np.exp(-1)), np.inf, np.nan
    np.testing.assert_allclose(run("exp", x, tmp_path), [1, 1, inf, 0, nan, e], rtol=1e-7)
    np.testing.assert_array_equal(run("log", x, tmp_path), [-inf, -inf, inf, nan, nan, nan])
    np.testing.assert_array_equal(run("log1p", x[:5], tmp_path), [0, 0, inf, nan, nan])
    np.testing.assert_allclose(run("tanh", x[:5], tmp_path), [0, 0, 1, -1, nan])


def test_only_what_there_is() -> None:
    assert definitions("exp", "float64") is None
    assert definitions("lgamma", "float32") is None
