"""Projections to GPUs that are not here: alpha-beta plus compute, from a table of devices.

Everything this module returns is a *projection* and says so: it multiplies exact counts of bytes
and flops with data-sheet rates, an assumed efficiency and assumed latencies. It was not measured
on the device named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from perfkit.comm.counters import Count
from perfkit.cost.transfer import Link, transfer
from perfkit.dsp.plan import Graph, Plan, make_plan
from perfkit.dsp.pricing import Mesh, Passes, Price, Pricer, Stage
from perfkit.errors import PlanError

LABEL = "projection, not measured"
Method = Literal["dsp", "ulysses", "megatron", "ring"]
METHODS: tuple[Method, ...] = ("dsp", "ulysses", "megatron", "ring")


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU by its data sheet: dense bf16 flop/s, bytes of memory, links in each direction.

    ``inside`` joins the ``per_node`` GPUs of a node, ``across`` is one GPU's share of the network
    between nodes. Latencies are assumptions (kernel launch and protocol, typical of NCCL).
    """

    name: str
    flops: float
    memory: float
    inside: Link
    across: Link
    per_node: int = 8


# Rates: NVIDIA data sheets (A100 80GB SXM, H100 SXM, H800 SXM, L40S, B200), without sparsity.
# A network of 400 Gbit/s per GPU, 200 Gbit/s for A100 and 100 Gbit/s for L40S.
DEVICES = {
    device.name: device
    for device in (
        Device("a100", 312e12, 80e9, Link(300e9, 8e-6), Link(25e9, 15e-6)),
        Device("h100", 989e12, 80e9, Link(450e9, 8e-6), Link(50e9, 15e-6)),
        Device("h800", 989e12, 80e9, Link(200e9, 8e-6), Link(50e9, 15e-6)),
        Device("l40s", 362e12, 48e9, Link(32e9, 10e-6), Link(12.5e9, 20e-6)),
        Device("b200", 2250e12, 180e9, Link(900e9, 8e-6), Link(50e9, 15e-6)),
    )
}


@dataclass(frozen=True, slots=True)
class Projection:
    """Seconds of one pass or step on the busiest rank. Nothing overlaps, so all is exposed.

    ``sent`` is bytes per rank. ``label`` says that this is a projection.
    """

    device: str
    ranks: int
    method: str
    compute: float
    communication: float
    sent: float
    label: str = LABEL

    @property
    def seconds(self) -> float:
        return self.compute + self.communication

    def __str__(self) -> str:
        return (
            f"{self.ranks} x {self.device}, {self.method}: {self.seconds * 1e3:.3f} ms = "
            f"{self.compute * 1e3:.3f} ms compute + {self.communication * 1e3:.3f} ms "
            f"communication, {self.sent / 1e6:.2f} MB sent per rank ({self.label})"
        )


def mesh_of(device: Device, ranks: int, efficiency: float = 0.5) -> Mesh:
    """The mesh of so many GPUs: one axis inside a node, and one across where there are several.

    ``efficiency`` is the assumed share of the data sheet's flop/s that stages reach.

    Raises:
        PlanError: a count that does not fill nodes, or an efficiency outside (0, 1].
    """
    if not 0 < efficiency <= 1:
        raise PlanError(f"efficiency {efficiency} is not in (0, 1]")
    flops = device.flops * efficiency
    if 1 <= ranks <= device.per_node:
        return Mesh((ranks,), (device.inside,), flops, device.memory)
    nodes, left = divmod(ranks, device.per_node)
    if left or ranks < 1:
        raise PlanError(f"{ranks} ranks do not fill nodes of {device.per_node} {device.name}")
    links = (device.across, device.inside)
    return Mesh((nodes, device.per_node), links, flops, device.memory)


