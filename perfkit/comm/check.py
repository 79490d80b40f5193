"""Debug mode: ranks agree on what they are about to call before they call it.

Each rank writes a line of text about its next collective to the group's store and reads the
others'. A rank that calls something else, or with another shape, or that does not come at all,
becomes an error on every rank instead of a hang. Costs a few round trips to the store for each
collective, and makes asynchronous forms wait: for debugging only (``PERFKIT_DSP_CHECK=1``).
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

import perfkit
from perfkit.errors import CollectiveError, MismatchError

# Frames of these folders are not the caller's; generated code differs from rank to rank.
_LIBRARIES = tuple(str(Path(m.__file__ or "").parent) for m in (torch, perfkit))
_GENERATED = ("<", "torchinductor_", "torch_compile_debug")


@dataclass(frozen=True, slots=True)
class Call:
    """A collective that a rank is about to enter.

    ``shape`` is the global shape, so that it is the same on every rank; ``problem`` is set by a
    rank whose arguments are wrong, so that the others learn why it does not come.
    """

    primitive: str
    stage: str
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[int, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        where = f" in stage {self.stage!r}" if self.stage else ""
        over = f" over dimensions {self.dims}" if self.dims else ""
        return f"{self.primitive}{where} of {self.shape} {self.dtype}{over}"


def call_site() -> str:
    """``file:line:function`` of the innermost frame outside perfkit, torch and generated code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_LIBRARIES) and not any(part in file for part in _GENERATED):
            # The name alone: ranks may have the program in different folders.
            return f"{Path(file).name}:{frame.f_lineno}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "<unknown>"


class Checker:
    """Compares the calls of one group's ranks through its store.

    ``timeout`` is how many seconds a rank waits for the others.
    """

    def __init__(self, store: dist.Store, name: str, rank: int, size: int, timeout: float) -> None:
        self._store = dist.PrefixStore(f"perfkit/{name}", store)
        self._rank, self._size = rank, size
        self._next = 0
        self.timeout = timeout

    def agree(self, call: Call) -> None:
        """Return when every rank is about to enter the same call.

        Raises:
            MismatchError: another rank calls something else, or has wrong arguments.
            CollectiveError: a rank did not come within the timeout, or the store is gone.
        """
        site = call_site()
        digest = hashlib.sha256(f"{asdict(call)}{site}".encode()).hexdigest()
        number, self._next = self._next, self._next + 1
        others = [r for r in range(self._size) if r != self._rank]
        mine = {"text": str(call), "site": site, "problem": call.problem, "hash": digest}
        try:
            self._store.set(self._key(number, self._rank), json.dumps(mine))
            self._wait(number, others, call, site)
            found = self._store.multi_get([self._key(number, r) for r in others]) if others else []
            if number:
                # Whoever is here has read all lines of the call before.
                self._store.delete_key(self._key(number - 1, self._rank))
        except CollectiveError:
            raise
        except RuntimeError as error:
            raise CollectiveError(
                f"rank {self._rank}: {call} at {site}: the store of the group cannot be reached "
                f"(the rank or process that hosts it is gone): {_first_line(error)}"
            ) from error
        self._compare(mine, dict(zip(others, map(json.loads, found), strict=True)))

    def _key(self, number: int, rank: int) -> str:
        return f"{number}/{rank}"

    def _wait(self, number: int, others: list[int], call: Call, site: str) -> None:
        keys = [self._key(number, r) for r in others]
        if not keys:
            return
        try:
            self._store.wait(keys, timedelta(seconds=self.timeout))
        except dist.DistStoreError:
            missing = [r for r in others if not self._store.check([self._key(number, r)])]
            if not missing:
                return
            names = ", ".join(map(str, missing))
            raise CollectiveError(
                f"rank {self._rank}: {call} at {site} (collective {number} of this group): "
                f"rank {names} did not come within {self.timeout:g} s; it died, hangs, or left "
                "out this call"
            ) from None

    def _compare(self, mine: dict[str, str], theirs: dict[int, dict[str, str]]) -> None:
        different = {
            r: line for r, line in theirs.items() if line["hash"] != mine["hash"] or line["problem"]
        }
        if not different or mine["problem"]:
            return  # own wrong arguments are raised by the caller, with their own error class
        lines = [f"rank {self._rank}: {mine['text']} at {mine['site']}"]
        for rank, line in sorted(different.items()):
            problem = f": {line['problem']}" if line["problem"] else ""
            lines.append(f"rank {rank}: {line['text']} at {line['site']}{problem}")
        raise MismatchError("ranks disagree about their next collective:\n  " + "\n  ".join(lines))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
