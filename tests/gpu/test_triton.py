"""Generated Triton kernels on a GPU: results, the caller's stream, CuPy arrays, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import perfkit
from bench.polybench.registry import programs
from perfkit.errors import DeviceError, OverlapError

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

FEW = (
    "gemm", "syrk", "jacobi-2d", "gramschmidt", "lcs", "integral-image", "trisolv", "seidel-2d",
    "softmax-rows", "bit-mix", "batched-dense", "running-sums",
)  # fmt: skip


def double(a, b):
    for i in range(a.shape[0]):
        b[i] = 2.0 * a[i]


@pytest.mark.parametrize("fp", ["strict", "reassociate"])
@pytest.mark.parametrize("name", FEW)
def test_programs_agree_with_the_cpu(name: str, fp: str) -> None:
    (program,) = programs(names=[name])
    want = program.arguments("MINI")
    found = {
        n: torch.from_numpy(v.copy()).cuda() if isinstance(v, np.ndarray) else v
        for n, v in want.items()
    }
    kernel: Any = perfkit.optimize(program.function, **want, target="triton", fp=fp)
    kernel(**found)
    perfkit.optimize(program.function, **want, schedule="original")(**want)
    for n in program.outputs:
        got = found[n].cpu().numpy()
        scale = float(np.abs(want[n]).max()) or 1.0
        np.testing.assert_allclose(got, want[n], rtol=0, atol=program.tolerance * scale)


def test_launches_follow_the_callers_stream() -> None:
    a = torch.zeros(1 << 20, dtype=torch.float64, device="cuda")
    b = torch.empty_like(a)
    kernel = perfkit.optimize(double, a, b, target="triton")
    kernel(a, b)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        a.fill_(3.0)
        kernel(a, b)
    stream.synchronize()
    assert b.eq(6.0).all()


def test_cupy_arrays_are_taken_on_their_stream() -> None:
    cupy = pytest.importorskip("cupy")
    with cupy.cuda.Stream():
        a = cupy.arange(1000, dtype="float64")
        b = cupy.zeros_like(a)
        perfkit.optimize(double, a, b, target="triton")(a, b)
        assert cupy.array_equal(b, 2 * a)


def test_bfloat16_is_stored_and_single_precision_computed() -> None:
    a = torch.rand(1000, device="cuda").bfloat16()
    b = torch.empty_like(a)
    perfkit.optimize(double, a, b, target="triton")(a, b)
    assert b.eq(2 * a).all()


def test_cpu_tensors_and_overlaps_are_refused() -> None:
    a = torch.zeros(100, dtype=torch.float64, device="cuda")
    kernel: Any = perfkit.optimize(double, a, a.clone(), target="triton")
    with pytest.raises(DeviceError, match=r"'b' is a tensor in CPU memory.*b\.cuda\(\)"):
        kernel(a, a.cpu())
    with pytest.raises(OverlapError, match="shares memory"):
        kernel(a[:50], a[:50])
