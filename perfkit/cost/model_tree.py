"""A transformer over the tokens of a schedule's tree, evaluated in NumPy.

Every kind of token has its own embedding. A layer is pre-normalised self-attention, whose scores
have a learned bias for how two tokens stand to each other in the tree, and a two-layer network with
tanh-approximated GELU. The model corrects the analytic one term by term: every statement and loop,
and the program's waiting, has its seconds multiplied by the exponential of what is read from its
token, and the prediction is the logarithm of their sum. :mod:`perfkit.learn.train_tree` is the same
function in torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfkit.cost.columns import KINDS
from perfkit.cost.tokens import Tokens, relations

Array = np.ndarray[Any, Any]

FAR = np.float32(6.0)
"""Deviations from the training data's mean beyond which a feature says no more."""

CHUNK = 4096
"""Tokens evaluated together."""


@dataclass(frozen=True)
class TreeTransformer:
    """``weights`` by name; see :meth:`forward` for their shapes. ``heads`` divides the width."""

    weights: Mapping[str, Array]
    heads: int
    layers: int

    def predict(self, tokens: Sequence[Tokens]) -> Array:
        """float64 [schedules]; schedules of about one length are evaluated together."""
        found = np.zeros(len(tokens))
        for group in _groups([t.count for t in tokens]):
            found[group] = self.forward([tokens[k] for k in group])
        return found

    def forward(self, batch: Sequence[Tokens]) -> Array:
        """float64 [schedules], all padded to the longest."""
        w = self.weights
        length = max(t.count for t in batch)
        width = len(w["program.bias"])
        x = np.zeros((len(batch), length, width), np.float32)
        related = np.zeros((len(batch), length, length), np.int64)
        hidden = np.ones((len(batch), length), bool)
        for b, t in enumerate(batch):
            x[b, : t.count] = self.embed(t)
            related[b, : t.count, : t.count] = relations(t.parent)
            hidden[b, : t.count] = False
        for k in range(self.layers):
            bias = w[f"{k}.relation"].T[:, related].transpose(1, 0, 2, 3)
            x = x + self._attend(k, _normal(x, w[f"{k}.norm1"]), bias, hidden)
            y = _normal(x, w[f"{k}.norm2"]) @ w[f"{k}.up"] + w[f"{k}.up.bias"]
            x = x + _gelu(y) @ w[f"{k}.down"] + w[f"{k}.down.bias"]
        return _log_sum(self.corrected(batch, x))

    def corrected(self, batch: Sequence[Tokens], x: Array) -> Array:
        """float64 [schedules, tokens]: log seconds of each over the roofline; x: final states."""
        w = self.weights
        found = _normal(x, w["norm"]) @ w["out"] + w["out.bias"]
        terms = np.full(found.shape[:2], -np.inf)
        for b, t in enumerate(batch):
            counted = t.count - len(t.rows[KINDS[-1]])
            kinds = t.kinds[:counted]
            terms[b, :counted] = t.terms[:counted] + found[b, np.arange(counted), kinds]
        return terms

    def embed(self, tokens: Tokens) -> Array:
        """float32 [tokens, width], kind by kind."""
        w = self.weights
        parts = []
        for kind in KINDS:
            rows = (tokens.rows[kind] - w[f"{kind}.mean"]) / w[f"{kind}.scale"]
            rows = np.clip(rows, -FAR, FAR)
            parts.append(rows @ w[f"{kind}.in"] + w[f"{kind}.bias"])
        return np.concatenate(parts)

    def _attend(self, k: int, x: Array, bias: Array, hidden: Array) -> Array:
        w = self.weights
        count, length, width = x.shape
        each = width // self.heads
        qkv = (x @ w[f"{k}.qkv"] + w[f"{k}.qkv.bias"]).reshape(count, length, 3, self.heads, each)
        q, key, v = (qkv[:, :, j].transpose(0, 2, 1, 3) for j in range(3))
        scores = q @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(each)) + bias
        scores = np.where(hidden[:, None, None, :], np.float32(-1e9), scores)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = (scores @ v).transpose(0, 2, 1, 3).reshape(count, length, width)
        return mixed @ w[f"{k}.proj"] + w[f"{k}.proj.bias"]

    def arrays(self) -> dict[str, Array]:
        return {**self.weights, "shape": np.array([self.heads, self.layers])}

    @staticmethod
    def of(arrays: Mapping[str, Array]) -> TreeTransformer:
        named = dict(arrays)
        heads, layers = map(int, named.pop("shape"))
        return TreeTransformer(named, heads, layers)


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lambda k: lengths[k])
    group: list[int] = []
    for k in order:
        if group and (len(group) + 1) * lengths[k] > CHUNK:
            yield group
            group = []
        group.append(k)
    if group:
        yield group


def _log_sum(terms: Array) -> Array:
    most = terms.max(1)
    found: Array = most + np.log(np.exp(terms - most[:, None]).sum(1))
    return found


def _normal(x: Array, weight: Array) -> Array:
    """Layer normalisation with a scale (row 0) and a shift (row 1)."""
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-5))
    return x * weight[0] + weight[1]


def _gelu(x: Array) -> Array:
    inner = np.float32(0.7978845608) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


__all__ = ["FAR", "TreeTransformer"]
