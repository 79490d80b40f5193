"""One rank of the benchmark: takes tasks as lines of JSON, answers each with one.

``python -m bench.dsp.worker`` says "ready", then waits for its place in the world; that gives the
parent time to connect the process's network namespace. Nothing here knows how slow the links are,
unless they are paced (see :mod:`bench.dsp.paced`).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TextIO

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.testing._internal.distributed.fake_pg import FakeStore  # makes the backend known too

from bench.dsp.paced import Pace
from bench.dsp.stdit import METHODS, Method, One, Size, Stdit, shard_loss, slice_part
from perfkit import dsp

TIMEOUT = timedelta(seconds=300)
AGREE = 2e-4  # largest difference of outputs and gradients, of the largest value: fp32 sums


def data(size: Size, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Input, timestep embedding and target, the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size.shape, generator=generator)
    timestep = torch.randn(size.batch, size.width, generator=generator)
    return x, timestep, torch.randn(size.shape, generator=generator)


def model_for(size: Size, method: Method) -> Stdit:
    torch.manual_seed(1)
    return method.prepare(Stdit(size))


class Bench:
    """The models and groups of one rank; ``pace`` is None where links have a rate of their own."""

    def __init__(self, size: Size, pace: Pace | None) -> None:
        self.size, self.pace = size, pace
        # Same sizes, same code, nothing sent: what remains is the computation.
        self.silent = dist.new_group(backend="fake")

    def make(self, name: str, silent: bool = False, **options: Any) -> Method:
        return METHODS[name](self.size, self.silent if silent else dist.group.WORLD, **options)

    def add_gradients(self, model: nn.Module, method: Method) -> None:
        """Sum the gradients of shared parameters over the ranks, in one bucket."""
        if isinstance(method, One):
            return
        shared = [p.grad for p in shared_parameters(model, method) if p.grad is not None]
        bucket = torch.cat([g.reshape(-1) for g in shared])
        dist.all_reduce(bucket, group=method.group)
        if self.pace is not None and method.group is not self.silent:
            ranks = dist.get_world_size()
            self.pace.wait(2 * 4 * bucket.numel() * (ranks - 1) / ranks)
        for gradient, summed in zip(shared, bucket.split([g.numel() for g in shared]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    # -- correctness ---------------------------------------------------------------------------

    def check(self, names: list[str]) -> dict[str, float]:
        """The largest difference to one process, of the largest value, for each method.

        Output shards and every parameter's gradient, summed over ranks where it is shared.
        """
        one = One(self.size)
        x, timestep, target = data(self.size)
        reference = model_for(self.size, one)
        whole = reference(x, timestep, one)
        shard_loss(whole, target, one).backward()
        wanted = {n: p.grad for n, p in reference.named_parameters() if p.grad is not None}
        scale = max(float(g.abs().max()) for g in wanted.values())
        found = {}
        for name in names:
            method = self.make(name)
            model = model_for(self.size, method)
            y = model(method.shard(x, 1), timestep, method)
            shard_loss(y, target, method).backward()
            self.add_gradients(model, method)
            mine = method.shard(whole.detach(), method.leaves)
            worst = apart(y.detach(), mine) / float(whole.detach().abs().max())
            expected = expected_part(wanted, method)
            for key, p in model.named_parameters():
                assert p.grad is not None, key
                worst = max(worst, apart(p.grad, expected[key]) / scale)
            found[name] = worst
        return found

    # -- bytes ---------------------------------------------------------------------------------

    def count(self, names: list[str], home: bool = False) -> dict[str, dict[str, int]]:
        """Bytes that this rank sends in one forward and backward pass of each method.

        ``home``: DSP ends as it started. ``gradients`` is what a ring would send to add up the
        gradients of the parameters that the method shares.
        """
        x, timestep, target = data(self.size)
        ranks = dist.get_world_size()
        found = {}
        for name in names:
            method = self.make(name, **({"home": home} if name == "dsp" else {}))
            counters = dsp.counters(method.group)
            counters.reset()
            model = model_for(self.size, method)
            y = model(method.shard(x, 1), timestep, method)
            forward = counters.total()
            shard_loss(y, target, method).backward()
            both = counters.total()
            shared = sum(p.numel() for p in shared_parameters(model, method))
            found[name] = {
                "forward": forward.sent,
                "backward": both.sent - forward.sent,
                "forward calls": forward.calls,
                "backward calls": both.calls - forward.calls,
                "gradients": 2 * 4 * shared * (ranks - 1) // ranks,
            }
        return found

    def probe(self, repeats: int = 5) -> dict[str, float]:
        """What the links are: seconds of an exchange of next to nothing, bytes per second of more.

        From two all-to-alls; bytes as one rank sends them.
        """
        ranks = dist.get_world_size()
        medians = []
        for length in (1, 1 << 18):
            x = torch.zeros(ranks, length)
            spent = []
            for _ in range(repeats + 1):
                dist.barrier()
                begin = time.perf_counter()
                dsp.switch(x[:1], from_dim=0, to_dim=1, size=ranks)
                spent.append(time.perf_counter() - begin)
            medians.append(statistics.median(spent[1:]))
        sent = 4 * (1 << 18) // ranks * (ranks - 1)
        return {"latency": medians[0], "bandwidth": sent / max(1e-9, medians[1] - medians[0])}

    # -- time ----------------------------------------------------------------------------------

    def steps(self, name: str, training: bool, silent: bool) -> Callable[[], None]:
        """One training step (SGD), or one inference, as a function."""
        method = self.make(name, silent)
        model = model_for(self.size, method)
        x, timestep, target = data(self.size)
        mine = method.shard(x, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            shard_loss(model(mine, timestep, method), target, method).backward()
            self.add_gradients(model, method)
            optimizer.step()

        @torch.inference_mode()
        def infer() -> None:
            model(mine, timestep, method)

        return train if training else infer

    def time(self, names: list[str], training: bool, rounds: int) -> dict[str, list[list[float]]]:
        """For each method ``[real, silent]`` seconds of this rank's steps, a pair for each round.

        The silent step computes the same on the same tensors with a group that sends nothing.
        Methods and kinds take turns; ranks start together.
        """
        steps = {
            (name, silent): self.steps(name, training, silent)
            for name in names
            for silent in (False, True)
        }
        spent: dict[str, list[list[float]]] = {name: [] for name in names}
        for number in range(rounds + 1):
            for (name, silent), step in steps.items():
                dist.barrier()
                begin = time.perf_counter()
                step()
                seconds = time.perf_counter() - begin
                if number and not silent:  # the first round warms up
                    spent[name].append([seconds])
                elif number:
                    spent[name][-1].append(seconds)
        return spent

    def memory(self, names: list[str], training: bool) -> dict[str, int]:
        """The most bytes of tensors that a step has alive at once, beyond those before it.

        From the allocator's own record (torch's profiler); buffers of gloo are not in it.
        """
        found = {}
        for name in names:
            step = self.steps(name, training, silent=False)
            step()
            with torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
            ) as profile:
                step()
            found[name] = peak(profile)
        return found

    # -- training ------------------------------------------------------------------------------

    def curve(self, name: str, count: int) -> list[float]:
        """The loss of each of ``count`` AdamW steps, on noise that differs from step to step."""
        method = self.make(name) if dist.get_world_size() > 1 else One(self.size)
        model = model_for(self.size, method)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        clean = data(self.size)[0].cumsum(1).cumsum(2)
        clean = clean / clean.std()
        losses = []
        for number in range(count):
            noise, timestep, _ = data(self.size, seed=number + 1)
            level = 0.1 + 0.8 * (number * 0.618 % 1)
            noisy = (1 - level) * clean + level * noise
            optimizer.zero_grad(set_to_none=True)
            y = model(method.shard(noisy, 1), timestep, method)
            loss = shard_loss(y, noise, method)
            loss.backward()
            self.add_gradients(model, method)
            optimizer.step()
            total = loss.detach().clone()
            if dist.get_world_size() > 1:
                dist.all_reduce(total)
            losses.append(float(total))
        return losses


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference; a rank may hold nothing."""
    return float((a - b).abs().max()) if a.numel() else 0.0


