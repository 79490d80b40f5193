"""Kernels on torch CPU tensors; skipped where torch is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfkit import errors
from perfkit.runtime.kernel import Kernel
from tests.runtime.helpers import array

torch = pytest.importorskip("torch")

ADD = "  for (int64_t i = 0; i < n; i++) z[i] = x[i] + y[i]; return 0;"


@pytest.fixture
def add(make_kernel: Any) -> Kernel:
    parameters = [array("x", "n"), array("y", "n"), array("z", "n", written=True)]
    kernel: Kernel = make_kernel(ADD, parameters, "n")
    return kernel


def tensors() -> tuple[Any, Any, Any]:
    return tuple(torch.ones(4, dtype=torch.float64) for _ in range(3))  # type: ignore[return-value]


def test_tensors_are_used_in_place(add: Kernel) -> None:
    x, y, z = tensors()
    before = z.data_ptr()
    add(x, np.ones(4), z)
    assert z.tolist() == [2.0] * 4
    assert z.data_ptr() == before


def test_tensors_that_want_a_gradient(add: Kernel) -> None:
    x, y, z = tensors()
    x.requires_grad_()
    with pytest.raises(errors.GradientError, match="'x' requires a gradient.*no_grad"):
        add(x, y, z)
    add(x.detach(), y, z)
    with torch.no_grad():
        add(x, y, z)
    assert z.tolist() == [2.0] * 4


def test_autograd_notices_the_write(add: Kernel) -> None:
    x, y, z = tensors()
    w = torch.ones(4, dtype=torch.float64, requires_grad=True)
    loss = (w * z).sum()  # saves z for backward
    add(x, y, z)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tensors_without_plain_memory(add: Kernel) -> None:
    x, y, z = tensors()
    with pytest.raises(errors.DeviceError, match="meta"):
        add(x.to("meta"), y, z)
    with pytest.raises(errors.LayoutError, match="to_dense"):
        add(x.to_sparse(), y, z)
    with pytest.raises(errors.LayoutError, match="ascontiguousarray"):
        add(torch.ones(8, dtype=torch.float64)[::2], y, z)
    with pytest.raises(errors.DtypeError, match="float32"):
        add(x.float(), y, z)
    with pytest.raises(errors.OverlapError, match="'z'"):
        add(z.numpy(), y, z)


def test_bfloat16_is_no_int16(make_kernel: Any) -> None:
    kernel = make_kernel(
        "  z[0] = 0x4000; return 0;", [array("z", 1, dtype="bfloat16", written=True)]
    )
    z = torch.zeros(1, dtype=torch.bfloat16)
    kernel(z)
    assert z.item() == 2.0
    with pytest.raises(errors.DtypeError, match="int16"):
        kernel(np.zeros(1, dtype=np.int16))
    integers = make_kernel("  return 0;", [array("z", 1, dtype="int16")])
    with pytest.raises(errors.DtypeError, match="bfloat16"):
        integers(z)


def test_transforms_have_no_memory_to_use(add: Kernel) -> None:
    _, y, z = tensors()
    with pytest.raises(errors.CallError):
        torch.vmap(lambda row: add(row, y, z))(torch.ones(2, 4, dtype=torch.float64))
