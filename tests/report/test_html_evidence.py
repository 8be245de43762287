"""What the page of HTML reads beside the manifest, and what it makes of it: groups, calibration, refusals."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest
from report.conftest import make_manifest, measurement, metric
from report.pages import answer, example

from optimize import examples
from optimize.errors import RequestError
from optimize.manifest import RUNS
from optimize.report.html.calibration import Bin, bins_of, ece
from optimize.report.html.drift import Group, by_class, by_confidence, by_length
from optimize.report.html.evidence import Evidence, read_evidence
from optimize.report.html.flips import flips_of
from optimize.report.html.latency import HIGH, hills
from optimize.report.write import write_report
from optimize.running import without_texts, write_runs

WRITTEN_OTHERWISE = {
    "no gzip": b"no gzip",
    "no example": gzip.compress(b'{"texts": {}}\n'),
    "a list": gzip.compress(b"[1]\n"),
    "cut short": gzip.compress(example().model_dump_json().encode())[:-9],
    "a number for a text": gzip.compress(example().model_dump_json().replace('"A fine film."', "3").encode()),
}


@pytest.fixture
def judged():
    """A run that was judged by two examples."""
    model = {**measurement("pytorch-fp32", 0.9, 100, []), "metric": metric(0.9, examples=2)}
    return make_manifest(measurements=[model])


def groups(found: list[Group]) -> list[tuple[str, int, int]]:
    return [(each.name, each.examples, each.changed) for each in found]


def test_what_is_written_is_read_again(judged, tmp_path):
    kept = [example("a 語 <b>"), example("c", after="bad")]
    examples.write(kept, tmp_path)
    write_runs({"a/b": {"1x16": np.array([0.5, 0.25])}}, tmp_path)

    found = read_evidence(judged, tmp_path)
    assert found.examples == kept
    assert {name: times.tolist() for name, times in found.runs.items()} == {("a/b", "1x16"): [0.5, 0.25]}


def test_the_same_examples_give_the_same_bytes(tmp_path):
    written = []
    for _ in range(2):
        examples.write([example()], tmp_path)
        written.append((tmp_path / examples.FILE).read_bytes())
    assert written[0] == written[1]


def test_a_run_without_evidence_has_none(judged, tmp_path):
    assert read_evidence(judged, tmp_path) == Evidence({}, [])


def test_runs_that_are_no_longer_timed_leave_no_file(tmp_path):
    write_runs({"model": {"1x16": np.array([0.5])}}, tmp_path)
    write_runs({}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", WRITTEN_OTHERWISE.values(), ids=WRITTEN_OTHERWISE)
def test_examples_that_no_run_writes_are_refused_with_their_file(content, judged, tmp_path):
    (tmp_path / examples.FILE).write_bytes(content)
    with pytest.raises(RequestError, match=rf"{examples.FILE}: is not what a run writes \(.+\); certify the run again"):
        read_evidence(judged, tmp_path)


def test_examples_of_another_run_are_refused(judged, tmp_path):
    examples.write([example()], tmp_path)
    with pytest.raises(RequestError, match="holds 1 examples where the manifest says 2; certify the run again"):
        read_evidence(judged, tmp_path)


def packed(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"no archive",
        packed(x=np.ones(3))[:-30],
        packed(x=np.ones((2, 2))),
        packed(x=np.array([1, 2])),
        packed(x=np.array([0.5, np.nan])),
        packed(x=np.array([0.5, 0.0])),
        packed(x=np.array([])),
        packed(x=np.array([{}], dtype=object)),
    ],
)
def test_times_that_no_run_writes_are_refused_with_their_file(content, judged, tmp_path):
    (tmp_path / RUNS).write_bytes(content)
    with pytest.raises(RequestError, match=rf"{RUNS}: cannot be read \(.+\); certify the run, or run it again"):
        read_evidence(judged, tmp_path)


def test_a_report_that_cannot_be_made_leaves_the_folder_as_it_is(judged, tmp_path):
    (tmp_path / RUNS).write_bytes(b"no archive")
    with pytest.raises(RequestError):
        write_report(judged, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [RUNS]


def test_without_texts_only_names_of_classes_are_kept():
    asked = example("a secret", before="good", after="a secret", gold="good")
    kept = without_texts(asked, ("good", "bad"))

    assert (kept.texts, kept.gold, kept.reference.answer, kept.result.answer) == ({}, "good", "good", None)
    assert (kept.same, kept.tokens, kept.result.confidence) == (False, 5, 0.9)
    assert "secret" not in kept.model_dump_json()


def test_lengths_make_groups_of_about_one_size():
    asked = [example(tokens=tokens, after="bad" if tokens > 8 else "good") for tokens in range(1, 11)]
    assert groups(by_length(asked)) == [
        ("1 to 2", 2, 0), ("3 to 4", 2, 0), ("5 to 6", 2, 0), ("7 to 8", 2, 0), ("9 to 10", 2, 2),
    ]  # fmt: skip


def test_one_length_makes_one_group():
    assert groups(by_length([example(tokens=7), example(tokens=7)])) == [("7", 2, 0)]


def test_classes_make_groups_the_largest_first():
    asked = [example(gold="bad"), example(), example(after="bad")]
    assert groups(by_class(asked)) == [("good", 2, 1), ("bad", 1, 0)]


def test_answers_that_are_no_classes_make_no_groups():
    spans = [example(gold=str(each), reference=answer("good", right=None)) for each in range(3)]
    assert by_class(spans) == []
    assert by_class([example(gold=None)]) == []
    assert by_class([example(gold=f"class {each}") for each in range(13)]) == []


def test_confidences_make_groups_and_certainty_is_in_the_last():
    asked = [example(reference=answer("good", sure)) for sure in (0.2, 0.5, 0.99, 1.0)]
    assert groups(by_confidence(asked)) == [("0 to 0.5", 1, 0), ("0.5 to 0.7", 1, 0), ("0.99 to 1", 2, 0)]
    assert by_confidence([example(reference=answer("good", None))]) == []


def test_an_interval_of_few_examples_is_wide_and_within_0_and_1():
    low, high = Group("", 10, 0).interval
    assert (low, high) == (0.0, pytest.approx(0.2775, abs=1e-4))
    low, high = Group("", 1000, 500).interval
    assert (low, high) == (pytest.approx(0.4691, abs=1e-4), pytest.approx(0.5309, abs=1e-4))


def test_calibration_is_the_mean_gap_between_confidence_and_what_is_right():
    answers = [answer("", 0.95), answer("", 0.95, right=False), answer("", 1.0), answer("", 0.6, right=False)]
    bins = bins_of(answers)

    assert bins == [
        Bin(1, 0.6, 0.0),
        Bin(3, pytest.approx(2.9 / 3), pytest.approx(2 / 3)),
    ]
    assert ece(bins) == pytest.approx((0.6 + 0.9) / 4)
    assert bins_of([answer("", None)]) == []


def test_a_hill_is_as_high_as_its_fullest_bin_and_keeps_every_run():
    times = {"slow": np.full(5, 8.0), "fast": np.array([1.0, 1.0, 2.0])}
    slow, fast = hills(times, "fast")

    assert (slow.base, fast.base) == (1, 0)
    assert (fast.runs, fast.median_ms) == (3, 1.0)
    assert sorted(height for _, height in fast.outline)[-2:] == [pytest.approx(HIGH / 2), pytest.approx(HIGH)]


@pytest.mark.parametrize(
    ("texts", "order"),
    [
        ([{"text": "one sentence", "text_pair": "two words"}, {"text": "a", "text_pair": "b"}], ["text", "text pair"]),
        ([{"title": "x", "context": "words" * 40, "question": "who?"}] * 2, ["title", "question", "context"]),
        (
            [{"context": "words" * 40, "question": "who?"}, {"context": "a", "question": "why?"}],
            ["question", "context"],
        ),
    ],
    ids=["a pair", "a context", "a context that is short once"],
)
def test_texts_stand_in_one_order_on_all_examples(texts, order):
    found = flips_of([example(after="bad", texts=each) for each in texts], numbers=False)

    assert [[role for role, _ in each.texts] for each in found.shown] == [order] * 2
