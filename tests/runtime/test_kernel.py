from __future__ import annotations

import array as stdlib_array
import ctypes
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfkit import errors
from perfkit.runtime.arguments import SIZE_LIMIT
from perfkit.runtime.kernel import REMEMBERED, Kernel
from perfkit.runtime.signature import Parameter, Signature
from tests.runtime.helpers import array

ADD = "  for (int64_t i = 0; i < n; i++) z[i] = x[i] + y[i]; return 0;"


@pytest.fixture
def add(make_kernel: Any) -> Kernel:
    parameters = [array("x", "n"), array("y", "n"), array("z", "n", written=True)]
    kernel: Kernel = make_kernel(ADD, parameters, "n", schedule="Vectorize(i)", explain="because")
    return kernel


@pytest.fixture
def xyz() -> tuple[Any, Any, Any]:
    return np.arange(5.0), np.ones(5), np.zeros(5)


def test_runs_in_place(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    x, y, z = xyz
    assert add(x, y, z) is None
    np.testing.assert_array_equal(z, [1, 2, 3, 4, 5])


def test_keywords_in_any_order(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    x, y, z = xyz
    add(x, z=z, y=y)
    np.testing.assert_array_equal(z, x + y)


def test_says_what_it_is(add: Kernel) -> None:
    assert "f_call" in add.source
    assert add.schedule == "Vectorize(i)"
    assert add.explain() == "because"
    assert repr(add) == "<Kernel f(x[n]: float64, y[n]: float64, z[n]: float64)>"


def test_every_call_sees_its_own_shapes(add: Kernel) -> None:
    for n in [*range(REMEMBERED + 10), 3]:
        z = np.zeros(n)
        add(np.ones(n), np.ones(n), z)
        assert z.sum() == 2 * n


def test_sizes_scalars_results_and_constants(make_kernel: Any) -> None:
    parameters = [
        Parameter("n", "size", "int32"),
        Parameter("alpha", "scalar", "float32"),
        array("A", "n", 3, dtype="int64"),
        Parameter("total", "result", "int64"),
        Parameter("scaled", "result", "float64"),
    ]
    body = (
        "  *total = 0; for (int64_t i = 0; i < 3 * n; i++) *total += A[i];"
        " *scaled = *alpha * *total; return 0;"
    )
    kernel = make_kernel(body, parameters, "n")
    A = np.arange(6).reshape(2, 3)
    assert kernel(2, 0.5, A) == (15, 7.5)
    assert kernel(n=np.int64(2), alpha=np.float32(2), A=A) == (15, 30.0)
    with pytest.raises(errors.SizeError, match="'n' is 3 by argument 'n', but 2 by dimension 0"):
        kernel(3, 0.5, A)
    with pytest.raises(errors.SizeError, match="is 4, but the kernel was compiled for 3"):
        kernel(2, 0.5, np.zeros((2, 4), dtype=np.int64))


@pytest.mark.parametrize(
    ("dtype", "given", "expected"),
    [
        ("float64", 1, 1.0),
        ("float32", np.float64(0.5), 0.5),
        ("int32", np.int64(-7), -7),
        ("uint8", 255, 255),
        ("bool", True, True),
        ("complex128", 1 + 2j, 1 + 2j),
        ("float16", 0.25, 0.25),
    ],
)
def test_scalars_of_every_kind(make_kernel: Any, dtype: str, given: Any, expected: Any) -> None:
    parameters = [Parameter("a", "scalar", dtype), Parameter("r", "result", dtype)]
    result = make_kernel("  *r = *a; return 0;", parameters)(given)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("dtype", "given", "error"),
    [
        ("int32", 2**31, errors.SizeError),
        ("uint8", -1, errors.SizeError),
        ("int64", 1.5, errors.ArgumentTypeError),
        ("float64", "1.5", errors.ArgumentTypeError),
        ("float64", 1j, errors.ArgumentTypeError),
        ("float64", [1.0], errors.ArgumentTypeError),
        ("float64", None, errors.ArgumentTypeError),
    ],
)
def test_scalars_that_do_not_fit(
    make_kernel: Any, dtype: str, given: Any, error: type[Exception]
) -> None:
    kernel = make_kernel("  return 0;", [Parameter("a", "scalar", dtype)])
    with pytest.raises(error, match="'a'"):
        kernel(given)


@pytest.mark.parametrize("given", [2**31, 2**70, 1.0, "3"])
def test_size_arguments_that_do_not_fit(make_kernel: Any, given: Any) -> None:
    kernel = make_kernel("  return 0;", [Parameter("n", "size", "int32")], "n")
    assert kernel(5) is None
    with pytest.raises((errors.SizeError, errors.ArgumentTypeError), match="'n'"):
        kernel(given)


def test_sizes_stay_below_what_products_need(make_kernel: Any) -> None:
    kernel = make_kernel("  return 0;", [Parameter("n", "size", "int64")], "n")
    kernel(SIZE_LIMIT - 1)
    with pytest.raises(errors.SizeError, match=r"2\*\*62"):
        kernel(SIZE_LIMIT)


# --- refusals, each beside the call that works ----------------------------------------------


def refused(kernel: Kernel, error: type[Exception], words: str, *args: Any) -> None:
    with pytest.raises(error, match=words) as caught:
        kernel(*args)
    assert isinstance(caught.value, errors.CallError)


def test_wrong_count_and_keywords(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    refused(add, errors.ArgumentCountError, "missing a required argument: 'z'", *xyz[:2])
    refused(add, errors.ArgumentCountError, "too many", *xyz, xyz[0])
    with pytest.raises(errors.ArgumentCountError, match="'w'"):
        add(*xyz, w=1)
    with pytest.raises(TypeError, match="multiple values for argument 'x'"):
        add(*xyz, x=1)


def test_wrong_rank_and_dtype(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    x, y, z = xyz
    refused(add, errors.RankError, "'y' has 2 dimensions", x, y.reshape(5, 1), z)
    refused(add, errors.DtypeError, "'x' has dtype float32", x.astype("f4"), y, z)
    refused(add, errors.DtypeError, "byte order", x.astype(">f8"), y, z)
    refused(add, errors.SizeError, "'n' is 5 by dimension 0 of argument 'x', but 4", x, y[:4], z)


def test_what_is_no_array(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    x, y, z = xyz
    refused(add, errors.ArgumentTypeError, "'x'.*list", [1.0] * 5, y, z)
    refused(add, errors.ArgumentTypeError, "'x' is a float", 1.0, y, z)
    refused(add, errors.ArgumentTypeError, "'x' is a float64", np.float64(1), y, z)
    refused(add, errors.ArgumentTypeError, "masked", np.ma.array(x), y, z)


def test_strides_are_named_with_the_remedy(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    x, y, z = xyz
    refused(add, errors.LayoutError, r"negative strides \(-8,\).*ascontiguousarray", x[::-1], y, z)
    refused(add, errors.LayoutError, r"'y' of shape \(5,\).*\(16,\)", x, np.ones(10)[::2], z)
    refused(add, errors.LayoutError, "copy the result back", x, y, np.zeros(10)[::2])
    refused(add, errors.LayoutError, r"\(0,\)", np.broadcast_to(1.0, 5), y, z)
    unaligned = np.zeros(41, dtype=np.uint8)[1:].view(np.float64)
    refused(add, errors.LayoutError, "'x' starts at an address", unaligned, y, z)


def test_read_only_outputs(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    x, y, z = xyz
    add(*xyz)
    z.flags.writeable = False
    refused(add, errors.ReadOnlyError, "'z'", *xyz)
    x.flags.writeable = False
    z.flags.writeable = True
    add(*xyz)


def test_overlap_with_a_written_array(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    x, y, z = xyz
    add(x, x, z)  # two readers may share
    refused(add, errors.OverlapError, "'z'.*'x'", z, y, z)
    block = np.zeros(10)
    refused(add, errors.OverlapError, "'z'.*'y'", x, block[:5], block[4:9])
    add(x, block[:5], block[5:])


def test_overlap_is_seen_though_the_shapes_are_known(
    add: Kernel, xyz: tuple[Any, Any, Any]
) -> None:
    add(*xyz)
    refused(add, errors.OverlapError, "'z'", xyz[2], xyz[1], xyz[2])


def test_empty_arrays_are_fine(add: Kernel) -> None:
    assert add(np.zeros(0), np.zeros(0), np.zeros(0)) is None


# --- bounds, failures and the fallback --------------------------------------------------------


def test_precondition_refuses_sizes_once_per_combination(
    make_kernel: Any, xyz: tuple[Any, Any, Any]
) -> None:
    asked: list[int] = []

    def precondition(sizes: Mapping[str, int]) -> str | None:
        asked.append(sizes["n"])
        return "x[n] is read" if sizes["n"] > 5 else None

    parameters = [array("x", "n"), array("y", "n"), array("z", "n", written=True)]
    kernel = make_kernel(ADD, parameters, "n", precondition=precondition)
    kernel(*xyz)
    kernel(*xyz)
    assert asked == [5]
    refused(kernel, errors.BoundsError, r"n = 6: x\[n\] is read", *(np.zeros(6) for _ in "xyz"))


def test_fallback_takes_what_the_kernel_cannot(
    make_kernel: Any, xyz: tuple[Any, Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def original(x: Any, y: Any, z: Any) -> str:
        z[:] = x + y
        return "original"

    parameters = [array("x", "n"), array("y", "n"), array("z", "n", written=True)]
    kernel = make_kernel(ADD, parameters, "n", fallback=original)
    x, y, z = xyz
    assert kernel(x, y, z) is None
    assert kernel(x[::-1], y, z=z) == "original"
    assert kernel(x[::-1], y, z) == "original"
    np.testing.assert_array_equal(z, x[::-1] + y)
    assert len(caplog.records) == 1
    assert "ascontiguousarray" in caplog.text
    with pytest.raises(errors.ArgumentCountError):
        kernel(x, y)


def test_codes_of_the_compiled_function(make_kernel: Any) -> None:
    parameters = [Parameter("code", "scalar", "int64")]
    kernel = make_kernel("  return *code;", parameters)
    assert kernel(0) is None
    with pytest.raises(errors.KernelFailure, match="memory for its buffers; nothing written"):
        kernel(1)
    with pytest.raises(errors.KernelFailure, match="code 7"):
        kernel(7)
    with_original = make_kernel("  return *code;", parameters, fallback=lambda code: "original")
    assert with_original(1) == "original"
    with pytest.raises(errors.KernelFailure, match="code 7"):
        with_original(7)


def test_a_file_that_is_no_kernel(tmp_path: Path, add: Kernel) -> None:
    text = tmp_path / "kernel.so"
    text.write_text("not a library")
    with pytest.raises(errors.LoadError, match="cache clear"):
        Kernel(add.signature, text, "")
    other = Signature("g", add.signature.parameters, add.signature.sizes)
    with pytest.raises(errors.LoadError, match="g_call"):
        Kernel(other, add.path, "")


def test_bound_calls_run_many_times(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    bound = add.bind(*xyz)
    assert bound.seconds() > 0
    xyz[0][:] = 7
    bound()
    np.testing.assert_array_equal(xyz[2], np.full(5, 8.0))


def test_threads_may_call_at_once(add: Kernel) -> None:
    def work(n: int) -> None:
        for _ in range(200):
            z = np.zeros(n)
            add(np.full(n, float(n)), np.ones(n), z)
            np.testing.assert_array_equal(z, np.full(n, n + 1.0))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(1, 5)))


# --- other owners of memory -------------------------------------------------------------------


class Foreign:
    """An array of another library that speaks one protocol only."""

    def __init__(self, data: Any, *, device: tuple[int, int] | None = None) -> None:
        self.data = data
        if device is None:
            self.__array_interface__ = data.__array_interface__
        else:
            self.__dlpack__ = data.__dlpack__
            self.__dlpack_device__ = lambda: device


def test_buffers_and_array_interfaces_are_used_in_place(add: Kernel) -> None:
    x = stdlib_array.array("d", [1, 2, 3])
    z = (ctypes.c_double * 3)()
    add(x, Foreign(np.ones(3)), z)
    assert list(z) == [2, 3, 4]
    refused(add, errors.ReadOnlyError, "memoryview", x, x, memoryview(bytes(24)).cast("d"))
    refused(add, errors.DtypeError, "uint8", bytes(3), x, z)


def test_dlpack_on_the_cpu_is_used_in_place(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    x, y, z = xyz
    add(Foreign(x, device=(1, 0)), y, Foreign(z, device=(1, 0)))
    np.testing.assert_array_equal(z, x + y)


def test_memory_of_a_gpu_is_refused(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    class OnGpu:
        __cuda_array_interface__: dict[str, Any] = {}

    _, y, z = xyz
    refused(add, errors.DeviceError, "'x'.*GPU", OnGpu(), y, z)
    refused(add, errors.DeviceError, r"'x'.*\(2, 0\)", Foreign(y, device=(2, 0)), y, z)


def test_overlap_is_seen_across_libraries(add: Kernel, xyz: tuple[Any, Any, Any]) -> None:
    x, y, z = xyz
    refused(add, errors.OverlapError, "'z'.*'y'", x, Foreign(z), z)


# --- signatures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "sizes", "words"),
    [
        ((array("x", "n"), array("x", "n")), ("n",), "'x' appears twice"),
        ((array("x", 4),), ("n",), "gives size 'n'"),
        ((array("x", "n"),), (), "'n' is not listed"),
        ((array("x", "n"),), ("n", "n"), "appears twice"),
    ],
)
def test_contradictions_are_refused(
    parameters: tuple[Parameter, ...], sizes: tuple[str, ...], words: str
) -> None:
    with pytest.raises(errors.SignatureError, match=words):
        Signature("f", parameters, sizes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "a b", "kind": "array", "dtype": "int8"}, "identifier"),
        ({"name": "a", "kind": "list", "dtype": "int8"}, "kind"),
        ({"name": "a", "kind": "array", "dtype": "double"}, "dtype 'double'"),
        ({"name": "a", "kind": "array", "dtype": "int8", "rank": 1}, "rank 1"),
        ({"name": "a", "kind": "scalar", "dtype": "int8", "written": True}, "written"),
        ({"name": "a", "kind": "size", "dtype": "float64"}, "size of dtype"),
        ({"name": "a", "kind": "scalar", "dtype": "bfloat16"}, "arrays only"),
    ],
)
def test_parameters_that_make_no_sense(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.SignatureError, match=words):
        Parameter(**arguments)
