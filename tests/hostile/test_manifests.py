"""Manifests that no run wrote: one line and exit code 2, whatever is wrong with them and whoever reads them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile.cases import Change
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report.conftest import document

from optimize import manifest
from optimize.artifact import Artifact
from optimize.certifying import pipeline_of
from optimize.errors import OptimizeError
from optimize.finished import as_stated, judge_again, read_run
from optimize.manifest import Manifest, dump
from optimize.report.card import render_card
from optimize.report.page import render

FILE = "manifest.json"


def valid() -> dict[str, Any]:
    """The content of a manifest that all commands read."""
    return json.loads(dump(Manifest.model_validate(document())))


def at(content: Any, place: str) -> tuple[Any, Any]:
    """The record or list that holds a place, and the key there."""
    *way, last = [int(key) if key.lstrip("-").isdigit() else key for key in place.split(".")]
    for key in way:
        content = content[key]
    return content, last


def say(place: str, value: object) -> Change:
    """A manifest with another value at a place."""

    def change(run: Path) -> None:
        content = valid()
        record, key = at(content, place)
        record[key] = value
        (run / FILE).write_text(json.dumps(content), encoding="utf-8")

    return change


def leave_out(place: str) -> Change:
    def change(run: Path) -> None:
        content = valid()
        record, key = at(content, place)
        del record[key]
        (run / FILE).write_text(json.dumps(content), encoding="utf-8")

    return change


def hold(content: bytes) -> Change:
    return lambda run: (run / FILE).write_bytes(content)


def token(word: str) -> Change:
    """A manifest with a word that is not JSON's in the place of a number."""
    text = json.dumps(valid() | {"id": 12345678.25})
    return hold(text.replace("12345678.25", word).encode())


def grow(run: Path) -> None:
    """A file that is long, and takes no place on the disk."""
    (run / FILE).write_bytes(b"{")
    os.truncate(run / FILE, 2**40)


