"""Feature extraction: pooling, scored pairs, and texts without a score."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from optimize.errors import DataError
from optimize.heads.feature_extraction import HEAD

PAIRS = [
    {"text": "the cat sat", "text_pair": "a cat sat on it", "score": 4.0},
    {"text": "the dog ran", "text_pair": "the bird flew", "score": 1.5},
    {"text": "bob lives in paris", "text_pair": "bob lives in london", "score": 2.5},
]


def test_a_scored_pair_is_two_features_of_one_example(make_text):
    encoded = HEAD.encode(PAIRS, make_text())
    assert [feature.example for feature in encoded.features] == [0, 0, 1, 1, 2, 2]
    assert [feature.tokens for feature in encoded.features] == [5, 7, 5, 5, 6, 6]
    assert encoded.gold == (4.0, 1.5, 2.5)


def test_a_vector_is_the_mean_over_all_tokens(make_text):
    feature = HEAD.encode(PAIRS, make_text()).features[0]
    hidden = np.arange(10, dtype=np.float16).reshape(5, 2)
    assert HEAD.read(feature, {"last_hidden_state": hidden}).tolist() == [[4.0, 5.0]]


def test_the_metric_is_the_rank_correlation_of_cosine_and_score(make_text):
    vectors = np.random.default_rng(0).normal(size=(6, 8))
    score = HEAD.score(HEAD.encode(PAIRS, make_text()), list(vectors))
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(vectors[0::2], vectors[1::2], strict=True)]
    assert score.metric == "spearman"
    assert score.value == pytest.approx(spearmanr(cosines, [4, 1.5, 2.5]).statistic)
    assert score.others["pearson"] == pytest.approx(pearsonr(cosines, [4, 1.5, 2.5]).statistic)
    assert score.decisions == pytest.approx(cosines)
    assert score.ordinal


def test_without_scores_the_vectors_are_handed_over_to_be_compared(make_text):
    encoded = HEAD.encode([{"text": "the cat"}, {"text": "a dog"}], make_text())
    score = HEAD.score(encoded, [np.array([3.0, 4.0]), np.array([0.0, 2.0])])
    reference = np.array([[1.0, 0.0], [0.0, 1.0]])
    cosines = (score.statistics * reference).sum(axis=1, keepdims=True)
    assert (score.metric, encoded.gold) == ("cosine_to_reference", (None, None))
    assert score.aggregate(cosines) == pytest.approx((0.6 + 1.0) / 2)
    assert score.decisions == pytest.approx([0.8])


def test_pairs_without_scores_are_texts_of_their_own(make_text):
    rows = [{"text": row["text"], "text_pair": row["text_pair"]} for row in PAIRS]
    encoded = HEAD.encode(rows, make_text())
    assert [feature.example for feature in encoded.features] == [0, 1, 2, 3, 4, 5]
    assert encoded.gold == (None,) * 6


def test_a_pair_with_a_cut_text_is_counted_once(make_text):
    assert HEAD.encode(PAIRS, make_text(5)).truncated == 2


def test_vectors_of_zeros_or_nan_score_zero(make_text):
    encoded = HEAD.encode(PAIRS, make_text())
    score = HEAD.score(encoded, [np.zeros(4)] * 3 + [np.full(4, np.nan)] * 3)
    assert score.value == 0.0
    assert score.decisions.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": None}, "row 1 has None as score; give a finite number"),
        ({"score": float("nan")}, "row 1 has nan as score"),
        ({"text_pair": None}, "row 1 has no text_pair"),
        ({"text": 3}, "row 1 has an int as text; give a string"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change, message, make_text):
    with pytest.raises(DataError, match=message):
        HEAD.encode([PAIRS[0], PAIRS[1] | change], make_text())
