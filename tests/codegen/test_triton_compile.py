"""Generated kernels compiled for sm_90 without a GPU: the units they use, and no spills."""

from __future__ import annotations

import pytest

from bench.polybench.registry import programs

pytest.importorskip("torch")
pytest.importorskip("triton")

from bench.triton_compile import compiled


@pytest.mark.parametrize(
    ("name", "storage", "unit"),
    [
        ("gemm", {}, "mma"),  # float64
        ("batched-dense", {}, "fma"),  # float32, IEEE
        ("batched-dense", {"float32": "bfloat16"}, "wgmma"),
        ("batched-dense", {"float32": "float16"}, "wgmma"),
    ],
)
def test_products_use_the_unit_of_their_type(
    name: str, storage: dict[str, str], unit: str
) -> None:
    (program,) = programs(names=[name])
    kernel = compiled(program, "reassociate", storage)[-1]
    used = {u: getattr(kernel, u) for u in ("wgmma", "mma", "fma")}
    assert used[unit] > 0
    if unit == "fma":
        assert used["wgmma"] == used["mma"] == 0
    assert kernel.spills == 0
