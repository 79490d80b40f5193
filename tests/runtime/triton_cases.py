"""Calls of Triton kernels, run by ``test_triton_kernel.py`` under ``TRITON_INTERPRET=1``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perfkit
from perfkit import errors
from perfkit.cli import main
from perfkit.runtime.triton_kernel import TritonKernel


def product(alpha, A, B, C):
    n, m = C.shape
    for i in range(n):
        for j in range(m):
            for k in range(A.shape[1]):
                C[i, j] += alpha * A[i, k] * B[k, j]


def smooth(steps, A, B):
    n = A.shape[0]
    for _ in range(steps):
        for i in range(1, n - 1):
            B[i] = 0.5 * (A[i - 1] + A[i + 1])
        for i in range(1, n - 1):
            A[i] = B[i]


def total(a):
    s = 0.0
    for i in range(a.shape[0]):
        s += a[i]
    return s


def power(a, b):
    for i in range(a.shape[0]):
        b[i] = a[i] ** 2.5


def prefix(a):
    for i in range(1, a.shape[0]):
        a[i] += a[i - 1]


def matrices(n: int = 9, m: int = 7, p: int = 5, dtype: Any = torch.float64) -> list[Any]:
    torch.manual_seed(0)
    return [torch.rand(n, p, dtype=dtype), torch.rand(p, m, dtype=dtype),
            torch.rand(n, m, dtype=dtype)]  # fmt: skip


@pytest.fixture(scope="module")
def multiply() -> TritonKernel:
    return perfkit.optimize(product, 1.0, *matrices(), target="triton")


def test_tensors_and_numpy_arrays_change_in_place(multiply: TritonKernel) -> None:
    a, b, c = matrices()
    want = c + 2.0 * a @ b
    plain = c.numpy().copy()
    assert multiply(2.0, a, b, c) is None
    torch.testing.assert_close(c, want)
    multiply(2.0, a.numpy(), b.numpy(), C=plain)
    np.testing.assert_allclose(plain, want)


def test_sizes_stay_symbolic(multiply: TritonKernel) -> None:
    a, b, c = matrices(1, 70, 33)
    want = c + a @ b
    multiply(1.0, a, b, c)
    torch.testing.assert_close(c, want)
    multiply(1.0, *matrices(0, 3, 2))


def test_what_dlpack_offers_is_taken(multiply: TritonKernel) -> None:
    class Capsule:
        def __init__(self, tensor: Any) -> None:
            self.tensor = tensor

        def __dlpack__(self, **options: Any) -> Any:
            return self.tensor.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.tensor.__dlpack_device__()

    a, b, c = matrices()
    want = c + a @ b
    multiply(1.0, Capsule(a), b, Capsule(c))
    torch.testing.assert_close(c, want)


def test_half_precision_is_computed_in_single() -> None:
    single = matrices(dtype=torch.float32)
    kernel = perfkit.optimize(product, 1.0, *(t.half() for t in single), target="triton")
    half = [t.half() for t in single]
    want = (half[2].float() + half[0].float() @ half[1].float()).half()
    kernel(1.0, *half)
    torch.testing.assert_close(half[2], want, rtol=1e-3, atol=0)
    kernel(1.0, *single)


def test_host_loops_results_and_library_functions() -> None:
    a = torch.rand(20, dtype=torch.float64)
    want, other = a.numpy().copy(), np.zeros(20)
    smooth(3, want, other)
    perfkit.optimize(smooth, 3, a, torch.zeros_like(a), target="triton")(3, a, torch.zeros_like(a))
    np.testing.assert_allclose(a.numpy(), want)
    found = perfkit.optimize(total, a, target="triton", fp="reassociate")(a)
    assert found == pytest.approx(float(a.sum()))
    b = torch.zeros_like(a)
    perfkit.optimize(power, a, b, target="triton")(a, b)
    torch.testing.assert_close(b, a**2.5)


def test_check_compares_with_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.rand(20, dtype=torch.float64)
    perfkit.optimize(smooth, 3, a, a.clone(), target="triton", check=True)
    wrong = perfkit.optimize(smooth, 3, a, a.clone(), target="triton").module.text
    monkeypatch.setattr("perfkit.api.assemble", lambda parts: wrong.replace("0.5", "0.25"))
    with pytest.raises(errors.CheckFailed, match="smooth: A differs"):
        perfkit.optimize(smooth, 3, a, a.clone(), target="triton", check=True)


def test_measuring_runs_candidates_on_copies() -> None:
    a, b, c = matrices()
    before = c.clone()
    kernel = perfkit.optimize(product, 1.0, a, b, c, target="triton", measure=3)
    torch.testing.assert_close(c, before, rtol=0, atol=0)
    report = kernel.explain().partition("measured:\n")[2].partition("candidates:")[0]
    assert len(report.splitlines()) == 3 and report.count(" * ") == 1
    kernel(1.0, a, b, c)
    torch.testing.assert_close(c, before + a @ b)


def test_a_script_is_replayed(multiply: TritonKernel) -> None:
    a, b, c = matrices()
    steps = "MapGrid(i, j); MapBlock(i, 16); MapBlock(j, 4)"
    kernel = perfkit.optimize(product, 1.0, a, b, c, target="triton", schedule=steps)
    assert "MapBlock(j, 4)" in kernel.schedule
    again = perfkit.optimize(product, 1.0, a, b, c, target="triton", schedule=kernel.schedule)
    assert again.source == kernel.source
    want = c + a @ b
    kernel(1.0, a, b, c)
    torch.testing.assert_close(c, want)
    assert "grid" in multiply.explain() and "programs of" in multiply.explain()


def test_the_decorator_takes_the_target() -> None:
    a = torch.rand(20, dtype=torch.float64)
    want = torch.cumsum(a, 0)
    perfkit.kernel(prefix, target="triton")(a)
    torch.testing.assert_close(a, want)


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        (lambda a, b, c: (a, b.float(), c), errors.DtypeError, "'B' has dtype float32"),
        (lambda a, b, c: (a, b[0], c), errors.RankError, "'B' has 1 dimensions"),
        (lambda a, b, c: (a, b, c.T.contiguous().T), errors.LayoutError, "copy the result back"),
        (lambda a, b, c: (a, b, c.requires_grad_()), errors.GradientError, "'C' requires"),
        (lambda a, b, c: (a, b, 3.0), errors.ArgumentTypeError, "'C' is a float"),
        (lambda a, b, c: (c, b, c), errors.OverlapError, "'C', which the kernel writes"),
        (lambda a, b, c: (a, b[:-1], c), errors.BoundsError, "B"),
        (lambda a, b, c: (a, b), errors.ArgumentCountError, "C"),
        (lambda a, b, c: (a.to_sparse(), b, c), errors.LayoutError, "sparse"),
        (lambda a, b, c: (a.to("meta"), b, c), errors.DeviceError, "meta"),
    ],
)
def test_calls_that_are_refused(
    multiply: TritonKernel, change: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        multiply(1.0, *change(*matrices()))


def test_bfloat16_is_not_interpreted() -> None:
    single = matrices(dtype=torch.float32)
    kernel = perfkit.optimize(product, 1.0, *single, target="triton")
    with pytest.raises(errors.DtypeError, match="interpreter"):
        kernel(1.0, *(t.bfloat16() for t in single))


def test_autograd_notices_the_write(multiply: TritonKernel) -> None:
    a, b, c = matrices()
    w = torch.ones_like(c, requires_grad=True)
    loss = (w * c).sum()
    multiply(1.0, a, b, c)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


C_SOURCE = """
void mix(int n, int m, double alpha, double *x, double A[n][m + 1])
{
#pragma scop
  for (int i = 0; i < n; i++)
    for (int j = 0; j < m; j++)
      A[i][j + 1] += alpha * x[i];
#pragma endscop
}
void wait(int *flag)
{
#pragma scop
  while (*flag) *flag -= 1;
#pragma endscop
}
"""


def test_a_written_module_runs_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mix.c").write_text(C_SOURCE)
    command = ["optimize", "mix.c", "--target", "triton"]
    assert main([*command, "-o", "f.py"]) == 0
    assert "while" in capsys.readouterr().err
    Path("use.py").write_text(
        "import sys, torch\n"
        "from f import mix\n"
        "assert not any(m.startswith('perfkit') for m in sys.modules)\n"
        "x, A = torch.arange(5.0).double(), torch.zeros(5, 8).double()\n"
        "mix(5, 7, 2.0, x, A)\n"
        "assert A[:, 1:].eq(2 * x[:, None]).all() and A[:, 0].eq(0).all()\n"
        "try:\n"
        "    mix(5, 9, 2.0, x, A)\n"
        "except ValueError as error:\n"
        "    assert 'A has shape (5, 8), expected (5, 10)' in str(error)\n"
    )
    done = subprocess.run([sys.executable, "use.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert main([*command, "-o", "f.py"]) == 0  # what perfkit wrote it may write again
    assert main([*command, "-o", "g.py", "--strict"]) == 1
    assert not Path("g.py").exists()
