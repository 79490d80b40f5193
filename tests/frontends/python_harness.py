"""What the tests of the Python frontend share: small arrays, agreement, refusal."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from perfkit.codegen import interpret
from perfkit.errors import UnsupportedError
from perfkit.frontends.python import from_function
from perfkit.ir.scop import Scop
from perfkit.runtime.signature import Signature


def agree(function: Callable[..., Any], *args: Any) -> tuple[Scop, Signature]:
    """Lower the function; the interpreter must do exactly what calling it does."""
    scop, signature = from_function(function, *args)
    ours = dict(zip((p.name for p in signature.inputs), copy.deepcopy(args), strict=True))
    results = interpret.call(scop, signature, ours)
    expected = copy.deepcopy(args)
    returned = function(*expected)
    for name, value in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
        if isinstance(value, np.ndarray):
            assert ours[name].dtype == value.dtype
    if returned is None:
        assert results == ()
    else:
        np.testing.assert_array_equal(results, np.array(returned, ndmin=1))
    return scop, signature


def refuse(function: Callable[..., Any], *args: Any, match: str) -> UnsupportedError:
    with pytest.raises(UnsupportedError, match=match) as error:
        from_function(function, *args)
    assert error.value.location.file == function.__code__.co_filename
    assert error.value.location.line >= function.__code__.co_firstlineno
    return error.value


def vector(n: int = 9, dtype: str = "float64") -> np.ndarray[Any, Any]:
    return np.linspace(-2.0, 3.0, n).astype(dtype)


def matrix(n: int = 5, m: int = 7, dtype: str = "float64") -> np.ndarray[Any, Any]:
    return np.linspace(-2.0, 3.0, n * m).reshape(n, m).astype(dtype)
