"""Training the tree transformer of :mod:`perfkit.cost.model_tree` (needs torch)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional

from perfkit.cost.columns import KINDS, WIDTHS
from perfkit.cost.model_tree import FAR, TreeTransformer
from perfkit.cost.tokens import LEAST, RELATIONS, Tokens, relations
from perfkit.learn.examples import Group

Array = np.ndarray[Any, Any]

COUNTED = KINDS[:-1]
"""Kinds of tokens that have seconds of their own."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    ``rank`` weighs the pairwise loss, ``apart`` is the log time that counts there, ``rows`` are the
    schedules of a step.
    """

    width: int = 64
    heads: int = 4
    layers: int = 2
    epochs: int = 14
    rate: float = 2e-3
    decay: float = 1e-2
    rank: float = 0.5
    apart: float = 0.05
    rows: int = 256
    dropout: float = 0.05


@dataclass(frozen=True)
class Batch:
    """Schedules padded to one length; see :class:`Rows`."""

    rows: torch.Tensor
    kinds: torch.Tensor
    related: torch.Tensor
    terms: torch.Tensor
    target: torch.Tensor
    owner: torch.Tensor


class Network(torch.nn.Module):
    """The same function as :class:`TreeTransformer`, with the same names of weights."""

    def __init__(self, recipe: Recipe, scales: dict[str, Array], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.recipe = recipe
        d = recipe.width
        self.w = torch.nn.ParameterDict()
        self.fixed = {n: torch.from_numpy(a) for n, a in scales.items()}

        def new(name: str, *shape: int, scale: float | None = None) -> None:
            spread = 1 / math.sqrt(shape[0]) if scale is None else scale
            value = torch.randn(*shape, generator=generator) * spread
            self.w[name.replace(".", "/")] = torch.nn.Parameter(value)

        for kind in KINDS:
            new(f"{kind}.in", WIDTHS[kind], d)
            new(f"{kind}.bias", d, scale=0.02)
        for k in range(recipe.layers):
            new(f"{k}.qkv", d, 3 * d)
            new(f"{k}.qkv.bias", 3 * d, scale=0.0)
            new(f"{k}.proj", d, d, scale=0.3 / math.sqrt(d))
            new(f"{k}.proj.bias", d, scale=0.0)
            new(f"{k}.up", d, 2 * d)
            new(f"{k}.up.bias", 2 * d, scale=0.0)
            new(f"{k}.down", 2 * d, d, scale=0.3 / math.sqrt(2 * d))
            new(f"{k}.down.bias", d, scale=0.0)
            new(f"{k}.relation", len(RELATIONS), recipe.heads, scale=0.02)
            for norm in ("norm1", "norm2"):
                new(f"{k}.{norm}", 2, d, scale=0.0)
        new("norm", 2, d, scale=0.0)
        new("out", d, len(COUNTED), scale=0.0)
        new("out.bias", len(COUNTED), scale=0.0)
        with torch.no_grad():
            for name, value in self.w.items():
                if "norm" in name:
                    value[0] = 1.0

    def weight(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self.w[name.replace(".", "/")]
        return found

    def forward(self, batch: Batch) -> torch.Tensor:
        d, heads = self.recipe.width, self.recipe.heads
        x = torch.zeros(*batch.kinds.shape, d)
        for k, kind in enumerate(KINDS):
            rows = batch.rows[..., : WIDTHS[kind]]
            rows = (rows - self.fixed[f"{kind}.mean"]) / self.fixed[f"{kind}.scale"]
            found = rows.clamp(-float(FAR), float(FAR)) @ self.weight(f"{kind}.in")
            found = found + self.weight(f"{kind}.bias")
            x = torch.where((batch.kinds == k)[..., None], found, x)
        mask = torch.where(batch.kinds < 0, -1e9, 0.0)[:, None, None, :]
        count, length = batch.kinds.shape
        for k in range(self.recipe.layers):
            y = self._normal(x, f"{k}.norm1") @ self.weight(f"{k}.qkv")
            y = y + self.weight(f"{k}.qkv.bias")
            q, key, v = y.reshape(count, length, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
            bias = self.weight(f"{k}.relation")[batch.related].permute(0, 3, 1, 2) + mask
            y = functional.scaled_dot_product_attention(q, key, v, attn_mask=bias)
            y = y.transpose(1, 2).reshape(count, length, d)
            y = y @ self.weight(f"{k}.proj") + self.weight(f"{k}.proj.bias")
            x = x + functional.dropout(y, self.recipe.dropout, self.training)
            y = self._normal(x, f"{k}.norm2") @ self.weight(f"{k}.up") + self.weight(f"{k}.up.bias")
            y = functional.gelu(y, approximate="tanh") @ self.weight(f"{k}.down")
            y = y + self.weight(f"{k}.down.bias")
            x = x + functional.dropout(y, self.recipe.dropout, self.training)
        found = self._normal(x, "norm") @ self.weight("out") + self.weight("out.bias")
        counted = (batch.kinds >= 0) & (batch.kinds < len(COUNTED))
        place = batch.kinds.clamp(0, len(COUNTED) - 1)[..., None]
        terms = batch.terms + torch.gather(found, 2, place)[..., 0]
        return torch.logsumexp(torch.where(counted, terms, -1e9), 1)

    def _normal(self, x: torch.Tensor, name: str) -> torch.Tensor:
        w = self.weight(name)
        return functional.layer_norm(x, (x.shape[-1],), w[0], w[1], 1e-5)

    def export(self) -> TreeTransformer:
        arrays = {n.replace("/", "."): v.detach().numpy().copy() for n, v in self.w.items()}
        fixed = {n: v.numpy() for n, v in self.fixed.items()}
        return TreeTransformer({**arrays, **fixed}, self.recipe.heads, self.recipe.layers)


def scales_of(tokens: Sequence[Tokens]) -> dict[str, Array]:
    """Mean and deviation of every column, by kind."""
    found: dict[str, Array] = {}
    for kind in KINDS:
        rows = np.concatenate([t.rows[kind] for t in tokens])
        found[f"{kind}.mean"] = rows.mean(0)
        found[f"{kind}.scale"] = np.maximum(rows.std(0), 0.05)
    return found


class Rows:
    """All schedules of some programs, ready to be padded and stacked."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.tokens = [t for g in groups for t in g.tokens]
        self.target = np.concatenate([g.target for g in groups]).astype(np.float32)
        self.owner = np.repeat(np.arange(len(groups)), [len(g.tokens) for g in groups])
        self.first = np.cumsum([0, *(len(g.tokens) for g in groups)])
        self.related = [relations(t.parent).astype(np.int8) for t in self.tokens]
        lengths = np.array([t.count for t in self.tokens])
        self.length = np.array([lengths[a:b].mean() for a, b in pairwise(self.first)])

    def batches(self, size: int, rng: np.random.Generator) -> list[Array]:
        """Positions of about ``size`` schedules each, programs whole, of about one length."""
        found, part = [], np.zeros(0, np.int64)
        for k in np.argsort(self.length * rng.uniform(0.8, 1.25, len(self.length))):
            part = np.concatenate([part, np.arange(self.first[k], self.first[k + 1])])
            if len(part) >= size:
                found.append(part)
                part = np.zeros(0, np.int64)
        if len(part):
            found.append(part)
        rng.shuffle(found)
        return found

    def batch(self, chosen: Array) -> Batch:
        tokens = [self.tokens[k] for k in chosen]
        length = max(t.count for t in tokens)
        rows = np.zeros((len(tokens), length, max(WIDTHS.values())), np.float32)
        kinds = np.full((len(tokens), length), -1)
        terms = np.full((len(tokens), length), LEAST, np.float32)
        related = np.zeros((len(tokens), length, length), np.int64)
        for b, (t, k) in enumerate(zip(tokens, chosen, strict=True)):
            at = 0
            for kind in KINDS:
                part = t.rows[kind]
                rows[b, at : at + len(part), : part.shape[1]] = part
                at += len(part)
            kinds[b, : t.count] = t.kinds
            terms[b, : t.count] = t.terms
            related[b, : t.count, : t.count] = self.related[k]
        parts = (rows, kinds, related, terms, self.target[chosen], self.owner[chosen])
        return Batch(*(torch.from_numpy(p) for p in parts))


