"""Random storage steps: what :mod:`perfkit.schedule.random` mixes into its scripts."""

from __future__ import annotations

from itertools import permutations
from random import Random

from perfkit.analysis.dependences import Analysis
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir.affine import Affine
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import enclosing
from perfkit.schedule.expand import Expand, Privatize
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.legality import check_final
from perfkit.schedule.pack import Pack
from perfkit.schedule.relayout import Relayout
from perfkit.schedule.split import Split
from perfkit.schedule.state import State, Transform

MAX_STATEMENTS = 12
"""Statements beyond which no step adds another."""

TRIES = 12


def storage_steps(state: State, rng: Random) -> list[Transform]:
    """Some storage steps that fit the names in a state, legal or not, in random order."""
    scop = state.scop
    found = [*_expansions(state), *_relayouts(scop, rng)]
    if len(scop.statements) < MAX_STATEMENTS:
        found += _splits(scop, rng)
    packs = _packs(state, rng)
    rng.shuffle(found)
    rng.shuffle(packs)
    return packs + found if rng.random() < 0.5 else found


def take_storage_step(
    state: State, rng: Random, analysis: Analysis
) -> tuple[Transform, State] | None:
    """A random storage step that is proved legal, and the state after it; None if some tries fail.

    A step that copies something the region writes is proved by the values that arrive.
    """
    for step in storage_steps(state, rng)[:TRIES]:
        try:
            after = step.apply(state)
            check_final(analysis, after)
            preserves_flow(after.original, after, analysis.max_operations)
        except (BudgetExceeded, ScheduleError):
            continue
        return step, after
    return None


def _expansions(state: State) -> list[Transform]:
    found: list[Transform] = []
    for array in sorted(state.scop.written):
        found.append(Expand(array))
        around = {
            loop.name: None
            for s in state.scop.statements
            if s.write.array == array
            for loop in enclosing(state.tree, s.name)
        }
        found += [Privatize(array, loop) for loop in around]
        found += [Expand(array, (loop,)) for loop in around]
    return found


def _relayouts(scop: Scop, rng: Random) -> list[Transform]:
    found: list[Transform] = []
    for array in scop.arrays:
        if array.rank:
            order = tuple(rng.sample(range(array.rank), array.rank))
            reads = [str(a) for s in scop.statements for a in s.reads if a.array == array.name]
            found.append(Relayout(array.name, order))
            if reads:
                found.append(Relayout(array.name, order, rng.choice(reads)))
    return found


def _packs(state: State, rng: Random) -> list[Transform]:
    """Packs of every operand at every loop; most are refused, for want of tiles."""
    found: list[Transform] = []
    for statement in state.scop.statements:
        loops = [loop.name for loop in enclosing(state.tree, statement.name)]
        for access in dict.fromkeys(statement.reads):
            if access == statement.write or not access.indices:
                continue
            for loop in ("", *loops[:-1]):
                tiled = rng.randint(1, len(access.indices))
                order = rng.choice(((), (), *permutations(range(tiled))))
                factors, panel = rng.random() < 0.5, rng.choice((0, 0, 1, 2, 3))
                found.append(Pack(statement.name, str(access), loop, order, factors, panel))
    return found


def _splits(scop: Scop, rng: Random) -> list[Transform]:
    found: list[Transform] = []
    for statement in scop.statements:
        if statement.iterators:
            found.append(Split(statement.name, _condition(statement, scop, rng)))
    return found


def _condition(statement: Statement, scop: Scop, rng: Random) -> str:
    left = rng.choice(statement.iterators)
    others = [str(Affine.constant(rng.randint(1, 4))), *scop.parameters]
    others += [name for name in statement.iterators if name != left]
    return f"{left} {rng.choice(('<', '<=', '=', '>='))} {rng.choice(others)}"


__all__ = ["storage_steps", "take_storage_step"]
