"""What of the CUDA kernels needs no GPU: the missing extension, and refusals of the binding."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from perfkit.errors import ExtensionMissing  # noqa: E402
from perfkit.ops import attention_cuda  # noqa: E402


def test_a_missing_extension_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cuda, "_problem", "no module")
    with pytest.raises(ExtensionMissing, match="PERFKIT_CUDA=on"):
        attention_cuda.require()


@pytest.fixture
def extension() -> Any:
    try:
        return importlib.import_module("perfkit._cuda")
    except ImportError:
        pytest.skip("perfkit._cuda was not built")


VECTOR = [16, 2, 0, 0, 0, 0, 0, 64, 1]
SIZES = [1, 1, 1, 1, 1, 1, 4, 4, 64]


@pytest.mark.parametrize(
    "sizes,tensors,message",
    [
        (SIZES[:-1], [VECTOR] * 7, "9 sizes"),
        (SIZES, [VECTOR] * 6, "number of tensors"),
        (SIZES, [VECTOR[:-1]] * 7, "9 numbers"),
        (SIZES, [[16, 9, *VECTOR[2:]]] * 7, "unknown kind"),
        ([*SIZES[:4], 3, 2, *SIZES[6:]], [VECTOR] * 7, "no multiple"),
        ([*SIZES[:6], -4, *SIZES[7:]], [VECTOR] * 7, "negative"),
        ([*SIZES[:6], 2**31, *SIZES[7:]], [VECTOR] * 7, "above 2"),
        (SIZES, [VECTOR, [16, 4, *VECTOR[2:]], *[VECTOR] * 5], "one element type"),
        (SIZES, [*[VECTOR] * 5, [18, *VECTOR[1:]], VECTOR], "aligned to 16"),
    ],
)
def test_numbers_that_would_read_elsewhere(
    extension: Any, sizes: list[int], tensors: list[list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        extension.attention_forward(0, 0, sizes, 0.1, False, tensors)


def switch(extension: Any, **changed: Any) -> None:
    rank: list[list[int]] = [[0, 0], [], [], [], [], []]
    given = {
        "bases": [4096, 8192], "positions": [0, 1, 2], "rows": [0, 4, 8],
        "sizes": [1, 2, 1, 64, 1 << 20], "scale": 0.1, "here": [rank],
    } | changed  # fmt: skip
    extension.switch_push(0, 0, causal=False, timeout_ns=1, **given)


@pytest.mark.parametrize(
    "changed,message",
    [
        ({"bases": [4096] * 9}, "1 to 8 ranks"),
        ({"positions": [0, 2, 1]}, "positions do not rise"),
        ({"rows": [1, 4, 8]}, "rows do not rise"),
        ({"sizes": [1, 2, 1, 64, 1000]}, "slots are too small"),
        ({"here": []}, "ranks here"),
        ({"here": [[[5, 0], [], [], [], [], []]]}, "no such rank"),
        ({"here": [[[0, 0], [18, *VECTOR[1:]], [], [], [], []]]}, "aligned to 16"),
        ({"scale": -1.0}, "positive scale"),
    ],
)
def test_switches_that_would_write_elsewhere(
    extension: Any, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        switch(extension, **changed)
