"""Runs a function on several ranks, one process each, on gloo; never hangs, leaves no process.

Processes come from a fork server that has torch loaded, so a world of eight starts in less than
a second. The store is hosted by the test process, so it survives any rank. A rank that outlives
the deadline, or whose test process is gone, is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist

PRELOAD = ["torch", "torch.distributed", "perfkit.dsp.primitives", "pytest", "hypothesis"]


class RankFailed(AssertionError):
    """A rank raised; the message holds every rank's traceback."""


class RanksTimedOut(AssertionError):
    """Ranks were still running at the deadline; they were killed."""


def _rank(
    rank: int,
    world: int,
    port: int,
    timeout: float,
    environment: Mapping[str, str],
    body: Callable[..., Any],
    arguments: tuple[Any, ...],
    channel: Connection,
) -> None:
    """The life of one rank."""
    os.environ.update(environment)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)

    def die_with_parent() -> None:
        try:
            channel.recv()
        except (EOFError, OSError):
            os._exit(3)

    threading.Thread(target=die_with_parent, daemon=True).start()
    try:
        store = dist.TCPStore(
            "127.0.0.1", port, is_master=False, timeout=timedelta(seconds=timeout)
        )
        dist.init_process_group(
            "gloo",
            store=store,
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=timeout),
        )
        result = body(*arguments)
        channel.send((True, result))
    except BaseException as error:
        channel.send((False, (type(error).__name__, str(error), traceback.format_exc())))
    # Without destroying the group: a rank that failed must not wait for the others.
    os._exit(0)


def launch(
    world: int,
    body: Callable[..., Any],
    *arguments: Any,
    timeout: float = 120.0,
    group_timeout: float = 60.0,
    environment: Mapping[str, str] | None = None,
    may_die: bool = False,
) -> list[Any]:
    """``body(*arguments)`` on every rank; its results by rank.

    ``body`` must be a module's function, arguments and results plain data. With ``may_die`` the
    outcome of a rank is ("ok", result), ("error", (class, message)) or ("died", None).

    Raises:
        RankFailed: a rank raised or died, unless ``may_die``.
        RanksTimedOut: the deadline passed; every rank has been killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes, channels = [], []
    outcomes: list[tuple[str, Any] | None] = [None] * world
    tracebacks: dict[int, str] = {}
    try:
        for rank in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_rank,
                args=(
                    rank,
                    world,
                    store.port,
                    group_timeout,
                    dict(environment or {}),
                    body,
                    arguments,
                    theirs,
                ),
                daemon=True,
            )
            process.start()
            theirs.close()
            processes.append(process)
            channels.append(ours)
        deadline = time.monotonic() + timeout
        while any(outcome is None for outcome in outcomes):
            left = deadline - time.monotonic()
            if left <= 0:
                late = [rank for rank, outcome in enumerate(outcomes) if outcome is None]
                raise RanksTimedOut(
                    f"ranks {late} of {world} still ran after {timeout} s"
                    + "".join(f"\nrank {r}:\n{text}" for r, text in tracebacks.items())
                )
            open_channels = [
                c for c, outcome in zip(channels, outcomes, strict=True) if not outcome
            ]
            for channel in wait(open_channels, left):
                rank = channels.index(channel)  # type: ignore[arg-type]
                try:
                    good, result = channel.recv()  # type: ignore[union-attr]
                except (EOFError, OSError):
                    outcomes[rank] = ("died", None)
                    tracebacks[rank] = "died without a word"
                    continue
                outcomes[rank] = ("ok", result) if good else ("error", result[:2])
                if not good:
                    tracebacks[rank] = result[2]
            if tracebacks and not may_die:
                # The others would wait for the one that failed; give them a moment to say why.
                deadline = min(deadline, time.monotonic() + 1.0)
                if all(outcomes):
                    break
    except RanksTimedOut as error:
        if tracebacks:
            raise RankFailed(str(error)) from None
        raise
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join(10)
        for channel in channels:
            channel.close()
    if tracebacks and not may_die:
        raise RankFailed("".join(f"\nrank {r}:\n{text}" for r, text in tracebacks.items()))
    found = [outcome for outcome in outcomes if outcome is not None]
    return found if may_die else [result for _, result in found]
