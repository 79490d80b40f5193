"""The analytic model: exact counts where they are known, and orders that must not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.cost.analytic import Estimate, assumed, estimate
from perfkit.cost.compute import Compute
from perfkit.cost.device import Device
from perfkit.cost.facts import Facts
from perfkit.cost.operations import operations
from perfkit.cost.traffic import Traffic
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Node, loops, parse
from perfkit.runtime.machine import Cache, Machine
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.search.auto import Problem, candidates
from tests.programs_ir import PROGRAMS, program

CACHES = (Cache(1, 32 << 10, 64, 1), Cache(2, 512 << 10, 64, 1), Cache(3, 32 << 20, 64, 2))
MACHINE = Machine("x86_64", "test", 2, 2, CACHES, 32, ("avx2", "fma"), 4096)
DEVICE = Device.of(MACHINE)
ALONE = Device.of(MACHINE, threads=1)


def scop_of(name: str) -> Scop:
    return program(name)


def cost(
    scop: Scop, tree: Node | str, sizes: Mapping[str, int], device: Device = ALONE
) -> Estimate:
    tree = parse(tree) if isinstance(tree, str) else tree
    return estimate(Polyhedra(scop), scop, tree, sizes, device)


def large(scop: Scop, value: int = 1000) -> dict[str, int]:
    return dict.fromkeys(scop.parameters, value)


# -- the device ------------------------------------------------------------------------------


def test_the_device_takes_caches_and_cores_from_the_machine() -> None:
    assert DEVICE.threads == 2
    assert [x.bytes for x in DEVICE.levels] == [c.bytes for c in CACHES]
    assert [x.shared for x in DEVICE.levels] == [False, False, True]
    assert DEVICE.registers == 16
    assert Device.of(replace(MACHINE, isa=("avx512f",))).registers == 32


def test_an_unknown_machine_has_defaults() -> None:
    bare = replace(MACHINE, caches=(), simd_bytes=0)
    device = Device.of(bare)
    assert len(device.levels) == 3
    assert device.simd_bytes == 8
    assert all(x.total_rate >= x.core_rate > 0 for x in device.levels)


def test_small_pages_count_only_without_huge_ones() -> None:
    assert DEVICE.page_bytes > 4096
    assert Device.of(replace(MACHINE, huge_pages="never")).page_bytes == 4096


# -- the model -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_every_program_has_a_positive_estimate(name: str) -> None:
    scop = scop_of(name)
    found = cost(scop, scop.tree, large(scop, 50), DEVICE)
    assert found.seconds > 0
    assert found.compute >= 0
    assert len(found.memory) == 3
    assert found == cost(scop, scop.tree, large(scop, 50), DEVICE)


@pytest.mark.parametrize("name", sorted(PROGRAMS))
@pytest.mark.parametrize("value", [0, 1, 3])
def test_empty_and_tiny_sizes_are_fine(name: str, value: int) -> None:
    scop = scop_of(name)
    assert cost(scop, scop.tree, large(scop, value), DEVICE).seconds >= 0


def test_time_grows_with_the_work() -> None:
    scop = scop_of("matmul")
    times = [cost(scop, scop.tree, large(scop, n)).seconds for n in (100, 200, 400)]
    assert 6 < times[1] / times[0] < 12
    assert 6 < times[2] / times[1] < 14


def test_gemm_traffic_is_the_streamed_operand() -> None:
    scop = scop_of("matmul")
    sizes = large(scop)
    facts = Facts.of(Polyhedra(scop), scop, scop.tree, sizes)
    compute = Compute(facts, ALONE)
    traffic = Traffic(facts, ALONE, {n: s.widths for n, s in compute.shapes.items()})
    update = max(facts.placed, key=lambda p: len(p.path))
    assert update.instances == pytest.approx(1e9)
    inner = {loop.name: traffic._bytes[loop.name] for loop in update.path}
    assert inner[update.path[0].name] == pytest.approx(3 * 8e6, rel=0.05)


def test_operations_of_a_fused_multiply_add() -> None:
    scop = scop_of("matmul")
    update = max(scop.statements, key=lambda s: len(s.iterators))
    counted = operations(update.value, update.write)
    assert counted.is_plain
    assert counted.fma >= 1
    assert counted.dear == 0
    assert counted.chain == pytest.approx(1.0)


# -- orders ----------------------------------------------------------------------------------


def best_looking(name: str, value: int = 1000) -> list[Seed]:
    state = State.start(scop_of(name))
    analysis = Analysis(parallel_reductions=True)
    problem = Problem(state, analysis, MACHINE, large(state.scop, value))
    return [r.seed for r in candidates(problem, "seeds")]


def ranked(name: str) -> list[str]:
    return [s.name for s in best_looking(name)]


def test_register_tiles_come_first_for_a_contraction() -> None:
    found = best_looking("matmul")
    assert any(x.mark("jam") for x in loops(found[0].state.tree))
    assert "original" in [s.name for s in found]


def test_threads_do_not_pay_for_tiny_programs() -> None:
    found = best_looking("matmul", 4)
    assert not any(x.mark("parallel") for x in loops(found[0].state.tree))


def test_the_order_is_the_same_every_time() -> None:
    assert ranked("matmul") == ranked("matmul")


def test_assumed_sizes_keep_what_is_known() -> None:
    scop = scop_of("matmul")
    first = scop.parameters[0]
    found = assumed(scop, {first: 7})
    assert found[first] == 7
    assert set(found) == set(scop.parameters)
    assert all(v >= 100 for n, v in found.items() if n != first)
