"""Where file-scope lines can be put into a C text without parsing it."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
    (?P<skip>\s+|//[^\n]*|/\*.*?\*/)
  | (?P<directive>\#(?:[^\n\\]|\\\r?\n|\\.)*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<brace>[{};])
  | (?P<other>[^\s{};"'\#/]+|.)
    """,
    re.X | re.S,
)
_CONDITIONAL = re.compile(r"#\s*(if|ifdef|ifndef|elif|else|endif)\b")


def insertion_point(text: str, inside: int) -> int:
    """The offset of the line on which the function around the offset ``inside`` starts.

    Lines put there are at file scope, and are compiled whenever the function is. Braces are
    counted in one branch of every ``#if``; where that fails the start of the file is returned.
    """
    depth = 0
    start: int | None = None  # of the current declaration at file scope
    start_conditions: tuple[int, ...] = ()
    conditions: list[tuple[int, int]] = []  # offset of the #if, depth there
    position = 0
    while position < inside:
        token = _TOKEN.match(text, position)
        if token is None:
            return 0
        kind, begin, position = token.lastgroup, position, token.end()
        if kind == "skip":
            continue
        if kind == "directive":
            depth = _conditional(token[0], begin, depth, conditions)
            continue
        if start is None:
            start, start_conditions = begin, tuple(offset for offset, _ in conditions)
        if token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth = max(depth - 1, 0)
        if depth == 0 and token[0] in "};":
            start = None
    if start is None:
        return 0
    # A condition that ended between the start and the region would hide the lines.
    still = {offset for offset, _ in conditions}
    for offset in start_conditions:
        if offset not in still:
            start = min(start, offset)
    return text.rfind("\n", 0, start) + 1 if not text[_line(text, start) : start].strip() else start


def _line(text: str, offset: int) -> int:
    return text.rfind("\n", 0, offset) + 1


def _conditional(directive: str, offset: int, depth: int, conditions: list[tuple[int, int]]) -> int:
    match = _CONDITIONAL.match(directive)
    if match is None:
        return depth
    if match[1] in ("if", "ifdef", "ifndef"):
        conditions.append((offset, depth))
    elif match[1] == "endif":
        if conditions:
            conditions.pop()
    elif conditions:
        return conditions[-1][1]  # the branches are alternatives: start again
    return depth
