"""What a plan asks for: which axes may be sharded, which modules run in one layout.

Explicit plans name modules. Plans by name are

``"dsp"``
    every axis that is attended over in one part of the model and carried by another;
``"ulysses"``
    one axis, exchanged for heads around the attention along it (arXiv 2309.14509). Heads are an
    axis like any other: the one that views divide the width of a layer into;
``"ring"``
    one axis, kept through the attention along it (arXiv 2310.01889);
``"fused"``
    one axis, kept through the attention along it, which switches inside its kernel
    (:mod:`perfkit.dsp.fused`);
``"megatron"``
    one axis, gathered in front of attention and MLP, whose width is divided instead (arXiv
    2205.05198);
``"auto"``
    as ``"dsp"``, and as ``"ulysses"`` for a model with a single axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn

from perfkit.dsp.columns import Divided, columns, divided
from perfkit.dsp.trace import Trace, traced
from perfkit.errors import PlanError


@dataclass(frozen=True)
class Mixes:
    """What a module of an explicit plan mixes: one sequence axis, by a name of your choice."""

    axis: str


Method = Literal["auto", "dsp", "ulysses", "megatron", "ring", "fused"]
PlanLike = Method | Mapping[str, Mixes]
METHODS: tuple[Method, ...] = ("auto", "dsp", "ulysses", "megatron", "ring", "fused")
Fixed = tuple[Sequence[int], str]
"""Calls that run in one layout, and the axis that they mix."""


@dataclass(frozen=True)
class Approach:
    """One way to follow a plan; of several the planner takes the cheapest."""

    method: str
    trace: Trace
    axes: Sequence[str]
    fixed: Sequence[Fixed] = ()
    divided: Divided | None = None


def approaches(model: nn.Module, given: Mapping[str, Any], plan: PlanLike) -> list[Approach]:
    """The ways to follow a plan for calls like ``model(**given)``, at least one.

    Raises:
        PlanError: an unknown plan, patterns that do not fit, a model without a fitting axis.
    """
    if not isinstance(plan, Mapping) and plan not in METHODS:
        raise PlanError(f"unknown plan {plan!r}: expected patterns with what they mix, or one of "
                        f"{', '.join(map(repr, METHODS))}")  # fmt: skip
    trace = traced(model, given)
    if isinstance(plan, Mapping):
        fixed = _fixed(model, trace, plan)
        return [Approach("explicit", trace, _several(trace), fixed)]
    if plan == "megatron":
        return _megatron(model, given, trace)
    if plan == "ulysses":
        return _ulysses(trace)
    if plan in ("ring", "fused"):
        return kept(trace, plan)
    if plan == "auto" and not trace.candidates():
        try:
            return _ulysses(trace)
        except PlanError as error:
            raise PlanError(f"{_none(trace)}; and {error}") from None
    return [Approach("dsp", trace, _several(trace))]


def _several(trace: Trace) -> list[str]:
    found = trace.candidates()
    if not found:
        raise PlanError(_none(trace))
    return found


def _none(trace: Trace) -> str:
    return (
        "no axis can be sharded: none is mixed by one part and carried by another. "
        f"Axes attended over: {sorted(set(trace.attended()) - trace.features) or 'none'}"
    )


def _attended(trace: Trace) -> dict[str, frozenset[int]]:
    """Sequence axes that queries attend along, with those calls."""
    led = trace.led()
    found = {n for n, calls in led.items() if calls and n not in trace.features}
    return {n: led[n] for n in sorted(trace.largest(found), key=lambda n: min(led[n]))}


def _ulysses(trace: Trace) -> list[Approach]:
    found = []
    for axis, calls in _attended(trace).items():
        carried = [trace.heads([n]) for n in calls]
        if not all(carried):
            continue
        heads = sorted(set().union(*carried), key=lambda n: trace.lengths[n])
        named = {n: "heads" if len(heads) == 1 else f"{trace.lengths[n]} heads" for n in heads}
        renamed = replace(trace)
        renamed.rename(named)
        found.append(Approach("ulysses", renamed, [axis, *dict.fromkeys(named.values())]))
    if not found:
        raise PlanError(
            "no attention is divided into heads where that can be seen (in "
            "multi_head_attention_forward it cannot), so heads cannot be sharded"
        )
    return found


def kept(trace: Trace, method: str) -> list[Approach]:
    """One axis stays sharded, attention along it included; a way for each axis that allows it.

    Raises:
        PlanError: there is none.
    """
    found, refused = [], {}
    attended = trace.attended()
    for axis in _attended(trace):
        other = [n for n in attended[axis] if axis not in trace.calls[n].rounds]
        if other:
            refused[axis] = trace.calls[min(other)]
            continue
        calls = [replace(c, mixed=c.mixed - ({axis} & c.rounds)) for c in trace.calls]
        found.append(Approach(method, replace(trace, calls=calls), [axis]))
    if not found:
        where = [
            f"{call.function} in {call.frames[-1][0] if call.frames else 'the model'} ({axis})"
            for axis, call in refused.items()
        ]
        raise PlanError(
            f"{method} attention takes scaled_dot_product_attention without mask or dropout; the "
            f"model attends by {', '.join(where) or 'nothing'}"
        )
    return found


def _megatron(model: nn.Module, given: Mapping[str, Any], trace: Trace) -> list[Approach]:
    wanted = columns(trace)
    again = traced(model, given, wanted)
    found = []
    for axis in _attended(again):
        use = divided(again, wanted, axis)
        if use.rows:
            found.append(Approach("megatron", again, [axis], divided=use))
    if not found:
        raise PlanError(
            "no attention or MLP is a pair of linear layers with only heads or hidden features "
            "in between, so no width can be divided"
        )
    return found


# -- explicit plans ---------------------------------------------------------------------------


def _matches(path: str, pattern: str) -> bool:
    """Whether a module's path fits; ``*`` stands for (a part of) one name between dots."""
    names, parts = path.split("."), pattern.split(".")
    return len(names) == len(parts) and all(map(fnmatchcase, names, parts))


