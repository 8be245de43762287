"""The table of what `auto` tried, on the page and on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report.conftest import STAGES, document, make_manifest, measurement
from report.pages import Page

from optimize.cli import inspecting, tables
from optimize.manifest import Manifest, dump, read, write
from optimize.report.candidates import candidate_rows, section
from optimize.report.html.evidence import Evidence
from optimize.report.html.page import render_html
from optimize.report.page import render


@pytest.fixture
def chosen() -> Manifest:
    """A run that chose the second of three candidates, of which one could not be built."""
    measured = document()["measurements"]
    check = {"name": "min_agreement", "limit": 0.95, "value": 0.9, "outcome": "failed", "reason": "agreement 0.9"}
    slow: dict[str, Any] = {"pipeline": "slow", "stages": STAGES, "checks": [check], "reason": "agreement 0.9"}
    slow["tuning"] = measurement("slow", 0.85, 60_000_000, [])
    quick = {"pipeline": "quick", "stages": STAGES, "meets_gates": True, "measurement": "quick", "chosen": True}
    quick |= {"tuning": measured[1], "reason": "the fastest"}
    candidates = [slow, quick, {"pipeline": "odd", "reason": "fail: no | fallback"}]
    data = {**document()["data"], "tuning": {**document()["data"]["certification"], "count": 500}}
    return make_manifest(candidates=candidates, data=data)


def test_every_candidate_is_a_row_with_the_chosen_one_marked(chosen):
    header, *rows = candidate_rows(chosen)

    assert header[:2] == ("candidate", "accuracy (FP32)")
    assert [row[0] for row in rows] == ["slow", "quick (chosen)", "odd"]
    assert rows[1][1:4] == ("0.8950 (0.9000)", "0.9900", "3.00× [2.90, 3.10]")
    assert [row[-2:] for row in rows] == [
        ("missed", "agreement 0.9"),
        ("met", "the fastest"),
        ("not built", "fail: no | fallback"),
    ]
    assert {len(row) for row in rows} == {len(header)}


def test_the_page_for_browsers_has_every_candidate_and_why(chosen):
    shown = Page(render_html(chosen, Evidence())).text("section")

    assert "Candidates, compared on tuning data" in shown
    assert [word for row in candidate_rows(chosen) for word in row if word not in shown] == []


def test_the_page_says_on_what_data_the_choice_was_made(chosen):
    text = section(chosen)

    assert text.startswith("## Candidates")
    assert "Compared on 500 tuning examples" in text
    assert text in render(chosen)


def test_a_run_of_one_pipeline_has_no_such_section():
    manifest = make_manifest()

    assert (manifest.candidates, section(manifest)) == ([], "")
    assert "Candidates" not in render(manifest)


def test_the_terminal_shows_the_same_table(chosen, capsys):
    tables.show_run(Path("run"), chosen)

    out = capsys.readouterr().out
    assert "compared on tuning data" in out
    assert [row[0] for row in candidate_rows(chosen)[1:] if row[0].split()[0] not in out] == []


def test_a_manifest_with_candidates_reads_back_as_it_was_written(chosen, tmp_path):
    write(chosen, tmp_path)

    assert read(tmp_path) == chosen
    words = set(json.loads(dump(chosen))["candidates"][0])
    assert words == {"pipeline", "stages", "tuning", "checks", "meets_gates", "measurement", "chosen", "reason"}


def test_the_list_names_auto_and_its_candidates(capsys):
    inspecting.list_names()

    assert "the fastest that meets its limits: cpu-dynamic" in capsys.readouterr().out
