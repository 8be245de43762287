from __future__ import annotations

import contextlib
import importlib
import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rich.progress
from doubles import Heard
from report.conftest import REVERTED, SENSITIVITY, document, make_manifest, stages_with
from rich.console import Console

from optimize.cli import progress as shown_progress
from optimize.cli import tables
from optimize.heads import HEADS
from optimize.measure.calibration_memory import Row
from optimize.stages import STAGES
from optimize.targets import TARGETS


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


@pytest.mark.parametrize("outcome", ["passed", "failed", "unverified"])
def test_a_shown_run_ends_with_its_verdict_and_where_it_lies(outcome, capsys):
    manifest = make_manifest(verdict={"outcome": outcome, "checks": document()["verdict"]["checks"]})

    tables.show_run(Path("reports/runs/some-run"), manifest)

    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"{outcome}  reports/runs/some-run/report.md"
    assert "min_speedup: speed-up 3.00x" in out
    assert "stages: export (cached), quantize_dynamic" in out


def test_a_shown_run_that_was_only_built_is_unverified(capsys):
    manifest = make_manifest(measurements=[], verdict={"outcome": "unverified", "checks": []})

    tables.show_run(Path("run"), manifest)

    assert capsys.readouterr().out.splitlines()[-1] == "unverified  run/report.md"


def test_brackets_in_names_and_headers_are_shown_as_they_are(capsys):
    request = {**document()["request"], "model": "/models/[red]mine"}

    tables.show_run(Path("runs [bold]/x"), make_manifest(request=request))

    out = capsys.readouterr().out
    assert "text-classification on cpu, /models/[red]mine" in out
    assert "drop [interval]" in out
    assert "passed  runs [bold]/x/report.md" in out


def test_the_overview_has_each_runs_verdict(capsys):
    failed = make_manifest(verdict={"outcome": "failed", "checks": []})

    tables.show_overview([make_manifest(), failed])

    lines = [line for line in capsys.readouterr().out.splitlines() if "someone/distilbert-sst2" in line]
    assert ["passed" in line for line in lines] == [True, False]
    assert ["failed" in line for line in lines] == [False, True]


def test_a_bench_says_that_accuracy_means_nothing(capsys):
    tables.show_bench(make_manifest().measurements)

    out = capsys.readouterr().out
    assert "10.00 (3.00× / 2.50×)" in out
    assert out.splitlines()[-1].endswith("accuracy means nothing here and is not measured")


def test_a_bench_shows_what_calibrators_took_or_why_it_was_not_measured(capsys):
    measured, failed = Row("streaming", 64, 880_000_000, 9.5), Row("onnxruntime", 512, None, None, "needed more")

    tables.show_bench(make_manifest().measurements, [measured, failed])

    lines = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert "streaming 64 0.88 9.5" in lines
    assert "onnxruntime 512 – – needed more" in lines


def test_a_shown_run_counts_its_stages_tables(capsys):
    tables.show_run(Path("run"), make_manifest(stages=stages_with(sensitivity=SENSITIVITY, reverted=REVERTED)))

    out = capsys.readouterr().out
    assert "  quantize_dynamic: 26 groups measured alone, 1 group left in float\n" in out
    assert "word_embeddings" not in out


def test_the_tables_name_every_target_head_and_stage(capsys):
    tables.show_tables()

    out = capsys.readouterr().out
    assert [name for name in (*TARGETS, *HEADS, *STAGES, "cpu-fused") if name not in out] == []


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
    sign(shown_progress.HeedingProgress(passed))
    assert passed.all == direct.all != []
