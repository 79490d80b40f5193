"""Naming the masks of a kernel's text: one that several lines share is written once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

_ASSIGNED = re.compile(r"\s*(?:for )?(\w+)(?: =| in) ")
_NAME = re.compile(r"[A-Za-z_]\w*")
_BEFORE = ("mask=", "tl.where(")


@dataclass
class _Shared:
    """One mask while nothing that it depends on changes: ``uses`` are lines, in their order."""

    text: str
    uses: list[int] = field(default_factory=list)


def name_masks(lines: Sequence[str], fresh: Callable[[], str]) -> list[str]:
    """The same lines with a name for every compound mask that is used more than once.

    ``fresh`` makes a name that is not taken. A mask is shared by lines of its block, and of those
    inside it, up to the first that assigns one of its variables.
    """
    named: dict[tuple[int, str], str] = {}
    first: dict[int, list[tuple[str, str]]] = {}
    for shared in _shared(lines):
        if len(shared.uses) > 1 and "&" in shared.text:
            name = fresh()
            first.setdefault(shared.uses[0], []).append((name, shared.text))
            named |= {(k, shared.text): name for k in shared.uses}
    result: list[str] = []
    for k, line in enumerate(lines):
        indent = " " * _indent(line)
        result += [f"{indent}{name} = {text}" for name, text in first.get(k, ())]
        for text in dict.fromkeys(_masks(line)):
            if (k, text) in named:
                for before in _BEFORE:
                    line = line.replace(before + text, before + named[k, text])
        result.append(line)
    return result


def _shared(lines: Sequence[str]) -> list[_Shared]:
    found: list[_Shared] = []
    active: dict[str, tuple[int, _Shared]] = {}
    for k, line in enumerate(lines):
        indent = _indent(line)
        changed = set(_assigned(lines[k : k + 1]))
        if line.lstrip().startswith("for "):  # an iteration may follow another one
            changed |= set(_assigned(_body(lines, k)))
        active = {
            text: (depth, shared)
            for text, (depth, shared) in active.items()
            if depth <= indent and not changed & set(_NAME.findall(text))
        }
        for text in dict.fromkeys(_masks(line)):
            if text not in active:
                active[text] = (indent, _Shared(text))
                found.append(active[text][1])
            active[text][1].uses.append(k)
    return found


def _body(lines: Sequence[str], head: int) -> Sequence[str]:
    end = head + 1
    while end < len(lines) and _indent(lines[end]) > _indent(lines[head]):
        end += 1
    return lines[head + 1 : end]


def _assigned(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        match = _ASSIGNED.match(line)
        if match:
            yield match[1]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _masks(line: str) -> Iterator[str]:
    """The masks of loads, stores and selections in a line."""
    if line.lstrip().startswith("#"):
        return
    for before in _BEFORE:
        start = line.find(before)
        while start >= 0:
            begin = start + len(before)
            end = _end(line, begin)
            if end > begin:
                yield line[begin:end]
            start = line.find(before, begin)


def _end(line: str, begin: int) -> int:
    """Where an argument that begins here ends."""
    depth = 0
    for k in range(begin, len(line)):
        if line[k] in "([":
            depth += 1
        elif line[k] in ")]":
            depth -= 1
        if depth < 0 or (depth == 0 and line[k] == ","):
            return k
    return begin


__all__ = ["name_masks"]
