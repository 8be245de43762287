"""The page's table of classes."""

from __future__ import annotations

from typing import Any

from report.conftest import document, make_manifest, metric

from optimize.manifest import Manifest
from optimize.report.page import render

MACRO = {"value": 0.7, "reference": 0.75, "drop": 0.05, "interval": (0.01, 0.09), "standard_error": 0.02}


def scored(name: str, support: int, drop: float) -> dict[str, Any]:
    numbers = {"value": 0.9 - drop, "reference": 0.9, "interval": (drop - 0.1, drop + 0.1), "standard_error": 0.05}
    return {"name": name, "support": support, "drop": drop, **numbers}


def run_with(classes: list[dict[str, Any]], **changes: Any) -> Manifest:
    """A run whose result has these classes."""
    measurements = document()["measurements"]
    measurements[-1]["metric"] = metric(0.89, macro_f1=MACRO, classes=classes)
    return make_manifest(measurements=measurements, **changes)


def rows_of(page: str) -> list[str]:
    _, after = page.split("## Classes\n")
    table = next(block for block in after.split("\n\n") if block.startswith("| "))
    return table.splitlines()[2:]


def test_the_largest_drops_come_first_and_of_equal_ones_the_rarest_class():
    rows = rows_of(render(run_with([scored("a", 50, 0.0), scored("b", 5, 0.2), scored("c", 9, 0.0)])))

    assert rows[0] == "| all, mean (macro F1) | 64 | 0.7500 | 0.7000 | +0.0500 [+0.0100, +0.0900] |"
    assert rows[1] == "| b | 5 | 0.9000 | 0.7000 | +0.2000 [+0.1000, +0.3000] |"
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| c", "| a"]


def test_of_many_classes_twenty_are_shown_and_the_others_counted():
    page = render(run_with([scored(f"class {index}", 30, index / 1000) for index in range(31)]))

    assert len(rows_of(page)) == 21
    assert "\n\nAnd 11 more, with smaller drops.\n" in page
    assert "more, with" not in render(run_with([scored(f"class {index}", 30, 0.0) for index in range(20)]))


def test_names_of_classes_are_text_and_no_markdown():
    page = render(run_with([scored("a|b [x](http://y) *z*", 30, 0.0)]))

    assert len(rows_of(page)[1].replace("\\|", "").split("|")) == 7
    assert "[x](http" not in page


def test_answers_that_are_no_classes_have_no_section(manifest):
    assert "## Classes" not in render(manifest)


def test_the_page_says_how_labels_were_read(manifest):
    assert "\n\nLabels: 1 to 5 as classes 0 to 4.\n\n" in render(run_with([], labels="1 to 5 as classes 0 to 4"))
    assert "Labels:" not in render(manifest)
