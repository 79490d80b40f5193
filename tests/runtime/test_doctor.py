from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from perfkit import config
from perfkit.runtime import doctor


def by_topic(report: doctor.Report) -> dict[str, doctor.Finding]:
    return {finding.topic: finding for finding in report.findings}


def test_a_working_machine_is_usable(settings: config.Settings) -> None:
    report = doctor.inspect(settings=settings)
    findings = by_topic(report)
    assert report.usable
    assert findings["compiler"].status == "ok"
    assert findings["numpy"].status == "ok"
    assert "perfkit can optimize for this CPU" in report.text()


def test_full_runs_a_program(settings: config.Settings) -> None:
    finding = by_topic(doctor.inspect(full=True, settings=settings))["openmp"]
    assert "test program ran" in finding.detail


def test_no_compiler_is_a_problem_with_a_remedy(settings: config.Settings) -> None:
    report = doctor.inspect(settings=replace(settings, cc="no-such-compiler"))
    finding = by_topic(report)["compiler"]
    assert finding.status == "problem"
    assert "apt install gcc" in finding.remedy
    assert not report.usable
    assert "!!  compiler" in report.text()


def test_a_broken_compiler_shows_in_the_full_report(
    settings: config.Settings, tmp_path: Path
) -> None:
    broken = tmp_path / "cc"
    broken.write_text(
        '#!/bin/sh\ncase "$1" in -print*) echo /lib/libgomp.so;; -std*) exit 1;; esac\n'
    )
    broken.chmod(0o755)
    report = doctor.inspect(full=True, settings=replace(settings, cc=str(broken)))
    assert by_topic(report)["openmp"].status == "problem"
    assert not report.usable


def test_missing_optional_things_do_not_matter(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        if name in ("torch", "rich"):
            raise doctor.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor.metadata, "version", absent)
    report = doctor.inspect(settings=settings)
    finding = by_topic(report)["torch"]
    assert (finding.status, finding.remedy) == ("missing", "pip install 'perfkit[torch]'")
    assert report.usable


def test_a_missing_core_dependency_is_a_problem(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", absent)
    report = doctor.inspect(settings=settings)
    assert by_topic(report)["islpy"].status == "problem"
    assert not report.usable


def test_a_cache_folder_that_is_a_file(settings: config.Settings, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    finding = by_topic(doctor.inspect(settings=replace(settings, cache_dir=path / "cache")))[
        "cache"
    ]
    assert finding.status == "missing"
    assert "PERFKIT_CACHE_DIR" in finding.remedy
