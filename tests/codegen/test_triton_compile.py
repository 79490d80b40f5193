"""Generated kernels compiled for sm_90 without a GPU: the units they use, and no spills."""

from __future__ import annotations

import pytest

from bench.polybench.registry import programs

pytest.importorskip("torch")
pytest.importorskip("triton")

from bench.triton_compile import compiled


@pytest.mark.parametrize(
    ("name", "element", "storage", "unit"),
    [
        ("gemm", "", {}, "mma"),  # float64
        ("gemm", "float32", {}, "fma"),  # IEEE
        ("2mm", "float32", {}, "fma"),
        ("gemm", "float32", {"float32": "bfloat16"}, "wgmma"),
        ("gemm", "float32", {"float32": "float16"}, "wgmma"),
        ("syr2k", "float32", {"float32": "bfloat16"}, "wgmma"),  # the sum of two products
    ],
)
def test_products_use_the_unit_of_their_type(
    name: str, element: str, storage: dict[str, str], unit: str
) -> None:
    (program,) = programs(names=[name])
    kernel = compiled(program, "reassociate", storage, element=element)[1][-1]
    used = {u: getattr(kernel, u) for u in ("wgmma", "mma", "fma")}
    assert used[unit] > 0
    if unit == "fma":
        assert used["wgmma"] == used["mma"] == 0
    assert kernel.spills == 0


def test_fusion_is_set_for_every_kernel_and_strict_sums_have_none() -> None:
    (program,) = programs(names=["gemm"])
    choice, kernels = compiled(program, "strict", {})
    assert [k.fp_fusion for k in choice.part.kernels] == [False] * len(kernels)
    assert all(k.fma == k.mma == k.wgmma == 0 for k in kernels)
    launches = choice.part.text.count("num_stages=")
    assert launches == choice.part.text.count("enable_fp_fusion=False") == len(kernels)


def test_sums_in_two_phases_compile_without_spills() -> None:
    (program,) = programs(names=["frobenius"])
    choice, kernels = compiled(program, "reassociate", {})
    assert "Rfactor(" in choice.seed.script and len(kernels) > 1
    assert not any(k.spills for k in kernels)


def test_scans_compile_without_spills() -> None:
    (program,) = programs(names=["integral-image"])
    choice, kernels = compiled(program, "reassociate", {})
    assert "associative_scan" in choice.part.text
    assert not any(k.spills for k in kernels)
