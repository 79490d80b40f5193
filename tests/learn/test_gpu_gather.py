"""Rows of Triton mappings: which are tried, at which sizes, and that a GPU is asked for."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.cli import main
from perfkit.cost.device import Gpu
from perfkit.learn.gpu_gather import LONGEST, enlarged, picked
from perfkit.learn.programs import Sample
from perfkit.learn.source import read
from perfkit.schedule.gpu_mapping import plans
from perfkit.schedule.state import State
from perfkit.search.gpu import rank
from tests.interpreted import run_interpreted

CASES = Path(__file__).with_name("gpu_cases.py")
STEPS = """\
def program(n, m, steps, A: "float64[n, m]", x: "float64[m]", y: "float64[n]"):
    for t in range(steps):
        for i in range(n):
            for j in range(m):
                y[i] += A[i, j] * x[j]
"""
MATVEC = """\
def program(n, m, A: "float64[n, m]", x: "float64[m]", y: "float64[n]"):
    for i in range(n):
        for j in range(m):
            y[i] += A[i, j] * x[j]
"""
SAMPLE = Sample(0, 3, "matvec", MATVEC, (("n", 5), ("m", 9)), "strict")


def test_rows_are_gathered_in_the_interpreter() -> None:
    run_interpreted(CASES)


def test_extents_grow_and_time_steps_stay() -> None:
    sample = Sample(0, 1, "matvec", STEPS, (("n", 5), ("m", 9), ("steps", 7)), "strict")
    larger = enlarged(sample, read(STEPS), 4)
    assert dict(larger.sizes) == {"n": 20, "m": 36, "steps": 7}


def test_the_best_looking_and_some_others_are_tried_but_nothing_endless() -> None:
    analysis = Analysis()
    state = State.start(read(MATVEC).scop, "reassociate")
    found = rank(plans(state, analysis), analysis, {"n": 4000, "m": 4000}, Gpu())
    chosen = picked(found, 5, Random(0))
    assert [kind for kind, _ in chosen] == ["seed", "seed", "random", "random", "random"]
    assert chosen[0][1] is found[0] and len({g.plan.name for _, g in chosen}) == 5
    huge = rank(plans(state, analysis), analysis, {"n": 10**6, "m": 10**6}, Gpu())
    assert not [g for _, g in picked(huge, 5, Random(0)) if g.seconds > LONGEST]


def test_a_machine_without_a_gpu_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.environ.get("TRITON_INTERPRET") or _has_gpu():
        pytest.skip("there is something to gather on")
    command = ["dataset", "build", "--target", "triton", "--out", str(tmp_path)]
    assert main(command) == 1
    assert "GPU" in capsys.readouterr().err
    assert main([*command, "--only", "prepare"]) == 1
    assert "--only is for --target cpu" in capsys.readouterr().err


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())
