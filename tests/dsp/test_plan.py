"""The planner is exact: brute force over every assignment, prices from every rank's transfer."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.cost.transfer import Link, transfer
from perfkit.dsp.placement import Placement
from perfkit.dsp.plan import Graph, Plan, assess, make_plan
from perfkit.dsp.pricing import Layout, Mesh, Passes, Pricer, Stage, moved
from perfkit.dsp.transfers import intersect
from perfkit.errors import PlanError

FLAT8 = Mesh((8,), (Link(50e9, 5e-6),), flops=1e14)
VIDEO = {"T": 16, "S": 256}


def spatial(name: str = "spatial", **options: object) -> Stage:
    return Stage(name, frozenset("S"), 2304, flops=1e11, **options)  # type: ignore[arg-type]


def temporal(name: str = "temporal", **options: object) -> Stage:
    return Stage(name, frozenset("T"), 2304, flops=1e11, **options)  # type: ignore[arg-type]


# -- brute force -----------------------------------------------------------------------------


def brute_force(graph: Graph, mesh: Mesh, passes: Passes) -> float:
    """The least seconds over every assignment of layouts to stages; inf where none is possible.

    Adds up run by run and tensor by tensor, from the definition of a graph's price.
    """
    pricer = Pricer(graph.axes, mesh, passes)
    layouts = pricer.layouts(graph.axes)
    sources = {c: [p for p, d in graph.edges if d == c] for c in range(len(graph.stages))}
    width = {
        p: graph.stages[min(d for q, d in graph.edges if q == p)].width for p, _ in graph.edges
    }
    roots = [s for s in sources if not sources[s]]
    leaves = [s for s in sources if s not in width]
    best = math.inf
    for chosen in itertools.product(layouts, repeat=len(graph.stages)):
        runs = [
            pricer.run(stage, layout) for stage, layout in zip(graph.stages, chosen, strict=True)
        ]
        if any(run is None for run in runs):
            continue
        kept, fits = 0.0, True
        for stage, layout in zip(graph.stages, chosen, strict=True):
            more, work = pricer.memory(stage, layout)
            kept += more
            fits = fits and (mesh.memory is None or kept + work <= mesh.memory)
        if not fits:
            continue
        seconds = sum(run.seconds for run in runs if run)
        for p in width:
            for target in {chosen[c] for c in sources if p in sources[c]} - {chosen[p]}:
                seconds += pricer.change(chosen[p], target, width[p]).seconds
        if graph.start is not None:
            for target in {chosen[r] for r in roots} - {graph.start}:
                seconds += pricer.change(graph.start, target, graph.stages[roots[0]].width).seconds
        if graph.end is not None:
            for leaf in leaves:
                if chosen[leaf] != graph.end:
                    leaf_width = graph.stages[leaf].width
                    seconds += pricer.change(chosen[leaf], graph.end, leaf_width).seconds
        best = min(best, seconds)
    return best


def random_stage(rng: random.Random, axes: list[str], name: str) -> Stage:
    mixes = frozenset(rng.sample(axes, rng.choice([0, 1, 1, 1, min(2, len(axes))])))
    return Stage(
        name,
        mixes,
        width=rng.choice([2, 8, 64]),
        flops=rng.choice([0.0, 1e6, 1e9]),
        heads=rng.choice([None, None, 3, 4, 16]),
        saved=rng.choice([0, 4, 32]),
        work=rng.choice([0, 4]),
    )


def random_setting(rng: random.Random) -> tuple[dict[str, int], Mesh, Passes]:
    axes = {name: rng.choice([1, 3, 8, 17, 51]) for name in "ABC"[: rng.choice([1, 2, 2, 3])]}
    if rng.random() < 0.75 or len(axes) > 2:
        shape: tuple[int, ...] = (rng.choice([2, 3, 4, 8]),)
    else:
        shape = (2, rng.choice([2, 3]))
    links = tuple(Link(rng.choice([1e8, 1e9, 1e11]), rng.choice([0.0, 1e-6, 1e-4])) for _ in shape)
    total = math.prod(axes.values())
    memory = None if rng.random() < 0.6 else rng.choice([8, 24, 64, 120]) * total / math.prod(shape)
    mesh = Mesh(shape, links, flops=rng.choice([1e12, 1e14]), memory=memory)
    passes = Passes(rng.random() < 0.7, rng.random() < 0.5, rng.random() < 0.5)
    return axes, mesh, passes


def random_end(rng: random.Random, axes: dict[str, int], mesh: Mesh) -> Layout | None:
    if rng.random() < 0.5:
        return None
    return tuple(rng.choice([None, *axes]) for _ in mesh.shape)


def agree(graph: Graph, mesh: Mesh, passes: Passes) -> bool:
    """Compare the planner with brute force; whether there was a plan at all."""
    expected = brute_force(graph, mesh, passes)
    if math.isinf(expected):
        with pytest.raises(PlanError):
            make_plan(graph, mesh, passes)
        return False
    plan = make_plan(graph, mesh, passes)
    assert plan.price.seconds == pytest.approx(expected, rel=1e-9, abs=1e-15)
    return True


def test_a_thousand_random_chains_equal_brute_force() -> None:
    rng = random.Random(1)
    planned = 0
    for _ in range(1000):
        axes, mesh, passes = random_setting(rng)
        most = 4 if len(mesh.shape) == 1 else 2
        names = [f"s{i}" for i in range(rng.randint(1, most))]
        stages = [random_stage(rng, list(axes), name) for name in names]
        ends = random_end(rng, axes, mesh), random_end(rng, axes, mesh)
        planned += agree(Graph.chain(axes, stages, *ends), mesh, passes)
    assert 600 < planned < 1000, "both outcomes are covered"


def test_two_hundred_random_dags_equal_brute_force() -> None:
    rng = random.Random(2)
    planned = 0
    for _ in range(200):
        axes, mesh, passes = random_setting(rng)
        while len(mesh.shape) > 1:
            axes, mesh, passes = random_setting(rng)
        count = rng.randint(3, 5 if len(axes) < 3 else 4)
        stages = tuple(random_stage(rng, list(axes), f"s{i}") for i in range(count))
        pairs = itertools.combinations(range(count), 2)
        edges = tuple(pair for pair in pairs if rng.random() < 0.5)
        ends = random_end(rng, axes, mesh), random_end(rng, axes, mesh)
        planned += agree(Graph(axes, stages, edges, *ends), mesh, passes)
    assert 100 < planned < 200


# -- prices ----------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_counts_are_those_of_every_ranks_transfer(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    mesh = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
    dims = st.none() | st.integers(0, len(shape) - 1)
    before, after = (Placement(shape, mesh, tuple(data.draw(dims) for _ in mesh)) for _ in "ba")
    counts = moved(before, after)
    for rank in range(before.ranks):
        expected = np.array(intersect(before, after, rank).send_splits)
        expected[rank] = 0
        assert (counts[rank] == expected).all()


def test_a_switch_costs_the_busiest_rank_and_backward_doubles_it() -> None:
    pricer = Pricer({"T": 9, "S": 8}, Mesh((8,), (Link(1e9, 1e-6),)), Passes(training=False))
    # Rank 0 holds 2 of 9 frames: it sends 7 of 8 positions of both.
    assert pricer.change(("T",), ("S",), 10).sent == 2 * 7 * 10
    assert pricer.change(("T",), ("S",), 10).seconds == transfer(140, 7, Link(1e9, 1e-6))
    both = Pricer({"T": 9, "S": 8}, Mesh((8,), (Link(1e9, 1e-6),)), Passes())
    assert both.change(("T",), ("S",), 10).seconds > 1.5 * transfer(140, 7, Link(1e9, 1e-6))


def test_split_is_free_forward_and_gathers_backward() -> None:
    mesh = Mesh((4,), (Link(1e9),))
    forward = Pricer({"T": 8}, mesh, Passes(training=False))
    assert forward.change((None,), ("T",), 4).seconds == 0
    assert forward.change(("T",), (None,), 4).seconds == transfer(24, 0, Link(1e9))
    training = Pricer({"T": 8}, mesh, Passes())
    assert training.change((None,), ("T",), 4) == training.change(("T",), (None,), 4)


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
def test_ulysses_has_its_closed_form(ranks: int) -> None:
    """4 M f / N sent per rank and block: queries, keys, values there and the output back."""
    pricer = Pricer({"S": 256}, Mesh((ranks,), (Link(1e9),)), Passes(training=False))
    price = pricer.run(Stage("attention", frozenset("S"), 64, heads=16), ("S",))
    assert price is not None
    assert price.sent == 4 * 256 * 64 // ranks * (ranks - 1) // ranks


def test_heads_that_do_not_divide_cost_the_rank_with_most() -> None:
    mesh = Mesh((4,), (Link(1e30),), flops=1.0)
    pricer = Pricer({"S": 8}, mesh, Passes(training=False))
    price = pricer.run(Stage("attention", frozenset("S"), 4, flops=60.0, heads=6), ("S",))
    assert price is not None and price.seconds == pytest.approx(60.0 * 2 / 6)


def test_checkpointing_repeats_arithmetic_and_resends_only_when_told() -> None:
    assert Passes().compute == 3 and Passes(recompute=True).compute == 4
    assert Passes(training=False).compute == 1
    assert [Passes(True, True, r).forward_sends for r in (False, True)] == [1, 2]


def test_ranks_of_two_nodes_talk_over_the_outer_link() -> None:
    fast, slow = Link(1e12), Link(1e9)
    pricer = Pricer({"T": 8, "S": 8}, Mesh((2, 2), (slow, fast)), Passes(training=False))
    inside = pricer.change(("T", "S"), ("T", None), 4)
    across = pricer.change(("T", "S"), (None, "S"), 4)
    assert inside.sent == across.sent
    assert inside.seconds < across.seconds / 100


# -- plans of known models -------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [1, 2, 14])
def test_pairs_of_spatial_and_temporal_blocks_take_2l_minus_1_switches(pairs: int) -> None:
    stages = [spatial(), temporal()] * pairs
    plan = make_plan(Graph.chain(VIDEO, stages, (None,), (None,)), FLAT8)
    assert plan.switches == 2 * pairs - 1
    assert plan.layouts == (("T",), ("S",)) * pairs


def test_three_spatial_blocks_and_a_temporal_one_take_two_switches() -> None:
    stages = [spatial(), spatial(), spatial(), temporal()] * 3
    plan = make_plan(Graph.chain(VIDEO, stages), FLAT8)
    assert plan.switches == 2 * 3 - 1
    again = make_plan(Graph.chain(VIDEO, [*stages[:4], spatial()]), FLAT8)
    assert again.switches == 2


def test_a_single_axis_runs_head_sharded_and_says_so() -> None:
    stage = Stage("full attention", frozenset("S"), 2304, flops=1e12, heads=12)
    plan = make_plan(Graph.chain({"S": 4096}, [stage] * 2, (None,), (None,)), FLAT8)
    assert plan.layouts == (("S",), ("S",))
    assert "heads on 8 (Ulysses over S)" in plan.explain()


def test_without_heads_a_single_axis_stays_replicated() -> None:
    stage = Stage("mixer", frozenset("S"), 2304, flops=1e12)
    plan = make_plan(Graph.chain({"S": 4096}, [stage]), FLAT8)
    assert plan.layouts == ((None,),)
    assert "replicated on 8" in plan.explain()


def test_slow_links_keep_a_small_stage_replicated() -> None:
    slow = Mesh((8,), (Link(1e6, 1.0),), flops=1e14)
    plan = make_plan(Graph.chain(VIDEO, [spatial(), temporal()], (None,), (None,)), slow)
    assert plan.layouts == ((None,), (None,))


def test_two_axes_of_a_mesh_take_two_axes_of_the_tensor() -> None:
    axes = {"T": 16, "H": 32, "W": 32}
    mesh = Mesh((2, 4), (Link(5e9, 1e-5), Link(2e11, 2e-6)), flops=1e14)
    stage = Stage("rows", frozenset("W"), 256, flops=1e13)
    plan = make_plan(Graph.chain(axes, [stage]), mesh)
    assert None not in plan.layouts[0] and "W" not in plan.layouts[0]


def test_a_memory_limit_changes_the_plan_and_a_lower_one_ends_it() -> None:
    stages = [spatial(saved=1000), temporal(saved=1000)]
    total = 16 * 256 * 1000
    slow = (Link(1e6, 1.0),)
    graph = Graph.chain(VIDEO, stages)
    free = make_plan(graph, Mesh((8,), slow, 1e14))
    assert free.kept == 2 * total
    tight = make_plan(graph, Mesh((8,), slow, 1e14, memory=2 * total / 8))
    assert tight.kept == 2 * total / 8 and tight.price.seconds > free.price.seconds
    with pytest.raises(PlanError, match="no plan fits"):
        make_plan(graph, Mesh((8,), slow, 1e14, memory=total / 8))


def test_consumers_that_want_the_same_layout_share_a_change() -> None:
    stages = (spatial("a"), temporal("b"), temporal("c"))
    plan = make_plan(Graph(VIDEO, stages, ((0, 1), (0, 2))), FLAT8)
    assert len(plan.changes) == 1 and plan.changes[0][0] == 0


def test_a_plan_explains_every_stage_and_change() -> None:
    plan = make_plan(Graph.chain(VIDEO, [spatial(), temporal()], (None,), (None,)), FLAT8)
    text = plan.explain()
    assert text.startswith("input: replicated -> T")
    assert "spatial: mixes S; T on 8" in text and "temporal: mixes T; S on 8" in text
    sent = 16 * 256 // 8 * 7 // 8 * 2304
    assert f"then T -> S: {2 * sent} bytes sent per rank" in text
    assert isinstance(plan, Plan)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Graph.chain(VIDEO, []), "no stage"),
        (lambda: Graph(VIDEO, (spatial(), temporal()), ((1, 0),)), "in the order they run"),
        (lambda: Graph.chain({"S": 4}, [temporal()]), "mixes \\['T'\\]"),
        (lambda: Mesh((2, 2), (Link(1.0),)), "one link for each axis"),
        (lambda: Pricer({"T": 0}, FLAT8, Passes()), "must be positive"),
        (lambda: make_plan(Graph.chain(VIDEO, [spatial()], ("X",)), FLAT8), "does not exist"),
        (lambda: make_plan(Graph.chain(VIDEO, [spatial()] * 3), FLAT8, limit=1), "partial plans"),
    ],
)
def test_contradictions_are_refused(build: object, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        build()  # type: ignore[operator]


def test_a_layout_that_a_stage_cannot_have_is_refused() -> None:
    graph = Graph.chain(VIDEO, [spatial()])
    with pytest.raises(PlanError, match="cannot run on"):
        assess(graph, Pricer(VIDEO, FLAT8, Passes()), [("S",)])
