"""Multiple choice in the shapes of SWAG, RACE and their like."""

import numpy as np
import pytest

from optimize.errors import DataError
from optimize.heads.multiple_choice import HEAD

ROW = {"context": "the cat sat", "choices": ["it ran .", "it", "not on the mat"], "label": 1}


def decode(tokenizer, feature):
    return [
        tokenizer.decode(ids[mask == 1])
        for ids, mask in zip(feature.inputs["input_ids"], feature.inputs["attention_mask"], strict=True)
    ]


def test_choices_are_padded_to_the_longest_of_their_own_row(make_text, tokenizer):
    shorter = {"context": "a dog", "choices": ["ran", "sat"], "label": 0}
    encoded = HEAD.encode([ROW, shorter], make_text())
    first, second = (feature.inputs["input_ids"] for feature in encoded.features)
    assert (first.shape, second.shape) == ((3, 10), (2, 6))
    assert first.dtype == np.int64
    assert (first[1, 7:] == tokenizer.pad_token_id).all()
    assert encoded.features[0].inputs["attention_mask"].sum(axis=1).tolist() == [9, 7, 10]


def test_swag_endings_continue_the_second_sentence(make_text, tokenizer):
    row = {"context": "the cat sat", "start": "it", "choice0": "ran", "choice1": "flew", "label": 1}
    (feature,) = HEAD.encode([row], make_text()).features
    assert decode(tokenizer, feature) == [
        "[CLS] the cat sat [SEP] it ran [SEP]",
        "[CLS] the cat sat [SEP] it flew [SEP]",
    ]


@pytest.mark.parametrize(
    ("question", "second"), [("where is it ?", "where is it? park"), ("in the _ .", "in the park.")]
)
def test_a_question_goes_before_the_choice_or_around_it(question, second, make_text, tokenizer):
    row = {"context": "a cat", "question": question, "choices": ["park", "tree"], "label": "A"}
    (feature,) = HEAD.encode([row], make_text()).features
    assert decode(tokenizer, feature)[0] == f"[CLS] a cat [SEP] {second} [SEP]"


@pytest.mark.parametrize(("label", "index"), [(2, 2), ("2", 2), ("C", 2), ("a", 0), (np.int64(1), 1)])
def test_labels_are_numbers_or_letters(label, index, make_text):
    assert HEAD.encode([ROW | {"label": label}], make_text()).gold == (index,)


def test_choices_that_carry_their_own_names_are_found_by_name(make_text):
    choices = {"text": ["in", "on", "under"], "label": ["1", "2", "3"]}
    encoded = HEAD.encode([{"context": "the cat", "choices": choices, "label": "2"}], make_text())
    assert encoded.gold == (1,)


@pytest.mark.parametrize("label", [3, -1, "D", "", None])
def test_a_label_beyond_the_choices_is_refused(label, make_text):
    with pytest.raises(DataError, match=r"row 1 has .* as label; give a class id from 0 to 2"):
        HEAD.encode([ROW, ROW | {"label": label}], make_text())


def test_a_single_choice_is_refused(make_text):
    with pytest.raises(DataError, match="row 0 has 1 choices"):
        HEAD.encode([ROW | {"choices": ["it"]}], make_text())


def test_a_word_is_no_list_of_its_letters(make_text):
    with pytest.raises(DataError, match="row 0 has a str as choices; give a list of at least two strings"):
        HEAD.encode([ROW | {"choices": "abcd"}], make_text())


def test_the_context_is_cut_and_the_example_counted_once(make_text, tokenizer):
    encoded = HEAD.encode([ROW | {"choices": ["it ran .", "it sat ."]}, ROW], make_text(8))
    assert encoded.truncated == 2
    assert decode(tokenizer, encoded.features[0]) == [
        "[CLS] the cat [SEP] it ran. [SEP]",
        "[CLS] the cat [SEP] it sat. [SEP]",
    ]


def test_accuracy_counts_the_right_choices(make_text, run):
    encoded = HEAD.encode([ROW, ROW | {"label": 0}, ROW], make_text())
    score = run(HEAD, encoded, lambda _: {"logits": np.array([0.0, 3.0, 1.0])})
    assert (score.metric, score.value) == ("accuracy", pytest.approx(2 / 3))
    assert score.right.tolist() == [True, False, True]
    assert score.decisions.tolist() == [1, 1, 1]
