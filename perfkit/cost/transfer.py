"""What moving bytes between ranks costs, in seconds: the alpha-beta model.

A message of n bytes takes ``alpha + n * beta`` (Hockney, "The communication challenge for MPP",
Parallel Computing 20, 1994): alpha is the latency of a message, beta the seconds per byte of the
link. Plain numbers in and out, so that nothing here knows what is moved or why.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.errors import PlanError


@dataclass(frozen=True, slots=True)
class Link:
    """A rank's connection to others, each direction: ``bandwidth`` in bytes per second.

    ``latency`` is in seconds per message. Both directions work at once.

    Raises:
        PlanError: a bandwidth that is not positive, or a negative latency.
    """

    bandwidth: float
    latency: float = 0.0

    def __post_init__(self) -> None:
        if not self.bandwidth > 0 or not self.latency >= 0:
            raise PlanError(
                f"a link of {self.bandwidth} bytes/s and {self.latency} s of latency: needs a "
                "positive bandwidth and a latency of 0 or more"
            )


def transfer(bytes: float, messages: float, link: Link) -> float:
    """Seconds to send ``bytes`` in ``messages`` one after the other over a link.

    Raises:
        PlanError: a negative count.
    """
    if bytes < 0 or messages < 0:
        raise PlanError(f"cannot send {bytes} bytes in {messages} messages")
    return messages * link.latency + bytes / link.bandwidth
