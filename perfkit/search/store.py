"""Schedules that were found before: one SQLite file, shared by processes and sessions.

A row answers one question, "the best schedule of this program, at about these sizes, on this
machine, with these settings, by this perfkit", with a script; rows of more effort (more schedules
measured) go before others. Whoever asks first searches while the others wait for the answer, so of
the ranks of one host (``torchrun``) one searches and the others read. A store that cannot be used
(another version wrote it, the disk is full) costs one message and the search.

Trials are single measurements of a tuning session, saved at once so that it can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock

from perfkit import config, log
from perfkit.errors import StoreError
from perfkit.ir import show as ir_text
from perfkit.ir.scop import Scop
from perfkit.runtime.build import Toolchain
from perfkit.runtime.machine import Machine
from perfkit.runtime.store import source_hash

FORMAT = 1
"""Version of the tables, and of the lines that are exported."""

NAME = "schedules.db"
BUSY = 10.0
"""Seconds to wait for another process's write."""

T = TypeVar("T")

_TABLES = (
    "CREATE TABLE IF NOT EXISTS schedules (digest TEXT, effort INTEGER, program TEXT, key TEXT, "
    "seed TEXT, script TEXT, seconds REAL, report TEXT, created REAL, "
    "PRIMARY KEY (digest, effort))",
    "CREATE TABLE IF NOT EXISTS trials (digest TEXT, script TEXT, status TEXT, seconds REAL, "
    "created REAL, PRIMARY KEY (digest, script))",
)


