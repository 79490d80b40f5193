"""What a run says: the table, the geometric means, and who is ahead where."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.polybench.peers import ORIGINAL, OURS, PEERS
from bench.polybench.results import Result, Row, Run
from perfkit.runtime.measure import MINIMUM_PAIRS, RatioInterval, ratio_interval

NOT_SLOWER = 0.98
AHEAD = 1.05
# Fewer pairs than this give no bounds at 95 %.
PAIRS_FOR_BOUNDS = 5
_STEP = re.compile(r"^\s*([A-Za-z]\w*)\(", re.M)


def geomean(values: Iterable[float]) -> float:
    """The geometric mean; NaN of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def schedule_name(script: str) -> str:
    """A schedule script in a few words: its transforms, each once, in order."""
    steps = list(dict.fromkeys(_STEP.findall(script)))
    return " ".join(steps) if steps else "original"


def kept_original(row: Row) -> bool:
    """Whether perfkit decided to change nothing."""
    ours = row.results.get(OURS)
    return ours is not None and schedule_name(ours.facts.get("schedule", "")) == "original"


@dataclass(frozen=True)
class Verdict:
    """How perfkit does on one program."""

    kernel: str
    speedup: RatioInterval | None  # original over perfkit
    rival: str  # the fastest candidate that is not perfkit, "" without
    against: RatioInterval | None  # that candidate over perfkit; below 1: it is ahead

    @classmethod
    def of(cls, row: Row) -> Verdict:
        ours, original = row.best(OURS), row.best(ORIGINAL)
        rivals = {n: r for n, r in row.results.items() if r.peer != OURS and r.usable}
        rival = min(rivals, key=lambda name: rivals[name].median, default="")
        return cls(
            row.kernel,
            ratio(original, ours),
            rival,
            ratio(rivals.get(rival), ours),
        )


def ratio(slower: Result | None, faster: Result | None) -> RatioInterval | None:
    """Paired ratio of two results' times, None when either has none."""
    if slower is None or faster is None:
        return None
    return ratio_interval(slower.seconds, faster.seconds)


def number(seconds: float) -> str:
    """Seconds with four significant digits; below a tenth of a millisecond as ``4.713e-06``."""
    if not math.isfinite(seconds) or seconds <= 0:
        return "-"
    if seconds < 1e-4:
        return f"{seconds:.3e}"
    digits = max(0, 3 - math.floor(math.log10(seconds)))
    return f"{seconds:.{min(digits, 9)}f}"


def times(interval: RatioInterval | None, bounds: bool = True) -> str:
    """``2.31x [2.28, 2.35]``; without enough pairs for the bounds only the median."""
    if interval is None:
        return "-"
    text = f"{interval.median:.2f}x"
    if bounds and interval.pairs >= PAIRS_FOR_BOUNDS:
        text += f" [{interval.low:.2f}, {interval.high:.2f}]"
    return text


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Lines with columns as wide as needed; those in ``left`` flush left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cell(row: Row, peer: str, fastest: float) -> str:
    best = row.best(peer)
    if best is not None:
        return number(best.median) + ("*" if best.median == fastest else " ")
    tried = [result for result in row.results.values() if result.peer == peer]
    if any(result.wrong for result in tried):
        return "wrong "
    if any(result.error for result in tried):
        return "failed "
    return "right " if tried else "- "


def columns(run: Run) -> list[str]:
    """The peers of a run in the order of the table."""
    return [peer for peer in PEERS if peer == ORIGINAL or peer in run.settings["peers"]]


def table(run: Run) -> list[str]:
    """One line per program. The fastest time of a line is starred."""
    peers = columns(run)
    titles = ["original s" if peer == ORIGINAL else peer for peer in peers]
    lines = [["kernel", *titles, "perfkit s", "speed-up", "vs best", "best peer", "schedule"]]
    for row in run.rows:
        if row.error:
            lines.append([row.kernel, *["-"] * (len(titles) + 4), row.error])
            continue
        verdict = Verdict.of(row)
        fastest = min((r.median for r in row.results.values() if r.usable), default=math.inf)
        ours = row.results.get(OURS)
        script = schedule_name(ours.facts["schedule"]) if ours and "schedule" in ours.facts else "-"
        lines.append(
            [
                row.kernel,
                *(_cell(row, peer, fastest) for peer in (*peers, OURS)),
                times(verdict.speedup),
                times(verdict.against, bounds=False),
                verdict.rival or "-",
                script,
            ]
        )
    last = len(lines[0]) - 1
    return aligned(lines, left=(0, last - 1, last))


def details(run: Run) -> list[str]:
    """One line per candidate: median, minimum, spread, rounds, difference, ratio."""
    heads = ["kernel", "candidate", "median s", "min s", "spread", "rounds", "difference"]
    lines = [[*heads, "original / it", ""]]
    for row in run.rows:
        original = row.best(ORIGINAL)
        for name, result in row.results.items():
            error = result.error or ("wrong result" if result.wrong else "")
            shown = "-" if result.difference is None else f"{result.difference:.1e}"
            some = bool(result.seconds)
            lines.append(
                [
                    row.kernel,
                    name,
                    number(result.median),
                    number(min(result.seconds)) if some else "-",
                    f"{100 * _spread(result):.1f} %" if some else "-",
                    str(len(result.seconds)),
                    shown,
                    times(ratio(original, result if result.usable else None)),
                    error or ("run once, far slower than the best" if result.stopped else ""),
                ]
            )
    return aligned(lines, left=(0, 1, 8))


