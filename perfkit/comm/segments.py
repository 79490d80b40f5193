"""Files in shared memory that hold one rank's part of a heap each, and who owns them.

A segment is filled under a private name, which says which process made it, and then linked to
the name that peers look for, so nobody sees a half-made one. Whatever a killed process left is
recognised by its dead owner (process id, start time, id namespace) and removed by :func:`sweep`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from perfkit.errors import ExtensionMissing, HeapError, HeapMemoryError

try:
    from perfkit import _cpu
except ImportError as error:
    raise ExtensionMissing(
        f"perfkit._cpu cannot be imported ({error}): install perfkit with `pip install .`"
    ) from error

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "perfkit-"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a heap, the same on every rank: flags ``[ranks][frames][subtiles]``, slot bytes."""

    ranks: int
    slot_bytes: int
    frames: int = 1
    subtiles: int = 1

    @property
    def arguments(self) -> tuple[int, int, int, int]:
        return self.ranks, self.frames, self.subtiles, self.slot_bytes

    @property
    def bytes(self) -> int:
        """Bytes of one rank's segment: header, flags, acks and two slots, in whole pages."""
        try:
            return _cpu.heap_bytes(*self.arguments)
        except (TypeError, ValueError) as error:
            detail = str(error).partition("\n")[0]
            raise HeapError(f"a heap cannot have the sizes {self}: {detail}") from error


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be taken for a later one with the same number."""

    pid: int
    born: int
    space: int

    @classmethod
    def current(cls) -> Process:
        return cls(os.getpid(), _start_time(os.getpid()) or 0, _pid_namespace())

    def dead(self) -> bool:
        """Whether it is known to be gone; a process of another namespace is never known to be."""
        return self.space == _pid_namespace() and _start_time(self.pid) != self.born


def _pid_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot at which a process started; None when there is none, or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command, in brackets, may contain anything, brackets and spaces included.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def file_name(name: str, generation: int, rank: int) -> str:
    """What the segment of a rank is called; users' names may be long and contain anything."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{PREFIX}{os.getuid()}-{digest}-{generation}-{rank}"


def _private_prefix() -> str:
    return f"{PREFIX}{os.getuid()}-new-"


class Segment:
    """One mapped segment. The mapping lives as long as this object or any view of it."""

    def __init__(self, path: Path, memory: mmap.mmap) -> None:
        self.path = path
        self.memory = memory
        # ctypes gives the address; the object is dropped, since it would keep the mapping busy.
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    @classmethod
    def create(
        cls,
        folder: Path,
        name: str,
        generation: int,
        rank: int,
        shape: Shape,
        *,
        first_epoch: int = 0,
        poison: int | None = None,
    ) -> Segment:
        """Make this process's segment and let peers see it.

        Raises:
            HeapMemoryError: the file system has too little room.
            HeapError: a living process has a segment of that name already.
        """
        me = Process.current()
        size = shape.bytes
        _require_room(folder, size)
        token = f"{me.pid}-{me.born}-{me.space}-{secrets.token_hex(4)}"
        private = folder / f"{_private_prefix()}{token}"
        descriptor = os.open(private, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                # Reserves the pages: without it the first store to a missing one is a SIGBUS.
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EFBIG, errno.ENOMEM):
                    raise _too_little(folder, size) from error
                raise
            segment = cls(folder / file_name(name, generation, rank), mmap.mmap(descriptor, size))
            if poison is not None:
                start = _cpu.heap_slot(*shape.arguments, 0)
                segment.memory[start:] = bytes([poison]) * (size - start)
            _cpu.heap_initialise(
                segment.address, *shape.arguments, rank, generation,
                me.pid, me.born, me.space, first_epoch,
            )  # fmt: skip
            try:
                os.link(private, segment.path)
            except FileExistsError:
                raise HeapError(
                    f"{segment.path} exists: rank {rank} of the heap {name!r}, generation "
                    f"{generation}, is being joined by another living process"
                ) from None
            return segment
        finally:
            os.close(descriptor)
            private.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path) -> Segment | None:
        """Map a peer's segment, or None when there is none."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            size = os.fstat(descriptor).st_size
            if size < _cpu.HEAP_HEADER_BYTES:
                return None
            return cls(path, mmap.mmap(descriptor, size))
        finally:
            os.close(descriptor)

    def facts(self) -> _cpu.HeapFacts | None:
        """The header, or None when this is not a segment of this version of perfkit."""
        return _cpu.heap_inspect(self.address, len(self.memory))

    def owner_is_dead(self) -> bool:
        facts = self.facts()
        return facts is not None and Process(facts["owner"], facts["born"], facts["space"]).dead()

    def unlink(self) -> None:
        """Take the name away; the memory stays until nobody maps it."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmap it; while views of it are alive, the last one takes the mapping with it."""
        with contextlib.suppress(BufferError):
            self.memory.close()


def _require_room(folder: Path, size: int) -> None:
    try:
        room = os.statvfs(folder)
    except OSError as error:
        raise HeapError(f"there is no shared memory at {folder} ({error.strerror})") from error
    if room.f_bavail * room.f_frsize < size:
        raise _too_little(folder, size)


def _too_little(folder: Path, size: int) -> HeapMemoryError:
    room = os.statvfs(folder)
    free, total = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    return HeapMemoryError(
        f"a heap needs {size / 2**20:.1f} MiB of shared memory per rank, but {folder} has "
        f"{free / 2**20:.1f} of {total / 2**20:.1f} MiB left: use smaller slots or more chunks, "
        "or give the container more (docker run --shm-size=2g; Kubernetes: an emptyDir with "
        "medium: Memory at /dev/shm)"
    )


def sweep(folder: Path = SHARED_MEMORY) -> list[Path]:
    """Remove segments of this user whose owners are dead; what was removed."""
    removed = []
    for path in sorted(folder.glob(f"{PREFIX}{os.getuid()}-*")):
        if path.name.startswith(_private_prefix()):
            numbers = path.name.removeprefix(_private_prefix()).split("-")[:3]
            dead = all(n.isdigit() for n in numbers) and Process(*map(int, numbers)).dead()
        else:
            segment = Segment.open(path)
            dead = segment is not None and segment.owner_is_dead()
            if segment is not None:
                segment.close()
        if dead:
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed
