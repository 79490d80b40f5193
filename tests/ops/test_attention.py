"""The attention kernels against float64 and against torch's own, forward and backward."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention as sdpa  # noqa: E402

from perfkit import _cpu  # noqa: E402
from perfkit.ops import attention, attention_cpu  # noqa: E402

ISAS = _cpu.attention_isa()
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def exact(q, k, v, mask=None, bias=None, causal=False):  # type: ignore[no-untyped-def]
    """The definition, in the tensors' own precision; float64 for a reference."""
    group = q.shape[-3] // k.shape[-3]
    k, v = k.repeat_interleave(group, -3), v.repeat_interleave(group, -3)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        allowed = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -math.inf) if allowed else scores + mask
    if bias is not None:
        scores = scores + bias
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:]).bool().tril(), -math.inf)
    return torch.softmax(scores, -1) @ v


def ours(q, k, v, mask=None, bias=None, causal=False):  # type: ignore[no-untyped-def]
    return attention(q, k, v, mask, bias, causal, layout="HSD")


def theirs(q, k, v, mask=None, bias=None, causal=False):  # type: ignore[no-untyped-def]
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -math.inf)
    added = mask if bias is None else bias if mask is None else mask + bias
    if causal and added is not None:
        hidden = ~torch.ones(q.shape[-2], k.shape[-2]).bool().tril()
        added, causal = added + torch.zeros(hidden.shape).masked_fill(hidden, -math.inf), False
    gqa = q.shape[-3] != k.shape[-3]
    added = None if added is None else added.to(q.dtype)
    return sdpa(q, k, v, attn_mask=added, is_causal=causal, enable_gqa=gqa)


def results(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], grad: Tensor
) -> list[Tensor]:
    """Output and the gradients of q, k, v and of a bias."""
    learned = {
        n: t.detach().requires_grad_() for n, t in inputs.items() if n in ("q", "k", "v", "bias")
    }
    out = function(**(inputs | learned))
    return [out, *torch.autograd.grad(out, list(learned.values()), grad.to(out.dtype))]


def errors(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    return [
        ((f.detach().double() - w.detach()).norm() / w.detach().norm().clamp(min=0.1)).item()
        for f, w in zip(found, wanted, strict=True)
    ]


def compare(inputs: dict[str, Tensor], causal: bool = False, floor: float = 0.0) -> None:
    """No error may exceed 1.5 times torch's (or ``floor``, for sums of a few terms)."""
    grad = torch.randn(*inputs["q"].shape[:-1], inputs["v"].shape[-1])
    grad = grad.to(inputs["q"].dtype)
    wide = {n: t if t.dtype == torch.bool else t.double() for n, t in inputs.items()}
    wanted = results(lambda **a: exact(**a, causal=causal), wide, grad)
    mine = errors(results(lambda **a: ours(**a, causal=causal), inputs, grad), wanted)
    torchs = errors(results(lambda **a: theirs(**a, causal=causal), inputs, grad), wanted)
    for name, a, b in zip(["out", "d_q", "d_k", "d_v", "d_bias"], mine, torchs, strict=False):
        assert a <= max(1.5 * b, floor), f"{name}: {a:.2e} against torch's {b:.2e}"


def make(dtype, b=1, h=2, hk=None, s=70, sk=None, d=32, dv=None) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    sk, hk = sk or s, hk or h
    sizes = {"q": (b, h, s, d), "k": (b, hk, sk, d), "v": (b, hk, sk, dv or d)}
    return {name: torch.randn(size).to(dtype) for name, size in sizes.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [16, 20, 32, 40, 64, 72, 80, 96, 128, 256])
@pytest.mark.parametrize("causal", [False, True])
def test_head_dimensions(dtype: torch.dtype, d: int, causal: bool) -> None:
    compare(make(dtype, s=150, d=d), causal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("s", "sk"), [(1, 1), (1, 300), (63, 65), (64, 128), (129, 17), (700, 700)]
)
def test_lengths_and_cross_attention(dtype: torch.dtype, s: int, sk: int) -> None:
    # A single key has the weight 1 exactly, so that torch's own error is 0.
    floor = 1e-6 if dtype == torch.float32 else 4e-3
    floor = max(floor, 1e-4) if sk == 1 else floor
    compare(make(dtype, s=s, sk=sk, d=72), floor=floor)
    compare(make(dtype, s=s, sk=sk, d=72), causal=True, floor=floor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hk", [1, 2, 6])
def test_grouped_queries(dtype: torch.dtype, hk: int) -> None:
    compare(make(dtype, b=2, h=6, hk=hk, s=90, d=24))


def test_another_dimension_of_values() -> None:
    compare(make(torch.float32, s=90, d=24, dv=40))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 110), (2, 1, 70, 110), (70, 110), (2, 3, 70, 1)])
