from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

import perfkit
from perfkit import cli
from perfkit.errors import PerfkitError

HEAVY = {"torch", "islpy", "numpy", "triton", "cupy", "rich", "numba", "matplotlib", "pycparser"}


def loaded_by(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after running some code."""
    code += "\nimport sys; sys.stderr.write('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return HEAVY & set(done.stderr.splitlines()[-1].split())


def test_importing_perfkit_loads_nothing_heavy() -> None:
    assert loaded_by("import perfkit; perfkit.__version__; dir(perfkit)") == set()


@pytest.mark.parametrize("words", [["--help"], ["doctor"], ["cache", "ls"], ["--version"]])
def test_quick_commands_load_nothing_heavy(words: list[str]) -> None:
    code = f"""
from perfkit.cli import main
try:
    main({words!r})
except SystemExit:
    pass"""
    assert loaded_by(code) == set()


def test_the_package_is_the_command() -> None:
    command = [sys.executable, "-m", "perfkit", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert perfkit.__version__ in done.stdout


def test_unknown_attribute_of_the_package() -> None:
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        perfkit.optimise  # noqa: B018
    assert "optimize" in dir(perfkit)


def test_doctor_prints_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "compiler" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is True
    assert {"topic", "status", "detail", "remedy"} == set(report["findings"][0])


def test_doctor_fails_without_a_compiler(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERFKIT_CC", "no-such-compiler")
    assert cli.main(["doctor"]) == 1
    assert "apt install gcc" in capsys.readouterr().out


def test_cache_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PERFKIT_CACHE_DIR", str(tmp_path / "cache"))
    assert cli.main(["cache", "path"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cache'}\n"
    assert cli.main(["cache", "ls"]) == 0
    assert capsys.readouterr().out.startswith("0 in ")
    assert cli.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("removed 0 entries")


@pytest.mark.parametrize("words", [[], ["cache"], ["no-such-command"], ["doctor", "--no-such"]])
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2


def test_bad_settings_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERFKIT_THREADS", "none")
    assert cli.main(["cache", "ls"]) == 1
    error = capsys.readouterr().err
    assert error == "perfkit: PERFKIT_THREADS='none': expected a whole number\n"


def test_commands_in_modules_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a module is imported for its own command only; its errors become one line."""
    imported: list[str] = []

    def run(args: Mapping[str, object]) -> int:
        raise PerfkitError("wrong, there, do this")

    def load(name: str) -> object:
        imported.append(name)
        return SimpleNamespace(add_arguments=lambda parser: parser.add_argument("file"), run=run)

    monkeypatch.setattr(cli, "import_module", load)
    assert cli.main(["optimize", "gemm.c"]) == 1
    assert imported == ["perfkit.cli_optimize"]
    assert capsys.readouterr().err == "perfkit: wrong, there, do this\n"
    cli.build_parser("doctor")
    assert imported == ["perfkit.cli_optimize"]


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m perfkit.cli doctor | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
