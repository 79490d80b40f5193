"""Source to source: generated loops in place of the lines between two pragmas.

Everything else in the file stays as it is, byte for byte; the work is done on the original text,
never on preprocessed text. The generated block tests what it relies on (memory that does not
overlap, sizes that fit) and runs the original lines where a test fails.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from perfkit.codegen.csource import insertion_point
from perfkit.codegen.memory import TAKE
from perfkit.codegen.triton_text import GENERATED
from perfkit.errors import SourceFileError
from perfkit.frontends.c import CArray, CFile, CRegion
from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.expr import ITEMSIZE
from perfkit.ir.scop import Scop

MARK = "/* perfkit: "
PREFIX = "perfkit_"
ON_FAILURE = "break;"
"""What a generator must write where memory is missing, before anything was written."""

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]\w*")
_DEFINED = re.compile(
    r"(?:static inline [\w ]*?[\w\*]\s*\**(\w+)\(|typedef [^;]*?\b(\w+) __attribute)"
)


@dataclass(frozen=True)
class Replacement:
    """Generated text for one region of a file.

    Attributes:
        scop: the program as it was generated; storage transforms may have added local arrays.
        prelude: lines for file scope, includes and small functions.
        body: the loops, from column 0; they call arrays and sizes by their names in the SCoP and
            run :data:`ON_FAILURE` when memory for a local array is missing.
        script: the schedule, for the comment above the block.
    """

    region: CRegion
    scop: Scop
    prelude: str
    body: str
    script: str


def rewrite(file: CFile, replacements: Sequence[Replacement], *, assume: bool = False) -> str:
    """The file's text with each region replaced; one character a byte, as ``file.text``.

    ``assume`` leaves out the tests of sizes and overlap.
    """
    newline = "\r\n" if "\r\n" in file.text else "\n"
    lines = file.text.split("\n")
    starts = _line_starts(lines)
    taken = frozenset(_WORD.findall(file.text))
    edits: list[tuple[int, int, str]] = []
    written: set[str] = set()
    for r in replacements:
        r = _renamed(r, taken)
        first, last = r.region.first_line, r.region.last_line
        original = file.text[starts[first] : starts[last - 1]]
        block = _Block(r, original, file.macros, assume).lines()
        end = starts[last] if last < len(starts) else len(file.text)
        tail = newline if file.text[starts[last - 1] : end].endswith("\n") else ""
        edits.append((starts[first - 1], end, newline.join(block) + tail))
        chunks = [c for c in _chunks(r.prelude) if c not in written]
        written.update(chunks)
        if chunks:
            prelude = "\n".join(chunks).split("\n")
            added = newline.join(_guarded(file.macros, prelude)) + newline
            at = insertion_point(file.text, starts[first - 1])
            before = "" if at == 0 or file.text[at - 1] == "\n" else newline
            edits.append((at, at, before + added))
    text = file.text
    for begin, end, new in sorted(edits, reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def is_generated(path: Path) -> bool:
    """Whether perfkit wrote the file, C or Python."""
    try:
        text = path.read_bytes()
        return MARK.encode() in text or GENERATED.encode() in text.partition(b"\n")[0]
    except OSError:
        return False


def write_atomically(path: Path, text: str, like: Path | None = None) -> None:
    """Write a file whole or not at all; ``like`` is the file whose permissions it gets.

    Raises:
        SourceFileError: the folder cannot be written, or the disk is full.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary: str | None = None
    try:
        model = path if path.exists() else like
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode("latin-1"))
            stream.flush()
            os.fsync(stream.fileno())
        if model is not None:
            os.chmod(temporary, stat.S_IMODE(model.stat().st_mode))
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        why = error.strerror or str(error)
        raise SourceFileError(f"{path}: cannot be written: {why}") from error


# -- one region ------------------------------------------------------------------------------


