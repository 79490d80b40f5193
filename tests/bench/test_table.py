"""The table, the means and the statements of a benchmark run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench.polybench import plot, results, table
from bench.polybench.results import Result, Row, Run

SCRIPT = "# how\nTile(i=32, j=32)\nTile(k=8)\nParallelize(i_t)\n"


def make_row(kernel: str, seconds: dict[str, float], rounds: int = 11, **facts: Any) -> Row:
    """A row whose candidates take constant times."""
    row = Row(kernel, "polybench", {"n": 4}, tolerance=1e-10, rounds=rounds)
    for name, value in seconds.items():
        row.results[name] = Result(name.partition(":")[0], [value] * rounds, difference=0.0)
    if "perfkit" in row.results:
        row.results["perfkit"].facts = {"schedule": SCRIPT, "optimize_seconds": 0.5, **facts}
    return row


def make_run(*rows: Row, peers: tuple[str, ...] = ("gcc", "clang", "polly")) -> Run:
    settings = {"dataset": "MINI", "threads": 2, "fp": "strict", "peers": list(peers)}
    machine = {"cpu": "a processor", "logical_cores": 2}
    return Run(settings, machine, {"gcc": "gcc 12"}, "abc", "now", list(rows))


def test_geomean() -> None:
    assert table.geomean([2.0, 8.0]) == pytest.approx(4.0)
    assert table.geomean([0.5]) == pytest.approx(0.5)
    assert math.isnan(table.geomean([]))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12.3456, "12.35"),
        (123.456, "123.5"),
        (1234.5, "1234"),
        (0.0987654, "0.09877"),
        (0.00012347, "0.0001235"),
        (1.2345e-6, "1.234e-06"),
        (math.inf, "-"),
        (0.0, "-"),
    ],
)
def test_number(seconds: float, text: str) -> None:
    assert table.number(seconds) == text


def test_schedule_name() -> None:
    assert table.schedule_name(SCRIPT) == "Tile Parallelize"
    assert table.schedule_name("# nothing\n") == "original"


def test_schedule_name_of_an_order_is_not_taken_from_its_text() -> None:
    script = 'Order("""\n{\n  for i(S0: i)\n    S0\n}\n""")\nVectorize(i, 4)\n'
    assert table.schedule_name(script) == "Order Vectorize"


def test_the_fastest_is_starred_and_the_best_variant_counts() -> None:
    run = make_run(
        make_row("gemm", {"gcc": 1.0, "clang": 1.1, "polly:plain": 0.9, "polly:fixed": 0.3,
                          "perfkit": 0.2})
    )  # fmt: skip
    head, line = table.table(run)
    assert head.split()[:4] == ["kernel", "original", "s", "clang"]
    assert "0.2000*" in line and "0.3000 " in line and "0.9000" not in line
    assert "5.00x [5.00, 5.00]" in line and "1.50x" in line and "polly:fixed" in line
    assert line.endswith("Tile Parallelize")


def test_columns_line_up() -> None:
    run = make_run(
        make_row("a", {"gcc": 123.0, "perfkit": 1.0}), make_row("long-name", {"gcc": 1.0})
    )
    head, *lines = table.table(run)
    ends = head.index("original s") + len("original s")
    for line, text in zip(lines, ("123.0 ", "1.000*"), strict=True):
        assert line[:ends].endswith(text)


def test_wrong_failed_and_missing_have_their_words() -> None:
    row = make_row("gemm", {"gcc": 1.0, "clang": 1.0, "polly:plain": 0.5, "perfkit": 0.4})
    row.results["polly:plain"].wrong = True
    row.results["polly:plain"].difference = 0.5
    row.results["clang"].error = "ended by signal SIGSEGV"
    row.missing["pluto:gcc"] = "polycc was not found on PATH"
    run = make_run(row, peers=("gcc", "clang", "polly", "pluto"))
    line = table.table(run)[1]
    assert "wrong" in line and "failed" in line
    assert " - " in line
    said = "\n".join(table.statements(run))
    assert "polly:plain: wrong result: gemm (5.0e-01)" in said
    assert "clang: gemm: ended by signal SIGSEGV" in said
    assert "pluto:gcc: not measured: polycc was not found on PATH" in said
    # A wrong result is nobody's rival.
    assert table.Verdict.of(row).rival == "gcc"


def test_geomeans_compare_on_common_programs() -> None:
    run = make_run(
        make_row("a", {"gcc": 8.0, "polly:plain": 2.0, "perfkit": 1.0}),
        make_row("b", {"gcc": 2.0, "perfkit": 1.0}),
    )
    lines = {line.split()[0]: line.split() for line in table.geomeans(run)[1:]}
    assert lines["polly"] == ["polly", "4.00x", "1", "2.00x", "1"]
    assert lines["perfkit"][:3] == ["perfkit", "4.00x", "2"]
    assert lines["gcc"] == ["gcc", "1.00x", "2", "4.00x", "2"]
    # The best of everything but perfkit: polly on a, gcc on b.
    assert lines["best"] == ["best", "peer", "2.00x", "2", "2.00x", "2"]


def test_a_peer_ahead_is_named() -> None:
    run = make_run(
        make_row("ahead", {"gcc": 4.0, "polly:plain": 1.0, "perfkit": 2.0}),
        make_row("even", {"gcc": 4.0, "polly:plain": 1.98, "perfkit": 2.0}),
    )
    said = "\n".join(table.statements(run))
    assert "more than 5 % (1 of 2): ahead (polly:plain 2.00x faster)" in said


def test_not_slower_needs_enough_rounds() -> None:
    run = make_run(
        make_row("shown", {"gcc": 1.0, "perfkit": 1.0}),
        make_row("few", {"gcc": 1.0, "perfkit": 1.0}, rounds=6),
        make_row("slower", {"gcc": 1.0, "perfkit": 1.1}),
        make_row("kept", {"gcc": 1.0, "perfkit": 1.1}, schedule=""),
    )
    said = "\n".join(table.statements(run))
    assert "1 shown from at least 11 rounds, 1 kept as they were, 1 not shown, 1 slower" in said
    assert "not shown: few 1.00x [1.00, 1.00] from 6 rounds" in said
    assert "slower: slower 0.91x" in said


def test_time_to_optimize() -> None:
    seconds = {"gcc": 1.0, "perfkit": 1.0}
    run = make_run(make_row("a", seconds), make_row("b", seconds, optimize_seconds=2.5))
    said = "\n".join(table.statements(run))
    assert "time to optimize: median 1.5 s, longest 2.5 s (b)" in said


def test_bounds_are_left_out_when_there_are_too_few_pairs() -> None:
    row = make_row("a", {"gcc": 2.0, "perfkit": 1.0}, rounds=3)
    assert table.times(table.Verdict.of(row).speedup) == "2.00x"


def test_report_of_a_check_only_run() -> None:
    row = make_row("a", {"gcc": 1.0, "perfkit": 1.0}, rounds=0)
    text = table.report(make_run(row), every_candidate=True)
    assert "right" in text and "geomean" not in text


def test_report_of_nothing() -> None:
    assert "kernel" in table.report(make_run())


def test_plot(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    run = make_run(
        make_row("a", {"gcc": 8.0, "polly:plain": 2.0, "perfkit": 1.0}),
        make_row("b", {"gcc": 1.0, "polly:plain": 2.0}),
    )
    plot.draw(run, tmp_path / "new" / "speed.png")
    assert (tmp_path / "new" / "speed.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(plot.NothingToPlot, match="nothing was timed"):
        plot.draw(make_run(), tmp_path / "none.png")


def test_a_row_survives_the_file(tmp_path: Any) -> None:
    row = make_row("a", {"gcc": 8.0, "perfkit": 1.0})
    row.results["gcc"].difference = math.inf
    run = make_run(row)
    results.save(run, tmp_path / "run.json")
    again = results.load(tmp_path / "run.json")
    assert again.rows[0].results["gcc"].difference is None
    again.rows[0].results["gcc"].difference = math.inf
    assert again == run
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
