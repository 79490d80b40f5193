"""Logging by topic, and progress for long work. Nothing here writes to stdout.

``log.get("search")`` is the standard logger ``perfkit.search``. Without settings only warnings
show, through Python's own last-resort handler; ``PERFKIT_LOGS=search,build=info`` (or ``all``)
shows topics on stderr. An application that configures logging itself sees every record, since
records propagate as usual.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sized
from importlib.util import find_spec
from typing import IO, TypeVar

from perfkit import config
from perfkit.errors import SettingError

ROOT = "perfkit"
T = TypeVar("T")


class _Handler(logging.StreamHandler[IO[str]]):
    """perfkit's own handler; its class marks that a logger is configured already."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        # stderr may have been replaced since (test runners, notebooks).
        self.stream = sys.stderr
        super().emit(record)


def _parse(entry: str) -> tuple[str, int]:
    topic, _, level_name = entry.partition("=")
    level = logging.getLevelNamesMapping().get((level_name or "debug").upper())
    if level is None:
        raise SettingError(
            f"PERFKIT_LOGS: unknown level {level_name!r} for topic {topic!r}; "
            "use debug, info, warning or error"
        )
    return topic, level


def configure(settings: config.Settings | None = None) -> None:
    """Show the topics named in ``settings.logs`` on stderr; repeated calls change nothing more.

    Raises:
        SettingError: a topic names an unknown level.
    """
    logs = (settings or config.current()).logs
    root = logging.getLogger(ROOT)
    if logs and not any(isinstance(handler, _Handler) for handler in root.handlers):
        root.addHandler(_Handler())
    for entry in logs:
        topic, level = _parse(entry)
        logging.getLogger(ROOT if topic == "all" else f"{ROOT}.{topic}").setLevel(level)


def get(topic: str) -> logging.Logger:
    """The logger of a topic (``"build"``, ``"search.beam"``), configured from the settings."""
    configure()
    return logging.getLogger(f"{ROOT}.{topic}")


def progress(
    items: Iterable[T], *, total: int | None = None, label: str = "", stream: IO[str] | None = None
) -> Iterator[T]:
    """Yield ``items`` while showing how far along they are, on stderr.

    A bar when ``rich`` is installed and the stream is a terminal; on a terminal without it one
    line that is rewritten; otherwise a plain line each time another tenth is done.
    """
    stream = stream or sys.stderr
    if total is None and isinstance(items, Sized):
        total = len(items)
    terminal = stream.isatty()
    if terminal and find_spec("rich") is not None:
        yield from _rich_progress(items, total, label, stream)
        return
    shown = -1
    count = 0
    try:
        for item in items:
            yield item
            count += 1
            step = count * 10 // total if total else count.bit_length()
            if terminal or step != shown:
                shown = step
                of = f"/{total}" if total else ""
                stream.write(("\r" if terminal else "") + f"{label or 'done'}: {count}{of}")
                stream.write("" if terminal else "\n")
                stream.flush()
    finally:
        if terminal and count:
            stream.write("\n")
            stream.flush()


def _rich_progress(
    items: Iterable[T], total: int | None, label: str, stream: IO[str]
) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=stream), transient=True) as bar:
        task = bar.add_task(label or "working", total=total)
        for item in items:
            yield item
            bar.advance(task)
