"""The launcher itself: results by rank, failures with their traceback, deadlines, no orphans."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch.distributed as dist

from tests.dist.launcher import RankFailed, RanksTimedOut, launch


def rank_and_world() -> tuple[int, int]:
    return dist.get_rank(), dist.get_world_size()


def fail_on(rank: int) -> None:
    if dist.get_rank() == rank:
        raise ValueError("on purpose")
    dist.barrier()


def sleep_on(rank: int, folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    if dist.get_rank() == rank:
        time.sleep(600)


def exit_on(rank: int) -> str:
    if dist.get_rank() == rank:
        os._exit(9)
    return "alive"


def test_results_come_by_rank() -> None:
    assert launch(3, rank_and_world) == [(0, 3), (1, 3), (2, 3)]


def test_a_failure_is_told_with_its_traceback() -> None:
    with pytest.raises(RankFailed, match="on purpose"):
        launch(2, fail_on, 1)


def test_a_rank_that_hangs_is_killed_at_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(RanksTimedOut, match=r"ranks \[1\] of 2"):
        launch(2, sleep_on, 1, str(tmp_path), timeout=3)
    pids = [int(file.name) for file in tmp_path.iterdir()]
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not multiprocessing.active_children()


def test_a_death_can_be_an_outcome() -> None:
    assert launch(2, exit_on, 0, may_die=True) == [("died", None), ("ok", "alive")]
