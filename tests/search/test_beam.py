"""The search: what it scores is legal and bounded, and finds what the seeds do not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from math import inf

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.cost.scorer import Score
from perfkit.errors import BudgetExceeded
from perfkit.ir.tree import loops
from perfkit.runtime.machine import Machine
from perfkit.schedule import script
from perfkit.schedule.seeds import Seed, original
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from perfkit.search import space
from perfkit.search.auto import Problem, candidates, finalists, ranked
from perfkit.search.beam import Beam, Level, Plan, Ranked
from tests.programs_ir import JACOBI_2D, LU, MATMUL, PRODUCER_CONSUMER, parse_scop

PROGRAMS = {"matmul": MATMUL, "jacobi": JACOBI_2D, "lu": LU, "chain": PRODUCER_CONSUMER}


def problem_of(text: str, size: int = 500) -> Problem:
    scop = parse_scop(text)
    analysis = Analysis(parallel_reductions=True)
    sizes = dict.fromkeys(scop.parameters, size)
    return Problem(State.start(scop), analysis, Machine.detect(), sizes, 2)


@pytest.mark.parametrize("kind", ["beam", "looper"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_candidate_is_a_legal_script_and_none_comes_twice(name: str, kind: str) -> None:
    problem = problem_of(PROGRAMS[name])
    found = candidates(problem, kind, Plan(candidates=60, seconds=60.0))
    assert "original" in [r.seed.name for r in found]
    assert len({r.seed.name for r in found}) == len(found)
    trees = {(id(r.seed.state.scop), r.seed.state.tree) for r in found}
    assert len(trees) >= 0.9 * len(found)
    for one in found[:: max(1, len(found) // 12)]:
        again = script.replay(problem.state, one.seed.script, Analysis(parallel_reductions=True))
        assert again.tree == one.seed.state.tree


@pytest.mark.parametrize("kind", ["beam", "looper"])
def test_the_number_of_candidates_is_bounded(kind: str) -> None:
    problem = problem_of(MATMUL)
    few = candidates(problem, kind, Plan(candidates=25, seconds=60.0))
    searched = [r for r in few if r.origin != "seed"]
    assert 5 < len(searched) <= 25 + 8 * 4  # a level ends after the turn that reached its share
    assert all(r.origin == "seed" for r in candidates(problem, "seeds"))


def test_time_is_bounded() -> None:
    problem = problem_of(MATMUL)
    ticks = count()
    levels = (Level("tile", space.tilings, 0.5), Level("order", space.orders, 0.5))
    beam = Beam(
        problem.analysis, problem.scorer, levels, lambda s: space.finish(s, 32),
        Plan(seconds=10.0), lambda: float(next(ticks)),
    )  # fmt: skip
    assert len(beam.run([original(problem.state)])) <= 12


def test_seeds_of_the_scheduler_can_be_left_out() -> None:
    found = candidates(problem_of(LU), "beam", Plan(candidates=20, seconds=60.0, pluto=False))
    assert not any(r.seed.name.startswith("pluto") for r in found)


class Counting:
    """Prefers trees with many loops; remembers what it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.asked = 0

    def score(self, states: Sequence[State]) -> list[Score]:
        self.asked += len(states)
        return [Score(1.0 / (1 + len(loops(s.tree))), 0.0) for s in states]


def test_the_scorer_guides_the_search() -> None:
    problem = problem_of(MATMUL)
    scorer = Counting()
    levels = (Level("tile", space.tilings, 0.5), Level("tile", space.tilings, 0.5))
    plan = Plan(width=4, candidates=60, seconds=60.0)
    beam = Beam(problem.analysis, scorer, levels, lambda s: space.finish(s, 32), plan)
    found = ranked(beam.run([original(problem.state)]))
    assert len(loops(found[0].seed.state.tree)) >= 9  # two levels of tiles over three loops
    assert scorer.asked == len(found)


