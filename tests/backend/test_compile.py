"""``torch.compile`` with the backend: results, gradients, shapes, options, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

from perfkit import backend, config  # noqa: E402
from perfkit.backend import program  # noqa: E402
from perfkit.errors import BackendError  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: Any) -> Any:
    folder = tmp_path_factory.getbasetemp() / "backend-cache"
    torch.compiler.reset()
    with config.scope(cache_dir=Path(folder)), torch._inductor.config.patch(
        force_disable_caches=True
    ):
        yield


def randn(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def gated_scan(x: Any) -> Any:
    return torch.cumsum(torch.tanh(x), -1) * torch.sigmoid(x)


def compiled(function: Any, **options: Any) -> Any:
    return torch.compile(
        function, backend=backend.perfkit, fullgraph=True, options={"keep": True, **options}
    )


def test_forward_and_gradient() -> None:
    x, y = randn(8, 40).requires_grad_(), randn(8, 40).requires_grad_()
    weight = randn(8, 40)
    found, wanted = compiled(gated_scan)(x), gated_scan(y)
    torch.testing.assert_close(found, wanted)
    (found * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_a_region_is_used_and_explained() -> None:
    report = backend.explain(gated_scan, randn(8, 40), options={"keep": True})
    kept = [r for g in report.graphs for r in g.regions if r.kept]
    assert [r.kind for r in kept] == ["scan"]
    assert "cumsum" in str(report) and "Parallelize" in str(report)


def test_by_default_only_what_pays_is_kept() -> None:
    report = backend.explain(gated_scan, randn(8, 40))
    assert not any(r.kept for g in report.graphs for r in g.regions)
    assert "not clearly faster" in str(report)
    many = randn(20_000, 3, 3), randn(20_000, 3, 8)
    report = backend.explain(lambda a, b: torch.relu(a @ b) * 0.5, *many)
    assert [r.kind for g in report.graphs for r in g.regions if r.kept] == ["product"]


def test_rows_that_share_their_loops_are_kept() -> None:
    """Inductor's scaled log_softmax asks whether any value of a row is infinite."""
    x = randn(4096, 4096)
    for function in (lambda x: torch.log_softmax(x * 0.7, -1), lambda x: torch.softmax(x, -1)):
        report = backend.explain(function, x)
        assert [r.kind for g in report.graphs for r in g.regions if r.kept] == ["normalization"]


def test_a_long_chain_of_steps_is_one_region() -> None:
    def heat(x: Any) -> Any:
        for _ in range(16):
            x = x[1:-1] + 0.2 * (x[:-2] - 2.0 * x[1:-1] + x[2:])
        return x

    x = randn(1 << 22)
    report = backend.explain(heat, x)
    assert [r.kept for g in report.graphs for r in g.regions] == [True]
    torch.testing.assert_close(plain(heat)(x), heat(x), rtol=1e-4, atol=1e-5)


def test_two_sizes_cost_one_more_compilation() -> None:
    fast = compiled(gated_scan)
    counters = torch._dynamo.utils.counters
    counters.clear()
    for rows in (8, 16, 24, 40):
        x = randn(rows, 40)
        torch.testing.assert_close(fast(x), gated_scan(x))
    assert counters["stats"]["unique_graphs"] <= 2


def test_inference_mode_and_no_grad() -> None:
    fast = compiled(gated_scan)
    x = randn(8, 40)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), gated_scan(x))


def test_in_place_and_aliased_inputs() -> None:
    def update(x: Any, y: Any) -> Any:
        x.add_(torch.cumsum(y, -1))
        return x * 2

    x, y = randn(4, 9), randn(4, 9)
    mine, theirs = x.clone(), x.clone()
    torch.testing.assert_close(compiled(update)(mine, y), update(theirs, y))
    torch.testing.assert_close(mine, theirs)
    mine, theirs = x.clone(), x.clone()
    torch.compiler.reset()
    torch.testing.assert_close(compiled(update)(mine, mine), update(theirs, theirs))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (1, 7)])
