"""Every program's Python, C and NumPy forms compute the same outputs."""

import copy
import ctypes
import subprocess
import time
from typing import Any

import numpy as np
import pytest

from bench.polybench.registry import EXTRA, POLYBENCH, Program, c_arguments, programs

PROGRAMS = programs()
NAMES = [program.name for program in PROGRAMS]
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
C_FLAGS = ("-std=c11", "-O1", "-ffp-contract=off", "-fPIC", "-shared", *WARNINGS)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All C forms in one shared object."""
    path = tmp_path_factory.mktemp("programs") / "programs.so"
    sources = [str(program.c_path) for program in PROGRAMS]
    subprocess.run(["gcc", *C_FLAGS, *sources, "-o", str(path), "-lm"], check=True)
    return ctypes.CDLL(str(path))


def assert_same(
    program: Program, size: str, expected: dict[str, Any], actual: dict[str, Any], factor: float
) -> None:
    defined = program.defined(program.sizes[size])
    for name, value in expected.items():
        if not isinstance(value, np.ndarray) or name in program.temporaries:
            continue
        index = defined.get(name, ...)
        left, right = value[index], actual[name][index]
        assert np.isfinite(left).all(), name
        if value.dtype.kind in "iu":
            np.testing.assert_array_equal(right, left, err_msg=name)
        else:
            scale = np.abs(left).max()
            bound = program.tolerance * (factor if value.dtype == np.float64 else factor**0.5)
            np.testing.assert_allclose(right, left, rtol=bound, atol=bound * scale, err_msg=name)


def test_all_of_polybench_is_there() -> None:
    assert len(POLYBENCH) == len(set(POLYBENCH)) == 30
    assert len(EXTRA) == len(set(EXTRA)) >= 20
    assert not set(POLYBENCH) & set(EXTRA)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no such program: gem"):
        programs(names=["gem"])


@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
def test_c_equals_python(program: Program, library: ctypes.CDLL) -> None:
    for size in ("TINY", "MINI") if program.suite == "extra" else ("TINY",):
        sizes = program.sizes[size]
        expected = program.arguments(size)
        actual = copy.deepcopy(expected)
        value = program.function(**expected)
        function = library[program.c_function]
        function.restype = None if value is None else ctypes.c_double
        returned = function(*c_arguments(program, sizes, actual))
        assert_same(program, size, expected, actual, 1e-3)
        if value is not None:
            assert returned == pytest.approx(value, rel=1e-3 * program.tolerance)


@pytest.mark.parametrize(
    "program", [p for p in PROGRAMS if p.numpy_form], ids=lambda program: program.name
)
def test_numpy_form_equals_python(program: Program) -> None:
    pytest.importorskip("scipy")
    expected = program.arguments("TINY")
    actual = copy.deepcopy(expected)
    value = program.function(**expected)
    assert program.numpy_form is not None
    returned = program.numpy_form(**actual)
    assert_same(program, "TINY", expected, actual, 1.0)
    if value is not None:
        assert returned == pytest.approx(value, rel=program.tolerance)


@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
def test_declarations(program: Program) -> None:
    arguments = program.arguments("TINY")
    before = copy.deepcopy(arguments)
    program.function(**arguments)
    arrays = {name for name, value in arguments.items() if isinstance(value, np.ndarray)}
    changed = {name for name in arrays if not np.array_equal(arguments[name], before[name])}
    assert changed - set(program.temporaries) == set(program.outputs)
    assert set(program.temporaries) <= arrays
    assert program.flops(program.sizes["TINY"]) > 0
    assert len({tuple(sizes) for sizes in program.sizes.values()}) == 1


@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
def test_scratch_is_dead_on_entry(program: Program) -> None:
    expected, actual = program.arguments("TINY"), program.arguments("TINY")
    for name in program.temporaries:
        if name not in program.c_globals:
            actual[name][...] = 77
    program.function(**expected)
    program.function(**actual)
    assert_same(program, "TINY", expected, actual, 0.0)


@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
def test_tiny_is_tiny(program: Program) -> None:
    arguments = program.arguments("TINY")
    start = time.perf_counter()
    program.function(**arguments)
    assert time.perf_counter() - start < 1.0