@dataclass(frozen=True)
class Key:
    """What a stored schedule is the answer to.

    Attributes:
        program: canonical text of the SCoP.
        sizes: known sizes to the power of two, as ``n=10``.
        machine: ``Machine.key()``.
        settings: what changes the code or the search, as ``name=value``.
        perfkit: hash of perfkit's sources.
    """

    program: str
    sizes: tuple[str, ...]
    machine: str
    settings: tuple[str, ...]
    perfkit: str

    @staticmethod
    def of(
        scop: Scop, sizes: Mapping[str, int], machine: Machine, toolchain: Toolchain,
        settings: config.Settings, fp: str, model: str,
    ) -> Key:  # fmt: skip
        """``model`` names the cost model and its weights."""
        chosen = {
            "fp": fp, "threads": settings.threads, "search": settings.search,
            "seconds": settings.search_seconds, "width": settings.search_width,
            "pluto": settings.search_pluto, "model": model, "compiler": toolchain.version,
            "flags": " ".join(toolchain.key_flags(())),
        }  # fmt: skip
        return Key(
            ir_text.text(scop),
            tuple(f"{n}={sizes[n].bit_length()}" for n in scop.parameters if n in sizes),
            machine.key(),
            tuple(f"{n}={v}" for n, v in chosen.items()),
            source_hash(),
        )

    def digest(self) -> str:
        """sha256 (hex) of the fields; equal keys give equal digests in every process."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Stored:
    """A schedule: the name of where it comes from, its script, and what is known of it.

    ``effort`` is how many schedules were measured to find it, ``seconds`` what it took then,
    ``report`` plain data for explanations.
    """

    seed: str
    script: str
    effort: int
    seconds: float | None = None
    report: Any = None


@dataclass(frozen=True)
class Listed:
    """A row for people: ``program`` is its name, ``created`` seconds since the epoch."""

    digest: str
    program: str
    stored: Stored
    created: float


class Store:
    """The tuned schedules in ``folder`` (default: that of the compiled kernels)."""

    def __init__(self, settings: config.Settings, folder: Path | None = None) -> None:
        self.folder = folder or settings.cache_dir
        self.patience = settings.lock_timeout
        self._usable = True

    @property
    def path(self) -> Path:
        return self.folder / NAME

    # -- by programs -----------------------------------------------------------------------------

    def obtain(self, key: Key, effort: int, find: Callable[[], Stored]) -> Stored:
        """The stored schedule of at least this effort, else what ``find`` finds, which is kept."""
        known = self.get(key, effort)
        if known is not None:
            return known
        with self._alone(key):
            known = self.get(key, effort)  # another process may have found it meanwhile
            if known is None:
                known = find()
                self.put(key, known)
        return known

    def get(self, key: Key, effort: int = 0) -> Stored | None:
        """The schedule of most effort, when it took at least ``effort``."""
        rows = self._ask(
            "SELECT seed, script, effort, seconds, report FROM schedules "
            "WHERE digest = ? AND effort >= ? ORDER BY effort DESC LIMIT 1",
            (key.digest(), effort),
        )
        return _stored(rows[0]) if rows else None

    def put(self, key: Key, found: Stored) -> None:
        """Keep a schedule, in place of one of the same effort."""
        program = key.program.partition("(")[0].removeprefix("scop ")
        self._tell(
            "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (key.digest(), found.effort, program, key.text(), found.seed, found.script,
             found.seconds, json.dumps(found.report), time.time()),
        )  # fmt: skip

    # -- trials ----------------------------------------------------------------------------------

    def trials(self, key: Key) -> dict[str, tuple[str, float | None]]:
        """Status and seconds by script."""
        rows = self._ask("SELECT script, status, seconds FROM trials WHERE digest = ?",
                         (key.digest(),))  # fmt: skip
        return {script: (status, seconds) for script, status, seconds in rows}

    def tried(self, key: Key, script: str, status: str, seconds: float | None) -> None:
        self._tell("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?)",
                   (key.digest(), script, status, seconds, time.time()))  # fmt: skip

    # -- as a whole ------------------------------------------------------------------------------

    def ls(self) -> list[Listed]:
        """Every schedule, newest first."""
        rows = self._ask(
            "SELECT digest, program, created, seed, script, effort, seconds, report "
            "FROM schedules ORDER BY created DESC", ()
        )  # fmt: skip
        return [Listed(d, p, _stored(rest), c) for d, p, c, *rest in rows]

    def clear(self) -> int:
        """Remove the store; returns how many schedules were in it (0 when it cannot be read)."""
        count = len(self.ls())
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self._usable = True
        return count

    def export(self) -> Iterator[str]:
        """A line of JSON per schedule."""
        rows = self._ask(
            "SELECT key, effort, seed, script, seconds, report, created FROM schedules "
            "ORDER BY created", ()
        )  # fmt: skip
        for key, effort, seed, script, seconds, report, created in rows:
            yield json.dumps({
                "format": FORMAT, "key": json.loads(key), "effort": effort, "seed": seed,
                "script": script, "seconds": seconds, "report": json.loads(report),
                "created": created,
            }, sort_keys=True)  # fmt: skip

    def load(self, lines: Iterable[str]) -> int:
        """Take in exported lines; returns how many.

        Raises StoreError naming the line that is not one, or is of another version; the lines
        before it are kept.
        """
        count = 0
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if row["format"] != FORMAT:
                    raise StoreError(
                        f"line {number}: is of format {row['format']}, this perfkit has {FORMAT}: "
                        "export it again with the version that is to read it"
                    )
                key = row["key"]
                made = Key(
                    str(key["program"]), tuple(key["sizes"]), str(key["machine"]),
                    tuple(key["settings"]), str(key["perfkit"]),
                )  # fmt: skip
                found = Stored(
                    str(row["seed"]), str(row["script"]), int(row["effort"]), row["seconds"],
                    row["report"],
                )  # fmt: skip
                self.put(made, found)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise StoreError(
                    f"line {number}: is not an exported schedule "
                    f"({type(error).__name__}: {error})"
                ) from error
            count += 1
        if not self._usable:
            raise StoreError(f"{self.path}: cannot be written")
        return count

    # -- SQLite ----------------------------------------------------------------------------------

    def _ask(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        return self._safely(lambda db: db.execute(query, values).fetchall(), [])

    def _tell(self, query: str, values: tuple[Any, ...]) -> None:
        def write(db: sqlite3.Connection) -> None:
            with db:
                db.execute(query, values)

        self._safely(write, None)

    def _safely(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What ``work`` returns; ``otherwise``, and a message the first time, when it fails."""
        if not self._usable:
            return otherwise
        try:
            with closing(self._connect()) as db:
                return work(db)
        except (OSError, sqlite3.Error, StoreError) as error:
            self._usable = False
            log.get("search").warning(
                "%s: stored schedules are not used: %s", self.path, error
            )
            return otherwise

    def _connect(self) -> sqlite3.Connection:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=BUSY)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                with db:
                    for table in _TABLES:
                        db.execute(table)
                    db.execute(f"PRAGMA user_version = {FORMAT}")
            elif version != FORMAT:
                raise StoreError(
                    f"another version of perfkit wrote it (format {version}, this one has "
                    f"{FORMAT}): remove it with `perfkit store clear`"
                )
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _alone(self, key: Key) -> Iterator[None]:
        """One process at a time; after ``lock_timeout``, or without a folder, not alone either."""
        lock: Any = nullcontext()
        try:
            (self.folder / "locks").mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / "locks" / f"{key.digest()}.search")
            lock.acquire(timeout=self.patience)
        except (OSError, filelock.Timeout) as error:
            log.get("search").warning("searching beside another process: %s", error)
            lock = nullcontext()
        try:
            yield
        finally:
            if isinstance(lock, filelock.BaseFileLock):
                lock.release()


def _stored(row: Iterable[Any]) -> Stored:
    seed, script, effort, seconds, report = row
    return Stored(seed, script, effort, seconds, json.loads(report))


__all__ = ["FORMAT", "Key", "Listed", "Store", "Stored"]