def loss_of(predicted: torch.Tensor, batch: Batch, recipe: Recipe) -> torch.Tensor:
    """Huber on log time, and the logistic loss of the order of pairs within a program."""
    loss = functional.huber_loss(predicted, batch.target, delta=0.5) * 2
    if recipe.rank:
        apart = batch.target[:, None] - batch.target[None, :]
        pairs = (batch.owner[:, None] == batch.owner[None, :]) & (apart > recipe.apart)
        wrong = functional.softplus(-4.0 * (predicted[:, None] - predicted[None, :]))
        loss = loss + recipe.rank * (wrong * pairs).sum() / pairs.sum().clamp(min=1)
    return loss


def train(
    groups: Sequence[Group], recipe: Recipe, seed: int, checkpoint: Path,
    told: Callable[[int, float], None],
) -> TreeTransformer:  # fmt: skip
    """Train one member; continues from ``checkpoint`` where that holds a part of the epochs.

    ``told`` hears of the mean loss after each epoch.
    """
    torch.manual_seed(seed)
    network = Network(recipe, scales_of([t for g in groups for t in g.tokens]), seed)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.rate, weight_decay=recipe.decay)
    done = _resume(network, optimizer, checkpoint)
    data = Rows(groups)
    for epoch in range(done, recipe.epochs):
        batches = data.batches(recipe.rows, np.random.default_rng((seed, epoch)))
        total = 0.0
        for k, chosen in enumerate(batches):
            share = (epoch + k / len(batches)) / recipe.epochs
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * min(1.0, 20 * share + 0.05) * (
                    0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))
                )
            batch = data.batch(chosen)
            loss = loss_of(network(batch), batch, recipe)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            total += float(loss.detach())
        _save(network, optimizer, epoch + 1, checkpoint)
        told(epoch + 1, total / len(batches))
    network.eval()
    return network.export()


def _save(network: Network, optimizer: Any, epoch: int, path: Path) -> None:
    arrays = {"epoch": np.array([epoch])}
    for name, value in network.w.items():
        state = optimizer.state[value]
        arrays[f"w:{name}"] = value.detach().numpy()
        for key in ("exp_avg", "exp_avg_sq", "step"):
            arrays[f"{key}:{name}"] = state[key].numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    save_file({n: np.atleast_1d(a) for n, a in arrays.items()}, aside)
    aside.replace(path)


def _resume(network: Network, optimizer: Any, path: Path) -> int:
    """The number of epochs that the checkpoint has done; 0 without one."""
    if not path.exists():
        return 0
    arrays = load_file(path)
    with torch.no_grad():
        for name, value in network.w.items():
            value.copy_(torch.from_numpy(arrays[f"w:{name}"]))
            optimizer.state[value] = {
                key: torch.from_numpy(arrays[f"{key}:{name}"]).clone()
                for key in ("exp_avg", "exp_avg_sq")
            } | {"step": torch.tensor(float(arrays[f"step:{name}"][0]))}
    return int(arrays["epoch"][0])


__all__ = ["Batch", "Network", "Recipe", "Rows", "loss_of", "scales_of", "train"]