def project(
    graph: Graph,
    device: Device,
    ranks: int,
    passes: Passes | None = None,
    efficiency: float = 0.5,
) -> tuple[Projection, Plan]:
    """The best plan for a graph on so many GPUs of a kind, and what it is projected to take.

    Raises:
        PlanError: no plan fits, or the ranks do not fill nodes.
    """
    mesh = mesh_of(device, ranks, efficiency)
    used = passes or Passes()
    plan = make_plan(graph, mesh, used)
    free = _without_links(mesh)
    pricer = Pricer(graph.axes, free, used)
    compute = sum(
        ran.seconds
        for stage, layout in zip(graph.stages, plan.layouts, strict=True)
        if (ran := pricer.run(stage, layout)) is not None
    )
    communication = max(0.0, plan.price.seconds - compute)
    return Projection(
        device.name, ranks, "dsp", compute, communication, float(plan.price.sent)
    ), plan


def _without_links(mesh: Mesh) -> Mesh:
    endless = Link(float("inf"), 0.0)
    return Mesh(mesh.shape, (endless,) * len(mesh.shape), mesh.flops, mesh.memory)


def pair_volume(method: Method, total: float, ranks: int) -> float:
    """Bytes a rank sends forward in a spatial and a temporal block, of a tensor of ``total``.

    DSP.md's table, from arXiv 2403.10266, section 5: with f = (N - 1) / N, DSP 2 M f / N; Ulysses
    8 M f / N (both blocks exchange queries, keys, values and the output); Megatron-SP 8 M f
    (all-gather and reduce-scatter, twice a block); ring attention 2 M f (keys and values, in the
    block that mixes the sharded axis).
    """
    if ranks < 1:
        raise PlanError(f"{ranks} ranks")
    f = (ranks - 1) / ranks
    return {
        "dsp": 2 * total * f / ranks,
        "ulysses": 8 * total * f / ranks,
        "megatron": 8 * total * f,
        "ring": 2 * total * f,
    }[method]


# Exchanges of a pair of blocks, each of N - 1 messages per rank; a hop of the ring is one message
# of keys and values together.
_EXCHANGES = {"dsp": 2, "ulysses": 8, "megatron": 8, "ring": 1}


def backward_times(method: Method) -> int:
    """What backward sends, in forward volumes: in a ring, keys and values and their gradients."""
    return 2 if method == "ring" else 1


def compare(
    stages: tuple[Stage, Stage],
    positions: int,
    device: Device,
    ranks: int,
    passes: Passes | None = None,
    efficiency: float = 0.5,
) -> list[Projection]:
    """The four methods on one (spatial, temporal) pair of blocks, by their closed forms.

    All divide the arithmetic evenly. The group is flat; across nodes its links are the slower.

    Raises:
        PlanError: the ranks do not fill nodes.
    """
    mesh, used = mesh_of(device, ranks, efficiency), passes or Passes()
    total = float(stages[0].width * positions)
    compute = sum(s.flops for s in stages) / ranks / mesh.flops * used.compute
    found = []
    for method in METHODS:
        times = used.forward_sends + used.training * backward_times(method)
        sent = pair_volume(method, total, ranks) * times
        messages = _EXCHANGES[method] * (ranks - 1) * times
        seconds = transfer(sent, messages, mesh.links[0])
        found.append(Projection(device.name, ranks, method, compute, seconds, sent))
    return found


def from_counters(
    counts: Iterable[Count], device: Device, ranks: int, compute: float = 0.0
) -> Projection:
    """What counted traffic would take on GPUs of a kind: bytes and calls as they were counted.

    ``counts`` are a rank's, of a group of ``ranks`` (real or fake); ``compute`` is the seconds of
    arithmetic to add, which the caller has measured or projected.
    """
    mesh = mesh_of(device, ranks)
    price = Price()
    for count in counts:
        seconds = transfer(
            max(count.sent, count.received), count.calls * (ranks - 1), mesh.links[0]
        )
        price += Price(seconds, count.sent)
    return Projection(device.name, ranks, "as counted", compute, price.seconds, float(price.sent))
