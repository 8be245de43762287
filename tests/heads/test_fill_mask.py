"""Fill-mask: what is masked, and what a guess is worth."""

import math

import numpy as np
import pytest

from optimize.errors import DataError
from optimize.heads.fill_mask import HEAD

LONG = "the cat sat on the mat and the dog ran in the park . the bird flew over the tree ."
ROWS = [{"text": LONG}, {"text": "walking"}, {"text": "the red house"}]


def restore(feature):
    ids = feature.inputs["input_ids"].copy()
    ids[feature.extra["positions"]] = feature.extra["gold"]
    return ids.tolist()


def oracle(vocabulary, confidence):
    def model(feature):
        logits = np.zeros((feature.tokens, vocabulary), dtype=np.float32)
        logits[feature.extra["positions"], feature.extra["gold"]] = confidence
        return {"logits": logits}

    return model


def test_fifteen_percent_of_the_words_are_masked_and_at_least_one(make_text):
    encoded = HEAD.encode(ROWS, make_text())
    assert [len(feature.extra["positions"]) for feature in encoded.features] == [3, 2, 1]


def test_every_masked_position_holds_the_mask_and_gold_restores_the_text(make_text, tokenizer):
    for row, feature in zip(ROWS, HEAD.encode(ROWS, make_text()).features, strict=True):
        masked = feature.inputs["input_ids"] == tokenizer.mask_token_id
        assert np.flatnonzero(masked).tolist() == feature.extra["positions"].tolist()
        assert restore(feature) == tokenizer(row["text"])["input_ids"]


def test_all_sub_tokens_of_a_word_are_masked_together(make_text, tokenizer):
    (feature,) = HEAD.encode([{"text": "walking"}], make_text()).features
    assert tokenizer.decode(feature.inputs["input_ids"]) == "[CLS] [MASK] [MASK] [SEP]"
    assert feature.inputs["attention_mask"].tolist() == [1, 1, 1, 1]


def test_the_choice_depends_on_the_text_and_not_on_its_neighbours(make_text):
    forwards = HEAD.encode(ROWS, make_text()).features
    backwards = HEAD.encode(ROWS[::-1], make_text()).features
    for one, other in zip(forwards, reversed(backwards), strict=True):
        assert one.inputs["input_ids"].tolist() == other.inputs["input_ids"].tolist()


def test_the_choice_is_the_same_for_ever(make_text):
    (feature,) = HEAD.encode(ROWS[:1], make_text()).features
    assert feature.extra["positions"].tolist() == [7, 14, 20]


def test_unknown_and_special_words_are_never_masked(make_text, tokenizer):
    rows = [{"text": "zebra [UNK] [SEP] cat zebras"}]
    (feature,) = HEAD.encode(rows, make_text()).features
    assert tokenizer.convert_ids_to_tokens(feature.extra["gold"]) == ["cat"]


def test_texts_without_a_known_word_are_left_out(make_text):
    encoded = HEAD.encode([{"text": ""}, {"text": "zebra"}, {"text": "cat"}], make_text())
    assert [feature.example for feature in encoded.features] == [0]
    assert len(encoded.gold) == 1


def test_a_split_without_any_known_word_is_refused(make_text):
    with pytest.raises(DataError, match="no row has a word to mask; give rows with text"):
        HEAD.encode([{"text": ""}], make_text())


def test_long_texts_are_cut_and_counted(make_text):
    encoded = HEAD.encode(ROWS, make_text(8))
    assert encoded.truncated == 1
    assert encoded.features[0].tokens == 8


def test_a_model_that_knows_everything_is_right(make_text, run, tokenizer):
    encoded = HEAD.encode(ROWS, make_text())
    score = run(HEAD, encoded, oracle(len(tokenizer), confidence=50))
    assert (score.metric, score.value) == ("top1_accuracy", 1.0)
    assert score.others["loss"] == pytest.approx(0, abs=1e-12)
    assert score.decisions.tolist() == np.concatenate(encoded.gold).tolist()


def test_a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large(make_text, run, tokenizer):
    score = run(HEAD, HEAD.encode(ROWS, make_text()), oracle(len(tokenizer), confidence=0))
    assert score.value == 0.0
    assert score.others["perplexity"] == pytest.approx(len(tokenizer))


def test_loss_is_the_mean_over_tokens_and_not_over_texts(make_text):
    encoded = HEAD.encode(ROWS[:2], make_text())
    three, two = encoded.gold
    answers = [(three, np.full(3, 1.0)), (two + 1, np.full(2, 3.5))]
    score = HEAD.score(encoded, answers)
    assert score.statistics.tolist() == [[3, 3, 3.0], [0, 2, 7.0]]
    assert score.value == 0.6
    assert score.others == {"loss": 2.0, "perplexity": pytest.approx(math.exp(2))}


def test_a_model_that_answers_nan_is_wrong_and_its_loss_is_finite(make_text, run, tokenizer):
    score = run(HEAD, HEAD.encode(ROWS, make_text()), oracle(len(tokenizer), confidence=np.nan))
    assert score.value == 0.0
    assert math.isfinite(score.others["perplexity"])
