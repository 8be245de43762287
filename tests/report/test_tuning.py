"""The page of a search: what was chosen and by what, every trial, and the command that judges it."""

from __future__ import annotations

import shlex

import pytest
from report.conftest import make_manifest

from optimize.report.tuning import headline, run_command, trial_rows, write_page
from optimize.request import Options, declared, read_columns
from optimize.tuned import Asked, Base, Point, Trial, Tuned, choose

PARAMETERS = {"learning_rate": 3e-5, "epochs": 3.0, "batch_size": 32, "dropout": 0.1}


def point(step: int, value: float) -> Point:
    return Point(step=step, epoch=1.0, value=value, loss=None, seconds=60.0 * step)


def trial(number: int, outcome: str, *values: float, reason: str = "") -> Trial:
    curve = [point(10 * place, value) for place, value in enumerate(values, 1)]
    return Trial(number=number, parameters=PARAMETERS, outcome=outcome, reason=reason, curve=curve)


TRIALS = [
    trial(0, "finished", 0.5, 0.8, 0.7),
    trial(1, "stopped", 0.9, 0.1, reason="behind others at this measurement"),
    trial(2, "failed", reason="OutOfMemoryError: of | bars"),
    trial(3, "out of time", 0.8),
]


@pytest.fixture
def record():
    def make(**changes):
        splits = make_manifest().data
        usual = dict.fromkeys(("training", "tuning", "calibration", "certification"), splits["certification"])
        asked = Asked(
            model="base",
            revision=None,
            head="text-classification",
            data="my data",
            data_config=None,
            data_revision=None,
            columns={},
            certify_on=None,
            examples=4000,
            calibration_examples=256,
            tuning_examples=2000,
            training_examples=100_000,
            max_tokens=128,
            seed=0,
            threads=2,
            on="here",
        )
        return Tuned(
            created="2026-01-01T00:00:00+00:00",
            asked=asked.model_copy(update=changes),
            environment=make_manifest().environment,
            versions={},
            base=Base(kind="folder", id="base*", digest="0" * 64, head="new"),
            data=usual,
            labels="names",
            classes=["ham", "spam"],
            space={},
            metric="accuracy",
            trials=TRIALS,
            chosen=0,
            seconds=100.0,
        )

    return make


def test_the_best_of_those_that_came_to_their_end_is_chosen_and_of_equals_the_first():
    assert choose(TRIALS).number == 0
    assert choose(TRIALS[1:]).number == 3
    assert choose(TRIALS[1:3]) is None


def test_the_trial_that_was_chosen_comes_first_and_then_the_others_by_their_scores(record):
    header, *rows = trial_rows(record())

    assert [row[0] for row in rows] == ["0", "1", "3", "2"]
    assert rows[0][:6] == ("0", "0.8000", "20", "30", "30.0", "chosen")
    assert rows[1][5] == "stopped"
    assert rows[3][1:4] == ("–", "–", "–")
    assert header[6:] == ("learning rate", "epochs", "batch size", "dropout", "why")


def test_the_page_says_that_the_number_flatters_and_shows_words_as_they_are(record, tmp_path):
    folder = tmp_path / "base-x"
    folder.mkdir()
    write_page(record(), folder)

    page = (folder / "tuning.md").read_text(encoding="utf-8")
    assert page.startswith("# base\\*: text-classification\n")
    assert "so it flatters" in page
    assert "of \\| bars" in page
    assert "(tuning.png)" in page
    assert "Classes: ham, spam. Labels: names." in page
    assert (folder / "tuning.png").stat().st_size > 5_000
    assert headline(record()).startswith("Trial 0 of 4: accuracy 0.8000 on tuning data, with learning rate 3e-05, ")


def test_a_run_is_given_what_the_search_was_given_of_the_data(record):
    assert run_command(record(), "out/x") == "optimize run --model out/x --data 'my data'"

    asked = {"columns": {"text": "body", "label": "kind"}, "seed": 3, "examples": 50, "certify_on": "test"}
    words = shlex.split(run_command(record(**asked), "out/x"))
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert read_columns(given["--columns"], "") == asked["columns"]
    assert {name: given[f"--{name.replace('_', '-')}"] for name in ("seed", "examples", "certify_on")} == {
        "seed": "3",
        "examples": "50",
        "certify_on": "test",
    }
    assert set(given) <= {each.flag for each in declared(Options).values()}