class _Block:
    """The text that takes the place of a region."""

    def __init__(self, r: Replacement, original: str, macros: frozenset[str], assume: bool) -> None:
        self.r, self.region, self.scop = r, r.region, r.scop
        self.original = original
        self.macros = macros
        self.tests = [] if assume else self.conditions()
        heap = any(a.local and a.rank for a in self.scop.arrays) and TAKE in r.body
        self.fallback = bool(self.tests) or heap
        self.used = frozenset(_WORD.findall(_COMMENT.sub("", r.body)))

    def lines(self) -> list[str]:
        pad = self.indent()
        head = [*self.comment(), "{", *("  " + line for line in self.static_asserts())]
        own = ["  " + line for line in self.setup()]
        if self.tests:
            own.append("  if (" + " &&\n      ".join(self.tests) + ")")
        own.append("  do {")
        own += ["    " + line if line else "" for line in self.bindings()]
        own += ["    " + line if line else "" for line in self.r.body.rstrip("\n").split("\n")]
        if self.fallback:
            own.append(f"    {PREFIX}done = 1;")
        own.append("  } while (0);")
        text = [pad + line if line else "" for entry in own for line in entry.split("\n")]
        text = [*(pad + line for line in head), *_guarded(self.macros, text)]
        if self.fallback:
            text.append(f"{pad}  if (!{PREFIX}done) {{")
            text += self.original.replace("\r\n", "\n").removesuffix("\n").split("\n")
            text.append(f"{pad}  }}")
        return [*text, pad + "}"]

    def indent(self) -> str:
        for line in self.original.split("\n"):
            if line.strip():
                return line[: len(line) - len(line.lstrip())]
        return ""

    def comment(self) -> list[str]:
        r = self.region
        script = self.r.script.strip().replace("*/", "* /").split("\n")
        head = f"{MARK}region {r.name}, in place of its original loops; the schedule:"
        return [head, *(f"   {line}" for line in script if line.strip()), "*/"]

    # -- tests -------------------------------------------------------------------------------

    def conditions(self) -> list[str]:
        """What must hold at entry, as C; nothing that the types promise already."""
        unsigned = {n for n, spelling in self.region.sizes if spelling.startswith("unsigned")}
        sure = {
            Constraint(Affine.variable(n))
            for n in self.region.positive | {n for n in unsigned if self._narrow(n)}
        } | {Constraint(Affine.variable(n) - 1) for n in self.region.positive}
        tests = _domain(self.scop.context, sure)
        return tests + [self.apart(a, b) for a, b in self.region.no_overlap]

    def _narrow(self, name: str) -> bool:
        return "long" not in dict(self.region.sizes)[name]

    def apart(self, a: str, b: str) -> str:
        first, last = self.span(a), self.span(b)
        return f"({first[1]} <= {last[0]} || {last[1]} <= {first[0]})"

    def span(self, name: str) -> tuple[str, str]:
        """First address and the one after the last, as integers."""
        array = next((a for a in self.region.arrays if a.name == name), None)
        if array is None:
            return f"(uintptr_t)&{name}", f"(uintptr_t)(&{name} + 1)"
        shape = self.shape(name)
        start = f"(uintptr_t){PREFIX}{name}"
        count = "".join(f" * (uintptr_t)({text(e, _prefixed)})" for e in shape)
        size = ITEMSIZE[self.scop.array(name).dtype]
        return start, f"{start} + {size}{count}"

    def shape(self, name: str) -> tuple[Affine, ...]:
        # Relayouts never change the arrays that the caller sees, so either SCoP will do.
        return self.scop.array(name).shape

    # -- declarations ------------------------------------------------------------------------

    def setup(self) -> list[str]:
        """Copies of what the block will hide under the same names."""
        lines = [f"const int64_t {PREFIX}{n} = (int64_t)({n});" for n, _ in self.needed_sizes()]
        for array in self.needed_arrays():
            element = self.element(array)
            lines.append(f"{element} *const {PREFIX}{array.name} = ({element} *){array.name};")
        if self.fallback:
            lines.append(f"int {PREFIX}done = 0;")
        lines += [f"{name} = 0;" for name in self.hidden_variables()]
        return lines + [f"(void){name};" for name in self.idle_variables()]

    def hidden_variables(self) -> list[str]:
        """Variables that the loops assign first, but where a compiler may not see that they do."""
        return [
            a.name for a in self.scop.arrays
            if not a.rank and not a.local and a.name in self.region.overwritten
            and re.search(rf"^ +{a.name} = ", self.r.body, re.MULTILINE)
            and not re.search(rf"^{a.name} = ", self.r.body, re.MULTILINE)
        ]  # fmt: skip

    def idle_variables(self) -> list[str]:
        """Variables of the function that only the original loops used, as temporaries."""
        before = self.region.scop
        if before is None:
            return []
        return [
            a.name for a in before.arrays
            if not a.rank and not a.local and a.name not in self.used
        ]  # fmt: skip

    def needed_sizes(self) -> list[tuple[str, str]]:
        return [s for s in self.region.sizes if s[0] in self.scop.parameters]

    def needed_arrays(self) -> list[CArray]:
        known = {a.name for a in self.scop.arrays if a.rank}
        return [a for a in self.region.arrays if a.name in known]

    def element(self, array: CArray) -> str:
        readonly = array.const or array.name not in self.scop.written
        return f"const {array.element}" if readonly else array.element

    def bindings(self) -> list[str]:
        lines = []
        for n, _ in self.needed_sizes():
            lines.append(f"const int64_t {n} = {PREFIX}{n};")
            lines.append(f"(void){n};")
        for array in self.needed_arrays():
            if array.name not in self.used:
                continue
            element, rows = self.element(array), self.scop.array(array.name).shape[1:]
            inner = "".join(f"[{text(e)}]" for e in rows)
            if inner:
                pointer = f"{element} (*restrict {array.name}){inner}"
                lines.append(f"{pointer} = ({element} (*){inner}){PREFIX}{array.name};")
            else:
                lines.append(f"{element} *restrict {array.name} = {PREFIX}{array.name};")
        return lines

    def static_asserts(self) -> list[str]:
        """The values that the preprocessor gave, without which the block would be wrong."""
        lines = []
        for name, value in self.region.constants:
            note = f"perfkit generated this code for {name} = {value}"
            lines.append(f'_Static_assert(({name}) == {value}, "{note}");')
        for array in self.needed_arrays():
            shape = self.scop.array(array.name).shape[1:]
            row = ITEMSIZE[self.scop.array(array.name).dtype]
            if array.dimensions == len(shape) + 1 and all(e.is_constant for e in shape):
                for extent in shape:
                    row *= extent.const
                lines.append(_sized(f"{array.name}[0]", row))
            elif array.dimensions:
                element = array.name + "[0]" * array.dimensions
                lines.append(_sized(element, row))
        return lines


