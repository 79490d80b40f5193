"""aten regions as loops, run by the oracle, against eager torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

from perfkit.errors import UnsupportedError  # noqa: E402
from perfkit.frontends import fx_graph, fx_loops  # noqa: E402
from tests.backend.harness import compare, region_of  # noqa: E402


def randn(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def integers(*shape: int, dtype: Any = torch.int64) -> Any:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-5, 6, shape, generator=generator).to(dtype)


X, Y = randn(4, 6), randn(4, 6)

POINTWISE: dict[str, Callable[[Any], Any]] = {
    "exp": torch.exp, "log": lambda x: torch.log(x.abs() + 1), "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1), "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "erf": torch.erf, "relu": torch.relu, "gelu": F.gelu, "silu": F.silu,
    "tanh-gelu": lambda x: F.gelu(x, approximate="tanh"), "softplus": F.softplus,
    "square": torch.square, "cube": lambda x: x**3, "root": lambda x: x.abs() ** 0.5,
    "power": lambda x: (x.abs() + 0.5) ** 1.7, "reciprocal": lambda x: 1.0 / (x + 10),
    "clamp": lambda x: x.clamp(-0.5, 0.7), "clamp-low": lambda x: x.clamp(min=0.1),
    "abs": torch.abs, "neg": torch.neg, "round": torch.round, "floor": torch.floor,
    "log1p": lambda x: torch.log1p(x.abs()), "expm1": torch.expm1, "sin": torch.sin,
    "where": lambda x: torch.where(x > 0, x, -2 * x), "maximum": lambda x: torch.maximum(x, -x),
    "masked-fill": lambda x: x.masked_fill(x < 0, 3.0), "hardswish": F.hardswish,
    "leaky": F.leaky_relu, "elu": F.elu, "logical": lambda x: (x > 0) & ~(x > 1),
    "integer": lambda x: (x * 4).to(torch.int32) + 1, "double": lambda x: x.double() * 3,
    "bool": lambda x: (x > 0).float(), "count": lambda x: (x > 0).sum(),
}  # fmt: skip


@pytest.mark.parametrize("name", POINTWISE)
def test_elementwise(name: str) -> None:
    compare(POINTWISE[name], X)


def test_multiply_add_of_inductor() -> None:
    # Inductor registers the operator when it is imported.
    import torch._inductor.inductor_prims

    compare(torch.ops.prims.fma.default, X, Y, X + 1)


def test_nan_and_infinity_stay() -> None:
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), -0.0]])
    compare(lambda x: (torch.maximum(x, x.flip(1)), torch.relu(x), x.clamp(-1, 1)), x)
    compare(lambda x: torch.softmax(x, -1), x)


MOVES: dict[str, Callable[[Any], Any]] = {
    "transpose": lambda x: x.t() + 1, "view": lambda x: (x * 2).view(2, 12) + 1,
    "split-view": lambda x: (x * 2).view(4, 2, 3).transpose(0, 1) * 3,
    "merge-view": lambda x: ((x * 2).reshape(4, 2, 3).permute(1, 0, 2) + 1).reshape(2, 12) * 2,
    "slice": lambda x: x[1:3, ::2] * 2, "negative": lambda x: x[-3:-1, -2:] + x[:2, :2],
    "select": lambda x: x[:, 2] + x[:, -1], "unsqueeze": lambda x: x[:, None] * x[None, :, :],
    "cat": lambda x: torch.cat([x, x * 2, x[:1]], 0) + 1,
    "stack": lambda x: torch.stack([x, -x], 1).sum(1),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3), value=7.0) * 2, "flip": lambda x: x.flip(0) - x,
    "expand": lambda x: x[:, :1].expand(4, 6) + x,
    "scatter": lambda x: _assigned(x), "triangle": lambda x: torch.tril(x) + torch.triu(x, 1) * 2,
    "arange": lambda x: x * torch.arange(6), "chunk": lambda x: x.chunk(2, 1)[1] * 2,
    "outer": lambda x: torch.outer(x[0], x[1]), "diagonal-mask": lambda x: x * torch.eye(4, 6),
}  # fmt: skip


def _assigned(x: Any) -> Any:
    rows = torch.slice_scatter(x[1:3], x[:2, :3] * 2, 1, 2, 5)
    return torch.select_scatter(torch.slice_scatter(x, rows, 0, 1, 3), x[3], 0, -4)


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    compare(MOVES[name], X)


COMBINES: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: x.sum(), "rows": lambda x: x.sum(-1), "columns": lambda x: x.sum(0),
    "kept": lambda x: x - x.mean(-1, keepdim=True), "softmax": lambda x: torch.softmax(x, -1),
    "softmax-columns": lambda x: torch.softmax(x, 0), "log-softmax": lambda x: x.log_softmax(-1),
    "variance": lambda x: x.var(-1), "std": lambda x: x.std(0, unbiased=False),
    "layer-norm": lambda x: F.layer_norm(x, (6,)), "cumsum": lambda x: x.cumsum(-1),
    "cumsum-columns": lambda x: (x * 2).cumsum(0) + 1, "cumprod": lambda x: x.cumprod(-1),
    "integer-sum": lambda x: (x * 3).to(torch.int32).sum(1), "scan": lambda x: x.cumsum(0).sum(1),
    "any": lambda x: (x > 2).any(-1), "any-of-floats": lambda x: torch.any(x * 0, 0, True),
    "logsumexp": lambda x: torch.logsumexp(x, -1), "norm": lambda x: (x * x).sum(-1).sqrt(),
}  # fmt: skip


@pytest.mark.parametrize("name", COMBINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_combines(name: str, dtype: Any) -> None:
    compare(COMBINES[name], X.to(dtype))


@pytest.mark.parametrize("shape", [(3000,), (3, 2100), (300, 5), (70, 3, 4)])
def test_long_sums_are_taken_in_pieces(shape: tuple[int, ...]) -> None:
    x = randn(*shape)
    compare(lambda x: (x.sum(0), (x * x).sum()), x)


def test_products() -> None:
    a, b, c = randn(3, 4, 5), randn(3, 5, 2), randn(3, 4, 2)
    compare(torch.bmm, a, b)
    compare(lambda a, b: torch.relu(a @ b).sum(-1), a, b)
    compare(lambda c, a, b: torch.baddbmm(c, a, b) * 2, c, a, b)
    compare(lambda a, b: torch.einsum("bij,bkj->bik", a, b.transpose(1, 2)), a, b)
    compare(lambda x, y: x @ y.t(), X, Y)
    compare(lambda z, x, y: torch.addmm(z, x, y), randn(3), randn(4, 5), randn(5, 3))


@pytest.mark.parametrize("left", [torch.float32, torch.float64, torch.int32, torch.bool])
@pytest.mark.parametrize("right", [torch.float32, torch.int64, torch.uint8])
def test_types_promote_as_in_torch(left: Any, right: Any) -> None:
    a, b = integers(3, 4).to(left), integers(3, 4).abs().to(right)
    compare(lambda a, b: (a + b, a * b, a < b, torch.where(a > b, a, b), a / (b + 1)), a, b)
    compare(lambda a: (a * 2, a + 0.5, a > 1), a)


def test_any_strides() -> None:
    base = randn(6, 8, 10)
    compare(lambda x: x * 2, base.permute(2, 0, 1))
    compare(lambda x: x * 2 + x.sum(0), base[1:4, ::2, 2:7])
    compare(lambda x, y: x + y, base[:, 0], base[0, :1, 0].expand(6, 10))
    compare(lambda x: x.cumsum(1), base.transpose(0, 2))


def test_scalars_and_single_elements() -> None:
    compare(lambda x, y: x * y.sum(), torch.tensor(2.5), randn(1, 3))
    compare(lambda x: x.sum() * 2, randn(1, 1, 5))
    compare(lambda x: x.softmax(0), randn(1, 4))


def test_stencil_steps_become_overlapped_tiles() -> None:
    def steps(x: Any) -> Any:
        for _ in range(4):
            x = 0.2 * (x[1:-1, 1:-1] + x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:])
        return x

    region = compare(steps, randn(270, 300), kernel=True)
    scop, _ = fx_loops.lower(region.graph)
    assert {"b0", "b1"} <= {n for s in scop.statements for n in s.iterators}
    assert len([a for a in scop.arrays if a.local]) == 2  # two buffers in turn


def test_softmax_shares_its_rows() -> None:
    region = region_of(lambda x: torch.softmax(x, -1), randn(8, 9))
    scop, _ = fx_loops.lower(region.graph)
    outer = {s.iterators[0] for s in scop.statements}
    assert len(outer) == 1


def test_what_goes_through_the_same_rows_shares_them() -> None:
    """Neither sum reads what the other one makes."""
    region = compare(lambda x: (x.sum(-1), (x * x).sum(-1)), randn(12, 9))
    scop, _ = fx_loops.lower(region.graph)
    assert len({s.iterators[0] for s in scop.statements}) == 1


def test_values_per_row_do_not_turn_a_row_around() -> None:
    a, b = randn(40), randn(40)

    def rows(x: Any, a: Any, b: Any) -> Any:
        return torch.exp(x * a[:, None] + b[:, None]).sum(-1)

    scop, _ = fx_loops.lower(compare(rows, randn(40, 8), a, b).graph)
    stored = next(s for s in scop.statements if len(s.iterators) == 2)
    assert [i.names() for i in stored.write.indices] == [{n} for n in stored.iterators]
    assert scop.by_name()[stored.name].iterators[-1].endswith("_1")


def test_text_and_back() -> None:
    region = region_of(lambda x: torch.cat([x.cumsum(0), x[1:] * 2]), X)
    text = fx_graph.dumps(region.graph)
    assert fx_graph.loads(text) == region.graph
    assert fx_graph.unpacked(fx_graph.packed(text)) == text


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"inputs": 3}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(fx_graph.GraphError):
        fx_graph.loads(text)


REFUSED: dict[str, tuple[Callable[..., Any], Any]] = {
    "sort": (lambda x: x.sort(-1)[0], X),
    "index": (lambda x: x[x[:, 0].long()], X),
    "maximum-alone": (lambda x: x.amax(-1), X),
    "half": (lambda x: x * 2, X.half()),
    "complex": (lambda x: x * 2, torch.complex(X, Y)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_operator(name: str) -> None:
    function, x = REFUSED[name]
    with pytest.raises(UnsupportedError, match=r"\w"):
        fx_loops.lower(region_of(function, x).graph)
