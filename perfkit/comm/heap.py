"""A symmetric heap: memory of the same layout on every rank of one host, visible to all of them.

Ranks are processes; each makes one segment of POSIX shared memory and maps everybody's. Once all
have mapped all, the names are removed, so a crash at any later time leaves nothing behind. A
transfer needs no copy beyond its own store: a rank writes into a peer's slot (push) or reads out
of one (pull), and flags say when. The order of calls, as in ``csrc/protocol/endpoint.h``:

    epoch = heap.begin()
    heap.wait_free(destination)                  # for each destination, before the first store
    heap.array(shape, dtype, rank=destination)[...] = part
    heap.publish(destination, frame, subtile)
    heap.wait(source, frame, subtile)            # for each source, before the first load
    part = heap.array(shape, dtype)
    heap.acknowledge(source)                     # always, even when nothing was for this rank

Every rank calls ``begin`` equally often. Waits are bounded; a rank that runs out of patience
kills the heap on all ranks, whose next wait raises :class:`~perfkit.errors.HeapAborted`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from perfkit import _cpu, log
from perfkit.comm.segments import SHARED_MEMORY, Segment, Shape, file_name, sweep
from perfkit.errors import HeapAborted, HeapError, HeapMemoryError, HeapMismatch, HeapTimeout

_ALIGN = 64
_OK, _TIMEOUT = 0, 1
# What a rank was waiting for, by protocol::Reason.
_REASONS = ("nothing", "data", "the end of a slot's last use", "its joining", "an error there")


class SymmetricHeap:
    """One rank's view of the heaps of all ranks; made by :meth:`join`, closed by ``with``.

    Attributes:
        name, generation, rank, shape: what :meth:`join` was given.
        timeout: seconds a wait lasts before the heap is given up.
    """

    def __init__(
        self,
        name: str,
        generation: int,
        rank: int,
        shape: Shape,
        parts: list[Segment],
        timeout: float,
    ) -> None:
        self.name = name
        self.generation = generation
        self.rank = rank
        self.shape = shape
        self.timeout = timeout
        self._parts = parts
        self._pid = os.getpid()
        self._allocated = 0
        self._open = True
        addresses = [part.address for part in parts]
        self._endpoint = _cpu.Endpoint(*shape.arguments, rank, addresses, int(timeout * 1e9))

    @classmethod
    def join(
        cls,
        name: str,
        rank: int,
        ranks: int,
        *,
        slot_bytes: int,
        frames: int = 1,
        subtiles: int = 1,
        generation: int = 0,
        timeout: float = 60.0,
        folder: Path = SHARED_MEMORY,
        first_epoch: int = 0,
        poison: int | None = None,
    ) -> SymmetricHeap:
        """Make this rank's segment, map those of all others, and wait until all have done so.

        Args:
            name: of the group; any text, the same on every rank.
            rank, ranks: this rank, and how many there are on this host (at most 64).
            slot_bytes: bytes of data per rank in each of the two slots; may be 0.
            frames, subtiles: flags per source.
            generation: tells successive heaps of one name apart.
            timeout: seconds, for joining and for every later wait.
            first_epoch: for tests of the wrap at 2**64.
            poison: a byte to fill the slots with, for tests.

        Raises:
            HeapMemoryError: too little shared memory.
            HeapMismatch: another rank came with other sizes.
            HeapTimeout: a rank did not come in time.
            HeapError: sizes out of range, or that rank is taken by a living process.
        """
        if not 0 <= rank < ranks:
            raise HeapError(f"rank {rank} of {ranks} ranks")
        if generation < 0:
            raise HeapError(f"generation {generation}: must be 0 or more")
        shape = Shape(ranks, slot_bytes, frames, subtiles)
        deadline = time.monotonic() + timeout
        if removed := sweep(folder):
            log.get("heap").info("removed %d segments of dead processes", len(removed))
        mine = Segment.create(
            folder, name, generation, rank, shape, first_epoch=first_epoch, poison=poison
        )
        found: dict[int, Segment] = {rank: mine}
        try:
            _cpu.heap_announce(mine.address, rank)
            paths = [folder / file_name(name, generation, peer) for peer in range(ranks)]
            _poll(deadline, lambda: _map_peers(paths, found, rank, shape))
            _poll(deadline, lambda: _joined(mine) == (1 << ranks) - 1)
            missing = [peer for peer in range(ranks) if not _joined(mine) >> peer & 1]
            if missing:
                sweep(folder)
                raise HeapTimeout(
                    f"heap {name!r}, generation {generation}: rank {rank} waited {timeout:g} s "
                    f"for rank {', '.join(map(str, missing))} of {ranks} to join; did it start, "
                    "on this host, with the same name and generation?"
                )
        except BaseException:
            for peer in found.values():
                peer.close()
            raise
        finally:
            # Everybody has it, or it is of no use: no later crash can leave it behind.
            mine.unlink()
        parts = [found[peer] for peer in range(ranks)]
        return cls(name, generation, rank, shape, parts, timeout)

    # --- data ------------------------------------------------------------------------------

    def allocate(self, size: int) -> int:
        """Reserve ``size`` bytes of the slots; the offset, a multiple of 64.

        Ranks that reserve the same sizes in the same order get the same offsets.

        Raises:
            HeapMemoryError: the slots are full.
        """
        self._check()
        if size < 0:
            raise HeapError(f"cannot reserve {size} bytes")
        offset = self._allocated
        if offset + size > self.shape.slot_bytes:
            raise HeapMemoryError(
                f"{size} bytes do not fit: {max(0, self.shape.slot_bytes - offset)} of "
                f"{self.shape.slot_bytes} bytes of the slots are left"
            )
        self._allocated = offset + -(-size // _ALIGN) * _ALIGN
        return offset

    def release(self) -> None:
        """Forget what was reserved; arrays made of it stay valid memory."""
        self._check()
        self._allocated = 0

    def array(
        self,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike = np.uint8,
        *,
        rank: int | None = None,
        offset: int = 0,
        epoch: int | None = None,
    ) -> npt.NDArray[Any]:
        """A NumPy array over a rank's data, without a copy.

        Args:
            shape, dtype: of the array, C-contiguous.
            rank: whose data; default this rank's.
            offset: bytes into the slot.
            epoch: the operation whose slot it is; default the one in progress.

        Raises:
            HeapError: the array does not lie within the slot.
        """
        kind = np.dtype(dtype)
        part, start, count = self._place(shape, kind.itemsize, rank, offset, epoch)
        if count == 0:
            return np.empty(shape, kind)
        return np.frombuffer(part.memory, kind, count, start).reshape(shape)

    def tensor(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        *,
        rank: int | None = None,
        offset: int = 0,
        epoch: int | None = None,
    ) -> Any:
        """The same as :meth:`array` for a ``torch.dtype``: a tensor, without a copy."""
        import torch

        part, start, count = self._place(shape, dtype.itemsize, rank, offset, epoch)
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(part.memory, dtype=dtype, count=count, offset=start).view(shape)

    def _place(
        self,
        shape: tuple[int, ...],
        itemsize: int,
        rank: int | None,
        offset: int,
        epoch: int | None,
    ) -> tuple[Segment, int, int]:
        self._check()
        rank = self.rank if rank is None else rank
        if not 0 <= rank < self.shape.ranks:
            raise HeapError(f"rank {rank} of a heap of {self.shape.ranks}")
        if any(size < 0 for size in shape):
            raise HeapError(f"an array cannot have the shape {shape}")
        count = math.prod(shape)
        if offset < 0 or offset + count * itemsize > self.shape.slot_bytes:
            raise HeapError(
                f"{count * itemsize} bytes at {offset} are not within the slot of "
                f"{self.shape.slot_bytes}"
            )
        if offset % itemsize:
            raise HeapError(f"offset {offset} is no multiple of the {itemsize} bytes of an element")
        epoch = self._endpoint.epoch() if epoch is None else epoch
        return self._parts[rank], _cpu.heap_slot(*self.shape.arguments, epoch) + offset, count

    # --- the protocol ----------------------------------------------------------------------

    def begin(self) -> int:
        """Start the next operation; its epoch."""
        self._check()
        return self._endpoint.begin()

    @property
    def epoch(self) -> int:
        """The operation in progress."""
        self._check()
        return self._endpoint.epoch()

    def wait_free(self, destination: int) -> None:
        """Wait until ``destination`` has read what was sent to it two operations ago."""
        self._check()
        status = self._endpoint.wait_free(destination, self._endpoint.epoch())
        self._raise(status, destination, _REASONS[2])

    def publish(self, destination: int, frame: int = 0, subtile: int = 0) -> None:
        """Tell ``destination`` that everything stored so far for that flag is there."""
        self._check()
        self._endpoint.publish(destination, self._endpoint.epoch(), frame, subtile)

    def ready(self, source: int, frame: int = 0, subtile: int = 0) -> bool:
        """Whether that flag of ``source`` is set for the operation in progress."""
        self._check()
        return self._endpoint.ready(source, self._endpoint.epoch(), frame, subtile)

    def wait(self, source: int, frame: int = 0, subtile: int = 0) -> None:
        """Wait until ``source`` has published that flag in the operation in progress.

        Raises:
            HeapTimeout: it did not within ``timeout`` seconds; the heap is dead.
            HeapAborted: another rank gave up.
        """
        self._check()
        status = self._endpoint.wait_data(source, self._endpoint.epoch(), frame, subtile)
        self._raise(status, source, _REASONS[1])

    def acknowledge(self, source: int) -> None:
        """Tell ``source`` that its data of this operation were read."""
        self._check()
        self._endpoint.acknowledge(source, self._endpoint.epoch())

    def abort(self) -> None:
        """Kill the heap on every rank, so that nobody waits for this one."""
        self._check()
        self._endpoint.abort(self.rank)

    @property
    def endpoint(self) -> _cpu.Endpoint:
        """This rank's end of the protocol, for kernels that wait and publish themselves."""
        self._check()
        return self._endpoint

    def raise_status(self, status: int) -> None:
        """Turn what such a kernel returned into an error, unless it is 0.

        Raises:
            HeapTimeout, HeapAborted: as for :meth:`wait`.
        """
        reason, _, waited_for = self._endpoint.aborted()
        self._raise(status, waited_for, _REASONS[reason])

    def _raise(self, status: int, other: int, what: str) -> None:
        if status == _OK:
            return
        where = f"heap {self.name!r}, generation {self.generation}, operation {self.epoch}"
        if status == _TIMEOUT:
            raise HeapTimeout(
                f"{where}: rank {self.rank} waited {self.timeout:g} s for {what} from rank "
                f"{other}, in vain; the heap is dead on every rank"
            )
        reason, by, waited_for = self._endpoint.aborted()
        raise HeapAborted(
            f"{where}: rank {by} gave up (it missed {_REASONS[reason]} from rank {waited_for}); "
            f"this is rank {self.rank}",
            by,
            waited_for,
        )

    # --- life ------------------------------------------------------------------------------

    def _check(self) -> None:
        if not self._open:
            raise HeapError(f"heap {self.name!r} is closed")
        if os.getpid() != self._pid:
            raise HeapError(
                f"heap {self.name!r} was joined by process {self._pid} before a fork, and two "
                "processes cannot be one rank: join it after forking"
            )

    @property
    def bytes(self) -> int:
        """Shared memory that this rank's part takes."""
        return self.shape.bytes

    def close(self) -> None:
        """Give the memory back; arrays that are still alive keep theirs until they die."""
        self._open = False
        for part in self._parts:
            part.close()

    def __enter__(self) -> SymmetricHeap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Peers must not wait for a rank that fails.
        if error is not None and self._open and os.getpid() == self._pid:
            self.abort()
        self.close()


