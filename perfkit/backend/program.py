"""A compiled region: from its text to something that takes and gives tensors."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor as TorchTensor

from perfkit import config
from perfkit.analysis.dependences import Analysis
from perfkit.backend import memory, reference, schedules
from perfkit.backend.records import Records
from perfkit.errors import KernelFailure
from perfkit.frontends import fx_graph, fx_loops
from perfkit.frontends.fx_graph import Graph, Tensor
from perfkit.runtime.build import Toolchain
from perfkit.runtime.entry import Entry
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.machine import Machine
from perfkit.runtime.store import source_hash
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.search.compiled import Builder

PREFIX = "region_"


@dataclass(frozen=True, slots=True)
class Spec:
    """What a kernel is made from, as the operator's argument carries it.

    Attributes:
        graph: text of the region (:func:`perfkit.frontends.fx_graph.dumps`).
        fp: whether sums may be reordered.
        schedule: "region" for the marked order of the lowering, else a script.
        threads: of the kernel.
    """

    graph: str
    fp: str
    schedule: str
    threads: int

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def pack(self) -> str:
        return fx_graph.packed(json.dumps(asdict(self), sort_keys=True))

    @staticmethod
    def unpack(text: str) -> Spec:
        return Spec(**json.loads(fx_graph.unpacked(text)))


@dataclass
class Counters:
    """What this process had to do; tests and ``explain`` read it."""

    lowered: int = 0
    compiled: int = 0
    loaded: int = 0
    fallbacks: int = 0


@functools.cache
def counters() -> Counters:
    """This process's counters."""
    return Counters()


def settings_for(spec: Spec) -> config.Settings:
    return replace(config.current(), fp=spec.fp, threads=spec.threads)


def identity(settings: config.Settings) -> str:
    """What makes a compiled region another one besides its text: machine, compiler, perfkit."""
    toolchain = Toolchain.detect(settings)
    parts = (
        source_hash(), toolchain.version, *toolchain.key_flags(), Machine.detect().isa_key(),
        torch.__version__,
    )  # fmt: skip
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Program:
    """A region's kernel with its layouts; call it with tensors."""

    def __init__(self, graph: Graph, kernel: Kernel, schedule: str) -> None:
        self.graph = graph
        self.kernel = kernel
        self.schedule = schedule
        self._entry: Entry = kernel.entry
        self._known: dict[tuple[int, ...], _Shapes] = {}
        self._results = memory.Results()
        by_name = {f"out_{name}": k for k, name in enumerate(graph.outputs)}
        by_name |= {n: k + len(by_name) for k, (n, _) in enumerate(graph.inputs)}
        arrays = [p.name for p in kernel.signature.parameters if p.kind == "array"]
        self._order = [by_name[name] for name in arrays]
        positions = [graph.sizes.index(s) for s in kernel.signature.sizes]
        self._sizes = positions
        self._block = ctypes.c_void_p * (len(positions) + len(arrays))

    def __call__(self, inputs: Sequence[TorchTensor], sizes: Sequence[int]) -> list[TorchTensor]:
        """Run the kernel. Inputs with other strides than the region's are copied first.

        Raises:
            KernelFailure: the kernel had no memory for its intermediate arrays.
        """
        key = tuple(sizes)
        shapes = self._known.get(key)
        if shapes is None:
            shapes = self._known[key] = _Shapes(self.graph, key)
        held = [
            x if x.stride() == want else _fitting(x, tensor, want)
            for x, want, (_, tensor) in zip(inputs, shapes.inputs, self.graph.inputs, strict=True)
        ]
        results = [self._results.empty(k, *o) for k, o in enumerate(shapes.outputs)]
        pointers = [t.data_ptr() for t in (*results, *held)]
        numbers = [ctypes.c_int64(key[k]) for k in self._sizes]
        block = self._block(
            *(ctypes.addressof(n) for n in numbers), *(pointers[k] for k in self._order)
        )
        if self._entry(block):
            raise KernelFailure(f"{self.kernel.signature.name}: no memory for its buffers")
        return results


class _Shapes:
    """Strides of the inputs, sizes and strides of the outputs, at certain sizes."""

    def __init__(self, graph: Graph, values: tuple[int, ...]) -> None:
        sizes = dict(zip(graph.sizes, values, strict=True))
        self.inputs = [reference.strides(t, sizes) for _, t in graph.inputs]
        self.outputs: list[tuple[Any, ...]] = []
        for name in graph.outputs:
            tensor = graph.tensor(name)
            self.outputs.append(
                (reference.shape(tensor, sizes), output_strides(tensor, sizes),
                 getattr(torch, tensor.dtype))
            )  # fmt: skip


def output_strides(tensor: Tensor, sizes: Any) -> tuple[Any, ...]:
    """Strides of a result; those of dimensions of size 1 as torch would give them when dense."""
    dims = reference.shape(tensor, sizes)
    order = [*tensor.order]
    for d in range(len(dims)):
        if d not in order:
            order.insert(sum(1 for o in order if o < d), d)
    result: list[Any] = [1] * len(dims)
    step: Any = 1
    for d in reversed(order):
        result[d] = step
        step = step * dims[d]
    return tuple(result)


def _fitting(x: TorchTensor, tensor: Tensor, want: tuple[int, ...]) -> TorchTensor:
    """The tensor with the strides that the kernel expects; copied when they matter and differ."""
    matters = (d for d, n in enumerate(x.shape) if n != 1)
    if all(x.stride(d) == want[d] for d in matters):
        return x
    fresh = torch.empty_strided(x.shape, want, dtype=x.dtype)
    once = [d for d, step in enumerate(want) if step == 0]
    place = fresh
    for d in once:
        place, x = place.narrow(d, 0, 1), x.narrow(d, 0, 1)
    place.copy_(x)
    return fresh


# -- making one -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=512)
def load(packed: str) -> Program:
    """The program of a packed :class:`Spec`: from the cache, or made anew.

    Raises:
        PerfkitError: the region cannot be lowered or compiled.
    """
    spec = Spec.unpack(packed)
    settings = settings_for(spec)
    builder = Builder.detect(settings)
    records = Records(builder.cache.root)
    key = hashlib.sha256((spec.digest + identity(settings)).encode()).hexdigest()
    graph = fx_graph.loads(spec.graph)
    known = records.get(key)
    if known is not None and isinstance(known.get("source"), str):
        counters().loaded += 1
        source, script = known["source"], str(known.get("script", ""))
        signature = fx_loops.signature(graph, name_of(spec.graph))
    else:
        seed, signature, source = generate(spec, graph, builder)
        script = seed.script
        records.put(key, {"source": source, "script": script})
        counters().compiled += 1
    return Program(graph, builder.kernel(signature, source, script), script)


def name_of(graph: str) -> str:
    return PREFIX + hashlib.sha256(graph.encode()).hexdigest()[:12]


def generate(spec: Spec, graph: Graph, builder: Builder) -> tuple[Seed, Any, str]:
    """Lower and schedule a region, and write its C."""
    counters().lowered += 1
    scop, signature = fx_loops.lower(graph, name_of(spec.graph))
    analysis = Analysis(builder.settings.isl_max_operations, parallel_reductions=True)
    state = State.start(scop, spec.fp)
    seed = schedules.named(spec.schedule, state, analysis, builder.machine)
    poly = analysis.polyhedra(seed.state.scop)
    return seed, signature, builder.source(seed.state, signature, poly)


__all__ = ["Program", "Spec", "counters", "identity", "load", "name_of", "output_strides"]
