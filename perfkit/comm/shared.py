"""The symmetric heaps of a process group: made when its ranks can share memory, else refused.

Ranks that cannot (another host, another ``/dev/shm``, too little of it) all come to the same
answer without a heap, say so once, and their callers use collectives instead. What each rank has
is told to the others through the group's store, once for every heap that is made.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from perfkit import config, log
from perfkit.comm.group import Group
from perfkit.comm.heap import HeapPool, SymmetricHeap
from perfkit.comm.segments import SHARED_MEMORY
from perfkit.errors import CollectiveError

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class SharedHeaps:
    """One group's heaps on this rank; kept with :meth:`perfkit.comm.group.Group.keep`.

    Args:
        group: the group.
        folder: where shared memory is mounted.
        limit: bytes that this rank's parts of all heaps may take together.
    """

    def __init__(
        self, group: Group, *, folder: Path = SHARED_MEMORY, limit: int = 1 << 30
    ) -> None:
        self._group = group
        self._folder = folder
        self._limit = limit
        self._made = 0
        self._pool: HeapPool | None = None
        self._refused: int | None = None  # slots of this size or more are known not to fit
        self._told = False

    def get(self, slot_bytes: int, *, frames: int, subtiles: int) -> SymmetricHeap | None:
        """A heap with at least these sizes, or None where the ranks cannot have one.

        Every rank asks for the same sizes in the same order.

        Raises:
            CollectiveError: a rank did not say what it has.
            HeapTimeout: a rank said that it would come and did not.
        """
        if self._group.fake or (self._refused is not None and slot_bytes >= self._refused):
            return None
        if self._pool is not None:
            found = self._pool.find(slot_bytes, frames=frames, subtiles=subtiles)
            if found is not None:
                return self._pool.get(slot_bytes, frames=frames, subtiles=subtiles)
        told = self._exchange()
        if self._pool is None:
            self._pool = HeapPool(
                f"{self._group.name}-{told[0]['token']}",
                self._group.rank,
                self._group.size,
                limit=self._limit,
                timeout=config.current().dsp_timeout,
                folder=self._folder,
            )
        need = self._pool.rounded(slot_bytes, frames=frames, subtiles=subtiles).bytes
        problem = self._problem(need, told)
        if problem:
            here = len({entry["host"] for entry in told}) == 1
            self._refused = slot_bytes if here else 0
            self._tell(problem)
            return None
        return self._pool.get(slot_bytes, frames=frames, subtiles=subtiles)

    def close(self) -> None:
        """Give the memory back."""
        if self._pool is not None:
            self._pool.close()

    def _exchange(self) -> list[dict[str, Any]]:
        """What every rank has, by rank."""
        store = dist.PrefixStore(f"perfkit/heap/{self._group.name}/{self._made}", self._group.store)
        self._made += 1
        mine = {"host": _host(self._folder), "free": _free(self._folder)}
        mine["token"] = secrets.token_hex(8)
        keys = [str(rank) for rank in range(self._group.size)]
        try:
            store.set(str(self._group.rank), json.dumps(mine))
            store.wait(keys, timedelta(seconds=config.current().dsp_timeout))
            return [json.loads(store.get(key)) for key in keys]
        except RuntimeError as error:
            raise CollectiveError(
                f"rank {self._group.rank} of {self._group.size} (group {self._group.name!r}): "
                "the ranks could not agree on a heap; another rank died, or did not come in time"
            ) from error

    def _problem(self, need: int, told: Sequence[dict[str, Any]]) -> str:
        if len({entry["host"] for entry in told}) > 1:
            return "its ranks are on different hosts or see different /dev/shm"
        if need > self._limit:
            return f"a heap of {need >> 20} MiB per rank exceeds the limit of {self._limit >> 20}"
        least = min(entry["free"] for entry in told)
        if need * self._group.size > least:
            return (
                f"{self._folder} has {least >> 20} MiB left and a heap needs "
                f"{need * self._group.size >> 20} MiB on this host (docker run --shm-size=2g)"
            )
        return ""

    def _tell(self, problem: str) -> None:
        if not self._told and self._group.rank == 0:
            log.get("heap").warning(
                "group %r uses collectives where it could share memory: %s",
                self._group.name,
                problem,
            )
        self._told = True


def _host(folder: Path) -> str:
    """The same text exactly where processes see the same shared memory."""
    try:
        return f"{_BOOT.read_text().strip()}-{os.stat(folder).st_dev}-{os.getuid()}"
    except OSError:
        return secrets.token_hex(8)  # no such memory: like nobody else's


def _free(folder: Path) -> int:
    try:
        room = os.statvfs(folder)
    except OSError:
        return 0
    return room.f_bavail * room.f_frsize
