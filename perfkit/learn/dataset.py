"""Measured schedules on disk: columns in npz files, without pickle.

A data set is a folder of shards, ``shard-<first number>-<last number>.npz``, each whole or absent
(written aside, then renamed). Version 1 of a shard holds, with P programs and R rows:

=================== ========= ==================================================================
``meta``            text      JSON: version, machine, compiler, threads, rounds, generator version
``number``          int64[P]  place of the program in the stream of ``seed``
``seed``            int64[P]
``family``          text[P]   structure (:mod:`perfkit.learn.families`)
``program``         text[P]   the source (:mod:`perfkit.learn.source`)
``sizes``           text[P]   JSON object: values of the parameters
``fp``              text[P]   "strict" or "reassociate"
``note``            text[P]   why there are no rows, else empty
``owner``           int32[R]  index of the row's program in this shard
``script``          text[R]   the schedule; empty for the original order
``kind``            uint8[R]  index into KINDS
``status``          uint8[R]  index into :data:`perfkit.learn.measure.STATUSES`
``seconds``         float32[R, rounds]  one per round; NaN where not timed
=================== ========= ==================================================================

``text[N]`` is two arrays: ``<name>.bytes``, UTF-8 of all texts together, and ``<name>.ends``, where
each one ends.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from perfkit import log
from perfkit.errors import DatasetError
from perfkit.learn.families import HELD_OUT
from perfkit.learn.measure import STATUSES
from perfkit.learn.programs import Sample

VERSION = 1
KINDS = ("original", "seed", "random", "neighbour", "search")

Array = np.ndarray[Any, Any]

DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, RuntimeError,
          zipfile.BadZipFile, zlib.error)  # fmt: skip
"""What reading a damaged or foreign npz file raises."""


@dataclass(frozen=True)
class Row:
    """One measured schedule: its script, where it came from, and the seconds of each round."""

    script: str
    kind: str
    status: str
    seconds: tuple[float, ...] = ()

    @property
    def best(self) -> float:
        """The fastest round in seconds; infinity without any."""
        return min(self.seconds, default=float("inf"))


@dataclass(frozen=True)
class Entry:
    """One program with its measured schedules; ``note`` says why there are none."""

    sample: Sample
    rows: tuple[Row, ...]
    note: str = ""
    machine: str = ""

    @property
    def timed(self) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.status == "ok" and r.seconds)


def split_of(sample: Sample) -> str:
    """"train", "valid", "random" (held-out programs) or "families" (held-out structures).

    A function of the program alone, so that no split ever changes as data are added.
    """
    if sample.family in HELD_OUT:
        return "families"
    share = int(sample.key[:8], 16) / 2**32
    return "random" if share < 0.12 else "valid" if share < 0.2 else "train"


# -- writing -----------------------------------------------------------------------------------


def write_shard(folder: Path, entries: Sequence[Entry], meta: Mapping[str, Any]) -> Path:
    """Add programs to a data set; the file appears as a whole or not at all."""
    numbers = [e.sample.number for e in entries]
    path = folder / f"shard-{min(numbers):06d}-{max(numbers):06d}.npz"
    columns = dict(_columns(entries, meta))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **columns)
    aside = folder / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(buffer.getvalue())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise DatasetError(f"{path}: cannot be written ({error})") from error
    return path


def _columns(entries: Sequence[Entry], meta: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    rows = [(k, r) for k, e in enumerate(entries) for r in e.rows]
    rounds = max((len(r.seconds) for _, r in rows), default=1) or 1
    yield from _text("meta", [json.dumps({**meta, "version": VERSION}, sort_keys=True)])
    yield "number", np.array([e.sample.number for e in entries], np.int64)
    yield "seed", np.array([e.sample.seed for e in entries], np.int64)
    yield from _text("family", [e.sample.family for e in entries])
    yield from _text("program", [e.sample.text for e in entries])
    yield from _text("sizes", [json.dumps(dict(e.sample.sizes)) for e in entries])
    yield from _text("fp", [e.sample.fp for e in entries])
    yield from _text("note", [e.note for e in entries])
    yield from _text("machine", [e.machine for e in entries])
    yield "owner", np.array([k for k, _ in rows], np.int32)
    yield from _text("script", [r.script for _, r in rows])
    yield "kind", np.array([KINDS.index(r.kind) for _, r in rows], np.uint8)
    yield "status", np.array([STATUSES.index(r.status) for _, r in rows], np.uint8)
    seconds = np.full((len(rows), rounds), np.nan, np.float32)
    for k, (_, row) in enumerate(rows):
        seconds[k, : len(row.seconds)] = row.seconds
    yield "seconds", seconds


def _text(name: str, texts: Iterable[str]) -> Iterator[tuple[str, Array]]:
    parts = [t.encode() for t in texts]
    yield f"{name}.bytes", np.frombuffer(b"".join(parts), np.uint8)
    yield f"{name}.ends", np.cumsum([len(p) for p in parts], dtype=np.int64)


def compact(folder: Path, meta: Mapping[str, Any], programs: int = 500) -> None:
    """Join small shards into few; a crash in between loses nothing, reading drops what is twice."""
    small = [p for p in shards(folder) if _width(p) < programs]
    entries = [e for p in small for e in read_shard(p)]
    entries.sort(key=lambda e: (e.sample.seed, e.sample.number))
    written: set[Path] = set()
    for k in range(0, len(entries), programs):
        written.add(write_shard(folder, entries[k : k + programs], meta))
    for path in small:
        if path not in written:
            path.unlink()


def _width(path: Path) -> int:
    first, last = path.stem.split("-")[1:]
    return int(last) - int(first) + 1


# -- reading -----------------------------------------------------------------------------------


def shards(folder: Path) -> list[Path]:
    """The files of a data set, in order of their programs."""
    return sorted(folder.glob("shard-*-*.npz"))


def read_shard(path: Path) -> list[Entry]:
    """Raises DatasetError for a file that is truncated, foreign, or of another version."""
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
        meta = json.loads(_texts(columns, "meta")[0])
        if meta.get("version") != VERSION:
            raise DatasetError(
                f"{path}: version {meta.get('version')}, this perfkit reads version {VERSION}; "
                "gather the data again with perfkit dataset build"
            )
        return list(_entries(columns))
    except DAMAGE as error:
        raise DatasetError(f"{path}: truncated or not a data set ({error}): remove it") from error


def _texts(columns: Mapping[str, Array], name: str) -> list[str]:
    raw = columns[f"{name}.bytes"].tobytes()
    ends = [0, *map(int, columns[f"{name}.ends"])]
    if ends[-1] != len(raw):
        raise ValueError(f"column {name} has {len(raw)} bytes, not {ends[-1]}")
    return [raw[a:b].decode() for a, b in pairwise(ends)]


def _entries(columns: Mapping[str, Array]) -> Iterator[Entry]:
    scripts = _texts(columns, "script")
    rows: dict[int, list[Row]] = {}
    for k, owner in enumerate(columns["owner"].tolist()):
        times = columns["seconds"][k]
        rows.setdefault(owner, []).append(
            Row(
                scripts[k], KINDS[int(columns["kind"][k])], STATUSES[int(columns["status"][k])],
                tuple(float(t) for t in times if not np.isnan(t)),
            )
        )  # fmt: skip
    texts = {n: _texts(columns, n) for n in ("family", "program", "sizes", "fp", "note", "machine")}
    for k, (number, seed) in enumerate(
        zip(columns["number"].tolist(), columns["seed"].tolist(), strict=True)
    ):
        sizes = tuple((n, int(v)) for n, v in json.loads(texts["sizes"][k]).items())
        sample = Sample(
            seed, number, texts["family"][k], texts["program"][k], sizes, texts["fp"][k]
        )
        yield Entry(sample, tuple(rows.get(k, ())), texts["note"][k], texts["machine"][k])


def load(folder: Path, strict: bool = False) -> list[Entry]:
    """Every program of a data set, once each.

    A shard that cannot be read is left out with a warning, unless ``strict``. Raises DatasetError
    when there is nothing to read.
    """
    found: dict[tuple[int, int], Entry] = {}
    for path in shards(folder):
        try:
            entries = read_shard(path)
        except DatasetError as error:
            if strict:
                raise
            log.get("learn").warning("left out: %s", error)
            continue
        for entry in entries:
            found.setdefault((entry.sample.seed, entry.sample.number), entry)
    if not found:
        raise DatasetError(f"{folder}: no data; gather some with perfkit dataset build --out DIR")
    return [found[k] for k in sorted(found)]


def fingerprint(entries: Iterable[Entry]) -> str:
    """A hash of the data that a model was trained on."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.sample.key.encode())
        for row in entry.rows:
            digest.update(f"{row.script}\n{row.status}{row.seconds}".encode())
    return digest.hexdigest()[:16]


