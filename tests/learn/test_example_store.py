"""Examples on disk: what comes back is what went in, and damage is made good."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from perfkit.cost.device import Device
from perfkit.learn.dataset import Entry, Row
from perfkit.learn.example_store import ExampleStore, groups
from perfkit.learn.examples import Group
from perfkit.learn.programs import Sample
from perfkit.runtime.machine import Machine

TEXT = """\
def program(n, m, A: "float64[n, m]", B: "float64[n, m]", s: "float64[n]"):
    for i in range(n):
        for j in range(m):
            B[i, j] = 0.5 * A[i, j]
    for i in range(n):
        s[i] = 0.0
        for j in range(m):
            s[i] += B[i, j]
"""
DEVICE = Device.of(Machine.detect(), 2)


def entry(number: int) -> Entry:
    rows = [
        Row(s, k, "ok", (1e-4 * (j + 1), 2e-4 * (j + 1)))
        for j, (s, k) in enumerate(
            (("", "original"), ("Parallelize(i)", "random"), ("Tile(i=8, j=16)", "seed"))
        )
    ]
    return Entry(Sample(0, number, "pipeline", TEXT, (("n", 90), ("m", 40)), "strict"), tuple(rows))


def same(a: Group, b: Group) -> None:
    assert (a.name, a.family, a.split, a.original) == (b.name, b.family, b.split, b.original)
    for name in ("seconds", "again"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for x, y in zip(a.tokens, b.tokens, strict=True):
        assert x.roofline == y.roofline
        np.testing.assert_array_equal(x.parent, y.parent)
        np.testing.assert_array_equal(x.terms, y.terms)
        for kind in x.rows:
            np.testing.assert_array_equal(x.rows[kind], y.rows[kind])
    for p, q in zip(a.looper, b.looper, strict=True):
        assert p.children == q.children
        for f in fields(p):
            if f.name != "children":
                for u, v in zip(getattr(p, f.name), getattr(q, f.name), strict=True):
                    np.testing.assert_array_equal(u, v)


@pytest.mark.parametrize("damage", ["none", "truncated", "flipped", "foreign"])
def test_what_comes_back_is_what_went_in(tmp_path: Path, damage: str) -> None:
    store, entries = ExampleStore(tmp_path / "s"), [entry(0), entry(1)]
    first = groups(entries, DEVICE, 1, store)
    files = sorted(store.folder.iterdir())
    assert len(files) == 2
    if damage == "truncated":
        files[0].write_bytes(files[0].read_bytes()[:700])
    elif damage == "flipped":
        raw = bytearray(files[0].read_bytes())
        for k in range(200, len(raw) - 200, 97):
            raw[k] ^= 0xFF
        files[0].write_bytes(bytes(raw))
    elif damage == "foreign":
        np.savez(files[0], x=np.zeros(3))
    for a, b in zip(first, groups(entries, DEVICE, 1, store), strict=True):
        same(a, b)
    assert sorted(store.folder.iterdir()) == files


def test_other_rows_or_devices_are_other_examples(tmp_path: Path) -> None:
    store, one = ExampleStore(tmp_path), entry(0)
    paths = {
        store.path(one, DEVICE), store.path(entry(1), DEVICE),
        store.path(replace(one, rows=one.rows[:2]), DEVICE),
        store.path(one, replace(DEVICE, threads=DEVICE.threads + 1)),
    }  # fmt: skip
    assert len(paths) == 4
