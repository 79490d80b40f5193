"""Training examples on disk, so that features of measured schedules are worked out once.

One npz file (without pickle) per program, named by what went into it: the program, its rows, the
device, and the sources that make features. A file that cannot be read is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from perfkit import log
from perfkit.cost.columns import KINDS, WIDTHS
from perfkit.cost.device import Device
from perfkit.cost.tokens import Tokens
from perfkit.learn.dataset import DAMAGE, Entry, fingerprint
from perfkit.learn.examples import Group, group_of
from perfkit.learn.looper import COMPUTATION, LOOP, TAG, Looped
from perfkit.runtime.store import source_hash

Array = np.ndarray[Any, Any]

SOURCES = ("analysis", "cost", "frontends", "ir", "learn", "schedule")
"""Parts of perfkit that features depend on."""


@dataclass(frozen=True)
class ExampleStore:
    """``folder`` holds the files; it may be removed at any time."""

    folder: Path

    def path(self, entry: Entry, device: Device) -> Path:
        key = f"{source_hash(*SOURCES)} {device} {entry.sample} {fingerprint([entry])}"
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"

    def load(self, path: Path) -> Group | None:
        """None where there is no file, or none that can be read."""
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                return _group({name: file[name] for name in file.files})
        except DAMAGE as error:
            log.get("learn").warning("%s is made again: %s", path, error)
            return None

    def save(self, path: Path, group: Group) -> None:
        """Write a file as a whole; a disk that is full costs a warning."""
        aside = path.with_suffix(f".{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                columns: dict[str, Any] = dict(_columns(group))
                np.savez_compressed(file, **columns)
            aside.replace(path)
        except OSError as error:
            log.get("learn").warning("examples are not kept: %s", error)
            aside.unlink(missing_ok=True)


def _columns(group: Group) -> dict[str, Array]:
    tokens, views = group.tokens, group.looper
    names = [group.name, group.family, group.split]
    children = [[list(map(list, c)) for c in v.children] for v in views]
    return {
        "text": _bytes({"names": names, "children": children}),
        "original": np.array(group.original), "seconds": group.seconds, "again": group.again,
        "counts": np.array([[len(t.rows[k]) for k in KINDS] for t in tokens]),
        "parent": np.concatenate([t.parent for t in tokens]),
        "terms": np.concatenate([t.terms for t in tokens]),
        "roofline": np.array([t.roofline for t in tokens]),
        **{k: np.concatenate([t.rows[k] for t in tokens]) for k in KINDS},
        "statements": np.array([len(v.tags) for v in views]),
        "computations": np.concatenate([v.computations for v in views]),
        "tags": np.concatenate([t for v in views for t in v.tags]),
        "tag counts": np.array([len(t) for v in views for t in v.tags]),
        "expressions": np.concatenate([e for v in views for e in v.expressions]),
        "expression counts": np.array([len(e) for v in views for e in v.expressions]),
        "loops": np.concatenate([v.loops for v in views]),
        "loop counts": np.array([len(v.loops) for v in views]),
    }  # fmt: skip


def _group(columns: dict[str, Array]) -> Group:
    text = json.loads(columns["text"].tobytes())
    name, family, split = text["names"]
    for kind, width in (*WIDTHS.items(), ("computations", COMPUTATION), ("tags", TAG),
                        ("loops", LOOP)):  # fmt: skip
        if columns[kind].shape[1:] != (width,):
            raise ValueError(f"{kind} has {columns[kind].shape} columns, not {width}")
    counts = columns["counts"]
    rows = {k: list(_parts(columns[k], counts[:, j])) for j, k in enumerate(KINDS)}
    sums = counts.sum(1)
    tokens = tuple(
        Tokens({k: rows[k][j] for k in KINDS}, parent, terms, float(roofline))
        for j, (parent, terms, roofline) in enumerate(
            zip(_parts(columns["parent"], sums), _parts(columns["terms"], sums),
                columns["roofline"], strict=True)
        )
    )  # fmt: skip
    statements = columns["statements"]
    tags = _nested(columns["tags"], columns["tag counts"], statements)
    expressions = _nested(columns["expressions"], columns["expression counts"], statements)
    views = tuple(
        Looped(
            computations, t, e, loops,
            tuple(tuple((bool(a), int(b)) for a, b in c) for c in kids),
        )
        for computations, t, e, loops, kids in zip(
            _parts(columns["computations"], statements), tags, expressions,
            _parts(columns["loops"], columns["loop counts"]), text["children"], strict=True,
        )
    )  # fmt: skip
    return Group(
        name, family, split, tokens, views, columns["seconds"], columns["again"],
        int(columns["original"]),
    )  # fmt: skip


def _bytes(plain: Any) -> Array:
    return np.frombuffer(json.dumps(plain).encode(), np.uint8)


def _parts(values: Array, counts: Array) -> Iterator[Array]:
    """Slices of so many rows each, which must be all of them."""
    ends = np.cumsum(counts)
    if len(values) != (ends[-1] if len(ends) else 0):
        raise ValueError(f"{len(values)} rows, not {ends[-1]}")
    yield from np.split(values, ends[:-1])


def _nested(values: Array, counts: Array, statements: Array) -> Iterator[tuple[Array, ...]]:
    each = list(_parts(values, counts))
    at = 0
    for count in statements.tolist():
        yield tuple(each[at : at + count])
        at += count


def groups(
    entries: Sequence[Entry], device: Device, workers: int, store: ExampleStore | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[Group]:  # fmt: skip
    """The examples of a data set, in its order; those in ``store`` are not worked out again.

    ``told`` hears how many programs of all are done.
    """
    found: list[Group] = []
    for k, group in enumerate(_made(entries, device, workers, store)):
        told(k + 1, len(entries))
        if group is not None:
            found.append(group)
    return found


def _made(
    entries: Sequence[Entry], device: Device, workers: int, store: ExampleStore | None
) -> Iterator[Group | None]:
    if workers < 2:
        yield from (_one(e, device, store) for e in entries)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        work = partial(_one, device=device, store=store)
        yield from pool.map(work, entries, chunksize=4)


def _one(entry: Entry, device: Device, store: ExampleStore | None) -> Group | None:
    if store is None:
        return group_of(entry, device)
    path = store.path(entry, device)
    group = store.load(path)
    if group is None:
        group = group_of(entry, device)
        if group is not None:
            store.save(path, group)
    return group


__all__ = ["ExampleStore", "groups"]