DEEP = 100_000
LAST = "measurements.-1"
BROKEN: dict[str, tuple[Change, str]] = {
    "no manifest": (lambda run: None, "no readable manifest.json"),
    "a folder": (lambda run: (run / FILE).mkdir(), "no readable manifest.json (not a file)"),
    "a pipe": (lambda run: os.mkfifo(run / FILE), "no readable manifest.json (not a file)"),
    "a device": (lambda run: (run / FILE).symlink_to("/dev/zero"), "no readable manifest.json (not a file)"),
    "a link to nowhere": (lambda run: (run / FILE).symlink_to("nowhere"), "no readable manifest.json"),
    "a link to itself": (lambda run: (run / FILE).symlink_to(FILE), "no readable manifest.json"),
    "no folder": (shutil.rmtree, "no readable manifest.json"),
    "a file as run": (lambda run: [shutil.rmtree(run), run.write_bytes(b"")], "no readable manifest.json"),
    "a terabyte": (grow, "at most 16,777,216 are read"),
    "nothing": (hold(b""), "not a manifest"),
    "zeros": (hold(bytes(99)), "not a manifest"),
    "no UTF-8": (hold(b'{"schema": "\xff"}'), "not a manifest"),
    "UTF-16": (hold(json.dumps(valid()).encode("utf-16")), "not a manifest"),
    "half a surrogate": (hold(b'{"id": "\\ud800"}'), "not a manifest"),
    "half of it": (hold(json.dumps(valid()).encode()[:1000]), "not a manifest"),
    "more than it": (hold(json.dumps(valid()).encode() + b"}"), "not a manifest"),
    "a list": (hold(b"[]"), "not a manifest"),
    "a word": (hold(b'"run"'), "not a manifest"),
    "null": (hold(b"null"), "not a manifest"),
    "a number": (hold(b"1"), "not a manifest"),
    "an empty record": (hold(b"{}"), "not a manifest"),
    "deep lists": (hold(b"[" * DEEP + b"]" * DEEP), "recursion limit"),
    "deep records": (hold(b'{"a":' * DEEP + b"1" + b"}" * DEEP), "recursion limit"),
    "deep facts": (token("[" * DEEP + "]" * DEEP), "recursion limit"),
    "a number of many digits": (token("9" * 9999), "not a manifest"),
    "NaN": (token("NaN"), "not a manifest"),
    "infinity": (token("-Infinity"), "not a manifest"),
    "beyond floats": (token("1e999"), "a number that is too large"),
    "beyond integers": (say(f"{LAST}.size.bytes", 10**30), "a number that is too large"),
    "a schema to come": (say("schema", 3), "(at 'schema'"),
    "a schema in words": (say("schema", "2"), "(at 'schema'"),
    "no stages": (say("stages", []), "(at 'stages'"),
    "no data": (say("data", {}), "data has no split 'certification'"),
    "no certification data": (leave_out("data.certification"), "data has no split 'certification'"),
    "no request": (leave_out("request"), "(at 'request'"),
    "no verdict": (leave_out("verdict"), "(at 'verdict'"),
    "no measurements at all": (leave_out("measurements"), "(at 'measurements'"),
    "no source": (leave_out("source"), "(at 'source'"),
    "an unknown head": (say("request.head", "poetry"), "head: unknown name 'poetry'"),
    "an unknown target": (say("request.target", "abacus"), "target: unknown name 'abacus'"),
    "an unknown stage": (say("stages.-1.stage", "polish"), "stages: unknown name 'polish'"),
    "a stage without a name": (say("stages.-1.stage", ""), "stages: unknown name ''"),
    "an unknown kind": (say("stages.-1.artifact.kind", "jax"), "(at 'stages.1.artifact.kind'"),
    "a kind that the target does not run": (say("stages.-1.artifact.kind", "torch"), "its stages end in torch"),
    "an unknown outcome": (say("verdict.outcome", "fine"), "(at 'verdict.outcome'"),
    "a field that nobody knows": (say("surprise", 1), "(at 'surprise'"),
    "words for a number": (say(f"{LAST}.size.ratio", "small"), "(at 'measurements"),
    "a record for a list": (say("stages", {}), "(at 'stages'"),
    "a list for a record": (say("request", []), "(at 'request'"),
    "null for a list": (say("measurements", None), "(at 'measurements'"),
    "a number for a name": (say("request.head", 7), "(at 'request.head'"),
    "a confidence of all": (say(f"{LAST}.metric.confidence", 1.0), "metric.confidence'"),
    "three ends of an interval": (say(f"{LAST}.metric.interval", [0, 0, 0]), "metric.interval"),
    "a stage as a word": (say("stages", ["export"]), "(at 'stages.0'"),
}
"""What is written in place of a manifest, and what each command that reads one says."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("change", "says"), BROKEN.values(), ids=BROKEN)
def test_what_no_run_wrote_is_refused_by_whoever_reads_it(change, says, run, tmp_path, refuse):
    change(run)
    before = sorted(tmp_path.rglob("*"))

    for words in (("report", str(run)), ("certify", str(run)), ("publish", str(run), str(tmp_path / "out"))):
        assert says in refuse(*words)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_manifest_of_one_that_was_only_built_is_read(run):
    say("measurements", [])(run)

    assert read_run(run).measurements == []


def places(content: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where all values of a document are."""
    if way:
        yield way
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from places(content[key], (*way, key))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["", "pytorch-fp32", "1x16", "cpu", "yes", "\x00", "$x$", "é\u2028"]),
    st.just([]),
    st.just({}),
    st.just([{}]),
    st.just({"a": [None]}),
)


@given(changes=st.lists(st.tuples(st.sampled_from(sorted(places(valid()), key=str)), VALUES), min_size=1, max_size=3))
@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_manifest_with_any_other_values_is_read_or_refused(changes, tmp_path):
    content = valid()
    for way, value in changes:
        *above, last = way
        record = content
        try:
            for key in above:
                record = record[key]
            record[last] = value
        except (LookupError, TypeError):  # a change before took the place away
            continue
    (tmp_path / FILE).write_text(json.dumps(content), encoding="utf-8")

    assert len(said_of(tmp_path).splitlines()) == 1


def said_of(run: Path) -> str:
    """How commands refuse a manifest; anything but an error of ours goes on."""
    try:
        read_all(run)
    except OptimizeError as error:
        return str(error)
    raise AssertionError("its measurements are of no model that there is, so somebody has to see that")


def read_all(run: Path) -> None:
    """All that commands make of a manifest before they look at what it is of."""
    record = read_run(run)
    last = record.stages[-1].artifact
    with as_stated(run):
        render(record)
        if record.measurements:
            render_card(record)
    pipeline_of(record, where="it")
    judge_again(run, record, Artifact(kind=last.kind, path=run, digest=last.digest, size_bytes=last.size_bytes))


def test_what_is_not_changed_is_read(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps(valid()), encoding="utf-8")

    with as_stated(tmp_path):
        render_card(manifest.read(tmp_path))
    assert read_run(tmp_path) == Manifest.model_validate(document())
