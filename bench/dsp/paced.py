"""Links made slow inside the process, where no network namespace can be had.

Every collective is late by what its bytes would take on a link of a given rate, after those that
the rank sent before. The wire itself stays as fast as it is: results say "paced".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from perfkit.comm import collectives
from perfkit.comm.group import Group


class Pace:
    """The link of this rank, which stands between perfkit and its collectives from now on.

    ``rate`` is in bytes per second; 0 is no limit.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._busy_until = 0.0
        self._due: dict[int, float] = {}  # by the address of the buffer that is filled
        for name in ("all_to_all", "all_gather", "shift", "reduce_scatter"):
            setattr(collectives, name, self._launch(getattr(collectives, name)))
        collectives.finish = self._finish(collectives.finish)

    def wait(self, amount: float) -> None:
        """Be as late as so many more bytes make it."""
        _sleep_until(self._book(amount))

    def _book(self, amount: float) -> float:
        """When that many more bytes are through."""
        if self.rate:
            self._busy_until = max(self._busy_until, time.perf_counter()) + amount / self.rate
        return self._busy_until

    def _launch(self, real: Callable[..., None]) -> Callable[..., None]:
        def launch(received: Tensor, *arguments: Any) -> None:
            group = next(a for a in arguments if isinstance(a, Group))
            before = group.counters.total()
            real(received, *arguments)
            after = group.counters.total()
            if not group.fake:
                amount = max(after.sent - before.sent, after.received - before.received)
                self._due[received.data_ptr()] = self._book(amount)

        return launch

    def _finish(self, real: Callable[..., None]) -> Callable[..., None]:
        def finish(received: Tensor, *arguments: Any) -> None:
            real(received, *arguments)
            _sleep_until(self._due.pop(received.data_ptr(), 0.0))

        return finish


def _sleep_until(moment: float) -> None:
    left = moment - time.perf_counter()
    if left > 0:
        time.sleep(left)