def statistics(entries: Sequence[Entry]) -> dict[str, Any]:
    """Counts for ``perfkit dataset stats``."""
    rows = [r for e in entries for r in e.rows]
    measured = [e for e in entries if e.timed]
    spread = [max(r.seconds) / r.best - 1.0 for e in measured for r in e.timed]
    gains = [
        e.timed[0].best / min(r.best for r in e.timed)
        for e in measured if e.timed[0].kind == "original"
    ]  # fmt: skip
    return {
        "programs": len(entries),
        "programs with times": len(measured),
        "schedules": len(rows),
        "timed schedules": sum(len(e.timed) for e in measured),
        "by status": dict(Counter(r.status for r in rows)),
        "by kind": dict(Counter(r.kind for r in rows)),
        "by split": dict(Counter(split_of(e.sample) for e in measured for _ in e.timed)),
        "by family": dict(Counter(e.sample.family for e in measured for _ in e.timed)),
        "median of the best schedule's speedup": float(np.median(gains)) if gains else 0.0,
        "median spread of the rounds": float(np.median(spread)) if spread else 0.0,
        "programs without times": dict(Counter(e.note for e in entries if e.note)),
        "machines": sorted({e.machine for e in entries if e.machine}),
    }


__all__ = [
    "KINDS", "VERSION", "Entry", "Row", "compact", "fingerprint", "load", "read_shard", "shards",
    "split_of", "statistics", "write_shard",
]  # fmt: skip
