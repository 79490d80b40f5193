"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from importlib import import_module

import perfkit
from perfkit import config
from perfkit.errors import PerfkitError

# Commands that live in a module of their own, with add_arguments(parser) and run(args) -> int.
COMMANDS = {
    "optimize": ("perfkit.cli_optimize", "optimize the loops of a C file or a Python function"),
    "tune": ("perfkit.cli_tune", "search and measure longer; optimize uses what is found"),
    "store": ("perfkit.cli_store", "the schedules that earlier searches found"),
    "dataset": ("perfkit.cli_learn", "measure schedules of random programs, to train on"),
    "train": ("perfkit.cli_train", "train the cost model on a data set"),
    "calibrate": ("perfkit.cli_calibrate", "fit the cost model to this machine"),
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only ``command`` among :data:`COMMANDS` is imported, for its arguments."""
    parser = argparse.ArgumentParser(
        prog="perfkit",
        description="Decide when and where a program's statements run, and generate the code.",
        epilog=_settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"perfkit {perfkit.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    for name, (module, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        if name == command:
            loaded = import_module(module)
            loaded.add_arguments(sub)
            sub.set_defaults(run=loaded.run)

    text = "what perfkit finds on this machine, and how to get what is missing"
    doctor = commands.add_parser("doctor", help=text, description=text)
    doctor.add_argument("--full", action="store_true", help="also compile and run a test program")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=run_doctor)

    text = "the cache of compiled kernels"
    cache = commands.add_parser("cache", help=text, description=text)
    actions = cache.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, text in (
        ("ls", "list the entries, most recently used first"),
        ("clear", "remove every entry"),
        ("path", "print the folder"),
    ):
        actions.add_parser(action, help=text, description=text)
    cache.set_defaults(run=run_cache)
    return parser


def _settings_help() -> str:
    lines = ["environment variables (default):"]
    for variable, default, doc in config.describe():
        lines.append(f"  {variable} ({default or 'empty'})")
        lines += textwrap.wrap(doc, 76, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def run_doctor(args: argparse.Namespace) -> int:
    """Print the report; 0 when the main job can run, else 1."""
    doctor = import_module("perfkit.runtime.doctor")
    report = doctor.inspect(full=args.full)
    if args.json:
        rows = [
            {"topic": f.topic, "status": f.status, "detail": f.detail, "remedy": f.remedy}
            for f in report.findings
        ]
        print(json.dumps({"usable": report.usable, "findings": rows}, indent=1))
    else:
        print(report.text())
    return 0 if report.usable else 1


def run_cache(args: argparse.Namespace) -> int:
    """List, clear or locate the kernel cache."""
    store = import_module("perfkit.runtime.store")
    cache = store.KernelCache()
    if args.action == "path":
        print(cache.root)
    elif args.action == "clear":
        count = cache.clear()
        print(f"removed {count} {'entry' if count == 1 else 'entries'} from {cache.root}")
    else:
        entries = cache.ls()
        for entry in entries:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            name = entry.metadata.get("name", "")
            print(f"{entry.digest[:12]}  {used}  {entry.size_bytes:>9} B  {name}".rstrip())
        total = sum(entry.size_bytes for entry in entries)
        print(f"{len(entries)} in {cache.root}, {total} of {cache.settings.cache_bytes} bytes")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed with a message, 2 wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in argv if not word.startswith("-")), None)
    try:
        args = build_parser(command).parse_args(argv)
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except PerfkitError as error:
        print(f"perfkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("perfkit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`| head`); keep Python from complaining again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
