"""Ranks for benchmarks: one function in several processes on gloo; they end with the parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

PRELOAD = ["torch", "torch.distributed", "perfkit.dsp.primitives", "perfkit.ops"]


class RanksFailed(Exception):
    """A rank raised, died, or did not answer in time."""


def _rank(
    rank: int, world: int, port: int, threads: int, limit: float, channel: Connection,
    body: Callable[..., Any], arguments: tuple[Any, ...],
) -> None:  # fmt: skip
    def end_with_parent() -> None:
        try:
            channel.recv()
        except (EOFError, OSError):
            os._exit(3)

    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(threads)
    try:
        span = timedelta(seconds=limit)
        store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=span)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=span)
        channel.send((True, body(*arguments)))
    except BaseException:
        channel.send((False, traceback.format_exc()))
    os._exit(0)


def run(world: int, body: Callable[..., Any], *arguments: Any, limit: float = 120.0) -> list[Any]:
    """``body(*arguments)`` on every rank; the results by rank.

    ``body`` is a module's function; arguments and results are plain data. The cores are shared
    out among the ranks.

    Raises:
        RanksFailed: not every rank gave a result within ``limit`` seconds.
    """
    # From a server that has torch loaded: starting it anew would take longer than most tasks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    threads = max(1, len(os.sched_getaffinity(0)) // world)
    processes, ends = [], []
    deadline = time.monotonic() + limit
    try:
        for rank in range(world):
            ours, theirs = context.Pipe()
            given = (rank, world, store.port, threads, limit, theirs, body, arguments)
            process = context.Process(target=_rank, args=given, daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            ends.append(ours)
        results = []
        for rank, end in enumerate(ends):
            if not end.poll(max(0.0, deadline - time.monotonic())):
                raise RanksFailed(f"rank {rank} of {world} did not answer within {limit:g} s")
            try:
                good, result = end.recv()
            except EOFError:
                raise RanksFailed(f"rank {rank} of {world} died") from None
            if not good:
                raise RanksFailed(f"rank {rank} of {world}:\n{result}")
            results.append(result)
        return results
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
