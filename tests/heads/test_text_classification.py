"""Text classification in its three kinds."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

from optimize.errors import DataError
from optimize.heads.text_classification import HEAD
from optimize.training.batches import answers_of as answers_of_batch
from optimize.training.labels import labels_of

TWO = {"id2label": {"0": "NEG", "1": "POS"}}
THREE = {"num_labels": 3}


def rows_of(labels):
    return [{"text": "a good movie", "label": label} for label in labels]


def answers_of(logits):
    return [np.array(row, dtype=np.float32) for row in logits]


def test_a_single_text_becomes_one_unpadded_int64_feature(make_text, tokenizer):
    encoded = HEAD.encode([{"text": "a good movie !", "label": 1}], make_text(**TWO))
    (feature,) = encoded.features
    assert tokenizer.decode(feature.inputs["input_ids"]) == "[CLS] a good movie! [SEP]"
    assert feature.inputs["attention_mask"].tolist() == [1] * 6
    assert {array.dtype for array in feature.inputs.values()} == {np.dtype(np.int64)}
    assert (encoded.gold, encoded.truncated) == ((1,), 0)


def test_a_pair_is_read_as_a_pair(make_text, tokenizer):
    rows = [{"text": "the cat sat", "text_pair": "it ran", "label": 0}]
    (feature,) = HEAD.encode(rows, make_text(**TWO)).features
    assert tokenizer.decode(feature.inputs["input_ids"]) == "[CLS] the cat sat [SEP] it ran [SEP]"


def test_a_pair_that_lost_its_second_text_is_refused(make_text):
    rows = [{"text": "a", "text_pair": "b", "label": 0}, {"text": "a", "label": 0}]
    with pytest.raises(DataError, match="row 1 has no text_pair"):
        HEAD.encode(rows, make_text(**TWO))


def test_cut_texts_are_counted(make_text):
    rows = [{"text": "good", "label": 1}, {"text": "a very very good movie", "label": 1}]
    encoded = HEAD.encode(rows, make_text(4, **TWO))
    assert encoded.truncated == 1
    assert [feature.tokens for feature in encoded.features] == [3, 4]


def test_read_gives_one_row_of_logits(make_text, run):
    encoded = HEAD.encode(rows_of([1, 0]), make_text(**TWO))
    assert HEAD.read(encoded.features[0], {"logits": np.array([0.0, 1.0])}).shape == (1, 2)
    score = run(HEAD, encoded, lambda _: {"logits": np.array([0.0, 1.0], dtype=np.float32)})
    assert score.value == 0.5


def test_single_labels_are_scored_by_accuracy_and_macro_f1(make_text):
    gold, predicted = [0, 1, 2, 2, 1], [0, 1, 1, 2, 0]
    encoded = HEAD.encode(rows_of(gold), make_text(**THREE))
    score = HEAD.score(encoded, answers_of(np.eye(3)[predicted]))
    assert (score.metric, score.value) == ("accuracy", pytest.approx(0.6))
    assert score.others["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert score.right.tolist() == [True, True, False, True, False]
    assert score.decisions.tolist() == predicted


@pytest.mark.parametrize("labels", [[[0, 2], [], [1]], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]])
def test_label_sets_are_taken_as_class_ids_or_as_multi_hot(labels, make_text):
    encoded = HEAD.encode(rows_of(labels), make_text(**THREE))
    assert encoded.gold == ((1, 0, 1), (0, 0, 0), (0, 1, 0))


def test_label_sets_are_scored_as_sklearn_does(make_text):
    random = np.random.default_rng(0)
    gold, logits = random.integers(0, 2, (20, 3)), random.normal(size=(20, 3))
    encoded = HEAD.encode(rows_of(gold.tolist()), make_text(**THREE))
    score = HEAD.score(encoded, answers_of(logits))
    predicted = (logits > 0).astype(int)
    assert (score.metric, score.value) == ("f1", f1_score(gold, predicted, average="micro"))
    assert score.others["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert score.others["subset_accuracy"] == (gold == predicted).all(axis=1).mean()
    assert score.decisions.shape == (60,)


def test_classes_are_counted_by_example(make_text):
    gold, predicted = [0, 1, 2, 2, 1], [0, 1, 1, 2, 0]
    encoded = HEAD.encode(rows_of(gold), make_text(id2label={"0": "a", "1": "b", "2": "c"}))
    score = HEAD.score(encoded, answers_of(np.eye(3)[predicted]))
    true, claimed, right = score.classes.counts.sum(axis=0).T
    assert score.classes.names == ("a", "b", "c")
    assert (true.tolist(), claimed.tolist(), right.tolist()) == ([1, 1, 1], [2, 2, 1], [1, 2, 2])


def test_the_classes_of_sets_are_counted_by_example(make_text):
    encoded = HEAD.encode(rows_of([[1, 0, 1], [0, 0, 0]]), make_text(**THREE))
    score = HEAD.score(encoded, answers_of([[1, -1, -1], [1, -1, -1]]))
    assert score.classes.counts.tolist() == [[[1, 1, 1], [0, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize("problem", [None, "single_label_classification", "multi_label_classification"])
def test_one_output_that_tells_two_classes_apart_is_right_or_wrong_at_a_sigmoid_of_a_half(problem, make_text):
    encoded = HEAD.encode(rows_of([[1], [0], [1], [0]]), make_text(num_labels=1, problem_type=problem))
    score = HEAD.score(encoded, answers_of([[0.1], [-3.0], [-0.1], [np.nan]]))
    assert (score.metric, score.value) == ("accuracy", 0.5)
    assert score.decisions.tolist() == [1, 0, 0, -1]
    assert score.others["macro_f1"] == pytest.approx(f1_score([1, 0, 1, 0], [1, 0, 0, -1], average="macro"))
    assert score.classes.names == ("0", "1")
    assert score.classes.counts.sum(axis=0).tolist() == [[1, 2, 2], [1, 1, 2]]


@pytest.mark.parametrize("gold", [[[1], [0], [0]], [[0], [1], [1]]])
def test_the_best_constant_of_one_output_is_the_commoner_class(gold, make_text):
    encoded = HEAD.encode(rows_of(gold), make_text(num_labels=1))
    assert [HEAD.score(encoded, answers).value for answers in HEAD.constants(encoded)] == [pytest.approx(2 / 3)]


def test_one_output_learns_from_labels_as_sets_do(make_text):
    encoded = HEAD.encode(rows_of([[1], [0]]), make_text(num_labels=1))
    assert answers_of_batch(HEAD, encoded) == "sets"
    assert labels_of(encoded.features, encoded.gold, "sets").tolist() == [[1.0], [0.0]]


def test_one_output_is_a_regression_scored_by_rank(make_text):
    gold, predicted = [1.0, 2.5, 2.5, 4.0], [0.1, 0.3, 0.2, 0.2]
    encoded = HEAD.encode(rows_of(gold), make_text(num_labels=1))
    score = HEAD.score(encoded, answers_of(np.array(predicted)[:, None]))
    assert score.metric == "spearman"
    assert score.value == pytest.approx(spearmanr(gold, predicted).statistic)
    expected = np.mean((np.array(gold) - predicted) ** 2)
    assert score.others["mse"] == pytest.approx(expected)
    assert score.ordinal


def test_the_stated_problem_type_outweighs_the_look_of_the_labels(make_text):
    text = make_text(problem_type="single_label_classification", **THREE)
    with pytest.raises(DataError, match=r"row 0 has \[1\] as label"):
        HEAD.encode(rows_of([[1]]), text)


@pytest.mark.parametrize(
    ("labels", "config", "message"),
    [
        ([0, 2], TWO, "row 1 has 2 as label; give a class id from 0 to 1"),
        ([[0], 1], THREE, "row 1 has 1 as label; give a list of class ids"),
        ([[0], [3]], THREE, "row 1 has 3 as label"),
        ([1], {"num_labels": 1, "problem_type": "single_label_classification"}, "row 0 has 1 as label; give a list"),
        ([0.5, "x"], {"num_labels": 1}, "row 1 has 'x' as label; give a finite number"),
        ([0.5], {"problem_type": "regression"}, "regresses 2 numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, config, message, make_text):
    with pytest.raises(DataError, match=message):
        HEAD.encode(rows_of(labels), make_text(**config))


def test_a_model_that_answers_nan_is_never_right(make_text):
    encoded = HEAD.encode(rows_of([0, 0]), make_text(**TWO))
    assert HEAD.score(encoded, answers_of([[np.nan, 0], [np.nan, np.nan]])).value == 0.0


def test_a_regression_that_answers_nan_scores_zero_and_stays_finite(make_text):
    encoded = HEAD.encode(rows_of([0.0, 1.0]), make_text(num_labels=1))
    score = HEAD.score(encoded, answers_of([[np.nan], [np.nan]]))
    assert score.value == 0.0
    assert all(np.isfinite(value) for value in score.others.values())
