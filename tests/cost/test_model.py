"""Models in NumPy: what they compute, and what becomes of files that do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from perfkit.cost import columns, model
from perfkit.cost.columns import KINDS, WIDTHS
from perfkit.cost.model_boosted import Boosted
from perfkit.cost.model_tree import TreeTransformer
from perfkit.cost.tokens import LEAST, RELATIONS, Tokens
from perfkit.errors import WeightsError


def tokens(loops: int, seed: int = 0) -> Tokens:
    """A chain of loops around one statement with two accesses."""
    rng = np.random.default_rng(seed)
    counts = {"program": 1, "loop": loops, "statement": 1, "access": 2}
    rows = {k: rng.normal(size=(counts[k], WIDTHS[k])).astype(np.float32) for k in KINDS}
    parent = [0, *range(loops), loops, loops + 1, loops + 1]
    terms = np.full(len(parent), LEAST, np.float32)
    terms[: loops + 2] = rng.normal(size=loops + 2)
    return Tokens(rows, np.asarray(parent), terms, 1e-3)


def transformer(width: int = 8, heads: int = 2, layers: int = 2) -> TreeTransformer:
    rng = np.random.default_rng(1)

    def new(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32) * 0.3

    w: dict[str, Any] = {}
    for kind in KINDS:
        w |= {f"{kind}.in": new(WIDTHS[kind], width), f"{kind}.bias": new(width)}
        w |= {f"{kind}.mean": new(WIDTHS[kind]), f"{kind}.scale": 1 + new(WIDTHS[kind]) ** 2}
    for k in range(layers):
        w |= {f"{k}.qkv": new(width, 3 * width), f"{k}.qkv.bias": new(3 * width)}
        w |= {f"{k}.proj": new(width, width), f"{k}.proj.bias": new(width)}
        w |= {f"{k}.up": new(width, 2 * width), f"{k}.up.bias": new(2 * width)}
        w |= {f"{k}.down": new(2 * width, width), f"{k}.down.bias": new(width)}
        w |= {f"{k}.relation": new(len(RELATIONS), heads)}
        w |= {f"{k}.norm1": new(2, width), f"{k}.norm2": new(2, width)}
    w |= {"norm": new(2, width), "out": new(width, 3), "out.bias": new(3)}
    return TreeTransformer(w, heads, layers)


BOOSTED = Boosted(
    feature=np.array([1, 0, 0, 0]), threshold=np.array([0.5, 0, 0, 0.0]),
    left=np.array([1, 1, 2, 3]), right=np.array([2, 1, 2, 3]),
    value=np.array([0.0, 10.0, 20.0, 3.0]), roots=np.array([0, 3]), base=100.0,
)  # fmt: skip


def test_a_prediction_does_not_depend_on_what_it_is_batched_with() -> None:
    found = transformer()
    many = [tokens(k, k) for k in (1, 6, 3, 2, 9)]
    alone = np.concatenate([found.predict([t]) for t in many])
    assert found.predict(many) == pytest.approx(alone, abs=1e-4)
    assert len(set(alone.round(4))) == len(many)


def test_the_tree_matters() -> None:
    flat = tokens(4)
    other = replace(flat, parent=np.zeros(flat.count, np.int64))
    found = transformer()
    assert abs(found.predict([flat])[0] - found.predict([other])[0]) > 1e-6


def test_boosted_trees_by_hand() -> None:
    rows = np.array([[0.0, 0.5], [0.0, 0.51]], np.float32)
    assert BOOSTED.evaluate(rows).tolist() == [113.0, 123.0]


def test_a_model_without_opinions_gives_the_analytic_seconds() -> None:
    found, flat = transformer(), tokens(3)
    silent = {"out": np.zeros((8, 3)), "out.bias": np.zeros(3)}
    found = replace(found, weights={**found.weights, **silent})
    assert found.predict([flat])[0] == pytest.approx(flat.guess)
    terms = np.exp(flat.terms[:5].astype(float))
    assert flat.guess == pytest.approx(np.log(terms.sum()))


def test_a_file_gives_back_the_model(tmp_path: Path) -> None:
    members = [transformer(), BOOSTED]
    path = tmp_path / "w" / "m.safetensors"
    model.save(path, members, {"data": "abc", "device": "cpu"})
    again = model.load(path)
    many = [tokens(k, k) for k in range(1, 5)]
    before = model.Model(tuple(members), {}).predict(many)
    assert np.array_equal(again.predict(many).log_ratio, before.log_ratio)
    assert again.meta["data"] == "abc" and again.meta["schema"] == columns.SCHEMA
    assert before.seconds(many) == pytest.approx(1e-3 * np.exp(before.log_ratio))
    assert (before.spread > 0).all() and len(again.predict([]).log_ratio) == 0


def _rewrite(path: Path, change: Any) -> None:
    arrays = load_file(path)
    meta = {"schema": columns.SCHEMA, "members": ["tree", "boosted"], "data": "", "device": ""}
    change(arrays, meta)
    save_file(arrays, path, {"perfkit": json.dumps(meta)})


@pytest.mark.parametrize(
    ("damage", "why"),
    [("missing", "cannot be read"), ("truncated", "cannot be read"), ("schema", "schema 99"),
     ("weights", "lacks weights"), ("kind", "lacks weights"), ("foreign", "schema None")],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(tmp_path: Path, damage: str, why: str) -> None:
    path = tmp_path / "m.safetensors"
    if damage != "missing":
        model.save(path, [transformer(), BOOSTED], {"data": "", "device": "cpu"})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "schema":
        _rewrite(path, lambda arrays, meta: meta.update(schema=99))
    elif damage == "weights":
        _rewrite(path, lambda arrays, meta: arrays.pop("1.base"))
    elif damage == "kind":
        _rewrite(path, lambda arrays, meta: meta.update(members=["oracle"]))
    elif damage == "foreign":
        save_file({"x": np.zeros(3)}, path)
    with pytest.raises(WeightsError, match=why):
        model.load(path)


def test_calibration_moves_every_prediction(tmp_path: Path) -> None:
    many = [tokens(k, k) for k in range(1, 5)]
    plain = model.Model((BOOSTED,), {}).predict(many).log_ratio
    moved = model.Model((BOOSTED,), {}, bias=0.5, slope=0.9).predict(many).log_ratio
    assert moved == pytest.approx(0.5 + 0.9 * plain)
