"""``perfkit optimize FILE.c``: a C file with its marked loops replaced by optimized ones."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perfkit import cli_schedule, config
from perfkit.cli_schedule import Optimizer, Request
from perfkit.codegen.rewrite import (
    Replacement,
    is_generated,
    rewrite,
    write_atomically,
)
from perfkit.codegen.triton import assemble
from perfkit.errors import (
    BudgetExceeded,
    InternalError,
    PerfkitError,
    ScheduleError,
    SettingError,
    SourceFileError,
    UnsupportedError,
)
from perfkit.frontends.c import CFile, CRegion, parse_file
from perfkit.runtime.build import Toolchain
from perfkit.runtime.machine import Machine
from perfkit.search.choose import Choice
from perfkit.search.explain import explain_choice
from perfkit.search.gpu import GpuChoice


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """The file, how it is preprocessed, its sizes, and what its sums allow."""
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="C file with #pragma scop ... #pragma endscop")
    add("-I", dest="include", metavar="DIR", action="append", default=[], help="as for cc")
    add("-D", dest="defines", metavar="NAME[=VALUE]", action="append", default=[], help="as for cc")
    add("-U", dest="undefines", metavar="NAME", action="append", default=[], help="as for cc")
    add("-std", dest="standard", metavar="STD", default="", help="C standard, as for cc")
    add("--fp", choices=("strict", "reassociate"), help="whether floating-point sums may change")
    add(
        "--size",
        dest="sizes",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a size to measure and check with",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``perfkit optimize``."""
    add_file_options(parser)
    add = parser.add_argument
    add("-o", dest="output", metavar="OUT", type=Path,
        help="default: NAME.opt.c here, NAME_triton.py for Triton")  # fmt: skip
    add("--target", choices=("cpu", "triton"), default="cpu",
        help="OpenMP C in place of the loops, or a Python module of Triton kernels")  # fmt: skip
    add(
        "--schedule",
        default="auto",
        metavar="WHICH",
        help="auto, original, parallel, pluto, or a file with a schedule script",
    )
    add("--search", choices=("beam", "looper", "seeds"), help="how auto searches; default: beam")
    add("--measure", metavar="K", type=_count, default=0, help="run K candidates, keep the fastest")
    add("--check", action="store_true", help="run the result and the original on random data")
    add("--assume", action="store_true", help="no tests of overlap and sizes at run time")
    add("--strict", action="store_true", help="fail when a region cannot be optimized")
    add("--in-place", action="store_true", help="replace FILE itself")
    add("--force", action="store_true", help="overwrite a file that perfkit did not write")
    add("--explain", action="store_true", help="print each region's schedule")
    add("--report", choices=("json",), help="print what was done in this form")


@dataclass(frozen=True)
class _Outcome:
    region: CRegion
    status: str  # optimized, kept, refused
    message: str = ""
    choice: Choice | None = None


def run(args: argparse.Namespace, optimizer: Optimizer = cli_schedule.optimize_scop) -> int:
    """Optimize a file; 0 when done, 1 when ``--strict`` and a region was left as it was.

    Raises:
        PerfkitError: nothing was written; the message says why.
    """
    path: Path = args.file
    settings = config.current()
    if args.target == "triton":
        _refuse_for_triton(args)
    if args.search:
        settings = replace(settings, search=args.search)
    request = Request(
        args.schedule, args.fp or settings.fp, args.measure, args.check or settings.check,
        sizes_of(args.sizes),
    )  # fmt: skip
    output = _output(args, path)
    file = parse(args, settings)
    if not file.regions:
        _complain(f"{path}: no #pragma scop is compiled in this file; nothing to do")
    if args.target == "triton":
        return _write_triton(args, output, file, request, settings)
    simd = Machine.detect().simd_bytes or 16
    outcomes: list[_Outcome] = []
    replacements: list[Replacement] = []
    for region in file.regions:
        outcome, replacement = _optimize(region, request, settings, simd, optimizer)
        if replacement is not None:
            problem = _compile_problem(file, [replacement], args.assume, settings)
            if problem:
                outcome = _Outcome(region, "refused", f"{region.location}: region: {problem}")
                replacement = None
        outcomes.append(outcome)
        replacements += [replacement] if replacement is not None else []
        if outcome.message:
            _complain(outcome.message)
    refused = any(o.status == "refused" for o in outcomes)
    if refused and args.strict:
        return 1
    write_atomically(output, rewrite(file, replacements, assume=args.assume), path)
    _report(args, output, outcomes)
    return 0


