"""How far long work is, as it is shown; and that no Ctrl-C is lost meanwhile."""

from __future__ import annotations

import contextlib
import importlib
import io
import signal
import sys
from collections.abc import Callable

import pytest
import rich.progress
from doubles import Heard
from rich.console import Console

from optimize.cli import progress as shown_progress
from optimize.cli import verbosity
from optimize.cli.signals import Heed
from optimize.interfaces import Silence


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock."""

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr(shown_progress.time, "monotonic", lambda: seconds)

    return set_clock


@pytest.fixture
def bars() -> rich.progress.Progress:
    return rich.progress.Progress(console=Console(file=io.StringIO(), width=80))


def test_plain_progress_prints_at_most_every_ten_seconds(at, capsys):
    progress = shown_progress.PlainProgress()

    for second in range(31):
        at(1000.0 + second)
        progress.step("evaluate", second, 100)

    lines = [f"  evaluate: {done} of 100, {100 - done} s left" for done in (10, 20, 30)]
    assert capsys.readouterr().err.splitlines() == lines


def test_plain_progress_keeps_a_clock_for_each_kind_of_work(at, capsys):
    progress = shown_progress.PlainProgress()
    for second, name in [(0, "one"), (6, "two"), (10, "one"), (11, "two"), (16, "two")]:
        at(second)
        progress.step(name, second, 100)

    assert capsys.readouterr().err.splitlines() == ["  one: 10 of 100, 90 s left", "  two: 16 of 100, 84 s left"]


def test_plain_progress_begins_anew_when_the_work_does(at, capsys):
    progress = shown_progress.PlainProgress()
    for second, done in [(0, 0), (5, 100), (12, 1), (21, 2), (22, 3)]:
        at(second)
        progress.step("train", done, 100)

    assert capsys.readouterr().err.splitlines() == ["  train: 3 of 100, 8 min left"]


@pytest.mark.parametrize(("total", "left"), [(31, "1 s"), (1230, "20 min"), (11_880, "3.3 h")])
def test_plain_progress_says_the_time_left_in_a_fitting_unit(total, left, at, capsys):
    progress = shown_progress.PlainProgress()
    for second, done in [(0, 20), (10, 30)]:
        at(second)
        progress.step("train", done, total)

    assert capsys.readouterr().err == f"  train: 30 of {total}, {left} left\n"


def test_plain_progress_that_stands_still_says_no_time(at, capsys):
    progress = shown_progress.PlainProgress()
    for second in (0, 10):
        at(second)
        progress.step("train", 5, 100)

    assert capsys.readouterr().err == "  train: 5 of 100\n"


def test_plain_progress_says_lines_on_stderr(capsys):
    shown_progress.PlainProgress().say("stage export: 1.0 s")

    assert tuple(capsys.readouterr()) == ("", "stage export: 1.0 s\n")


def test_a_finished_bar_is_removed(bars):
    progress = shown_progress.BarProgress(bars)

    progress.step("train", 1, 2)
    assert [(task.description, task.completed) for task in bars.tasks] == [("train", 1)]
    progress.step("train", 2, 2)

    assert bars.tasks == []


def test_a_bar_begins_again_when_the_work_does(bars):
    progress = shown_progress.BarProgress(bars)
    for done, total in [(2, 2), (1, 3), (2, 3)]:
        progress.step("evaluate", done, total)

    assert [(task.completed, task.total) for task in bars.tasks] == [(2, 3)]


def test_what_a_bar_says_is_not_read_as_markup(bars):
    shown_progress.BarProgress(bars).say("data: /data/[red]folder")

    assert bars.console.file.getvalue() == "data: /data/[red]folder\n"


def test_progress_is_plain_where_stderr_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)

    with shown_progress.bars_or_lines() as shown:
        assert isinstance(shown, shown_progress.PlainProgress)


def test_progress_has_bars_where_stderr_is_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    with shown_progress.bars_or_lines() as shown:
        assert isinstance(shown, shown_progress.BarProgress)


def test_ctrl_c_that_a_library_swallows_ends_the_work_at_the_next_sign_of_progress(capsys):
    def work():
        with shown_progress.progress() as progress:
            progress.say("first")
            with contextlib.suppress(BaseException):
                signal.getsignal(signal.SIGINT)(signal.SIGINT, None)
            progress.say("second")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert capsys.readouterr().err == "first\n"
    assert signal.getsignal(signal.SIGINT) is before


PRESSED = """import signal, sys
signal.getsignal(signal.SIGINT)(signal.SIGINT, sys._getframe())
"""


def test_ctrl_c_during_an_import_waits_for_the_next_sign_of_progress(capsys, monkeypatch, tmp_path):
    def work():
        with shown_progress.progress() as progress:
            importlib.import_module("pressed")
            progress.say("imported")

    (tmp_path / "pressed.py").write_text(PRESSED, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert capsys.readouterr().err == ""
    assert sys.modules.pop("pressed")


def test_a_second_ctrl_c_does_not_wait(monkeypatch, tmp_path):
    def work():
        with shown_progress.progress():
            importlib.import_module("pressed_twice")

    (tmp_path / "pressed_twice.py").write_text(2 * PRESSED, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        work()


@pytest.mark.parametrize("sign", [lambda each: each.say("a line"), lambda each: each.step("work", 1, 2)])
def test_without_ctrl_c_every_sign_of_progress_is_passed_on(sign):
    direct, passed = Heard(), Heard()
    sign(direct)
    sign(shown_progress.HeedingProgress(passed, Heed()))
    assert passed.all == direct.all != []


def test_quiet_progress_is_silence():
    verbosity.be_quiet(True)
    try:
        with shown_progress.bars_or_lines() as shown:
            assert isinstance(shown, Silence)
    finally:
        verbosity.be_usual()
