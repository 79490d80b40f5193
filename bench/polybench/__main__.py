"""``python -m bench.polybench``: perfkit and its peers on the test programs."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.polybench import peers, plot, results, table
from bench.polybench.measure_round import Measurement, Options
from bench.polybench.registry import EXTRA, POLYBENCH, Program, programs
from bench.polybench.sizes import NAMES
from perfkit import config
from perfkit.errors import PerfkitError
from perfkit.runtime.measure import MINIMUM_PAIRS


def names_of(text: str, known: Sequence[str], what: str) -> list[str]:
    """Words separated by commas, each one of ``known``; ``all`` for all.

    Raises:
        argparse.ArgumentTypeError: a word is not; says which ones are near it.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["all"]:
        return list(known)
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}"
            raise argparse.ArgumentTypeError(f"no {what} is named {word!r}; {hint}")
    return list(dict.fromkeys(words))


def _kernels(text: str) -> list[str]:
    return names_of(text, [*POLYBENCH, *EXTRA], "program")


def _peers(text: str) -> list[str]:
    return [] if text == "none" else names_of(text, list(peers.PEERS), "peer")


def _dataset(text: str) -> str:
    return names_of(text.upper(), NAMES, "dataset")[0]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.polybench",
        description="Time perfkit and its peers on the test programs, checked for correctness "
        "first, in interleaved rounds.",
    )
    choose = parser.add_argument_group("what")
    choose.add_argument("--dataset", type=_dataset, default="LARGE", help=", ".join(NAMES))
    choose.add_argument("--suite", choices=("polybench", "extra", "both"), default="polybench")
    choose.add_argument("--kernels", type=_kernels, metavar="A,B", help="of either suite")
    choose.add_argument(
        "--peers",
        type=_peers,
        default=list(peers.DEFAULT),
        metavar="A,B",
        help=f"of {', '.join(peers.PEERS)}; none; default {','.join(peers.DEFAULT)}",
    )
    choose.add_argument("--no-perfkit", action="store_true", help="the peers only")
    choose.add_argument("--threads", type=_positive, default=config.available_cores())
    ours = parser.add_argument_group("perfkit")
    ours.add_argument("--schedule", default="auto", help="auto, original, parallel, pluto, a file")
    ours.add_argument("--fp", choices=("strict", "reassociate"), default="strict")
    ours.add_argument("--measure", type=int, default=0, metavar="K", help="run the K best looking")
    ours.add_argument("--search", choices=("beam", "looper", "seeds"), default="beam")
    ours.add_argument("--beam-width", type=_positive, default=16, metavar="W")
    ours.add_argument("--no-pluto-seeds", action="store_true", help="search without them")
    how = parser.add_argument_group("how")
    how.add_argument("--rounds", type=_positive, default=MINIMUM_PAIRS, metavar="R")
    how.add_argument(
        "--budget",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds of timing per program, which lower the rounds to 3 at least; 0: none",
    )
    how.add_argument("--timeout", type=float, default=900.0, metavar="S", help="of one step")
    how.add_argument("--check-only", action="store_true", help="compare outputs, time nothing")
    how.add_argument("--seed", type=int, default=0)
    out = parser.add_argument_group("output")
    out.add_argument("--json", type=Path, metavar="F", help="written anew after each program")
    out.add_argument("--resume", action="store_true", help="skip the programs that F has")
    out.add_argument("--plot", type=Path, metavar="F.png")
    out.add_argument("--details", action="store_true", help="list every candidate too")
    out.add_argument("--show", type=Path, metavar="F", help="report a JSON file, run nothing")
    return parser


def selected(args: argparse.Namespace) -> list[Program]:
    """The programs asked for, in listed order."""
    if args.kernels is not None:
        return programs(names=args.kernels)
    return programs(suite=None if args.suite == "both" else args.suite)


