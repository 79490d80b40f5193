from __future__ import annotations

import threading
from pathlib import Path

import pytest

from perfkit import config
from perfkit.errors import SettingError


def test_defaults_without_environment() -> None:
    settings = config.Settings.from_env({})
    assert settings.cflags == "-O3 -march=native"
    assert settings.fp == "strict"
    assert settings.threads == config.available_cores()
    assert settings.logs == ()


def test_environment_is_parsed_by_type() -> None:
    settings = config.Settings.from_env(
        {
            "PERFKIT_CACHE_DIR": "/somewhere",
            "PERFKIT_THREADS": "3",
            "PERFKIT_LOGS": "search, build",
            "PERFKIT_CHECK": "yes",
            "PERFKIT_COMPILE_TIMEOUT": "1.5",
            "OTHER": "ignored",
        }
    )
    assert settings.cache_dir == Path("/somewhere")
    assert settings.threads == 3
    assert settings.logs == ("search", "build")
    assert settings.check is True
    assert settings.compile_timeout == 1.5


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("PERFKIT_THREADS", "0", "at least 1"),
        ("PERFKIT_THREADS", "many", "whole number"),
        ("PERFKIT_FP", "fast", "strict, reassociate"),
        ("PERFKIT_CHECK", "maybe", "1 or 0"),
        ("PERFKIT_LOCK_TIMEOUT", "-1", "greater than 0"),
        ("PERFKIT_CFLAGS", "-O3 '", "split into words"),
    ],
)
def test_bad_text_is_refused_with_the_variable(name: str, text: str, words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        config.Settings.from_env({name: text})
    assert name in str(caught.value)


def test_unknown_variable_warns_with_the_nearest_name() -> None:
    with pytest.warns(config.SettingWarning, match="did you mean PERFKIT_THREADS"):
        config.Settings.from_env({"PERFKIT_TREADS": "2"})


def test_build_variables_do_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    config.Settings.from_env({"PERFKIT_CUDA": "off"})
    assert not recwarn.list


def test_scope_replaces_and_restores() -> None:
    before = config.current()
    with config.scope(threads=1) as outer:
        assert config.current() is outer
        with config.scope(fp="reassociate"):
            assert (config.current().threads, config.current().fp) == (1, "reassociate")
        assert config.current().fp == "strict"
    assert config.current() == before


def test_scope_restores_after_an_error() -> None:
    with pytest.raises(RuntimeError), config.scope(threads=1):
        raise RuntimeError
    assert config.current().threads == config.available_cores()


def test_scope_refuses_unknown_names_and_bad_values() -> None:
    with pytest.raises(SettingError, match="did you mean threads"), config.scope(thread=1):
        pass
    with pytest.raises(SettingError, match="expected a whole number"), config.scope(threads=True):
        pass


def test_scope_is_not_seen_by_other_threads() -> None:
    seen: list[int] = []
    with config.scope(threads=999):
        other = threading.Thread(target=lambda: seen.append(config.current().threads))
        other.start()
        other.join()
    assert seen == [config.available_cores()]


def test_every_setting_is_described() -> None:
    rows = config.describe()
    assert {"PERFKIT_CACHE_DIR", "PERFKIT_CC", "PERFKIT_ISL_MAX_OPERATIONS"} <= {r[0] for r in rows}
    assert all(doc for _, _, doc in rows)
