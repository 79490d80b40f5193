"""The words behind ``--explain`` and ``Kernel.explain()``."""

from __future__ import annotations

from math import expm1

from perfkit.ir.tree import show
from perfkit.search.choose import Choice, Row


def explain_choice(choice: Choice) -> str:
    """The chosen script, the loops it leads to, the reasons, and the runners-up with their times.

    Times are predicted seconds with one deviation, and measured ones with the distance between the
    quartiles.
    """
    lines = [f"schedule: {choice.seed.name}"]
    steps = choice.script.strip()
    lines += ["script:", *(f"  {line}" for line in (steps or "(the original order)").splitlines())]
    lines += ["loops:", *(f"  {line}" for line in show(choice.seed.state.tree).splitlines())]
    moved = [r for r in choice.reasons if r[1] != r[2]]
    if moved:
        lines.append("why (the cost model's terms, original -> chosen):")
        moved.sort(key=lambda r: -abs(r[1] - r[2]))
        lines += [f"  {name:20} {_ms(before)} -> {_ms(after)}" for name, before, after in moved]
    if choice.report:
        lines.append("candidates:")
        for row in choice.report:
            mark = "*" if row.name == choice.seed.name else " "
            lines.append(f" {mark} {row.name:28} {_predicted(row)} {_measured(row)}".rstrip())
    return "\n".join(lines)


def _predicted(row: Row) -> str:
    if row.score is None:
        return f"{'':26}"
    return f"predicted {_ms(row.score.seconds)} (±{expm1(row.score.spread):.0%})"


def _measured(row: Row) -> str:
    if row.samples is not None and row.samples.seconds:
        return f"measured {_ms(row.samples.minimum)} (spread {row.samples.spread:.0%})"
    return row.note or (row.samples.error if row.samples else "not measured")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:10.3f} ms"


__all__ = ["explain_choice"]
