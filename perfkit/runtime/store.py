"""The kernel cache: a content-addressed folder of compiled kernels, shared by processes.

Layout: ``kernels/<first two digits>/<sha256 of the key>/{kernel.c, kernel.so, meta.json}``.
``meta.json`` holds the sha256 of the other two, checked before either is used. An entry appears
by renaming a finished folder, so readers see all of it or nothing; locks only spare a second
process the same compilation. The folder is trusted as code, so it must belong to this user and
be closed to others.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from perfkit import config, log
from perfkit.errors import CacheError, LockTimeout
from perfkit.runtime.build import Toolchain, compile_c
from perfkit.runtime.machine import Machine

SOURCE, LIBRARY, META = "kernel.c", "kernel.so", "meta.json"
FORMAT = 1
# An entry used this recently may be about to be loaded by another process: never evicted.
GRACE_SECONDS = 60.0
# Folders of a build older than this were left by a killed process.
STALE_SECONDS = 24 * 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Everything that decides what machine code comes out.

    Attributes:
        source: canonical text of the generated C.
        flags: every compiler flag (``Toolchain.key_flags``).
        toolchain: ``Toolchain.version``.
        machine: ``Machine.isa_key()``, since ``-march=native`` means another thing elsewhere.
        perfkit: :func:`source_hash`.
    """

    source: str
    flags: tuple[str, ...]
    toolchain: str
    machine: str
    perfkit: str

    def digest(self) -> str:
        """sha256 (hex) of the fields; equal keys give equal digests in every process."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """A verified entry of the cache.

    Attributes:
        digest: its key's digest.
        source_path, so_path: the C text and the shared object.
        metadata: what the caller gave to :meth:`KernelCache.obtain`.
        size_bytes: of all its files.
        used: when it was last used, seconds since the epoch.
    """

    digest: str
    source_path: Path
    so_path: Path
    metadata: Mapping[str, Any]
    size_bytes: int
    used: float


@functools.cache
def source_hash(*folders: str) -> str:
    """sha256 over perfkit's own Python sources, so that a changed generator never hits old code.

    ``folders`` of the package restrict it to what lies in them.
    """
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(p for f in folders or (".",) for p in (root / f).rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class KernelCache:
    """Compiled kernels on disk.

    Safe for several threads and processes at once. On a disk that is full or may not be written
    it warns once and goes on in a temporary folder that lives as long as this object.
    """

    def __init__(self, settings: config.Settings | None = None) -> None:
        self.settings = settings or config.current()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._log = log.get("cache")

    @property
    def root(self) -> Path:
        """The folder in use now."""
        return Path(self._temporary.name) if self._temporary else self.settings.cache_dir

    def obtain(
        self,
        key: CacheKey,
        build: Callable[[], Path],
        metadata: Mapping[str, Any] | None = None,
    ) -> Entry:
        """The entry of ``key``; on a miss, ``build()`` makes it.

        Args:
            key: what identifies the kernel; its ``source`` is stored.
            build: returns the path of a shared object in a folder of its own, which is removed
                afterwards (``lambda: compile_c(...)``).
            metadata: JSON-serialisable facts to keep with it (the schedule, the signature).

        Raises:
            LockTimeout: another process builds it for longer than ``settings.lock_timeout``.
            CacheError: neither the cache nor a temporary folder can be written.
        """
        digest = key.digest()
        entry = self._lookup(digest)
        if entry:
            return entry
        try:
            return self._obtain_locked(digest, key, build, metadata or {})
        except OSError as error:
            if error.errno not in _FULL or self._temporary:
                raise CacheError(
                    f"{self.root}: the kernel cache cannot be used ({error}): free some space, "
                    "or set PERFKIT_CACHE_DIR to a writable folder"
                ) from error
            self._fall_back(error)
            return self.obtain(key, build, metadata)

    def _obtain_locked(
        self, digest: str, key: CacheKey, build: Callable[[], Path], metadata: Mapping[str, Any]
    ) -> Entry:
        self._prepare_root()
        lock = self.root / "locks" / f"{digest}.lock"
        try:
            with filelock.FileLock(lock, timeout=self.settings.lock_timeout):
                entry = self._lookup(digest)  # another process may have built it meanwhile
                if entry:
                    return entry
                self._log.debug("miss %s", digest[:12])
                built = build()
                try:
                    return self._put(digest, key, built, metadata)
                finally:
                    shutil.rmtree(built.parent, ignore_errors=True)
        except filelock.Timeout as error:
            raise LockTimeout(
                f"{lock}: held by another process for more than "
                f"{self.settings.lock_timeout:g} s: wait for it to finish its compilation, or "
                "raise PERFKIT_LOCK_TIMEOUT"
            ) from error

    def ls(self) -> list[Entry]:
        """Every intact entry, most recently used first; broken ones are left out."""
        found = (self._read(path) for path in self._entry_folders())
        return sorted((entry for entry in found if entry), key=lambda e: -e.used)

    def clear(self) -> int:
        """Remove every entry, lock and left-over build folder; returns how many entries."""
        folders = self._entry_folders()
        for folder in folders:
            self._discard(folder)
        for name in ("kernels", "build", "locks"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        return len(folders)

    # --- reading ---------------------------------------------------------------------------

    def _folder(self, digest: str) -> Path:
        return self.root / "kernels" / digest[:2] / digest

    def _entry_folders(self) -> list[Path]:
        return sorted(self.root.glob("kernels/??/" + "[0-9a-f]" * 64))

    def _lookup(self, digest: str) -> Entry | None:
        folder = self._folder(digest)
        if not folder.is_dir() or not self._trusted():
            return None
        entry = self._read(folder)
        if entry is None:
            self._log.warning(
                "%s: the entry is damaged (truncated or changed); building it again", folder
            )
            self._discard(folder)
            return None
        with suppress(OSError):  # a read-only cache keeps no order of use
            os.utime(folder / META)
        self._log.debug("hit %s", digest[:12])
        return entry

    def _read(self, folder: Path) -> Entry | None:
        """The entry in a folder when each file's sha256 is the recorded one, else None."""
        source, library, meta = folder / SOURCE, folder / LIBRARY, folder / META
        try:
            text = meta.read_text()
            record = json.loads(text)
            if record["format"] != FORMAT or record["digest"] != folder.name:
                return None
            if any(record["sha256"][path.name] != _sha256(path) for path in (source, library)):
                return None
            size = sum(path.stat().st_size for path in (source, library, meta))
            used = meta.stat().st_mtime
            return Entry(folder.name, source, library, record["metadata"], size, used)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # --- writing ---------------------------------------------------------------------------

    def _prepare_root(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._trusted():
            raise PermissionError(
                errno.EPERM, "belongs to another user or may be written by others", str(self.root)
            )
        for name in ("kernels", "locks", "build"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)

    def _trusted(self) -> bool:
        """Whether only this user can have put code there."""
        try:
            status = self.root.stat()
        except OSError:
            return False
        mine = status.st_uid in (os.getuid(), 0)
        return mine and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)

    def _put(self, digest: str, key: CacheKey, built: Path, metadata: Mapping[str, Any]) -> Entry:
        final = self._folder(digest)
        final.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="put-", dir=self.root / "build"))
        try:
            (fresh / SOURCE).write_text(key.source)
            shutil.copyfile(built, fresh / LIBRARY)
            record = {
                "format": FORMAT,
                "digest": digest,
                "sha256": {name: _sha256(fresh / name) for name in (SOURCE, LIBRARY)},
                "flags": key.flags,
                "toolchain": key.toolchain,
                "machine": key.machine,
                "metadata": dict(metadata),
            }
            (fresh / META).write_text(json.dumps(record, indent=1, sort_keys=True))
            try:
                os.rename(fresh, final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if self._read(final) is None:
                    self._discard(final)
                    os.rename(fresh, final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        entry = self._read(final)
        if entry is None:
            raise OSError(errno.ENOSPC, "a new entry does not read back as written", str(final))
        self._trim(keep=digest)
        return entry

    def _discard(self, folder: Path) -> None:
        """Remove an entry so that no reader ever sees half of it."""
        with suppress(OSError):
            trash = Path(tempfile.mkdtemp(prefix="trash-", dir=self.root / "build"))
            with suppress(OSError):
                os.rename(folder, trash / "entry")
            shutil.rmtree(trash, ignore_errors=True)

    def _trim(self, keep: str) -> None:
        """Evict the least recently used entries beyond the bound, and left-over build folders."""
        now = time.time()
        for folder in (self.root / "build").glob("*"):
            with suppress(OSError):
                if now - folder.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
        rows = []
        for folder in self._entry_folders():
            with suppress(OSError):
                size = sum(path.stat().st_size for path in folder.iterdir())
                rows.append(((folder / META).stat().st_mtime, size, folder))
        excess = sum(size for _, size, _ in rows) - self.settings.cache_bytes
        for used, size, folder in sorted(rows):
            if excess <= 0:
                break
            if folder.name == keep or now - used < GRACE_SECONDS:
                continue
            self._discard(folder)
            with suppress(OSError):
                (self.root / "locks" / f"{folder.name}.lock").unlink()
            excess -= size

    def _fall_back(self, error: OSError) -> None:
        self._log.warning(
            "%s cannot hold compiled kernels (%s); using a temporary folder, so they are built "
            "again next time: free some space, or set PERFKIT_CACHE_DIR",
            self.root,
            error.strerror or error,
        )
        try:
            self._temporary = tempfile.TemporaryDirectory(prefix="perfkit-cache-")
        except OSError as second:
            raise CacheError(
                f"neither {self.settings.cache_dir} ({error}) nor the temporary folder "
                f"({second}) can be written: free some space or set PERFKIT_CACHE_DIR"
            ) from second


def compile_cached(
    source: str,
    *,
    cache: KernelCache,
    toolchain: Toolchain,
    machine: Machine,
    extra_flags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> Entry:
    """Compile C text, or take the result of an earlier time from the cache.

    Raises:
        CompileError, CompilerNotFound: as ``build.compile_c``.
        LockTimeout, CacheError: as :meth:`KernelCache.obtain`.
    """
    key = CacheKey(
        source=source,
        flags=toolchain.key_flags(extra_flags),
        toolchain=toolchain.version,
        machine=machine.isa_key(),
        perfkit=source_hash(),
    )

    def build() -> Path:
        return compile_c(
            source, toolchain=toolchain, settings=cache.settings, extra_flags=extra_flags
        )

    return cache.obtain(key, build, metadata)