def test_empty_and_single(shape: tuple[int, ...]) -> None:
    x = randn(*shape)
    torch.testing.assert_close(compiled(gated_scan)(x), gated_scan(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_element_types_that_are_left_to_inductor(dtype: Any) -> None:
    x = randn(6, 12).to(dtype)
    torch.testing.assert_close(compiled(gated_scan)(x), gated_scan(x), rtol=2e-2, atol=2e-2)


def test_strided_and_expanded_inputs() -> None:
    fast = compiled(gated_scan)
    base = randn(12, 10)
    for x in (base.t(), base[::2, 1:7], base[:1].expand(6, 10)):
        torch.compiler.reset()
        found, wanted = fast(x), gated_scan(x)
        torch.testing.assert_close(found, wanted)
        assert found.stride() == wanted.stride()


def test_a_whole_layer_trains() -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x = randn(2, 6, 16)
    wanted = torch.autograd.grad(layer(x).square().mean(), list(layer.parameters()))
    found = torch.autograd.grad(compiled(layer)(x).square().mean(), list(layer.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fallback", ["eager", "inductor"])
def test_fallbacks_agree(fallback: str) -> None:
    x = randn(3, 20)

    def norm(x: Any) -> Any:
        return F.layer_norm(x, (20,)).softmax(-1)

    torch.testing.assert_close(compiled(norm, fallback=fallback)(x), norm(x))


@pytest.mark.parametrize(
    ("mode", "options", "word"),
    [("fastest", None, "fastest"), (None, {"strcit": True}, "strict"), (None, {"fp": "x"}, "fp")],
)
def test_unknown_options_are_refused(mode: Any, options: Any, word: str) -> None:
    with pytest.raises(BackendError, match=word):
        backend.perfkit(torch.fx.GraphModule({}, torch.fx.Graph()), [], mode=mode, options=options)


def test_inductors_own_options_pass() -> None:
    x = randn(3, 20)
    fast = compiled(gated_scan, epilogue_fusion=False)
    torch.testing.assert_close(fast(x), gated_scan(x))


def test_no_compiler_leaves_all_to_inductor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x = randn(5, 21)
    program.load.cache_clear()
    with config.scope(cc="no-such-compiler"):
        torch.testing.assert_close(compiled(gated_scan)(x), gated_scan(x))
    assert "no C compiler" in caplog.text


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "left to Inductor" in r.getMessage()]


def plain(function: Any) -> Any:
    """Compiled by default options."""
    return torch.compile(function, backend=backend.perfkit)


BAD: dict[str, tuple[Any, Any, str]] = {
    "bfloat16": (lambda x: torch.softmax(x, -1) * 2, randn(4, 8).bfloat16(), "on bfloat16"),
    "half": (lambda x: torch.softmax(x, -1) * 2, randn(4, 8).half(), "on float16"),
    "complex": (lambda x: x * 2 + x.sum(), torch.complex(randn(4, 8), randn(4, 8)), "complex64"),
    "empty": (lambda x: torch.cumsum(x * 2, 0), randn(4, 0), "without elements"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_tensors_keep_out_is_told_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    function, x, reason = BAD[name]
    found, wanted = plain(function)(x), function(x)
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)
    (warning,) = warnings_of(caplog)
    assert reason in warning


def test_training_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    x = randn(4, 8).bfloat16().requires_grad_()
    plain(lambda x: torch.softmax(torch.tanh(x), -1) * 2)(x).float().sum().backward()
    assert len(warnings_of(caplog)) == 1


def test_sizes_that_depend_on_data(caplog: pytest.LogCaptureFixture) -> None:
    def positive(x: Any) -> Any:
        return torch.cumsum(x[x > 0] * 2, 0)

    x = randn(40)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        torch.testing.assert_close(plain(positive)(x), positive(x))
    assert "depends on data" in warnings_of(caplog)[0]


def test_quantised_tensors_run() -> None:
    x = torch.quantize_per_tensor(randn(4, 8), 0.1, 0, torch.qint8)
    torch.testing.assert_close(plain(lambda x: x.dequantize() * 2)(x), x.dequantize() * 2)


def test_operators_that_perfkit_does_not_know() -> None:
    def mixed(x: Any) -> Any:
        return torch.cumsum(x.sort(-1)[0], -1) + torch.linalg.inv(x @ x.t() + 9 * torch.eye(6))

    x = randn(6, 6)
    torch.testing.assert_close(compiled(mixed)(x), mixed(x))


def test_max_autotune_measures() -> None:
    report = backend.explain(gated_scan, randn(64, 512), mode="max-autotune-no-cudagraphs")
    (region,) = (r for g in report.graphs for r in g.regions)
    assert region.measured > 0 and region.measured_inductor > 0
    assert region.kept == (region.measured_inductor >= region.measured * 1.02)


def test_strict_raises_instead() -> None:
    program.load.cache_clear()
    with config.scope(cc="no-such-compiler"), pytest.raises(Exception, match="no C compiler"):
        compiled(gated_scan, strict=True)(randn(5, 22))
