"""bench.dsp: methods agree with one process, bytes with closed forms, and tables tell the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from bench.dsp import end_to_end, loss, volumes
from bench.dsp.command import main, parser, rates
from bench.dsp.end_to_end import PEERS, Row, quartiles, slowest, table, verdict
from bench.dsp.stdit import FRAMES, POSITIONS, Block, One, Size, Stdit
from bench.dsp.world import World, WorldError

SMALL = Size(batch=2, frames=4, positions=8, width=8, heads=4, pairs=2)
UNEVEN = Size(batch=1, frames=7, positions=10, width=12, heads=3, pairs=2)
EVERY = ["dsp", "dsp, 4 chunks", "ulysses", "megatron", "ring"]


@pytest.fixture(scope="module")
def pair() -> Iterator[World]:
    """Two ranks; paced only where a test says so."""
    with World(2, SMALL, "paced") as world:
        yield world


def test_every_method_computes_what_one_process_does(pair: World) -> None:
    for answer in pair.run("check", names=[*EVERY, "ulysses, both blocks"]):
        assert max(answer.values()) < 1e-5, answer


def test_and_with_lengths_and_heads_that_do_not_divide() -> None:
    with World(4, UNEVEN) as world:
        for answer in world.run("check", names=EVERY):
            assert max(answer.values()) < 1e-5, answer


def test_counted_bytes_are_the_closed_forms() -> None:
    size = Size(frames=8, positions=16, width=16, heads=8, pairs=1)
    rows = list(volumes.count([2, 8], size))
    assert {(r.ranks, r.group) for r in rows} == {(2, "gloo"), (8, "fake")}
    assert len(rows) == 2 * len(volumes.FORMS)
    for r in rows:
        assert r.exact, r
    eight = {r.method: r.forward / r.total for r in rows if r.ranks == 8}
    assert eight == {
        "dsp": 2 * 7 / 64,
        "ulysses": 4 * 7 / 64,
        "ulysses, both blocks": 8 * 7 / 64,
        "megatron": 7.0,
        "ring": 1.75,
    }
    assert "10 of 10 equal" in volumes.table(rows)


def test_a_count_that_differs_on_one_rank_is_not_exact() -> None:
    assert volumes.farthest([10, 12, 10], 10) == 12
    row = volumes.Row(2, "gloo", "dsp", "", 64, 12, 10, 10, 10)
    assert not row.exact and "| NO |" in volumes.table([row])


def test_paced_links_are_as_slow_as_they_say(pair: World) -> None:
    pair.limit(80e6)  # 10 MB/s
    slow = pair.run("time", names=["megatron"], training=False, rounds=2)
    pair.limit(None)
    sent = 4 * SMALL.pairs * 2 * SMALL.bytes / 2
    for answer in slow:
        for real, _ in answer["megatron"]:
            assert real > 0.99 * sent / 10e6  # it slept that long


def test_a_step_with_nothing_sent_is_timed_beside_each_real_one(pair: World) -> None:
    answers = pair.run("time", names=["dsp", "ring"], training=True, rounds=3)
    peaks = pair.run("memory", names=["dsp"], training=True)
    for answer in answers:
        assert all(len(answer[name]) == 3 for name in ("dsp", "ring"))
        assert all(min(both) > 0 for both in answer["dsp"])
    # At least the activations that a training step keeps: several of the shard's size.
    assert all(answer["dsp"] > 4 * SMALL.bytes / 2 for answer in peaks)


def test_a_whole_measurement_makes_rows_and_a_table() -> None:
    rows = list(end_to_end.measure(2, SMALL, "paced", [1e9, None], 2))
    assert len(rows) == 2 * 2 * len(end_to_end.NAMES)
    for r in rows:
        assert r.low <= r.seconds <= r.high and r.difference < 1e-5
        assert (r.against is None) == (r.method == "dsp")
        assert (r.gradients > 0) == (r.mode == "training")
        assert r.predicted > 0 and r.samples_per_second == SMALL.batch / r.seconds
    dsp, chunks = rows[0], rows[1]
    # 2 L - 1 switches, against 2 L of the pipelined form; forward and backward.
    one = SMALL.bytes // 4
    assert (dsp.sent, chunks.sent) == (2 * 3 * one, 2 * 4 * one)
    text = table(rows)
    assert text.count("\n| 2 |") == len(rows) and "comparisons (medians)" in text


def test_a_worker_that_fails_is_an_error_with_its_reason() -> None:
    with World(1, SMALL) as world, pytest.raises(WorldError, match="KeyError: 'nothing'"):
        world.run("check", names=["nothing"])


def example(method: str, against: float | None, low: float | None) -> Row:
    return Row(
        "paced", 4, 1e9, "training", method, 1.0, 0.9, 1.1, 1.0, 0.5, 0.5, 0.4, 10, 10, 0, 0.0, 7,
        against, low, 9.0,
    )  # fmt: skip


def test_the_table_says_where_dsp_is_not_ahead() -> None:
    rows = [example("dsp", None, None), example("ulysses", 0.9, 0.8), example("ring", 1.5, 0.99)]
    first, behind, unclear = verdict([*rows, example("megatron", 3.0, 2.5)])
    assert "faster than its peer in 2 of 3" in first
    assert "NOT ahead of ulysses, 4 ranks, 1 Gbit/s, training: 0.90" in behind
    assert "Not clear" in unclear and "ring" in unclear
    assert {"ulysses", "megatron", "ring"} == set(PEERS)


def test_a_round_lasts_as_long_as_its_slowest_rank() -> None:
    assert slowest([[[1.0, 0.5], [2.0, 0.1]], [[3.0, 0.2], [1.0, 0.4]]]) == [(3.0, 0.5), (2.0, 0.4)]
    assert quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_parts_of_a_block_add_up_to_it() -> None:
    torch.manual_seed(0)
    block = Block(8, 2, 3, 10, POSITIONS)
    x = torch.randn(1, 2, 5, 8)
    parts = [block.part((0, 2), (0, 3)), block.part((2, 3), (3, 10))]
    attend = One(UNEVEN).attend
    assert torch.allclose(sum(p.mix(x, attend) for p in parts), block.mix(x, attend), atol=1e-6)
    assert torch.allclose(sum(p.mlp(x) for p in parts), block.mlp(x), atol=1e-6)


def test_spatial_blocks_keep_frames_apart_and_temporal_ones_positions() -> None:
    size = Size(frames=3, positions=4, width=8, heads=2, pairs=1)
    method = One(size)
    model = Stdit(size)
    assert [b.axis for b in model.blocks] == [POSITIONS, FRAMES]
    x = torch.randn(size.shape)
    condition = torch.zeros(1, 6, 8)
    for block, dim in zip(model.blocks, (FRAMES, POSITIONS), strict=True):
        changed = x.clone()
        changed.select(dim, 0).add_(1)
        moved = (
            block(x, condition, method.attend) - block(changed, condition, method.attend)
        ).abs()
        assert moved.select(dim, 0).max() > 0 and moved.select(dim, 1).max() == 0


def test_arguments() -> None:
    assert rates("100M,2.5G,none") == [1e8, 2.5e9, None]
    for wrong in ("fast", "10X", ""):
        with pytest.raises(SystemExit):
            parser().parse_args(["links", "--rates", wrong])
    with pytest.raises(SystemExit, match="do not divide"):
        main(["bytes", "--ranks", "3"])


def test_loss_curves_of_one_rank_and_several_agree(tmp_path: Path) -> None:
    """The command itself: curves, their difference, the picture, the file of results."""
    file, picture = tmp_path / "results" / "dsp.json", tmp_path / "loss.png"
    arguments = ["loss", "--ranks", "2", "--steps", "4", "--json", str(file)]
    if find_spec("matplotlib"):
        arguments += ["--plot", str(picture)]
    assert main(arguments) == 0
    found = json.loads(file.read_text())["loss"]
    assert found["machine"] and set(found["parallel"]) == {"dsp", "ulysses", "megatron", "ring"}
    assert len(found["one"]) == 4 and found["one"][3] != found["one"][0]
    assert max(found["differences"].values()) < 1e-4
    if find_spec("matplotlib"):
        assert picture.stat().st_size > 5000


def test_the_difference_of_curves_is_the_largest() -> None:
    curves = loss.Curves(SMALL, 2, [1.0, 2.0, 3.0], {"dsp": [1.0, 2.5, 2.9]})
    assert curves.differences == {"dsp": 0.5}
