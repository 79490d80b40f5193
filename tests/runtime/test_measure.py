from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perfkit.errors import LockTimeout
from perfkit.runtime import measure
from perfkit.runtime.measure import Samples, interleaved, ratio_interval


def scripted(values: list[float], trace: list[str], name: str) -> Callable[[], float]:
    left = iter(values)

    def candidate() -> float:
        trace.append(name)
        return next(left)

    return candidate


def test_candidates_take_turns_and_the_order_turns_around() -> None:
    trace: list[str] = []
    samples = interleaved(
        [scripted([9.0, 1.0, 2.0], trace, "a"), scripted([9.0, 3.0, 4.0], trace, "b")],
        rounds=2,
        lock=False,
    )
    assert "".join(trace) == "abbaab"
    assert samples == [Samples((1.0, 2.0)), Samples((3.0, 4.0))]


def test_a_much_slower_candidate_is_stopped() -> None:
    trace: list[str] = []
    samples = interleaved(
        [scripted([1.0] * 5, trace, "a"), scripted([21.0] * 5, trace, "b")],
        rounds=5,
        warmup=0,
        lock=False,
    )
    assert samples[1] == Samples((21.0,), stopped=True)
    assert len(samples[0].seconds) == 5


def test_a_kept_candidate_is_never_stopped() -> None:
    trace: list[str] = []
    samples = interleaved(
        [scripted([1.0] * 3, trace, "a"), scripted([99.0] * 3, trace, "b")],
        rounds=3,
        warmup=0,
        keep=[1],
        lock=False,
    )
    assert len(samples[1].seconds) == 3
    assert not samples[1].stopped


def test_a_failing_candidate_is_reported_not_raised() -> None:
    def broken() -> float:
        raise ValueError("wrong result")

    samples = interleaved([broken, lambda: 1.0], rounds=2, lock=False)
    assert samples[0].error == "ValueError: wrong result"
    assert samples[0].minimum == math.inf
    assert samples[1].seconds == (1.0, 1.0)


def test_ctrl_c_releases_the_machine() -> None:
    def interrupted() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interleaved([interrupted], rounds=1)
    with measure.machine_lock(timeout=5):
        pass


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds=0"):
        interleaved([], rounds=0)


def test_statistics_of_samples() -> None:
    samples = Samples((4.0, 1.0, 2.0, 3.0, 5.0))
    assert (samples.minimum, samples.median) == (1.0, 3.0)
    assert samples.spread == pytest.approx(2.0 / 3.0)
    assert Samples((1.0,)).spread == 0.0


def test_interval_of_eleven_pairs_uses_the_third_smallest() -> None:
    # P(at most 2 of 11 below the median) = 0.033 <= 0.05 < P(at most 3) = 0.113.
    ratios = [1.0 + 0.1 * i for i in range(11)]
    interval = ratio_interval(ratios, [1.0] * 11)
    assert interval.low == pytest.approx(1.2)
    assert interval.high == pytest.approx(1.8)
    assert interval.median == pytest.approx(1.5)


def test_not_slower_needs_a_bound_and_eleven_pairs() -> None:
    assert ratio_interval([1.0] * 11, [1.0] * 11).not_slower()
    assert not ratio_interval([1.0] * 10, [1.0] * 10).not_slower()
    assert not ratio_interval([0.9] * 3 + [1.5] * 8, [1.0] * 11).not_slower()
    assert ratio_interval([0.9] * 2 + [1.5] * 9, [1.0] * 11).not_slower()


def test_too_few_pairs_bound_nothing() -> None:
    interval = ratio_interval([2.0] * 4, [1.0] * 4)
    assert (interval.low, interval.high) == (0.0, math.inf)


def test_interval_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        ratio_interval([], [1.0])
    with pytest.raises(ValueError, match="positive"):
        ratio_interval([0.0], [1.0])
    with pytest.raises(ValueError, match="confidence"):
        ratio_interval([1.0], [1.0], confidence=0.2)


def test_bounds_hold_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    misses = sum(
        ratio_interval(random.lognormal(size=15), [1.0] * 15).low > 1.0 for _ in range(2000)
    )
    assert misses <= 0.06 * 2000


def test_lock_nests_within_a_thread(tmp_path: Path) -> None:
    with measure.machine_lock(folder=tmp_path), measure.machine_lock(timeout=1, folder=tmp_path):
        pass


def test_lock_keeps_other_processes_out(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from perfkit.runtime import measure\n"
        "with measure.machine_lock(folder=Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(LockTimeout, match="another process measured"),
            measure.machine_lock(timeout=0.05, folder=tmp_path),
        ):
            pass
        other.communicate("")
    with measure.machine_lock(timeout=5, folder=tmp_path):
        pass


def test_python_candidates_return_seconds() -> None:
    candidate = measure.time_python(lambda: sum(range(1000)))
    assert 0.0 < candidate() < 10.0