def _refuse_for_triton(args: argparse.Namespace) -> None:
    for option in ("measure", "check", "assume", "in_place", "report"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise SettingError(f"--{name} is for --target cpu: leave it out for Triton")
    if args.schedule in ("parallel", "pluto"):
        raise SettingError(f"--schedule {args.schedule} is for --target cpu: use auto or a script")


def _write_triton(
    args: argparse.Namespace, output: Path, file: CFile, request: Request,
    settings: config.Settings,
) -> int:  # fmt: skip
    """One Python module with the kernels of every region; 1 when nothing could be written."""
    choices: list[GpuChoice] = []
    refused = 0
    for region in file.regions:
        try:
            if region.scop is None:
                raise region.error or InternalError(f"{region.location}: no program, no reason")
            choices.append(cli_schedule.map_scop(region.scop, request, settings))
        except (BudgetExceeded, ScheduleError, UnsupportedError) as error:
            refused += 1
            message = str(error)
            where = "" if message.startswith(str(file.path)) else f"{region.location}: region: "
            _complain(where + message)
        else:
            _say(f"{region.location}: {region.name}: mapped by {choices[-1].seed.name}")
            if choices[-1].note:
                _say(f"{region.location}: {region.name}: {choices[-1].note}")
            if args.explain:
                _say(choices[-1].explain())
    if not choices or (refused and args.strict):
        _complain(f"{file.path}: nothing was written")
        return 1
    write_atomically(output, assemble([c.part for c in choices]))
    _say(f"wrote {shlex.quote(str(output))}")
    return 0


def parse(args: argparse.Namespace, settings: config.Settings) -> CFile:
    """The file that the options of :func:`add_file_options` name. Raises SourceFileError."""
    path: Path = args.file
    if path.suffix == ".py" or ".py:" in str(path):
        raise SourceFileError(
            f"{path}: is Python; decorate the function with @perfkit.kernel instead"
        )
    return parse_file(
        path,
        settings=settings,
        include=args.include,
        defines=args.defines,
        undefines=args.undefines,
        standard=args.standard,
    )


def _optimize(
    region: CRegion, request: Request, settings: config.Settings, simd: int, optimizer: Optimizer
) -> tuple[_Outcome, Replacement | None]:
    if region.scop is None:
        return _Outcome(region, "refused", str(region.error)), None
    try:
        choice = optimizer(region.scop, request, settings)
    except BudgetExceeded as error:
        return _Outcome(region, "refused", f"{region.location}: region: {error}"), None
    state = choice.seed.state
    if state.scop == region.scop and state.tree == region.scop.tree:
        return _Outcome(region, "kept", choice=choice), None
    try:
        prelude, body = cli_schedule.generate(state, settings, simd)
    except PerfkitError as error:
        return _Outcome(region, "refused", f"{region.location}: region: {error}"), None
    made = Replacement(region, state.scop, prelude, body, choice.script)
    return _Outcome(region, "optimized", choice=choice), made


def _compile_problem(
    file: CFile, replacements: list[Replacement], assume: bool, settings: config.Settings
) -> str:
    """What the compiler says against the new file; "" when nothing, or against the old one too.

    A file that perfkit writes must compile wherever the original does.
    """
    problem = _check_syntax(file, rewrite(file, replacements, assume=assume), settings)
    if problem and not _check_syntax(file, file.text, settings):
        return f"the generated code does not compile ({problem}); this is a bug in perfkit"
    return ""


def _check_syntax(file: CFile, text: str, settings: config.Settings) -> str:
    compiler = Toolchain.detect(settings).path
    folder = str(file.path.resolve().parent)
    with tempfile.TemporaryDirectory(prefix="perfkit-") as place:
        source = Path(place) / file.path.name
        source.write_bytes(text.encode("latin-1"))
        try:
            done = subprocess.run(
                [compiler, "-fsyntax-only", "-w", f"-iquote{folder}", *file.flags, str(source)],
                capture_output=True, text=True, errors="replace",
                timeout=settings.compile_timeout,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    return lines[0] if lines else done.stderr.strip()


def sizes_of(pairs: list[str]) -> dict[str, int]:
    """The values of ``--size NAME=VALUE``. Raises SettingError."""
    sizes: dict[str, int] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            sizes[name] = int(value)
        except ValueError:
            raise SettingError(f"--size {pair}: write it as NAME=VALUE, as in n=1000") from None
    return sizes


def _output(args: argparse.Namespace, path: Path) -> Path:
    """Where to write; refuses what would destroy a user's file."""
    if args.in_place:
        if args.output is not None:
            raise SettingError("--in-place and -o exclude each other")
        return path
    triton = args.target == "triton"
    default = f"{path.stem}_triton.py" if triton else f"{path.stem}.opt{path.suffix}"
    output: Path = args.output or Path(default)
    if output.is_dir():
        output = output / default
    if output.exists() and path.exists() and output.samefile(path):
        raise SettingError(f"{output}: is the input; use --in-place to replace it")
    if output.exists() and not args.force and not is_generated(output):
        same = path.exists() and output.read_bytes() == path.read_bytes()
        if not same:
            raise SettingError(
                f"{output}: exists and was not written by perfkit; use --force to replace it"
            )
    return output


def _report(args: argparse.Namespace, output: Path, outcomes: list[_Outcome]) -> None:
    if args.report == "json":
        rows: list[dict[str, Any]] = [
            {
                "region": o.region.name,
                "function": o.region.function,
                "file": o.region.location.file,
                "line": o.region.first_line,
                "status": o.status,
                "message": o.message,
                "script": o.choice.script if o.choice else "",
                "tests": [list(pair) for pair in o.region.no_overlap],
            }
            for o in outcomes
        ]
        _say(json.dumps({"output": str(output), "regions": rows}, indent=1))
        return
    for o in outcomes:
        if o.status != "refused":
            _say(f"{o.region.location}: {o.region.name}: {o.status}")
        if args.explain and o.choice is not None:
            _say(explain_choice(o.choice))
    _say(f"wrote {shlex.quote(str(output))}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