def _spread(result: Result) -> float:
    ordered = sorted(result.seconds)
    quarter = len(ordered) // 4
    return (ordered[-1 - quarter] - ordered[quarter]) / result.median


def geomeans(run: Run) -> list[str]:
    """Geometric means over the original, and perfkit's over each peer on common programs."""
    rows = [row for row in run.rows if row.best(ORIGINAL)]
    lines = [["geomean", "over original", "programs", "perfkit over it", "programs"]]
    for peer in (*columns(run), "best peer", OURS):
        over, under = [], []
        for row in rows:
            best = _best(row, peer)
            found = ratio(row.best(ORIGINAL), best)
            if found:
                over.append(found.median)
            behind = ratio(best, row.best(OURS))
            if behind and peer != OURS:
                under.append(behind.median)
        if over:
            means = [f"{geomean(over):.2f}x", str(len(over))]
            means += [f"{geomean(under):.2f}x", str(len(under))] if under else ["-", "-"]
            lines.append([peer, *means])
    return aligned(lines, left=(0,)) if len(lines) > 1 else []


def _best(row: Row, peer: str) -> Result | None:
    if peer != "best peer":
        return row.best(peer)
    rival = Verdict.of(row).rival
    return row.results[rival] if rival else None


def statements(run: Run) -> list[str]:
    """Where a peer is ahead, what is slower than the original, what is wrong, what is missing."""
    said: list[str] = []
    verdicts = [(row, Verdict.of(row)) for row in run.rows if row.best(OURS)]
    behind = sorted(
        (v.against.median, f"{v.kernel} ({v.rival} {1 / v.against.median:.2f}x faster)")
        for _, v in verdicts
        if v.against and v.against.median < 1 / AHEAD
    )
    if verdicts:
        names = ", ".join(text for _, text in behind) or "nowhere"
        said.append(f"a peer is ahead by more than 5 % ({len(behind)} of {len(verdicts)}): {names}")
        said += _not_slower(verdicts)
        said += _optimizing([row for row, _ in verdicts])
    said += [f"{row.kernel}: {row.error}" for row in run.rows if row.error]
    for name in dict.fromkeys(name for row in run.rows for name in row.results):
        found = [(row, row.results[name]) for row in run.rows if name in row.results]
        wrong = [f"{row.kernel} ({r.difference:.1e})" for row, r in found if r.wrong]
        if wrong:
            said.append(f"{name}: wrong result: {', '.join(wrong)}")
        said += [f"{name}: {row.kernel}: {r.error}" for row, r in found if r.error]
    return said + _missing(run)


def _not_slower(verdicts: Sequence[tuple[Row, Verdict]]) -> list[str]:
    kept = [row.kernel for row, _ in verdicts if kept_original(row)]
    asked = [v for row, v in verdicts if not kept_original(row) and v.speedup]
    proved = [v for v in asked if v.speedup and v.speedup.not_slower(NOT_SLOWER)]
    open_, slower = [], []
    for verdict in asked:
        found = verdict.speedup
        if found is None or verdict in proved:
            continue
        # With few pairs, far from 1 is plain enough; near it only the bounds may speak.
        if found.high < NOT_SLOWER or (found.pairs < MINIMUM_PAIRS and found.median < NOT_SLOWER):
            slower.append(f"{verdict.kernel} {times(found)}")
        else:
            open_.append(f"{verdict.kernel} {times(found)} from {found.pairs} rounds")
    said = [
        f"not slower than {NOT_SLOWER}x of the original: {len(proved)} shown from at least "
        f"{MINIMUM_PAIRS} rounds, {len(kept)} kept as they were, {len(open_)} not shown, "
        f"{len(slower)} slower"
    ]
    said += [f"  not shown: {', '.join(open_)}"] if open_ else []
    said += [f"  slower: {', '.join(slower)}"] if slower else []
    return said


def _optimizing(rows: Sequence[Row]) -> list[str]:
    """How long perfkit, and its other searches, took to decide, generate and compile."""
    key = "optimize_seconds"
    said = []
    for name in dict.fromkeys(n for row in rows for n in row.results):
        took = [
            (row.results[name].facts[key], row.kernel)
            for row in rows if name in row.results and key in row.results[name].facts
        ]  # fmt: skip
        if took:
            longest, kernel = max(took)
            median = statistics.median(seconds for seconds, _ in took)
            whose = "" if name == OURS else f" ({name})"
            said.append(
                f"time to optimize{whose}: median {median:.1f} s, longest {longest:.1f} s "
                f"({kernel})"
            )
    return said


def _missing(run: Run) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in run.rows:
        for name, why in row.missing.items():
            reasons.setdefault((name, why), []).append(row.kernel)
    said = []
    for (name, why), kernels in reasons.items():
        everywhere = len(kernels) == len(run.rows)
        where = "" if everywhere else f" ({', '.join(kernels)})"
        said.append(f"{name}: not measured: {why}{where}")
    return said


def report(run: Run, every_candidate: bool = False) -> str:
    """All of it as text."""
    settings, machine = run.settings, run.machine
    fp = "" if settings["fp"] == "strict" else f", fp {settings['fp']}"
    head = (
        f"{settings['dataset']}, {settings['threads']} threads{fp}; {machine['cpu']}, "
        f"{machine['logical_cores']} cores; {run.versions.get('gcc', '')}; commit {run.commit}"
    )
    parts = [[head], table(run)]
    if any(result.seconds for row in run.rows for result in row.results.values()):
        parts.append(geomeans(run))
    if every_candidate:
        parts.append(details(run))
    parts.append(statements(run))
    return "\n\n".join("\n".join(part) for part in parts if part)
