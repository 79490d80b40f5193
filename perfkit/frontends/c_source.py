"""From a C file to a syntax tree: the host's preprocessor, then pycparser.

System headers are replaced by the small ones in ``stubs``, so that only standard C reaches the
parser. Definitions of macros are kept aside (``cc -E -dD``): generated text goes back into the
original file, where they are active.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycparser import c_ast, c_parser

from perfkit import config
from perfkit.errors import Location, SourceFileError, SyntaxProblem
from perfkit.runtime.build import Toolchain

STUBS = Path(__file__).resolve().parent / "stubs"

_MARKER = re.compile(r'#\s*(?:line\s+)?(\d+)\s+"((?:[^"\\]|\\.)*)"')
_DEFINE = re.compile(r"#\s*define\s+(\w+)(\([^)]*\))?\s*(.*)")
_UNDEF = re.compile(r"#\s*undef\s+(\w+)")
_SCOP = re.compile(r"#\s*pragma\s+(scop|endscop)\b")
_DIAGNOSTIC = re.compile(r"(.*?):(\d+)(?::\d+)?:\s*(?:fatal )?error:\s*(.*)")
_PARSER_MESSAGE = re.compile(r"(.*?):(\d+):(?:\d+:)?\s*(.*)", re.S)


@dataclass(frozen=True)
class Source:
    """A C file, its syntax tree and its macros.

    Attributes:
        text: the file as it is, decoded byte by byte (``latin-1``), so that it can be written back.
        macros: name -> replacement of every macro without parameters that the program defines.
        functions: names of its macros with parameters.
    """

    path: str
    text: str
    tree: c_ast.FileAST
    macros: Mapping[str, str]
    functions: frozenset[str]


def read(path: Path) -> str:
    """The file's text, one character a byte.

    Raises:
        SourceFileError: it is not there or cannot be read.
    """
    try:
        return path.read_bytes().decode("latin-1")
    except OSError as error:
        raise SourceFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def flags(
    include: Sequence[str] = (),
    defines: Sequence[str] = (),
    undefines: Sequence[str] = (),
    standard: str = "",
) -> list[str]:
    """The user's own preprocessor options."""
    return [
        *([f"-std={standard}"] if standard else []),
        *(f"-I{folder}" for folder in include),
        *(f"-D{define}" for define in defines),
        *(f"-U{name}" for name in undefines),
    ]


def load(path: Path, settings: config.Settings, options: Sequence[str]) -> Source:
    """Read, preprocess and parse a file; ``options`` come from :func:`flags`.

    Raises:
        SourceFileError: the file cannot be read.
        CompilerNotFound: there is no C compiler to preprocess it with.
        SyntaxProblem: the preprocessor or the parser refuses it, with file and line.
    """
    text = read(path)
    compiler = Toolchain.detect(settings).path
    output = _preprocess(path, settings, options, compiler)
    macros, functions, clean = _split(output)
    return Source(str(path), text, _parse(clean, str(path), compiler), macros, functions)


def _preprocess(
    path: Path, settings: config.Settings, options: Sequence[str], compiler: str
) -> str:
    command = [
        *(compiler, "-E", "-dD", "-nostdinc", "-include", str(STUBS / "perfkit_gnu.h")),
        *(*options, "-idirafter", str(STUBS), "-x", "c", str(path)),
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=settings.compile_timeout,
        )
    except subprocess.TimeoutExpired:
        raise SyntaxProblem(
            Location(str(path)),
            "preprocessing",
            f"{compiler} did not finish within {settings.compile_timeout:g} s "
            "(raise PERFKIT_COMPILE_TIMEOUT)",
        ) from None
    except OSError as error:
        raise SourceFileError(f"{compiler}: cannot be run: {error.strerror or error}") from error
    if done.returncode == 0:
        return done.stdout.decode("latin-1")
    message = done.stderr.decode("utf-8", "replace")
    for line in message.splitlines():
        found = _DIAGNOSTIC.match(line)
        if found:
            where = Location(found[1], int(found[2]))
            raise SyntaxProblem(where, "preprocessing", found[3] + _hint(found[3]))
    raise SyntaxProblem(Location(str(path)), "preprocessing", message.strip() or "failed")


def _hint(message: str) -> str:
    if "No such file" in message or "not found" in message:
        return " (name its folder with -I; system headers other than the C library's are unknown)"
    return ""


def _split(output: str) -> tuple[dict[str, str], frozenset[str], str]:
    """Take the macro definitions and the pragmas that are not ours out of preprocessed text."""
    macros: dict[str, str] = {}
    functions: set[str] = set()
    lines = output.split("\n")
    own = False  # whether the current file is the program's
    for k, line in enumerate(lines):
        if not line.startswith("#"):
            continue
        marker = _MARKER.match(line)
        define = _DEFINE.match(line)
        undef = _UNDEF.match(line)
        if marker:
            name = marker[2]
            own = name != "<built-in>" and not name.startswith(str(STUBS))
        elif define:
            if own and define[2] is not None:
                functions.add(define[1])
            elif own:
                macros[define[1]] = define[3].strip()
        elif undef:
            macros.pop(undef[1], None)
            functions.discard(undef[1])
        if not marker and not _SCOP.match(line):
            lines[k] = ""
    return macros, frozenset(functions), "\n".join(lines)


def _parse(text: str, path: str, compiler: str) -> c_ast.FileAST:
    try:
        return c_parser.CParser().parse(text, path)
    except RecursionError:
        raise SyntaxProblem(Location(path), "syntax", "it is nested too deeply") from None
    except c_parser.ParseError as error:
        where, why = _place(str(error), path)
        if not where.line:
            # The parser sometimes forgets the line; the compiler does not.
            where, why = _compiler_says(text, compiler) or (where, why)
        raise SyntaxProblem(where, "syntax", f"cannot be parsed: {why}") from None


def _place(message: str, path: str) -> tuple[Location, str]:
    found = _PARSER_MESSAGE.match(message)
    if found:
        return Location(found[1], int(found[2])), found[3].strip()
    return Location(path), message.removeprefix(f"{path}:").strip()


def _compiler_says(text: str, compiler: str) -> tuple[Location, str] | None:
    try:
        done = subprocess.run(
            [compiler, "-fsyntax-only", "-w", "-x", "cpp-output", "-"],
            input=text.encode("latin-1"),
            capture_output=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in done.stderr.decode("utf-8", "replace").splitlines():
        found = _DIAGNOSTIC.match(line)
        if found:
            return Location(found[1], int(found[2])), found[3]
    return None
