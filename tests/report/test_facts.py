from __future__ import annotations

from pathlib import Path

import pytest
from report.conftest import REVERTED, SENSITIVITY, make_manifest, sensitivity_row, stages_with
from results import read_baselines

from optimize.report import facts
from optimize.report.page import render

BASELINES = read_baselines(Path(__file__).parents[2] / "reports" / "baselines")
WITHOUT_TABLES = [
    each
    for each in BASELINES
    if each.request.target == "cpu"
    and not any(isinstance(fact, list) for stage in each.stages for fact in stage.facts.values())
]


def last_stage(**tables):
    return make_manifest(stages=stages_with(**tables)).stages[-1]


def subsections(page: str) -> dict[str, str]:
    """Texts of the page's smaller sections by heading."""
    found = page.split("\n### ")[1:]
    return {part.splitlines()[0]: part.split("\n## ")[0] for part in found}


def test_single_values_stand_in_words_and_tables_do_not():
    record = last_stage(sensitivity=SENSITIVITY)

    assert facts.fact_words(record) == "quantized matmuls: 36"
    assert "| quantized matmuls: 36 |" in render(make_manifest(stages=stages_with(sensitivity=SENSITIVITY)))


def test_each_table_has_a_heading_of_its_own():
    page = render(make_manifest(stages=stages_with(sensitivity=SENSITIVITY, reverted=REVERTED, odd_things=[{"a": 1}])))

    assert list(subsections(page)) == [
        "Sensitivity (quantize_dynamic)",
        "Left in float (quantize_dynamic)",
        "Odd things (quantize_dynamic)",
    ]


def test_a_table_has_a_row_for_each_of_its_rows():
    page = render(make_manifest(stages=stages_with(sensitivity=SENSITIVITY)))

    lines = [line for line in subsections(page)["Sensitivity (quantize_dynamic)"].splitlines() if line.startswith("| ")]
    assert lines[0] == "| group | SQNR (dB) | divergence | saved (µs) | form |"
    assert lines[2] == "| word_embeddings | 41.00 | 0.00012 | 0 | int8 |"
    assert len(lines) == 2 + len(SENSITIVITY)


def test_a_long_table_is_folded_and_a_short_one_is_not():
    parts = subsections(render(make_manifest(stages=stages_with(sensitivity=SENSITIVITY, reverted=REVERTED))))

    assert "<details><summary>All 26 rows</summary>" in parts["Sensitivity (quantize_dynamic)"]
    assert "<details>" not in parts["Left in float (quantize_dynamic)"].split("\n\n")[1]


def test_a_bar_in_a_groups_name_does_not_end_its_cell():
    page = render(make_manifest(stages=stages_with(sensitivity=[sensitivity_row("layer|0")])))

    assert "| layer\\|0 | 30.00 |" in page


def test_a_value_that_a_row_lacks_is_a_dash():
    (table,) = facts.fact_tables(last_stage(tried=[{"name": "a", "score": 0.5}, {"name": "b", "seconds": 2}]))

    assert table.rows == [("name", "score", "seconds"), ("a", "0.5000", "–"), ("b", "–", "2")]


def test_a_table_without_rows_has_no_section():
    assert "### " not in render(make_manifest(stages=stages_with(reverted=[])))


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("parameters", 1769472, "1,769,472"),
        ("sqnr_db", 38.1, "38.10"),
        ("saved_us", 310.234, "310.2"),
        ("saved_us", 9999.96, "10,000"),
        ("saved_us", 999.96, "1000"),
        ("drop", 0.0, "0"),
        ("drop", -0.00123456, "-0.001235"),
        ("divergence", 0.000123456, "0.000123"),
        ("float_share", 0.0712, "7.1%"),
        ("group", "layer.0", "layer.0"),
        ("kl", float("inf"), "–"),
    ],
)
def test_numbers_have_three_or_four_digits_and_counts_have_separators(column, value, text):
    assert facts.cell(column, value) == text


@pytest.mark.parametrize(
    ("name", "title"),
    [("saved_us", "saved (µs)"), ("sqnr_db", "SQNR (dB)"), ("why", "why"), ("db", "db"), ("kl", "KL")],
)
def test_a_columns_title_names_the_unit(name, title):
    assert facts.column_title(name) == title


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({}, ""),
        ({"reverted": REVERTED}, "1 group left in float"),
        ({"sensitivity": SENSITIVITY, "reverted": REVERTED * 2}, "26 groups measured alone, 2 groups left in float"),
        ({"settings": [{"setting": "a"}], "odd_things": [{"a": 1}, {"a": 2}]}, "1 setting tried, 2 rows of odd things"),
    ],
)
def test_in_short_the_tables_are_counted(tables, words):
    assert facts.in_short(last_stage(**tables)) == words


def test_parameters_that_are_lists_of_records_are_counted():
    record = last_stage().model_copy(
        update={"params": {"settings": [{"a": 1}, {"a": 2}], "include": ["*"], "share": 0.15}}
    )

    assert facts.param_words(record) == "settings: 2 given, include: `*`, share: 0.15"


def test_parameters_read_as_words_and_not_as_python():
    params = {"symmetric": False, "exclude": [], "tokens": 65536, "alpha": None, "include": ["ffn", "head"]}
    record = last_stage().model_copy(update={"params": params})

    assert facts.param_words(record) == (
        "symmetric: no, exclude: none, tokens: 65,536, alpha: none, include: `ffn` `head`"
    )


@pytest.mark.parametrize(("value", "word"), [(True, "yes"), (False, "no"), ("yes", "yes"), ("no", "no")])
def test_yes_and_no_read_the_same_from_manifests_of_either_schema(value, word):
    record = last_stage().model_copy(update={"facts": {"per_channel": value, "tried": [{"within": value}]}})

    assert facts.fact_words(record) == f"per channel: {word}"
    assert facts.fact_tables(record)[0].rows == [("within",), (word,)]


def test_what_older_manifests_call_a_budget_is_called_a_limit():
    rows = [{"setting": "a", "within_budget": "yes"}]
    record = last_stage().model_copy(update={"facts": {"tuning_budget": "met", "settings": rows}})

    assert facts.fact_words(record) == "limits on tuning data: met"
    assert facts.fact_tables(record)[0].rows[0] == ("setting", "within the limits")


@pytest.mark.parametrize("manifest", WITHOUT_TABLES, ids=lambda manifest: manifest.request.head)
def test_a_committed_run_without_tables_renders_as_before(manifest):
    page = render(manifest)

    assert "### " not in page
    assert f"max difference: {manifest.stages[0].facts['max_difference']:.2g}, readout slice" in page
    assert "reduce range because: avx512_vnni sums in 32 bits, quantized tables: 2," in page
