"""Tokenizing, cutting and counting, as all heads do it."""

import pytest

from optimize.errors import DataError
from optimize.heads import _encoding
from optimize.interfaces import Text


def test_what_fits_is_not_cut_and_what_is_one_token_longer_is(make_text):
    fits, longer = _encoding.tokenize(make_text(5), ["the cat sat", "the cat sat ."])
    assert (len(fits.encoding), fits.cut) == (5, False)
    assert (len(longer.encoding), longer.cut) == (5, True)


def test_the_positions_of_the_model_limit_the_tokens_too(make_text):
    assert _encoding.token_limit(make_text(512, max_position_embeddings=40)) == 40
    assert _encoding.token_limit(make_text(32, max_position_embeddings=40)) == 32


def test_a_pair_is_cut_at_its_longer_text(make_text, tokenizer):
    (tokens,) = _encoding.tokenize(make_text(8), ["the big red cat sat on it"], ["the dog"])
    assert tokenizer.decode(tokens.encoding.ids) == "[CLS] the big red [SEP] the dog [SEP]"


def test_only_the_first_text_is_cut_where_the_second_fits(make_text, tokenizer):
    (tokens,) = _encoding.tokenize(make_text(8), ["the cat"], ["a dog ran ."], shorten="only_first")
    assert tokenizer.decode(tokens.encoding.ids) == "[CLS] the [SEP] a dog ran. [SEP]"


def test_both_texts_are_cut_where_the_second_does_not_fit_alone(make_text):
    (tokens,) = _encoding.tokenize(make_text(7), ["the cat sat"], ["a dog ran under the tree ."], shorten="only_first")
    assert tokens.cut
    assert len(tokens.encoding) == 7


def test_a_tokenizer_that_is_not_fast_is_refused():
    with pytest.raises(DataError, match="is not a fast tokenizer; save one that has"):
        _encoding.tokenize(Text(object(), {}, 8), ["the cat"])


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"id2label": {"1": "POS", "0": "NEG"}}, ("NEG", "POS")),
        ({"id2label": {0: "O", 1: "B-X", 2: "I-X"}}, ("O", "B-X", "I-X")),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({}, ("LABEL_0", "LABEL_1")),
    ],
)
def test_class_names_come_in_the_order_of_their_ids(config, names):
    assert _encoding.class_names(config) == names


@pytest.mark.parametrize("label", [-1, 2, 0.5, None, "one", float("nan"), float("inf"), [0]])
def test_a_label_that_is_no_class_id_is_refused(label):
    with pytest.raises(DataError, match=r"^has .* as label; give a class id from 0 to"):
        _encoding.class_id(label, 2)