def options_of(args: argparse.Namespace) -> Options:
    schedule = args.schedule
    if schedule not in ("auto", "original", "parallel", "pluto"):
        path = Path(schedule)
        schedule = path.read_text() if path.is_file() else schedule
    return Options(
        dataset=args.dataset,
        threads=args.threads,
        peers=tuple(args.peers),
        ours=not args.no_perfkit,
        rounds=args.rounds,
        budget=args.budget,
        check_only=args.check_only,
        schedule=schedule,
        fp=args.fp,
        measured=args.measure,
        search=args.search,
        width=args.beam_width,
        pluto=not args.no_pluto_seeds,
        seed=args.seed,
        timeout=args.timeout,
    )


def _say(text: str) -> None:
    """Progress goes to stderr; the report alone to stdout."""
    print(text, file=sys.stderr, flush=True)


def _measure_all(
    run: results.Run, chosen: list[Program], options: Options, tools: peers.Tools, file: Path | None
) -> None:
    for place, program in enumerate(chosen, 1):
        if run.row(program.name):
            _say(f"[{place}/{len(chosen)}] {program.name}: done before")
            continue
        start = time.monotonic()
        lead = f"[{place}/{len(chosen)}] {program.name}"

        def say(text: str, lead: str = lead) -> None:
            if sys.stderr.isatty():
                print(f"\r\x1b[K{lead}: {text}", end="", file=sys.stderr, flush=True)

        with tempfile.TemporaryDirectory(prefix="perfkit-bench-") as folder:
            row = Measurement(program, options, tools, Path(folder), say).run()
        row.commit = results.commit()
        run.rows.append(row)
        if file is not None:
            results.save(run, file)
        erase = "\r\x1b[K" if sys.stderr.isatty() else ""
        _say(f"{erase}{lead}: {_outcome(row)} ({time.monotonic() - start:.0f} s)")


def _outcome(row: results.Row) -> str:
    if row.error:
        return row.error
    ours = row.results.get(peers.OURS)
    bad = [name for name, r in row.results.items() if r.wrong or r.error]
    text = f"; not right: {', '.join(bad)}" if bad else ""
    if ours is None or not ours.usable:
        return f"{len(row.results)} candidates{text}"
    verdict = table.Verdict.of(row)
    speedup, against = table.times(verdict.speedup), table.times(verdict.against, False)
    return f"{speedup} over the original, {against} over {verdict.rival}{text}"


def failed(run: results.Run) -> bool:
    """Whether perfkit, or a whole program, gave a wrong result or none."""
    ours = [row.results.get(peers.OURS) for row in run.rows]
    broken = any(result is not None and (result.wrong or result.error) for result in ours)
    return broken or any(row.error for row in run.rows)


def main(argv: Sequence[str] | None = None) -> int:
    """0: perfkit was right everywhere; 1: it was not; 2: wrong usage; 130: interrupted."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and args.json is None:
        parser.error("--resume needs --json F, the file to continue")
    try:
        if args.show:
            run, interrupted = results.load(args.show), False
        else:
            run, interrupted = _run(args)
    except (OSError, ValueError, PerfkitError, peers.Unavailable) as error:
        _say(f"bench.polybench: {error}")
        return 2
    print(table.report(run, args.details))
    if args.plot:
        try:
            plot.draw(run, args.plot)
        except plot.NothingToPlot as error:
            _say(f"bench.polybench: {error}")
            return 1
    return 130 if interrupted else int(failed(run))


def _run(args: argparse.Namespace) -> tuple[results.Run, bool]:
    options, chosen = options_of(args), selected(args)
    tools = peers.Tools.detect()
    settings = dataclasses.asdict(options)
    settings["peers"] = list(options.peers)
    run = results.begin(settings, tools.versions())
    if args.resume and args.json.exists():
        run = results.resume(run, args.json)
    try:
        _measure_all(run, chosen, options, tools, args.json)
    except KeyboardInterrupt:
        _say("\nbench.polybench: interrupted; what is finished stays")
        return run, True
    return run, False


if __name__ == "__main__":
    sys.exit(main())
