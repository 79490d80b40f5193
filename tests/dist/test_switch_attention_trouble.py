"""Fused switch + attention in trouble: dead ranks, no room, forks; and as torch operators."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist

from perfkit import ops
from perfkit.comm import shared as shared_module
from perfkit.comm.group import resolve
from perfkit.comm.shared import SharedHeaps
from perfkit.errors import HeapError
from tests.dist.launcher import launch
from tests.protocol.trials import leftovers


def one_call() -> torch.Tensor:
    x = torch.ones(1, 2, 4, 1, 8)
    return ops.switch_attention(x, x, x, from_dim=1, to_dim=2)


def killed_peer() -> None:
    one_call()
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    one_call()


def test_every_survivor_hears_of_a_death_and_nothing_is_left() -> None:
    before = set(leftovers())
    environment = {"PERFKIT_DSP_TIMEOUT": "0.5"}
    outcomes = launch(3, killed_peer, may_die=True, environment=environment)
    assert outcomes[1][0] == "died"
    names = {outcomes[rank][1][0] for rank in (0, 2)}
    assert names <= {"HeapTimeout", "HeapAborted"} and "HeapTimeout" in names
    assert set(leftovers()) <= before


class Room(NamedTuple):
    f_bavail: int
    f_frsize: int = 4096


def little_room(hosts: bool) -> list[str]:
    """What is logged by two calls without shared memory to share."""
    if hosts:
        shared_module._host = lambda folder: f"host {dist.get_rank()}"  # type: ignore[assignment]
    else:
        real = os.statvfs
        small = Room(64)  # 256 KiB
        shared_module.os.statvfs = lambda p: small if "shm" in str(p) else real(p)  # type: ignore
    records: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logging.getLogger("perfkit.heap").addHandler(Collect())
    x = torch.randn(1, 8, 64, 2, 64)
    for _ in range(2):
        out = ops.switch_attention(x, x, x, from_dim=1, to_dim=2, back=True)
        assert out.shape == x.shape and out.isfinite().all()
    return records


@pytest.mark.parametrize("hosts", [False, True])
def test_collectives_take_over_and_say_so_once(hosts: bool) -> None:
    first, second = launch(2, little_room, hosts)
    assert len(first) == 1 and second == []
    assert ("different hosts" if hosts else "--shm-size") in first[0]


def small_tensors_still_share() -> bool:
    """Too large a request is refused; a small one afterwards is not."""
    group = resolve(dist.group.WORLD.group_name)
    heaps = group.keep(SharedHeaps, lambda: SharedHeaps(group, limit=1 << 20))
    large = torch.randn(1, 8, 64, 2, 64)
    ops.switch_attention(large, large, large, from_dim=1, to_dim=2)
    one_call()
    return heaps._pool is not None and len(heaps._pool) == 1


def test_a_refused_size_does_not_stop_smaller_ones() -> None:
    assert launch(2, small_tensors_still_share) == [True, True]


def use_after_fork() -> str:
    one_call()
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            one_call()
            os.write(send, b"no error")
        except HeapError as error:
            os.write(send, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    one_call()
    return os.read(receive, 4096).decode()


def test_a_fork_cannot_be_the_same_rank() -> None:
    assert all("before a fork" in answer for answer in launch(2, use_after_fork))


def disagreement() -> None:
    x = torch.randn(1, 2, 4 + dist.get_rank(), 1, 8)
    ops.switch_attention(x, x, x, from_dim=1, to_dim=2)


def test_debug_mode_finds_ranks_that_disagree() -> None:
    outcomes = launch(2, disagreement, may_die=True, environment={"PERFKIT_DSP_CHECK": "1"})
    assert [outcome[1][0] for outcome in outcomes] == ["MismatchError"] * 2


def as_operators() -> None:
    def make() -> list[torch.Tensor]:
        return [torch.randn(1, 3, 4, 2, 8, requires_grad=True) for _ in range(3)]

    name = dist.group.WORLD.group_name
    for pull, push in ((True, False), (False, True), (True, True)):
        args: tuple[Any, ...] = (
            *make(), None, True, name, 1, [6 if pull else 3, 4 if pull else 8], pull, push,
            True, 0.3, 2, False, "", 0.0,
        )  # fmt: skip
        checks = ("test_schema", "test_faketensor", "test_autograd_registration")
        torch.library.opcheck(torch.ops.perfkit.switch_attention, args, test_utils=checks)

    def block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        y = ops.switch_attention(q * 2, k, v, from_dim=1, to_dim=2, causal=True)
        return ops.attention_switch(y, y, y, from_dim=2, to_dim=1).sin()

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    inputs = make()
    wanted, found = block(*inputs), compiled(*inputs)
    torch.testing.assert_close(found, wanted)
    left = torch.autograd.grad(found.sum(), inputs)
    right = torch.autograd.grad(wanted.sum(), inputs)
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b)


def test_operators_pass_opcheck_and_compile() -> None:
    launch(2, as_operators)
