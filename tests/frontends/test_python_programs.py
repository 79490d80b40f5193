"""Every test program, lowered from Python, does exactly what the Python function does."""

import copy

import numpy as np
import pytest

from bench.polybench.registry import Program, programs
from perfkit.analysis.bounds import bounds_check
from perfkit.codegen import interpret
from perfkit.frontends.python import from_function


@pytest.mark.parametrize("program", programs(), ids=lambda p: p.name)
def test_lowered_program_equals_python(program: Program) -> None:
    expected = program.arguments("TINY")
    actual = copy.deepcopy(expected)
    scop, signature = from_function(program.function, **expected)
    results = interpret.call(scop, signature, actual)
    returned = program.function(**expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
    assert list(results) == ([] if returned is None else [returned])


@pytest.mark.parametrize("name", ["gemm", "adi", "nussinov", "sobel-clamped", "banded-matvec"])
def test_accesses_are_in_bounds(name: str) -> None:
    (program,) = programs(names=[name])
    arguments = program.arguments("TINY")
    scop, signature = from_function(program.function, **arguments)
    sizes: dict[str, int] = {}
    for parameter in signature.parameters:
        value = arguments[parameter.name]
        if parameter.kind == "array":
            sizes |= dict(zip(map(str, parameter.shape), value.shape, strict=True))
        elif parameter.kind == "size":
            sizes[parameter.name] = value
    check = bounds_check(scop)
    assert check.problem(sizes) is None
    shrunk = max(sizes, key=lambda s: check.first({**sizes, s: 1}) is not None)
    assert "out of bounds" in (check.problem({**sizes, shrunk: 1}) or "")