class HeapPool:
    """Heaps of one group by size, least recently used first out.

    Ranks that ask for the same sizes in the same order make the same decisions, so no message is
    needed to agree. Sizes are rounded up to powers of two, so that slow growth does not make a
    heap per call.

    Args:
        name, rank, ranks, timeout, folder: as for :meth:`SymmetricHeap.join`.
        limit: bytes that this rank's parts of all kept heaps may take together.
    """

    def __init__(
        self,
        name: str,
        rank: int,
        ranks: int,
        *,
        limit: int = 1 << 30,
        timeout: float = 60.0,
        folder: Path = SHARED_MEMORY,
    ) -> None:
        self.name = name
        self.rank = rank
        self.ranks = ranks
        self.limit = limit
        self._timeout = timeout
        self._folder = folder
        self._generation = 0
        self._kept: list[SymmetricHeap] = []

    def get(self, slot_bytes: int, *, frames: int = 1, subtiles: int = 1) -> SymmetricHeap:
        """A heap with at least these sizes, with nothing reserved in it.

        Raises:
            HeapMemoryError: it would exceed the limit by itself.
        """
        fitting = self.find(slot_bytes, frames=frames, subtiles=subtiles)
        if fitting is not None:
            self._kept.remove(fitting)
            self._kept.append(fitting)
            fitting.release()
            return fitting
        rounded = self.rounded(slot_bytes, frames=frames, subtiles=subtiles)
        if rounded.bytes > self.limit:
            raise HeapMemoryError(
                f"a heap with slots of {slot_bytes} bytes takes {rounded.bytes} bytes, more than "
                f"the limit of {self.limit}"
            )
        while self._kept and self.bytes + rounded.bytes > self.limit:
            self._kept.pop(0).close()
        self._generation += 1
        heap = SymmetricHeap.join(
            self.name,
            self.rank,
            self.ranks,
            slot_bytes=rounded.slot_bytes,
            frames=rounded.frames,
            subtiles=rounded.subtiles,
            generation=self._generation,
            timeout=self._timeout,
            folder=self._folder,
        )
        self._kept.append(heap)
        return heap

    def find(self, slot_bytes: int, *, frames: int, subtiles: int) -> SymmetricHeap | None:
        """The smallest kept heap with at least these sizes."""
        fitting = [
            heap
            for heap in self._kept
            if heap.shape.slot_bytes >= slot_bytes
            and heap.shape.frames >= frames
            and heap.shape.subtiles >= subtiles
        ]
        return min(fitting, key=lambda heap: heap.bytes, default=None)

    def rounded(self, slot_bytes: int, *, frames: int, subtiles: int) -> Shape:
        """The sizes of the heap that would be made for these."""
        return Shape(self.ranks, _round(slot_bytes, 4096), _round(frames), _round(subtiles))

    @property
    def bytes(self) -> int:
        """Shared memory that this rank's parts take now."""
        return sum(heap.bytes for heap in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        """Close every heap."""
        while self._kept:
            self._kept.pop().close()


def _round(value: int, least: int = 1) -> int:
    return max(least, 1 << max(0, value - 1).bit_length())


def _joined(segment: Segment) -> int:
    facts = segment.facts()
    return facts["joined"] if facts else 0


def _poll(deadline: float, done: Callable[[], bool]) -> bool:
    """Ask until it is so or the time is over; whether it is."""
    pause = 0.0001
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.005)
    return True


def _map_peers(paths: list[Path], found: dict[int, Segment], rank: int, shape: Shape) -> bool:
    """Map the segments that have appeared since the last call; whether none is missing."""
    for peer, path in enumerate(paths):
        if peer in found:
            continue
        segment = Segment.open(path)
        if segment is None:
            continue
        facts = segment.facts()
        # One that this rank has joined before is about to be replaced by its owner.
        if facts is None or facts["joined"] >> rank & 1 or segment.owner_is_dead():
            segment.close()
            continue
        theirs = Shape(facts["ranks"], facts["slot_bytes"], facts["frames"], facts["subtiles"])
        if theirs != shape:
            segment.close()
            raise HeapMismatch(f"rank {rank} joins a heap of {shape}, rank {peer} of {theirs}")
        _cpu.heap_announce(segment.address, rank)
        found[peer] = segment
    return len(found) == len(paths)
