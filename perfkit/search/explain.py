"""The words behind ``--explain`` and ``Kernel.explain()``."""

from __future__ import annotations

from perfkit.ir.tree import show
from perfkit.search.choose import Choice


def explain_choice(choice: Choice) -> str:
    """The chosen script, the loops it leads to, and the other candidates with their times."""
    lines = [f"schedule: {choice.seed.name}"]
    steps = choice.script.strip()
    lines += ["script:", *(f"  {line}" for line in (steps or "(the original order)").splitlines())]
    lines += ["loops:", *(f"  {line}" for line in show(choice.seed.state.tree).splitlines())]
    if choice.report:
        lines.append("candidates:")
        for row in choice.report:
            mark = "*" if row.name == choice.seed.name else " "
            if row.samples is not None and row.samples.seconds:
                timing = f"{row.samples.minimum * 1e3:10.3f} ms (spread {row.samples.spread:.0%})"
            else:
                timing = row.note or (row.samples.error if row.samples else "not measured")
            lines.append(f" {mark} {row.name:24} {timing}")
    return "\n".join(lines)


__all__ = ["explain_choice"]