def _fixed(model: nn.Module, trace: Trace, plan: Mapping[str, Mixes]) -> list[Fixed]:
    """The calls inside the modules of an explicit plan, by module; axes get the plan's names."""
    matched: dict[tuple[str, str, int], list[int]] = {}
    for pattern, mixes in plan.items():
        if not any(_matches(path, pattern) for path, _ in model.named_modules()):
            raise PlanError(
                f"pattern {pattern!r} matches no module; there are "
                f"{', '.join(name for name, _ in model.named_children())}"
            )
        before = len(matched)
        for number, call in enumerate(trace.calls):
            frame = next((f for f in call.frames if _matches(f[0], pattern)), None)
            if frame is not None:
                matched.setdefault((mixes.axis, *frame), []).append(number)
        if len(matched) == before:
            raise PlanError(f"pattern {pattern!r} matches modules that the sample does not run")
    trace.rename(_names(trace, matched))
    seen: set[int] = set()
    groups: list[Fixed] = []
    for (axis, _, _), calls in matched.items():
        own_calls = [c for c in calls if c not in seen]
        seen |= set(own_calls)
        groups.append((own_calls, axis))
    return groups


def _names(trace: Trace, matched: Mapping[tuple[str, str, int], list[int]]) -> dict[str, str]:
    """The names that an explicit plan gives to axes, from what its modules attend over."""
    led = trace.led()
    candidates = {n: led[n] for n in trace.candidates()}
    choices: dict[str, set[str]] = {}
    for (axis, path, _), calls in matched.items():
        mixed = {n for n, where in candidates.items() if where & set(calls)}
        choices[axis] = choices.get(axis, mixed) & mixed
        if not choices[axis]:
            raise PlanError(
                f"module {path!r} is said to mix {axis!r}, but it attends over no axis that "
                f"another part of the model carries (such axes: {sorted(candidates) or 'none'})"
            )
    names: dict[str, str] = {}
    # Two axes can lie at one place (residues, and rows of their pairs): each takes what is left.
    for axis in sorted(choices, key=lambda a: len(choices[a])):
        left = sorted(choices[axis] - set(names))
        if not left:
            other = names[min(choices[axis])]
            raise PlanError(f"{axis!r} and {other!r} are the same axis: {min(choices[axis])}")
        if len(left) > 1:
            raise PlanError(f"the modules that mix {axis!r} share several axes: {left}")
        names[left[0]] = axis
    own = {axis: name for name, axis in names.items()}
    for (axis, path, _), calls in matched.items():
        mine = candidates[own[axis]] & set(calls)
        others = {n for n, where in candidates.items() if where & set(calls) not in (set(), mine)}
        if others:
            also = sorted(names.get(n, n) for n in others)
            raise PlanError(
                f"module {path!r} is said to mix {axis!r} only, but also attends over {also}"
            )
    return names
