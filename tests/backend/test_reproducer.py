"""The script that shows a failure again."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from perfkit.backend import program, reproducer  # noqa: E402
from perfkit.errors import CheckFailed, ScriptError  # noqa: E402
from perfkit.frontends import fx_graph  # noqa: E402
from tests.backend.harness import region_of  # noqa: E402


def spec_of(schedule: str) -> program.Spec:
    region = region_of(lambda x: torch.cumsum(torch.tanh(x), -1), torch.randn(4, 9))
    return program.Spec(fx_graph.dumps(region.graph), "reassociate", schedule, 1)


def test_it_compiles_the_region_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = spec_of("region")
    script = reproducer.write(spec, CheckFailed('says "so"\nand \\ more, even """ that'), tmp_path)
    assert script is not None
    assert fx_graph.loads(runpy.run_path(str(script))["GRAPH"]) == fx_graph.loads(spec.graph)
    assert not capsys.readouterr().out
    runpy.run_path(str(script), run_name="__main__")
    assert "agrees with torch" in capsys.readouterr().out


def test_it_fails_as_the_backend_did(tmp_path: Path) -> None:
    script = reproducer.write(spec_of("Nonsense(i)"), ScriptError("no such transform"), tmp_path)
    assert script is not None and "no such transform" in script.read_text()
    with pytest.raises(ScriptError):
        runpy.run_path(str(script), run_name="__main__")


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert reproducer.write(spec_of("region"), CheckFailed("so"), blocked) is None
