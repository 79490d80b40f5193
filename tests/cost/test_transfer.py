"""The alpha-beta price of a transfer."""

from __future__ import annotations

import pytest

from perfkit.cost.transfer import Link, transfer
from perfkit.errors import PlanError


def test_latency_counts_by_message_and_bandwidth_by_byte() -> None:
    link = Link(bandwidth=1e9, latency=5e-6)
    assert transfer(0, 0, link) == 0
    assert transfer(0, 3, link) == pytest.approx(15e-6)
    assert transfer(2e9, 0, link) == pytest.approx(2.0)
    assert transfer(1e6, 7, link) == pytest.approx(1e-3 + 35e-6)


def test_a_switch_at_the_wire_rate_of_nvlink() -> None:
    """DSP.md: 64 x 4096 x 1152 in bf16 on 8 ranks over 450 GB/s takes 147 us."""
    bytes_sent = 64 * 4096 * 1152 * 2 / 8 * 7 / 8
    assert transfer(bytes_sent, 7, Link(450e9)) == pytest.approx(147e-6, rel=0.01)


@pytest.mark.parametrize(("bandwidth", "latency"), [(0, 0), (-1, 0), (1, -1), (float("nan"), 0)])
def test_impossible_links_are_refused(bandwidth: float, latency: float) -> None:
    with pytest.raises(PlanError, match="positive bandwidth"):
        Link(bandwidth, latency)


def test_negative_amounts_are_refused() -> None:
    with pytest.raises(PlanError, match="cannot send"):
        transfer(-1, 0, Link(1.0))
