"""`optimize sweep` and `optimize pick`: what they print, and how they end."""

from __future__ import annotations

import json
import re

import pytest
import typer
from sweep.swept_cases import swept, trial

from optimize import swept as records
from optimize.cli.sweeping import _end

MATRIX = "models: [{model: demo, head: text-classification}]\npipelines: [cpu-static, cpu-dynamic]\n"


@pytest.mark.parametrize(
    ("trials", "finished", "allowed", "code"),
    [
        ([trial("a", run="r", verdict="passed"), trial("b")], True, False, 0),
        ([trial("a", run="r", verdict="failed")], True, False, 1),
        ([trial("a", run="r", verdict="unverified"), trial("b", run="s", verdict="passed")], True, False, 4),
        ([trial("a", run="r", verdict="passed"), trial("b", outcome="failed", tuning=None)], True, False, 3),
        ([trial("a", run="r", verdict="passed"), trial("b", outcome="failed", tuning=None)], True, True, 0),
        ([trial("a", run="r", verdict="failed"), trial("b", outcome="failed", tuning=None)], True, True, 1),
        ([trial("a", run="r", verdict="passed"), trial("b", outcome="left out", tuning=None)], False, False, 4),
        ([trial("a", outcome="failed", tuning=None)], True, True, 4),
    ],
)
def test_the_exit_code_is_the_worst_of_what_came_out(trials, finished, allowed, code):
    with pytest.raises(typer.Exit) as stopped:
        _end(swept(*trials, finished=finished), allowed)
    assert stopped.value.exit_code == code


def test_a_plan_shows_the_points_and_does_nothing(optimize, tmp_path, capsys):
    (tmp_path / "many.yaml").write_text(MATRIX)
    assert optimize("sweep", str(tmp_path / "many.yaml"), "--plan", "--json", "--out", str(tmp_path / "out")) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [each["pipeline"] for each in points] == ["cpu-static", "cpu-dynamic"]
    assert [each["refused"] for each in points] == [None, None]
    assert optimize("sweep", str(tmp_path / "many.yaml"), "--plan") == 0
    assert "2 points, 0 of them cannot be carried out" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--on", "moon"],
            "--on: 'moon' is no place to work; write ray, ray:auto or ray:HOST:PORT, or ray://HOST:PORT",
        ),
        (["--on", "ray:moon"], "--on: 'ray:moon' names no address; write ray"),
        (["--jobs", "0"], "--jobs: 0 is too few; give 1 or more"),
    ],
)
def test_a_place_that_is_none_is_refused(optimize, tmp_path, capsys, words, said):
    (tmp_path / "many.yaml").write_text(MATRIX)
    assert optimize("sweep", str(tmp_path / "many.yaml"), "--out", str(tmp_path / "out"), *words) == 2
    assert said in capsys.readouterr().err


def test_pick_names_the_point_in_words(optimize, tmp_path, capsys):
    fast = trial("fast", drop=0.004, speed=4.0, size=0.2, run="r", verdict="passed")
    records.write(swept(fast, trial("slow", speed=1.5)), tmp_path)
    assert optimize("pick", str(tmp_path), "--max-drop", "1%") == 0
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "m on cpu: fast: 4.00 times as fast as FP32 at 1x128, 0.200 of its size, loses 0.40% of the metric" in out
    assert f"optimize publish {tmp_path}/runs/r" in out


def test_pick_refuses_where_nothing_is_as_wanted(optimize, tmp_path, capsys):
    records.write(swept(trial("fast", drop=0.02)), tmp_path)
    assert optimize("pick", str(tmp_path), "--max-drop", "1%") == 2
    assert "no point is as wanted; the nearest, fast, loses 2.00%" in capsys.readouterr().err
    assert optimize("pick", str(tmp_path), "--prefer", "speed") == 2
    assert "--prefer: unknown name 'speed'" in capsys.readouterr().err
