"""The log of events: a line each, whole, whatever a process left before."""

import datetime
import json
import math

import pytest

from optimize.files.events import Events


@pytest.fixture
def events(tmp_path):
    return Events(tmp_path / "events.jsonl")


def lines(events):
    return [json.loads(line) for line in events.path.read_text(encoding="utf-8").splitlines()]


def test_an_event_is_a_line_of_json_with_its_time(events):
    events.write("begun", trial=3, parameters={"rate": 1e-5}, why="ä")

    (line,) = lines(events)
    assert datetime.datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {"event": "begun", "trial": 3, "parameters": {"rate": 1e-5}, "why": "ä"}


def test_events_come_behind_those_of_earlier_processes(events):
    events.write("first")
    Events(events.path).write("second")

    assert [line["event"] for line in lines(events)] == ["first", "second"]


def test_a_line_that_was_torn_off_spoils_no_other(events):
    events.path.write_bytes(b'{"event": "to')
    events.write("whole")

    *_, last = events.path.read_text(encoding="utf-8").splitlines()
    assert json.loads(last)["event"] == "whole"


def test_numbers_that_are_none_are_null_and_other_things_are_words(events):
    events.write("measured", loss=math.nan, values=[1.0, math.inf], where=events.path)

    (line,) = lines(events)
    assert (line["loss"], line["values"], line["where"]) == (None, [1.0, None], str(events.path))
