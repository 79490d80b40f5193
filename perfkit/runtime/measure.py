"""Fair measuring: one measurement per machine at a time, candidates interleaved, honest bounds.

Times are seconds. Nothing here knows what is measured: a candidate is a callable that runs once
and returns how long it took.
"""

from __future__ import annotations

import getpass
import math
import statistics
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import filelock

from perfkit import config, log
from perfkit.errors import KernelFailure, LockTimeout

try:
    from perfkit import _cpu
except ImportError as error:
    from perfkit.errors import ExtensionMissing

    raise ExtensionMissing(
        f"perfkit._cpu cannot be imported ({error}): install perfkit with `pip install .`"
    ) from error

# A candidate slower than this many times the best is not worth more rounds.
STOP_RATIO = 20.0
# "Not slower" needs this many pairs before it may be said.
MINIMUM_PAIRS = 11


@contextmanager
def machine_lock(timeout: float | None = None, folder: Path | None = None) -> Iterator[None]:
    """Hold the machine for measuring; at most one holder among this user's processes.

    Nests within a thread. Released on every way out, Ctrl-C included; the operating system
    releases it when the process dies.

    Args:
        timeout: seconds to wait, default ``Settings.lock_timeout``.
        folder: where the lock file is, default the system's temporary folder.

    Raises:
        LockTimeout: somebody else measured for longer than that.
    """
    timeout = config.current().lock_timeout if timeout is None else timeout
    path = (folder or Path(tempfile.gettempdir())) / f"perfkit-measure-{getpass.getuser()}.lock"
    lock = filelock.FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout as error:
        raise LockTimeout(
            f"{path}: another process measured for more than {timeout:g} s: wait for it, or "
            "raise PERFKIT_LOCK_TIMEOUT"
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class Samples:
    """What one candidate took.

    Attributes:
        seconds: one per completed round, in order; round ``i`` of all candidates belong together.
        stopped: it was left out early, being far slower than the best.
        error: why it was left out when it failed, else "".
    """

    seconds: tuple[float, ...]
    stopped: bool = False
    error: str = ""

    @property
    def minimum(self) -> float:
        """The fastest round; infinity without any."""
        return min(self.seconds, default=math.inf)

    @property
    def median(self) -> float:
        """The middle round; infinity without any."""
        return statistics.median(self.seconds) if self.seconds else math.inf

    @property
    def spread(self) -> float:
        """Distance between the quartiles over the median, 0 for fewer than two rounds."""
        if len(self.seconds) < 2 or self.median == 0:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median


def interleaved(
    candidates: Sequence[Callable[[], float]],
    rounds: int = MINIMUM_PAIRS,
    *,
    warmup: int = 1,
    stop_ratio: float = STOP_RATIO,
    keep: Collection[int] = (),
    lock: bool = True,
    enough: float = 0.0,
) -> list[Samples]:
    """Run the candidates in turn, ``rounds`` times, so that drift hits all of them alike.

    The order turns around each round, so none always runs after the same other. A candidate
    that raises an ordinary exception is left out and reported in its ``error``.

    Args:
        candidates: each runs once and returns seconds.
        warmup: rounds whose times are thrown away.
        stop_ratio: leave a candidate out once its fastest round exceeds this many times the best.
        keep: indices never left out for slowness (the original, for ratios).
        lock: hold :func:`machine_lock` meanwhile.
        enough: seconds of measuring; when the rounds took less, more are run, up to ten times
            as many, since short runs are the noisy ones.

    Raises:
        LockTimeout: the machine was not free in time.
    """
    if rounds < 1 or warmup < 0 or stop_ratio <= 1.0:
        raise ValueError(
            f"interleaved: rounds={rounds} must be at least 1, warmup={warmup} at least 0 and "
            f"stop_ratio={stop_ratio} above 1"
        )
    plan = _Plan(rounds, warmup, stop_ratio, frozenset(keep), enough)
    with machine_lock() if lock else nullcontext():
        return _interleave(candidates, plan)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The arguments of :func:`interleaved`."""

    rounds: int
    warmup: int
    stop_ratio: float
    keep: frozenset[int]
    enough: float

    def more(self, turn: int, spent: float) -> bool:
        """Whether round ``turn`` is run, after ``spent`` seconds of measuring."""
        return turn < self.rounds or (turn < 10 * self.rounds and spent < self.enough)


def _interleave(candidates: Sequence[Callable[[], float]], plan: _Plan) -> list[Samples]:
    logger = log.get("measure")
    taken: list[list[float]] = [[] for _ in candidates]
    errors = [""] * len(candidates)
    stopped = [False] * len(candidates)
    best = math.inf
    order = list(range(len(candidates)))
    turn = -plan.warmup
    while plan.more(turn, sum(map(sum, taken))):
        for index in order:
            if errors[index] or stopped[index]:
                continue
            try:
                seconds = float(candidates[index]())
            except Exception as error:
                errors[index] = f"{type(error).__name__}: {error}"
                logger.warning("candidate %d failed and is left out: %s", index, errors[index])
                continue
            if turn < 0:
                continue
            taken[index].append(seconds)
            best = min(best, seconds)
            if index not in plan.keep and min(taken[index]) > plan.stop_ratio * best:
                stopped[index] = True
        order.reverse()
        turn += 1
    return [Samples(tuple(taken[i]), stopped[i], errors[i]) for i in range(len(candidates))]


@dataclass(frozen=True, slots=True)
class RatioInterval:
    """How many times faster B is than A.

    Attributes:
        median: of the paired ratios time(A) / time(B).
        low, high: the true median ratio is at least ``low`` with the stated confidence, and at
            most ``high`` with it (two one-sided bounds); 0 and infinity with too few pairs.
        pairs: how many pairs were used.
    """

    median: float
    low: float
    high: float
    pairs: int

    def not_slower(self, floor: float = 0.98) -> bool:
        """Whether B is proved to be not slower than ``floor`` times A, from enough pairs."""
        return self.pairs >= MINIMUM_PAIRS and self.low >= floor


def ratio_interval(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95
) -> RatioInterval:
    """Bounds of the median of the paired ratios ``a[i] / b[i]``, free of any distribution.

    The sign test turned around: the number of pairs below the true median is binomial
    (n, 1/2), so the k-th smallest ratio is a bound as long as fewer than k below is unlikely.
    Pairs are taken by position; the longer series' end is ignored.

    Raises:
        ValueError: no pairs, a time that is not positive, or a confidence outside (0.5, 1).
    """
    pairs = list(zip(a, b, strict=False))
    if not pairs:
        raise ValueError("ratio_interval: no pairs to compare")
    if min(min(pair) for pair in pairs) <= 0:
        raise ValueError("ratio_interval: times must be positive")
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"ratio_interval: confidence={confidence} must lie between 0.5 and 1")
    ratios = sorted(x / y for x, y in pairs)
    n = len(ratios)
    rank, below = 0, 0.0
    while (below := below + math.comb(n, rank) / 2**n) <= 1.0 - confidence:
        rank += 1
    low = ratios[rank - 1] if rank else 0.0
    high = ratios[n - rank] if rank else math.inf
    return RatioInterval(statistics.median(ratios), low, high, n)


def time_calls(
    function: int, arguments: int, *, repeats: int = 1, limit: float | None = None
) -> list[float]:
    """Seconds of each of ``repeats`` calls of a compiled kernel, timed without Python between.

    Args:
        function: address of an ``int64_t name_call(void **)``.
        arguments: address of its argument array, which must stay alive meanwhile.
        limit: stop after the call in which this many seconds have gone by.

    Raises:
        KernelFailure: a call returned a non-zero code.
    """
    limit_ns = 0 if limit is None else max(1, int(limit * 1e9))
    nanoseconds, code = _cpu.time_calls(function, arguments, repeats, limit_ns)
    if code:
        raise KernelFailure(f"the timed kernel returned code {code} in call {len(nanoseconds)}")
    return [value * 1e-9 for value in nanoseconds]


def time_python(call: Callable[[], object]) -> Callable[[], float]:
    """A candidate for :func:`interleaved` from any callable without arguments."""

    def candidate() -> float:
        start = _cpu.now_ns()
        call()
        return (_cpu.now_ns() - start) * 1e-9

    return candidate
