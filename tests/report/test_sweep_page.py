"""A sweep's page: every point in words, what failed with its reason, and nothing of it taken for HTML."""

from __future__ import annotations

import re

from sweep.swept_cases import MACHINE, swept, trial

from optimize.manifest import Latency
from optimize.report.html.sweep import render_sweep, staircase
from optimize.sweep.front import with_front


def page_of(*trials, **others):
    return render_sweep(swept(*with_front(trials), **others))


def test_points_stand_in_the_picture_and_in_the_table():
    page = page_of(trial("a", drop=0.0, speed=2.0), trial("b", drop=0.005, speed=4.0, run="r", verdict="passed"))
    assert "b: 4.00 times as fast as FP32 at 1x128" in page  # of the mark
    assert page.count("<svg") == 2  # a narrow and a wide one
    assert "chosen, certified: passed (on the front)" in page
    assert '<a href="runs/r/report.html">passed</a>' in page


def test_limits_that_are_not_met_are_told_apart():
    page = page_of(trial("a"), trial("far", drop=0.05))
    assert "Limits that are not met on tuning data: 1 rows" in page
    assert "0.05 exceeds the limit" in page


def test_speeds_of_a_busy_machine_are_called_not_reliable():
    busy = trial("busy")
    timed = Latency(
        shape="1x128", p50_ms=1.0, p90_ms=None, p99_ms=None, runs=20, speedup={}, unreliable="the machine was busy"
    )
    busy = busy.model_copy(update={"tuning": busy.tuning.model_copy(update={"latency": [timed]})})
    page = page_of(busy, trial("quiet", speed=3.0))
    assert "busy: 2.00 times as fast as FP32 at 1x128, which is not reliable" in page
    assert '<td class="number">2.00×, not reliable</td>' in page
    assert "quiet: 3.00 times as fast as FP32 at 1x128, 0.500 of its size, loses nothing of the metric" in page


def test_what_was_not_measured_has_its_reason():
    page = page_of(trial("a"), trial("bad", outcome="failed", tuning=None, speedup=None, reason="<b>no</b>"))
    assert "2 points: 1 measured, 1 failed" in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert "<b>no</b>" not in page


def test_unlike_machines_have_pictures_of_their_own():
    there = MACHINE.model_copy(update={"cpu": "Another CPU"})
    page = page_of(trial("a"), trial("b", environment="there"), environments={"here": MACHINE, "there": there})
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    assert "m on cpu, CPU, 2 cores" in titles
    assert "m on cpu, Another CPU, 2 cores" in titles


def test_points_that_were_not_timed_are_in_the_table_alone():
    page = page_of(trial("a", speed=None))
    assert "<svg" not in page
    assert "a" in page


def test_the_line_joins_what_no_other_beats_in_drop_and_speed():
    values = [{"speed": speed, "drop": drop} for speed, drop in ((1.0, 0.0), (2.0, 0.01), (2.0, 0.02), (3.0, 0.03))]
    values.append({"speed": 1.5, "drop": 0.02})
    assert [each["speed"] for each in staircase(values)] == [3.0, 2.0, 1.0]
