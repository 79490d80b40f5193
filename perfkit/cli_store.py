"""``perfkit store``: the schedules that earlier searches found."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from perfkit import config
from perfkit.errors import StoreError
from perfkit.search.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``perfkit store``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("ls", help="list them, newest first")
    actions.add_parser("clear", help="remove all of them")
    actions.add_parser("path", help="print the file")
    write = actions.add_parser("export", help="print them as JSON lines, or write them to a file")
    write.add_argument("file", type=Path, nargs="?", metavar="FILE")
    read = actions.add_parser("import", help="take in exported lines")
    read.add_argument("file", type=Path, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    """Do what is asked. Raises StoreError for a file that cannot be read, written or understood."""
    store = Store(config.current())
    if args.action == "path":
        print(store.path)
    elif args.action == "clear":
        print(f"removed {store.clear()} schedules from {store.path}")
    elif args.action == "ls":
        _list(store)
    elif args.action == "import":
        try:
            with args.file.open() as lines:
                count = store.load(lines)
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{args.file}: cannot be read ({error})") from error
        except StoreError as error:
            raise StoreError(f"{args.file}: {error}") from error
        print(f"{count} schedules taken into {store.path}")
    else:
        _export(store, args.file)
    return 0


def _list(store: Store) -> None:
    for row in store.ls():
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created))
        found = row.stored
        taken = f"{found.seconds * 1e3:.3f} ms" if found.seconds is not None else "not measured"
        steps = len(found.script.splitlines())
        print(f"{row.digest[:12]}  {made}  {row.program:20} {found.seed:28} "
              f"{steps:3} lines  effort {found.effort:4}  {taken}")  # fmt: skip


def _export(store: Store, file: Path | None) -> None:
    text = "".join(f"{line}\n" for line in store.export())
    if file is None:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written ({error})") from error
