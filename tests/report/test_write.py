from __future__ import annotations

from report.conftest import SENSITIVITY, make_manifest, stages_with

from optimize.report.html.evidence import Evidence
from optimize.report.html.page import render_html
from optimize.report.page import render
from optimize.report.write import write_report


def links(page: str) -> list[str]:
    """Files that the page shows as pictures."""
    return [line.rpartition("](")[2].removesuffix(")") for line in page.splitlines() if line.startswith("![")]


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_report_lies_beside_the_pictures_that_it_shows(tmp_path):
    write_report(make_manifest(stages=stages_with(sensitivity=SENSITIVITY)), tmp_path)

    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert links(page) == ["overview.png", "sensitivity.png"]
    assert set(contents(tmp_path)) == {"report.md", "report.html", *links(page)}


def test_the_sensitivity_picture_stands_above_its_table(tmp_path):
    write_report(make_manifest(stages=stages_with(sensitivity=SENSITIVITY)), tmp_path)

    _, section = (tmp_path / "report.md").read_text(encoding="utf-8").split("### Sensitivity")
    assert section.index("sensitivity.png") < section.index("| group |")


def test_a_run_that_was_only_built_has_a_page_without_pictures(built_only, tmp_path):
    write_report(built_only, tmp_path)

    page = render_html(built_only, Evidence())
    assert contents(tmp_path) == {"report.md": render(built_only).encode(), "report.html": page.encode()}


def test_a_picture_that_is_no_longer_drawn_is_removed(built_only, tmp_path):
    write_report(make_manifest(stages=stages_with(sensitivity=SENSITIVITY)), tmp_path)

    write_report(built_only, tmp_path)

    assert set(contents(tmp_path)) == {"report.md", "report.html"}


def test_writing_a_report_again_changes_nothing(manifest, tmp_path):
    write_report(manifest, tmp_path)
    before = contents(tmp_path)

    write_report(manifest, tmp_path)

    assert contents(tmp_path) == before


def test_a_page_shows_no_picture_that_it_was_not_given(manifest):
    assert links(render(manifest)) == []