def _sized(what: str, size: int) -> str:
    note = f"perfkit generated this code for another type of {what}"
    return f'_Static_assert(sizeof({what}) == {size}, "{note}");'


def _prefixed(name: str) -> str:
    return PREFIX + name


def _same(name: str) -> str:
    return name


def _domain(context: Domain, sure: Iterable[Constraint]) -> list[str]:
    known = set(sure)
    pieces = [
        [c for c in p if c not in known and Constraint(c.expr - 1) not in p] for p in context.pieces
    ]
    shared = [c for c in pieces[0] if all(c in p for p in pieces[1:])] if pieces else []
    tests = [constraint(c, _prefixed) for c in shared]
    rests = [[c for c in p if c not in shared] for p in pieces]
    if len(rests) > 1 and all(rests):
        alternatives = (" && ".join(constraint(c, _prefixed) for c in rest) for rest in rests)
        tests.append("(" + " || ".join(f"({a})" for a in alternatives) + ")")
    return tests or ([] if pieces else ["0"])


def constraint(c: Constraint, name: Callable[[str], str] = _same) -> str:
    """A constraint as C, its negative terms on the other side."""
    left = Affine.build({n: k for n, k in c.expr.terms if k > 0}, max(c.expr.const, 0))
    right = -(c.expr - left)
    left, right = (left, right) if not c.expr.divs else (c.expr, Affine())
    return f"{text(left, name)} {'>=' if c.kind == 'ge' else '=='} {text(right, name)}"


def text(affine: Affine, name: Callable[[str], str] = _same) -> str:
    """An affine expression as C, over 64-bit variables."""
    parts: list[tuple[int, str]] = [(k, name(n)) for n, k in affine.terms]
    for div, k in affine.divs:
        inner = text(div.inner, name)
        d = div.divisor
        parts.append((k, f"(({inner}) / {d} - (({inner}) % {d} < 0))"))
    out = ""
    for k, body in parts:
        sign = "-" if k < 0 else "+"
        term = body if abs(k) == 1 else f"{abs(k)} * {body}"
        out = f"{out} {sign} {term}" if out else (f"-{term}" if k < 0 else term)
    if affine.const or not out:
        sign = "-" if affine.const < 0 else "+"
        out = f"{out} {sign} {abs(affine.const)}" if out else str(affine.const)
    return out


# -- text ------------------------------------------------------------------------------------


def _line_starts(lines: Sequence[str]) -> list[int]:
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    return starts[:-1]


def _guarded(macros: frozenset[str], lines: list[str]) -> list[str]:
    """The lines with the program's macros switched off where their names occur."""
    words = {w for line in lines if not line.startswith("#") for w in _WORD.findall(line)}
    hidden = sorted(words & macros)
    if not hidden:
        return lines
    before = [f for n in hidden for f in (f'#pragma push_macro("{n}")', f"#undef {n}")]
    return [*before, *lines, *(f'#pragma pop_macro("{n}")' for n in hidden)]


def _chunks(prelude: str) -> list[str]:
    """The definitions and directives of a prelude, one entry each."""
    found: list[str] = []
    current: list[str] = []
    depth = 0
    for line in prelude.split("\n"):
        if not line.strip() and not current:
            continue
        current.append(line)
        depth += line.count("{") - line.count("}") + line.count("(") - line.count(")")
        ends = line.rstrip().endswith((";", "}")) or line.startswith("#")
        if depth == 0 and ends and not line.endswith("\\"):
            found.append("\n".join(current))
            current = []
    return [*found, "\n".join(current)] if current else found


def _renamed(r: Replacement, taken: frozenset[str]) -> Replacement:
    """Helpers whose names the program uses itself get another one."""
    mapping: dict[str, str] = {}
    for match in _DEFINED.finditer(r.prelude):
        name = match[1] or match[2]
        if name in taken:
            mapping[name] = PREFIX + name
    if not mapping:
        return r

    def change(source: str) -> str:
        return _WORD.sub(lambda m: mapping.get(m[0], m[0]), source)

    return Replacement(r.region, r.scop, change(r.prelude), change(r.body), r.script)
