"""Many schedules of one program as one C file and one shared object.

A compiler run costs far more than the code of one small kernel, so all variants of a program share
one. A variant that does not compile is found by halving, and left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perfkit import config, log
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.openmp import Options, generate_kernel
from perfkit.codegen.target import Target
from perfkit.errors import BudgetExceeded, CompileError, InternalError, ScheduleError
from perfkit.runtime.build import Toolchain, compile_c
from perfkit.runtime.signature import Signature
from perfkit.schedule.state import State

LONGEST_TEXT = 24_000
"""Characters of one variant's C; longer ones would take the compiler seconds."""


@dataclass
class Batch:
    """A shared object with entry points ``v<k>_call``, by position of the variant.

    ``failed`` says why the missing ones are missing.
    """

    library: Path | None
    compiled: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)


def generate(
    state: State, signature: Signature, analysis: Analysis, target: Target,
    longest: int = LONGEST_TEXT,
) -> str:  # fmt: skip
    """The C text of one variant; "!why" where the generator refuses or exceeds ``longest``."""
    try:
        text = generate_kernel(
            state.scop, state.tree, signature, Options(state.fp, target),
            analysis.polyhedra(state.scop),
        )  # fmt: skip
    except (BudgetExceeded, InternalError, ScheduleError) as error:
        return f"!{type(error).__name__}: {error}"
    return text if len(text) <= longest else f"!{len(text)} characters of C"


def compile_batch(
    texts: Sequence[str], toolchain: Toolchain, settings: config.Settings
) -> Batch:
    """One shared object of all texts that compile."""
    failed = {k: t[1:] for k, t in enumerate(texts) if t.startswith("!")}
    good = [k for k in range(len(texts)) if k not in failed]
    while good:
        try:
            library = compile_c(
                merge([texts[k] for k in good]), toolchain=toolchain, settings=settings
            )
        except CompileError as error:
            bad = _culprits(texts, good, toolchain, settings)
            log.get("learn").warning("%d variants do not compile: %s", len(bad), error)
            failed |= dict.fromkeys(bad, str(error).splitlines()[0])
            good = [k for k in good if k not in bad]
        else:
            return Batch(library, good, failed)
    return Batch(None, [], failed)


def _culprits(
    texts: Sequence[str], among: list[int], toolchain: Toolchain, settings: config.Settings
) -> set[int]:
    """Which of the texts do not compile, given that together they do not."""
    if len(among) == 1:
        return set(among)
    half = len(among) // 2
    found: set[int] = set()
    for part in (among[:half], among[half:]):
        try:
            library = compile_c(
                merge([texts[k] for k in part]), toolchain=toolchain, settings=settings
            )
        except CompileError:
            found |= _culprits(texts, part, toolchain, settings)
        else:
            shutil.rmtree(library.parent, ignore_errors=True)
    return found or set(among)


def merge(texts: Sequence[str]) -> str:
    """One C file of several, the definitions that they share written once."""
    seen: dict[str, None] = {}
    for text in texts:
        seen.update(dict.fromkeys(definitions(text)))
    return "\n".join(seen) + "\n"


def definitions(text: str) -> Iterator[str]:
    """The definitions at file scope: up to a line that closes all braces and conditions."""
    part: list[str] = []
    braces = conditions = 0
    for line in text.splitlines():
        if not line.strip() and not part:
            continue
        part.append(line)
        if line.startswith("#"):
            conditions += line.startswith("#if") - line.startswith("#endif")
            ends = True
        else:
            braces += line.count("{") - line.count("}")
            ends = line.rstrip().endswith((";", "}"))
        if ends and not braces and not conditions:
            yield "\n".join(part)
            part = []
    if part:
        yield "\n".join(part)


__all__ = ["Batch", "compile_batch", "definitions", "generate", "merge"]
