"""Choosing how a program is mapped to a GPU, and making the kernel.

Mappings come from :func:`perfkit.schedule.gpu_mapping.plans`, ordered by the time that
:mod:`perfkit.cost.gpu` estimates. The first one whose marks are proved legal and that Triton code
can express is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.analysis.reductions import recognise
from perfkit.codegen.triton import Part, generate_part
from perfkit.cost.analytic import assumed
from perfkit.cost.device import Gpu
from perfkit.cost.gpu import GpuEstimate, estimate_gpu
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir.tree import show
from perfkit.runtime.signature import Signature
from perfkit.runtime.triton_timing import Trial, interleaved
from perfkit.schedule import script
from perfkit.schedule.gpu_mapping import Plan, plans
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.search.gpu_refine import Guess, Ranking

HOPELESS = 10.0
"""How many times the best estimate a mapping's may be to be measured: nothing stops a kernel."""

SHOWN = 8
"""Candidates that an explanation lists."""


@dataclass(frozen=True)
class GpuChoice:
    """The chosen mapping, its code, and what else was considered, best first."""

    seed: Seed
    part: Part
    sizes: Mapping[str, int]
    estimate: GpuEstimate | None
    others: tuple[Guess, ...] = ()
    measured: tuple[tuple[str, float], ...] = ()  # name, best seconds

    @property
    def note(self) -> str:
        """What the order of floating-point sums forbids; "" where it forbids nothing."""
        scop = self.seed.state.original
        held = [
            s.name
            for s in scop.statements
            if recognise(scop, s, "reassociate") and not recognise(scop, s, self.seed.state.fp)
        ]
        if not held:
            return ""
        return (
            f'fp="strict" keeps the order of the sums in {", ".join(held)}; under '
            'fp="reassociate" they may use tl.dot, lanes and many programs'
        )

    def explain(self) -> str:
        """The script, the loops, the kernels and their predicted times, the other candidates."""
        steps = self.seed.script.strip() or "(the original order, one program)"
        lines = [f"schedule: {self.seed.name}", "script:"]
        lines += [f"  {line}" for line in steps.splitlines()]
        lines += [f"note: {self.note}"] if self.note else []
        lines += ["loops:", *(f"  {line}" for line in show(self.seed.state.tree).splitlines())]
        if self.estimate is not None:
            at = ", ".join(f"{n} = {v}" for n, v in self.sizes.items())
            lines.append(f"predicted, not measured{f', for {at}' if at else ''}:")
            for spec, cost in zip(self.part.kernels, self.estimate.launches, strict=True):
                lines.append(
                    f"  {spec.name}: {cost.count:.0f} x {cost.seconds * 1e6:.1f} us, "
                    f"{cost.programs:.0f} programs of {spec.warps} warps, bound by {cost.bound}"
                )
        if self.measured:
            lines.append("measured:")
            for name, seconds in self.measured:
                mark = "*" if name == self.seed.name else " "
                lines.append(f" {mark} {name:34} {seconds * 1e3:10.3f} ms")
        if self.others:
            lines.append("candidates:")
            for guess in self.others[:SHOWN]:
                mark = "*" if guess.plan.name == self.seed.name else " "
                lines.append(f" {mark} {guess.plan.name:34} {guess.seconds * 1e3:10.3f} ms")
        return "\n".join(lines)


def rank(
    found: list[Plan], analysis: Analysis, sizes: Mapping[str, int], gpu: Gpu
) -> list[Guess]:
    """The mappings, and what :mod:`perfkit.search.gpu_refine` makes of them, the best first."""
    ranking = Ranking(analysis, sizes, gpu)
    return ranking.refined(ranking.rank(found))


def choose_gpu(
    state: State,
    signature: Signature,
    analysis: Analysis,
    schedule: str = "auto",
    sizes: Mapping[str, int] | None = None,
    gpu: Gpu | None = None,
) -> GpuChoice:
    """A mapping and its code: "auto", "original" (no mapping, one program), or a script's text.

    ``sizes`` are the values of parameters that are known; others are guessed.

    Raises:
        ScheduleError: a given script does not fit, is not legal, or has no Triton form; or no
            candidate has.
        BudgetExceeded: isl used more operations than allowed.
    """
    sizes, gpu = sizes or {}, gpu or Gpu()
    if schedule == "auto":
        return candidates_gpu(state, signature, analysis, sizes, gpu)[0]
    steps = () if schedule == "original" else script.parse(schedule)
    name = "original" if schedule == "original" else "script"
    seed = Seed(name, steps, script.replay(state, steps, analysis))
    part = generate_part(seed.state, signature, analysis, seed.script)
    return GpuChoice(seed, part, sizes, _estimate(seed, analysis, sizes, gpu))


def candidates_gpu(
    state: State,
    signature: Signature,
    analysis: Analysis,
    sizes: Mapping[str, int],
    gpu: Gpu,
    count: int = 1,
) -> list[GpuChoice]:
    """The ``count`` best-looking mappings that are legal and have Triton code; one at least.

    Raises:
        ScheduleError: no mapping can be expressed.
        BudgetExceeded: isl used more operations than allowed.
    """
    guesses = tuple(rank(plans(state, analysis), analysis, sizes, gpu))
    found: list[GpuChoice] = []
    refusal: ScheduleError | None = None
    for guess in guesses:
        if len(found) == count or (found and guess.seconds > HOPELESS * guesses[0].seconds):
            break
        try:
            seed = guess.plan.seed()
            part = generate_part(seed.state, signature, analysis, seed.script)
        except ScheduleError as error:
            log.get("search").info("%s is left out: %s", guess.plan.name, error)
            refusal = refusal or error
        else:
            found.append(GpuChoice(seed, part, sizes, guess.estimate, guesses))
    if not found:
        assert refusal is not None, "there is always a mapping"
        raise refusal
    return found


def fastest(
    found: Sequence[GpuChoice], trial: Callable[[GpuChoice], Trial], rounds: int = 3
) -> GpuChoice:
    """Run the candidates in turn and keep the one whose best round is shortest."""
    times = interleaved([trial(choice) for choice in found], rounds)
    report = tuple((c.seed.name, min(t)) for c, t in zip(found, times, strict=True))
    best = min(range(len(found)), key=lambda k: report[k][1])
    return replace(found[best], measured=report)


def _estimate(
    seed: Seed, analysis: Analysis, sizes: Mapping[str, int], gpu: Gpu
) -> GpuEstimate | None:
    scop = seed.state.scop
    try:
        known = assumed(scop, sizes)
        return estimate_gpu(analysis.polyhedra(scop), scop, seed.state.tree, known, gpu)
    except (BudgetExceeded, ScheduleError):
        return None


__all__ = ["GpuChoice", "Guess", "candidates_gpu", "choose_gpu", "fastest", "rank"]
