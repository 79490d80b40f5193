"""Every execution of the flag machine under a weak memory model, on the real Endpoint."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.protocol import native

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler")

# What check.cpp weakens; 0 is the protocol as it is.
PLANTS = {
    1: "flag stored without release",
    2: "flag loaded without acquire",
    3: "ack stored without release",
    4: "ack loaded without acquire",
    5: "no wait for the ack",
    6: "ack before the data are read",
    7: "flag before the data are written",
}


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native.build(tmp_path_factory.mktemp("model"), "check.cpp", "-O2")


def run(check: Path, scenario: str, plant: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(check), scenario, str(plant)], capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    "scenario", ["push", "pull", "push one way", "pull one way", "three", "killed"]
)
def test_every_execution_is_right(check: Path, scenario: str) -> None:
    done = run(check, scenario, 0)
    assert done.returncode == 0, done.stdout
    states = int(done.stdout.rpartition("(")[2].split()[0])
    assert states > 1000, "the check looked at next to nothing"


@pytest.mark.parametrize("scenario", ["push one way", "pull one way"])
@pytest.mark.parametrize("plant", PLANTS, ids=PLANTS.get)
def test_a_planted_fault_is_found(check: Path, scenario: str, plant: int) -> None:
    done = run(check, scenario, plant)
    assert done.returncode == 1, done.stdout
    assert PLANTS[plant] in done.stdout
    assert "race" in done.stdout or "another operation" in done.stdout


def test_unknown_scenarios_and_plants_are_refused(check: Path) -> None:
    assert run(check, "sideways", 0).returncode == 2
    assert run(check, "push", 99).returncode == 2
