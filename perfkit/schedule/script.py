"""Schedule scripts: the text that search, cache, command line and bug reports exchange.

One transform per line, written as its constructor call; ``#`` starts a comment::

    Embed(S0, k, at=first)
    Tile(i=32, j=32, k=64)      # names of loops and statements need no quotes
    Parallelize(i_t)

Arguments are names, integers, affine expressions (``n - 1``), strings, triple-quoted strings and
tuples. The text is parsed, never executed.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perfkit.analysis.dependences import Analysis
from perfkit.errors import ScriptError, TransformError
from perfkit.ir.affine import Affine
from perfkit.ir.tree import parse_affine
from perfkit.schedule import legality
from perfkit.schedule.base import TreeTransform
from perfkit.schedule.expand import Expand, Privatize
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.gpu import GPU_TRANSFORMS
from perfkit.schedule.pack import Pack
from perfkit.schedule.relayout import Relayout
from perfkit.schedule.rfactor import Rfactor
from perfkit.schedule.split import Split
from perfkit.schedule.state import State, Transform
from perfkit.schedule.transforms import TREE_TRANSFORMS

STORAGE_TRANSFORMS: Mapping[str, Callable[..., Transform]] = {
    cls.__name__: cls for cls in (Expand, Privatize, Split, Relayout, Pack, Rfactor)
}
TRANSFORMS: Mapping[str, Callable[..., Transform]] = {
    **TREE_TRANSFORMS, **GPU_TRANSFORMS, **STORAGE_TRANSFORMS,
}  # fmt: skip
"""Every transform that a script may name."""

Value = str | int | bool | Affine | tuple["Value", ...]

_TOKEN = re.compile(
    r'(?P<long>"""(?:.*?)""")|(?P<string>"[^"\n]*"|\'[^\'\n]*\')|(?P<comment>\#[^\n]*)'
    r"|(?P<newline>\n)|(?P<space>[ \t\r]+)|(?P<int>\d+)|(?P<name>[A-Za-z_]\w*)|(?P<mark>.)",
    re.S,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "mark"
        if kind not in ("comment", "newline", "space"):
            found.append(_Token(kind, match.group(), line))
        line += match.group().count("\n")
    return found


class _Parser:
    def __init__(self, text: str, transforms: Mapping[str, Callable[..., Transform]]) -> None:
        self.tokens = _tokens(text)
        self.position = 0
        self.transforms = transforms

    @property
    def line(self) -> int:
        if not self.tokens:
            return 1
        return self.tokens[min(self.position, len(self.tokens) - 1)].line

    def error(self, why: str) -> ScriptError:
        return ScriptError(f"script line {self.line}: {why}")

    def peek(self, ahead: int = 0) -> str:
        place = self.position + ahead
        return self.tokens[place].text if place < len(self.tokens) else ""

    def take(self, expected: str = "") -> _Token:
        if self.position >= len(self.tokens):
            raise self.error(f"expected {expected or 'more'!r}, found the end")
        token = self.tokens[self.position]
        if expected and token.text != expected:
            raise self.error(f"expected {expected!r}, found {token.text!r}")
        self.position += 1
        return token

    def step(self) -> tuple[int, Transform]:
        line = self.line
        name = self.take().text
        if name not in self.transforms:
            raise ScriptError(
                f"script line {line}: no transform is named {name!r}"
                + _nearest(name, self.transforms)
            )
        self.take("(")
        positional: list[Value] = []
        named: dict[str, Value] = {}
        while self.peek() != ")":
            if self.peek(1) == "=":
                key = self.take().text
                self.take("=")
                if key in named:
                    raise self.error(f"the argument {key!r} stands twice")
                named[key] = self.value()
            else:
                if named:
                    raise self.error("a positional argument follows a named one")
                positional.append(self.value())
            if self.peek() != ")":
                self.take(",")
        self.take(")")
        make: Callable[..., Any] = self.transforms[name]
        try:
            inspect.signature(make).bind(*positional, **named)
        except TypeError as error:
            raise ScriptError(
                f"script line {line}: {name}{inspect.signature(make)}: {error}"
            ) from None
        try:
            return line, make(*positional, **named)
        except (ScriptError, TransformError, ValueError, TypeError, AttributeError) as error:
            raise ScriptError(f"script line {line}: {name}: {error}") from None

    def value(self) -> Value:
        """One argument, up to the comma or parenthesis that ends it."""
        start, depth, commas = self.position, 0, 0
        while self.position < len(self.tokens):
            text = self.peek()
            if depth == 0 and text in (",", ")", "]"):
                break
            depth += (text in ("(", "[")) - (text in (")", "]"))
            commas += depth == 1 and text == ","
            self.position += 1
        taken = self.tokens[start : self.position]
        if not taken:
            raise self.error(f"expected an argument, found {self.peek() or 'the end'!r}")
        if taken[0].text == "[" or (taken[0].text == "(" and commas):
            end, self.position = self.position, start
            return self.tuple(end)
        if len(taken) == 1:
            return self.single(taken[0])
        if len(taken) == 2 and taken[0].text == "-" and taken[1].kind == "int":
            return -int(taken[1].text)
        try:
            return parse_affine(" ".join(t.text for t in taken))
        except ScriptError as error:
            raise self.error(str(error)) from None

    def single(self, token: _Token) -> Value:
        match token.kind:
            case "long":
                return token.text[3:-3]
            case "string":
                return token.text[1:-1]
            case "int":
                return int(token.text)
            case "name":
                return {"True": True, "False": False}.get(token.text, token.text)
        raise self.error(f"expected an argument, found {token.text!r}")

    def tuple(self, end: int) -> tuple[Value, ...]:
        closing = {"(": ")", "[": "]"}[self.take().text]
        values: list[Value] = []
        while self.peek() != closing:
            values.append(self.value())
            if self.peek() != closing:
                self.take(",")
        self.take(closing)
        if self.position != end:
            raise self.error(f"unexpected {self.peek()!r} after a tuple")
        return tuple(values)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"


def _steps(
    text: str, transforms: Mapping[str, Callable[..., Transform]]
) -> tuple[tuple[int, Transform], ...]:
    parser = _Parser(text, transforms)
    found = []
    while parser.position < len(parser.tokens):
        found.append(parser.step())
        if parser.peek() == ";":
            parser.take(";")
    return tuple(found)


def parse(
    text: str, transforms: Mapping[str, Callable[..., Transform]] = TRANSFORMS
) -> tuple[Transform, ...]:
    """Read a script. Raises ScriptError naming the line and the nearest valid transform."""
    return tuple(step for _, step in _steps(text, transforms))


def show(steps: Iterable[Transform]) -> str:
    """The text of a script, one transform per line; :func:`parse` reads it back."""
    return "".join(f"{step}\n" for step in steps)


def apply_step(state: State, step: Transform, analysis: Analysis) -> State:
    """One step of either family; tree transforms reuse the dependences of ``analysis``."""
    if isinstance(step, TreeTransform):
        return step.apply(state, analysis)
    return step.apply(state)


def replay(
    state: State, steps: str | Iterable[Transform], analysis: Analysis | None = None
) -> State:
    """Apply a script, given as text or as parsed steps, and prove the final order and marks.

    Raises ScriptError (with the line) for names that do not exist, TransformError and
    IllegalSchedule as the steps do.
    """
    analysis = analysis or Analysis()
    numbered = (
        _steps(steps, TRANSFORMS)
        if isinstance(steps, str)
        else tuple((k, step) for k, step in enumerate(steps, 1))
    )
    where = "line" if isinstance(steps, str) else "step"
    for number, step in numbered:
        try:
            state = apply_step(state, step, analysis)
        except ScriptError as error:
            raise ScriptError(f"script {where} {number}: {step}: {error}") from None
    if any(not isinstance(step, TreeTransform) for _, step in numbered):
        legality.check_final(analysis, state)
        preserves_flow(state.original, state, analysis.max_operations)
    return state


__all__ = [
    "STORAGE_TRANSFORMS", "TRANSFORMS", "Value", "apply_step", "parse", "replay", "show",
]  # fmt: skip