def test_a_move_that_exceeds_the_budget_ends_its_source_only() -> None:
    problem = problem_of(MATMUL)

    def explode(at: Steps) -> Iterator[Steps]:
        yield from space.orders(at)
        raise BudgetExceeded("enough")

    levels = (Level("bad", explode, 0.5), Level("tile", space.tilings, 0.5))
    plan = Plan(candidates=100, seconds=60.0)
    beam = Beam(problem.analysis, problem.scorer, levels, lambda s: space.finish(s, 32), plan)
    assert {"bad", "tile"} <= {r.origin for r in beam.run([original(problem.state)])}


def test_loopers_schedules_have_no_vectors_and_no_register_tiles() -> None:
    found = candidates(problem_of(MATMUL), "looper", Plan(candidates=150, seconds=60.0))
    marks = {m.kind for r in found for loop in loops(r.seed.state.tree) for m in loop.marks}
    assert marks <= {"parallel", "unroll"}
    assert "parallel" in marks


# -- finalists -------------------------------------------------------------------------------


def named(*rows: tuple[str, float, float]) -> list[Ranked]:
    state = State.start(parse_scop(MATMUL))
    return [
        Ranked(Seed(n, (), state), Score(s, spread), "tile" if "~" in n else "seed")
        for n, s, spread in rows
    ]


def test_the_original_and_a_pluto_like_schedule_are_always_measured() -> None:
    found = named(("block", 1, 0.1), ("pluto-max-panels", 2, 0.1), ("parallel", 3, 0.1),
                  ("pluto-smart", 90, 0.1), ("original", 99, 0.1))  # fmt: skip
    assert {"original", "pluto-smart"} <= {r.seed.name for r in finalists(found, 2)}


def test_diamond_tiles_are_measured_although_the_model_does_not_know_them() -> None:
    found = named(("block", 1, 0.1), ("pluto-smart", 2, 0.1), ("pluto-max-diamond", 80, 0.1),
                  ("pluto-smart-diamond", 90, 0.1), ("original", 99, 0.1))  # fmt: skip
    names = [r.seed.name for r in finalists(found, 2)]
    assert "pluto-max-diamond" in names and "pluto-smart-diamond" not in names


def test_seeds_of_different_kinds_are_measured_first() -> None:
    found = named(("block", 1, 0.1), ("block-all", 1.1, 0.1), ("parallel", 3, 0.1),
                  ("pluto-smart", 4, 0.1), ("original", 9, 0.1))  # fmt: skip
    assert [r.seed.name for r in finalists(found, 3)] == [
        "original", "block", "parallel", "pluto-smart"
    ]  # fmt: skip


def test_searched_and_uncertain_schedules_have_places() -> None:
    rows = [(f"pluto-smart~{k}", 1.0 + k, 0.1) for k in range(40)]
    found = named(("block", 1, 0.1), ("parallel", 2, 0.1), *rows, ("pluto-max~1", 50.0, 3.0),
                  ("original", 99, 0.1))  # fmt: skip
    names = [r.seed.name for r in finalists(found, 12)]
    assert {"block", "parallel", "pluto-smart~0", "pluto-max~1"} <= set(names)


def test_a_searched_schedule_must_look_better_by_more_than_the_uncertainty() -> None:
    found = named(("block", 1.0, 0.4), ("block~1", 0.5, 0.4), ("original", 9.0, 0.4))
    assert ranked(found)[0].seed.name == "block"
    found = named(("block", 1.0, 0.4), ("block~1", 0.2, 0.4), ("original", 9.0, 0.4))
    assert ranked(found)[0].seed.name == "block~1"
    sure = named(("block", 1.0, 0.02), ("block~1", 0.9, 0.02), ("original", 9.0, 0.02))
    assert ranked(sure)[0].seed.name == "block~1"
    unknown = named(("block", inf, 0.0), ("original", 9.0, 0.4))
    assert ranked(unknown)[0].seed.name == "original"