@pytest.mark.parametrize("boolean", [True, False])
def test_masks(dtype: torch.dtype, shape: tuple[int, ...], boolean: bool) -> None:
    inputs = make(dtype, b=2, h=3, s=70, sk=110)
    mask = torch.rand(shape) > 0.3
    mask[..., 0] = True
    inputs["mask"] = mask if boolean else torch.randn(shape).to(dtype)
    compare(inputs)
    compare(inputs, causal=True, floor=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(2, 3, 70, 110), (1, 3, 70, 110), (3, 70, 110), (70, 110), (2, 3, 1, 110), (3, 70, 1)]
)
def test_a_bias_has_a_gradient_summed_where_it_broadcasts(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    inputs = make(dtype, b=2, h=3, s=70, sk=110)
    inputs["mask"] = torch.rand(2, 1, 1, 110) > 0.2
    inputs["bias"] = torch.randn(shape).to(dtype)
    # Equal shifts of a row change nothing: that gradient is 0 but for rounding.
    if shape[-1] == 1:
        grad = torch.randn(2, 3, 70, 32)
        found = results(ours, inputs, grad)[-1]
        assert found.shape == shape and found.abs().max() < (1e-4 if dtype == torch.float32 else 1)
    else:
        compare(inputs)


def test_pair_bias_of_an_evoformer() -> None:
    rows = make(torch.float32, b=4, h=2, s=48, d=16)
    inputs = {name: t.view(2, 2, 2, 48, 16) for name, t in rows.items()}
    inputs["bias"] = torch.randn(2, 1, 2, 48, 48)
    # torch stores the weights of tensors of 5 dimensions instead of recomputing them from a
    # rounded log-sum-exp; measured here: 2.5e-7 against its 1.4e-7 in d_bias, which unlike d_q
    # cannot be rescaled by the rows' sums.
    compare(inputs, floor=3e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_inputs_are_read_in_place(dtype: torch.dtype) -> None:
    packed = torch.randn(2, 75, 3, 4, 48).to(dtype)
    q, k, v = packed.unbind(2)
    out = attention(q, k, v)
    assert out.is_contiguous() and out.shape == q.shape
    wanted = attention(q.contiguous(), k.contiguous(), v.contiguous())
    assert torch.equal(out, wanted)
    columns = torch.randn(3, 2, 2, 48, 75).to(dtype).transpose(-1, -2)
    assert torch.equal(ours(*columns), ours(*columns.contiguous()))
    expanded = k[:, :, :1].expand(-1, -1, 4, -1)
    assert torch.equal(attention(q, expanded, v), attention(q, expanded.contiguous(), v))


def test_the_layouts_are_views_of_each_other() -> None:
    q = torch.randn(2, 3, 50, 4, 16)  # [B, T, S, H, D]
    inner = attention(q, q, q, causal=True)
    outer = attention(*(q.transpose(-2, -3),) * 3, causal=True, layout="HSD")
    assert torch.equal(inner, outer.transpose(-2, -3))
    torch.testing.assert_close(
        inner, sdpa(*(q.transpose(-2, -3),) * 3, is_causal=True).transpose(-2, -3)
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instruction_set(isa: str, dtype: torch.dtype) -> None:
    inputs = make(dtype, h=4, hk=2, s=85, sk=130, d=72)
    q, k, v = inputs.values()
    bias = torch.randn(4, 85, 130)
    grad = torch.randn(1, 4, 85, 72).to(dtype)
    settings = {"threads": 2, "isa": isa}
    out, lse = attention_cpu.forward(q, k, v, None, bias, False, 0.1, **settings)
    found = attention_cpu.backward(
        grad, q, k, v, None, bias, out, lse, False, 0.1, True, **settings
    )
    wide = {n: t.double() for n, t in (inputs | {"bias": bias}).items()}
    wide["q"] = wide["q"] * 0.1 * math.sqrt(72)
    wanted = results(exact, wide, grad)
    wanted[1] = wanted[1] * 0.1 * math.sqrt(72)
    limit = 1e-6 if dtype == torch.float32 else 1e-2
    assert max(errors([out, *found], wanted)) < limit
    scores = wide["q"] @ wide["k"].repeat_interleave(2, 1).transpose(-1, -2) / math.sqrt(72)
    torch.testing.assert_close(
        lse.double(), torch.logsumexp(scores + bias, -1), rtol=1e-5, atol=1e-5
    )


def test_an_unknown_instruction_set_is_refused() -> None:
    q = torch.randn(1, 4, 16)
    with pytest.raises(ValueError, match="cannot run the kernels sse9"):
        attention_cpu.forward(q, q, q, None, None, False, 1.0, isa="sse9")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_repeat_bit_for_bit(threads: int) -> None:
    inputs = make(torch.float32, h=1, s=400, d=64)
    q, k, v = inputs.values()
    grad = torch.randn(1, 1, 400, 64)
    runs = []
    for _ in range(3):
        out, lse = attention_cpu.forward(q, k, v, None, None, True, 0.1, threads=threads)
        args = (grad, q, k, v, None, None, out, lse, True, 0.1, False)
        runs.append([out, lse, *attention_cpu.backward(*args, threads=threads)])
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))
    single, _ = attention_cpu.forward(q, k, v, None, None, True, 0.1, threads=1)
    assert torch.equal(runs[0][0], single), "the forward does not depend on the threads at all"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_come_out_as_in_torch(dtype: torch.dtype, name: str, value: float) -> None:
    inputs = make(dtype, s=20, sk=90)
    inputs[name][0, 1, 3, 5] = value
    wanted = exact(**{n: t.float() for n, t in inputs.items()})
    found = ours(**inputs).float()
    assert torch.equal(found.isnan(), wanted.isnan())
    torch.testing.assert_close(found, wanted, equal_nan=True, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("kind", ["boolean", "added"])
def test_rows_without_keys_are_zero_as_in_torch(kind: str) -> None:
    inputs = make(torch.float32, s=70, sk=70)
    mask = torch.rand(70, 70) > 0.5
    mask[5] = mask[66] = False
    mask[:, 0] |= mask.any(-1)
    inputs["mask"] = (
        mask if kind == "boolean" else torch.zeros(70, 70).masked_fill(~mask, -math.inf)
    )
    found, wanted = ours(**inputs), sdpa(inputs["q"], inputs["k"], inputs["v"], inputs["mask"])
    assert (found[:, :, 5] == 0).all() and (found[:, :, 66] == 0).all()
    torch.testing.assert_close(found, wanted)
    grads = results(ours, inputs, torch.randn(1, 2, 70, 32))[1:]
    assert all(grad.isfinite().all() for grad in grads)
    assert (grads[0][:, :, 5] == 0).all()


@pytest.mark.parametrize(("s", "sk", "b"), [(0, 5, 1), (5, 0, 1), (5, 5, 0), (0, 0, 2)])
def test_empty_tensors(s: int, sk: int, b: int) -> None:
    q = torch.randn(b, 2, s, 16, requires_grad=True)
    k = torch.randn(b, 2, sk, 16, requires_grad=True)
    out = ours(q, k, k)
    assert out.shape == (b, 2, s, 16) and not out.any()
    out.sum().backward()
    assert q.grad is not None and k.grad is not None
    assert not q.grad.any() and not k.grad.any()


def test_large_scores_do_not_overflow() -> None:
    inputs = make(torch.float32, s=80, d=64)
    inputs["q"] *= 100
    inputs["k"] *= 100
    torch.testing.assert_close(ours(**inputs), theirs(**inputs), rtol=1e-3, atol=1e-3)


def test_threads_and_cuts_agree() -> None:
    inputs = make(torch.float32, h=1, s=333, d=64)
    inputs["bias"] = torch.randn(1, 333)
    q, k, v, bias = inputs.values()
    grad = torch.randn(1, 1, 333, 64)
    out, lse = attention_cpu.forward(q, k, v, None, bias, False, 0.1)
    args = (grad, q, k, v, None, bias, out, lse, False, 0.1, True)
    for one, four in itertools.pairwise(
        [attention_cpu.backward(*args, threads=threads) for threads in (1, 4)]
    ):
        for a, b in zip(one, four, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
