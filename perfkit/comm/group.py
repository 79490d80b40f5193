"""Process groups by name, and what perfkit keeps for each: counters, checks, remembered plans.

Operators that ``torch.compile`` can trace take a group's *name*; torch resolves it in its own
process-wide registry. What belongs to a group is kept here beside that registry, by weak
reference, so it lives exactly as long as the group does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d
from torch._C._distributed_c10d import _resolve_process_group
from torch.distributed.device_mesh import DeviceMesh

from perfkit import config
from perfkit.comm.check import Checker
from perfkit.comm.counters import Counters
from perfkit.errors import GroupError

GroupLike: TypeAlias = dist.ProcessGroup | DeviceMesh | str | None
"""A process group, a mesh of one axis, the name of a group, or None for all ranks."""

T = TypeVar("T")


class Group:
    """One process group as this rank sees it.

    ``checker`` is set when ``PERFKIT_DSP_CHECK=1`` at the group's first use.
    """

    def __init__(self, process_group: dist.ProcessGroup) -> None:
        settings = config.current()
        self.name: str = process_group.group_name
        self.size: int = process_group.size()
        self.rank: int = process_group.rank()
        self.fake: bool = dist.get_backend(process_group) == "fake"
        self.timeout = timedelta(seconds=settings.dsp_timeout)
        self.counters = Counters()
        self.checker: Checker | None = None
        if settings.dsp_check and not self.fake:
            self.checker = Checker(
                self.store, self.name, self.rank, self.size, settings.dsp_timeout
            )
        self._kept: dict[type, object] = {}

    @property
    def process_group(self) -> dist.ProcessGroup:
        # Looked up each time: a strong reference from here would keep the group alive.
        return _resolve_process_group(self.name)

    @property
    def store(self) -> dist.Store:
        """The key-value store that the ranks of the group met at."""
        return c10d._get_process_group_store(self.process_group)

    def keep(self, kind: type[T], make: Callable[[], T]) -> T:
        """The group's one object of a class, made at the first call (caches of upper layers)."""
        found = self._kept.get(kind)
        if not isinstance(found, kind):
            found = self._kept[kind] = make()
        return found


_lock = threading.Lock()
_groups: WeakKeyDictionary[dist.ProcessGroup, Group] = WeakKeyDictionary()


def process_group_of(group: GroupLike) -> dist.ProcessGroup:
    """The process group meant by ``group``; traceable by ``torch.compile``.

    Raises:
        GroupError: a mesh of several axes, a group without this rank, or no group at all.
    """
    if group is None:
        return c10d._get_default_group()
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise GroupError(
                f"a mesh of {group.ndim} axes {group.mesh_dim_names} is not one group; "
                "choose an axis, as in mesh['sp']"
            )
        return group.get_group()
    if isinstance(group, str):
        return _by_name(group)
    if not isinstance(group, dist.ProcessGroup):
        raise GroupError(f"expected a process group or a mesh that this rank is in, got {group!r}")
    return group


def resolve(name: str) -> Group:
    """What is kept for the group of that name.

    Raises:
        GroupError: there is no such group in this process.
    """
    process_group = _by_name(name)
    with _lock:
        found = _groups.get(process_group)
        if found is None:
            found = _groups[process_group] = Group(process_group)
        return found


def _by_name(name: str) -> dist.ProcessGroup:
    try:
        return _resolve_process_group(name)
    except RuntimeError:
        raise GroupError(
            f"this process has no process group named {name!r} (destroyed, or not a member)"
        ) from None


def counters(group: GroupLike = None) -> Counters:
    """The bytes counted so far in a group, on this rank."""
    return resolve(process_group_of(group).group_name).counters