def shared_parameters(model: nn.Module, method: Method) -> list[nn.Parameter]:
    """Those whose gradients a rank has only a part of."""
    return [p for name, p in model.named_parameters() if name.split(".", 2)[-1] not in method.owned]


def expected_part(wanted: dict[str, Tensor], method: Method) -> dict[str, Tensor]:
    """The gradients of a full model as this rank should have them."""
    if not method.owned:
        return wanted
    heads, hidden = method.parts()  # type: ignore[attr-defined]
    expected = dict(wanted)
    prefixes = {key.rsplit(".", 2)[0] for key in wanted if key.endswith("qkv.weight")}
    for prefix in prefixes:
        inner = {
            k.removeprefix(prefix + "."): g for k, g in wanted.items() if k.startswith(prefix + ".")
        }
        head_dim = method.size.width // method.size.heads
        part = slice_part(inner, head_dim, heads, hidden)
        expected.update({f"{prefix}.{k}": g for k, g in part.items()})
    return expected


def peak(profile: Any) -> int:
    """The largest running sum of a profile's allocations and frees."""
    events = [
        event
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU
    ]
    most = now = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@contextmanager
def reporting(out: TextIO) -> Iterator[None]:
    """Send what goes wrong to the parent."""
    try:
        yield
    except BaseException:
        out.write(json.dumps({"error": traceback.format_exc()}) + "\n")
        out.flush()
        raise


def main() -> int:
    # The channel to the parent; whatever else is written to stdout goes to stderr.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    out.write("ready\n")
    place = json.loads(sys.stdin.readline())
    with reporting(out):
        torch.set_num_threads(place["threads"])
        if place["backend"] == "fake":
            store: dist.Store = FakeStore()
        else:
            store = dist.TCPStore(place["host"], place["port"], is_master=False, timeout=TIMEOUT)
        dist.init_process_group(
            place["backend"],
            store=store,
            rank=place["rank"],
            world_size=place["world"],
            timeout=TIMEOUT,
        )
        pace = Pace() if place["paced"] else None
        bench = Bench(Size(**place["size"]), pace)
        for line in sys.stdin:
            task = json.loads(line)
            if pace is not None:
                pace.rate = task["rate"] or 0.0
            result = getattr(bench, task["kind"])(**task["arguments"])
            out.write(json.dumps({"result": result}) + "\n")
    return 0


if __name__ == "__main__":
    main()
    # Without destroying the group: a rank must not wait for others that are gone.
    sys.stdout.flush()
    os._exit(0)
