"""Rules of the source tree that no type checker sees: who may import whom, and what is banned."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "perfkit"
FILES = sorted(PACKAGE.rglob("*.py"))
LINES = 500

BASE = {"config", "errors", "log"}
SPINE = [{"runtime", "ir"}, {"frontends", "analysis"}, {"schedule"}, {"codegen", "cost"}]
SPINE += [{"search"}, {"learn"}, {"api"}]


def _allowed() -> dict[str, set[str]]:
    """Per part of the package, the other parts it may import: only what stands left of it."""
    allowed: dict[str, set[str]] = {"config": {"errors"}, "errors": set(), "log": BASE - {"log"}}
    left = set(BASE)
    for layer in SPINE:
        for part in layer:
            allowed[part] = set(left)
        left |= layer
    # Beside the spine.
    allowed["comm"] = BASE | {"runtime"}
    allowed["ops"] = allowed["comm"] | {"comm"}
    allowed["dsp"] = allowed["ops"] | {"ops", "ir", "frontends", "cost"}
    allowed["backend"] = allowed["dsp"] | allowed["search"] | {"dsp", "search"}
    allowed["cli"] = left | {"comm", "ops", "dsp", "backend"}
    # The package itself offers the names of api lazily.
    allowed["__init__"] = {"api"}
    return allowed


ALLOWED = _allowed()
# Third-party packages that may be missing; importing them where they are used is the point.
OPTIONAL = {"torch", "triton", "cupy", "rich", "matplotlib", "numba"}
EXTENSIONS = {"_cpu", "_cuda"}


def part_of(relative: Path) -> str:
    """``runtime/kernel.py`` -> runtime; ``cli_optimize.py`` -> cli; ``config.py`` -> config."""
    name = relative.parts[0] if len(relative.parts) > 1 else relative.stem
    return "cli" if name.startswith("cli") or name == "__main__" else name


def imported_parts(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Parts of perfkit that a statement imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif node.module == "perfkit":
        names = [f"perfkit.{alias.name}" for alias in node.names]
    else:
        names = [node.module or ""]
    for name in names:
        first, _, rest = name.partition(".")
        if first == "perfkit" and rest:
            yield part_of(Path(rest.partition(".")[0]))


def violations_of_order(source: str, part: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append(f"line {node.lineno}: relative import")
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found += [
                f"line {node.lineno}: {part} imports {other}"
                for other in imported_parts(node)
                if other != part
                and other not in EXTENSIONS | {"__version__"}
                and other not in ALLOWED[part]
            ]
    return found


def violations_of_style(source: str, part: str) -> list[str]:
    found = []
    tree = ast.parse(source)
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        for node in ast.walk(function):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                if (module or "").partition(".")[0] not in OPTIONAL:
                    found.append(f"line {node.lineno}: import of {module} inside a function")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("eval", "exec"):
                found.append(f"line {node.lineno}: {node.func.id}()")
            if node.func.id == "print" and part != "cli":
                found.append(f"line {node.lineno}: print() outside the command line")
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names]
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            banned = {"pickle", "dill", "cloudpickle", "marshal", "shelve"} & set(modules)
            found += [f"line {node.lineno}: {name}" for name in sorted(banned)]
        if isinstance(node, ast.Global):
            found.append(f"line {node.lineno}: global {', '.join(node.names)}")
    return found + [f"line {line}: {what}" for line, what in mutable_globals(tree)]


def mutable_globals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Module-level containers that start empty (they can only be there to be filled), or that
    the module itself changes. A filled one in capitals that nothing changes is a table."""
    names: dict[str, int] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = getattr(node, "value", None)
        for target in targets:
            if not isinstance(target, ast.Name) or target.id == "__all__":
                continue
            if isinstance(value, (ast.List, ast.Dict, ast.Set)):
                names[target.id] = node.lineno
                if not (value.keys if isinstance(value, ast.Dict) else value.elts):
                    yield node.lineno, f"{target.id} is an empty container at module level"
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        own = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and _stored(n)}
        for node in ast.walk(function):
            name = _changed(node)
            if name in names and name not in own:
                yield node.lineno, f"{name}, a module-level container, is changed"  # type: ignore[attr-defined]


def _stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _changed(node: ast.AST) -> str | None:
    """The name of a container that an expression changes in place."""
    value: ast.AST | None = None
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        value = node.value
    changing = ("append", "add", "update", "extend", "setdefault", "pop", "clear", "insert")
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in changing
    ):
        value = node.func.value
    return value.id if isinstance(value, ast.Name) else None


def test_ids() -> None:
    assert FILES, "the package was not found"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_keeps_the_rules(path: Path) -> None:
    source = path.read_text()
    part = part_of(path.relative_to(PACKAGE))
    assert part in ALLOWED, f"{part} has no place in the order of imports yet"
    problems = violations_of_order(source, part) + violations_of_style(source, part)
    assert not problems, "\n".join(problems)
    assert len(source.splitlines()) <= LINES, "split the file along its reasons to change"


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("from perfkit.api import optimize", "runtime"),
        ("from perfkit.ir import scop", "runtime"),
        ("import perfkit.search.beam", "cost"),
        ("from perfkit import search", "codegen"),
        ("from perfkit.cli import main", "api"),
        ("from . import tree", "schedule"),
        ("from perfkit.api import optimize", "backend"),
        ("from perfkit import log", "errors"),
    ],
)
def test_imports_that_point_right_are_found(source: str, part: str) -> None:
    assert violations_of_order(source, part)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("from perfkit import config, log, _cpu", "runtime"),
        ("from perfkit.ir.scop import Scop", "schedule"),
        ("from perfkit.cost import transfer", "dsp"),
        ("import numpy.linalg", "ir"),
        ("from perfkit.runtime import doctor", "cli"),
    ],
)
def test_imports_that_point_left_are_fine(source: str, part: str) -> None:
    assert not violations_of_order(source, part)


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import numpy",
        "def f():\n    from perfkit.ir import scop",
        "print('x')",
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "CACHE = {}",
        "SEEN: list[int] = []",
        "TABLE = {1: 2}\ndef f():\n    TABLE[3] = 4",
        "TABLE = [1]\ndef f():\n    TABLE.append(4)",
        "X = 1\ndef f():\n    global X\n    X = 2",
    ],
)
def test_banned_constructs_are_found(source: str) -> None:
    assert violations_of_style(source, "runtime")


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import torch.nn",
        "def f():\n    from rich.progress import Progress",
        "TABLE = {1: 2}\ndef f():\n    return TABLE[1]",
        "__all__ = []",
        "TABLE = [1]\ndef f():\n    TABLE = [2]\n    TABLE.append(3)",
    ],
)
def test_allowed_constructs_pass(source: str) -> None:
    assert not violations_of_style(source, "runtime")


def test_the_command_line_may_print() -> None:
    assert not violations_of_style("print('x')", "cli")


def test_native_sources_stay_small() -> None:
    files = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".cuh")]
    assert files
    long = [str(p.relative_to(ROOT)) for p in files if len(p.read_text().splitlines()) > LINES]
    assert not long


def test_the_shipped_extension_is_portable() -> None:
    text = (ROOT / "CMakeLists.txt").read_text() + (ROOT / "setup.py").read_text()
    code = "\n".join(line.partition("#")[0] for line in text.splitlines())
    assert "march=native" not in code
