from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from perfkit import config, log
from perfkit.errors import SettingError


@pytest.fixture(autouse=True)
def restore_loggers() -> Iterator[None]:
    names = ["perfkit", "perfkit.alpha", "perfkit.beta"]
    before = [(logging.getLogger(n), logging.getLogger(n).level) for n in names]
    handlers = list(logging.getLogger("perfkit").handlers)
    yield
    for logger, level in before:
        logger.setLevel(level)
    logging.getLogger("perfkit").handlers[:] = handlers


def test_topics_named_in_the_settings_show(capsys: pytest.CaptureFixture[str]) -> None:
    with config.scope(logs=("alpha",)):
        log.get("alpha").debug("first")
        log.get("alpha").debug("second")
        log.get("beta").debug("hidden")
    captured = capsys.readouterr()
    assert captured.err == "perfkit.alpha: first\nperfkit.alpha: second\n"
    assert captured.out == ""


def test_a_topic_may_name_its_level(capsys: pytest.CaptureFixture[str]) -> None:
    with config.scope(logs=("alpha=info",)):
        log.get("alpha").debug("hidden")
        log.get("alpha").info("shown")
    assert capsys.readouterr().err == "perfkit.alpha: shown\n"


def test_unknown_level_is_refused() -> None:
    with (
        config.scope(logs=("alpha=loud",)),
        pytest.raises(SettingError, match="unknown level 'loud'"),
    ):
        log.get("alpha")


def test_progress_is_plain_lines_when_not_a_terminal() -> None:
    stream = io.StringIO()
    assert list(log.progress(range(20), label="run", stream=stream)) == list(range(20))
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "run: 20/20"
    assert len(lines) <= 11


def test_progress_without_a_known_total() -> None:
    stream = io.StringIO()
    assert list(log.progress(iter("abc"), stream=stream)) == ["a", "b", "c"]
    assert stream.getvalue().splitlines()[0] == "done: 1"


def test_progress_passes_errors_on() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        list(log.progress(broken(), stream=io.StringIO()))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "find_spec", lambda name: None)
    stream = Terminal()
    assert list(log.progress([1, 2, 3], label="run", stream=stream)) == [1, 2, 3]
    assert stream.getvalue() == "\rrun: 1/3\rrun: 2/3\rrun: 3/3\n"


def test_progress_on_a_terminal_with_rich() -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    assert list(log.progress(iter([1, 2, 3]), total=3, label="run", stream=stream)) == [1, 2, 3]
    assert "run" in stream.getvalue()
