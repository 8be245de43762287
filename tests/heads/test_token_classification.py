"""Token classification: words, entities, and parts of speech."""

import warnings

import numpy as np
import pytest
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from optimize.errors import DataError
from optimize.heads._tags import entities
from optimize.heads.token_classification import HEAD
from optimize.training.labels import labels_of

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
NER = {"id2label": dict(enumerate(TAGS))}
POS = {"id2label": {0: "NOUN", 1: "VERB", 2: "DET"}}


def logits_of(feature, word_classes, classes):
    """Answer `word_classes` at the deciding tokens and the last class anywhere else."""
    logits = np.eye(classes)[np.full(feature.tokens, classes - 1)]
    for word, position in zip(feature.extra["words"], feature.extra["positions"], strict=True):
        logits[position] = np.eye(classes)[word_classes[word]]
    return {"logits": logits}


def sentences(rng, count):
    lengths = rng.integers(1, 9, count)
    return [rng.integers(0, len(TAGS), n) for n in lengths]


def test_the_first_sub_token_of_each_word_decides(make_text):
    row = {"tokens": ["anna", "plays", "walking", "."], "tags": [1, 0, 0, 0]}
    (feature,) = HEAD.encode([row], make_text(**NER)).features
    assert feature.extra["positions"].tolist() == [1, 2, 4, 6]
    assert feature.tokens == 8
    assert HEAD.read(feature, {"logits": np.zeros((8, 5))}).shape == (4, 5)


def test_f1_precision_and_recall_equal_seqeval_on_random_sentences(make_text, run):
    rng = np.random.default_rng(0)
    gold = sentences(rng, 60)
    said = [np.where(rng.random(len(s)) < 0.6, s, rng.integers(0, 5, len(s))) for s in gold]
    rows = [{"tokens": ["cat"] * len(s), "tags": s.tolist()} for s in gold]
    encoded = HEAD.encode(rows, make_text(**NER))
    score = run(HEAD, encoded, lambda f: logits_of(f, said[f.example], 5))
    names = [[[TAGS[i] for i in s] for s in side] for side in (gold, said)]
    assert score.metric == "f1"
    assert score.value == pytest.approx(f1_score(*names))
    assert score.others["precision"] == pytest.approx(precision_score(*names))
    assert score.others["recall"] == pytest.approx(recall_score(*names))
    assert score.others["token_accuracy"] == np.mean(np.concatenate(gold) == np.concatenate(said))
    assert score.right.tolist() == [(a == b).all() for a, b in zip(gold, said, strict=True)]


def test_f1_of_a_selection_of_sentences_equals_seqeval_on_that_selection(make_text, run):
    gold, said = sentences(np.random.default_rng(1), 30), sentences(np.random.default_rng(1), 30)
    said = [np.roll(s, 1) for s in said]
    rows = [{"tokens": ["dog"] * len(s), "tags": s.tolist()} for s in gold]
    score = run(HEAD, HEAD.encode(rows, make_text(**NER)), lambda f: logits_of(f, said[f.example], 5))
    chosen = [3, 3, 7, 21]
    names = [[[TAGS[i] for i in side[n]] for n in chosen] for side in (gold, said)]
    assert score.aggregate(score.statistics[chosen]) == pytest.approx(f1_score(*names))


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
def test_entities_are_those_of_seqeval(prefixes):
    rng = np.random.default_rng(2)
    tags = ["O"] + [f"{p}-{t}" for p in prefixes for t in ("PER", "LOC-X")]
    for _ in range(200):
        sentence = [str(tag) for tag in rng.choice(tags, rng.integers(0, 8))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = {(kind, start, end + 1) for kind, start, end in get_entities(sentence)}
        assert entities(sentence) == expected, sentence


def test_words_that_were_cut_off_count_as_outside_and_the_sentence_as_truncated(make_text, run):
    row = {"tokens": ["anna", "lives", "in", "paris"], "tags": [1, 0, 0, 3]}
    encoded = HEAD.encode([row], make_text(5, **NER))
    score = run(HEAD, encoded, lambda f: logits_of(f, [1, 0, 0, 3], 5))
    assert encoded.truncated == 1
    assert score.decisions.tolist() == [1, 0, 0, 0]
    assert score.statistics.tolist() == [[1, 1, 2]]


def test_a_word_that_the_tokenizer_drops_counts_as_outside(make_text, run):
    row = {"tokens": ["anna", "\u200b", "paris"], "tags": [1, 3, 3]}
    encoded = HEAD.encode([row], make_text(**NER))
    score = run(HEAD, encoded, lambda f: logits_of(f, [1, 3, 3], 5))
    assert encoded.truncated == 0
    assert score.decisions.tolist() == [1, 0, 3]


def test_parts_of_speech_are_scored_by_words_and_a_cut_word_is_a_miss(make_text, run):
    rows = [{"tokens": ["the", "cat", "sat"], "tags": [2, 0, 1]}, {"tokens": ["dog"], "tags": [0]}]
    encoded = HEAD.encode(rows, make_text(4, **POS))
    score = run(HEAD, encoded, lambda f: logits_of(f, [2, 0, 1] if f.example == 0 else [0], 3))
    assert (score.metric, score.value) == ("accuracy", 0.75)
    assert score.decisions.tolist() == [2, 0, -1, 0]
    assert score.classes.names == ("NOUN", "VERB", "DET")
    assert score.classes.counts.sum(axis=0).tolist() == [[2, 2, 2], [0, 0, 1], [1, 1, 1]]
    assert score.right.tolist() == [False, True]


def test_words_with_the_tag_of_no_label_are_neither_scored_nor_trained_on(make_text, run):
    row = {"tokens": ["anna", "walking", "lives", "in", "paris"], "tags": [1, -100, 2, 0, -100]}
    encoded = HEAD.encode([row, {"tokens": ["cat"], "tags": [-100]}], make_text(**NER))
    (feature,) = encoded.features
    score = run(HEAD, encoded, lambda f: logits_of(f, [1, 2, 0], 5))
    assert [tags.tolist() for tags in encoded.gold] == [[1, 2, 0]]
    assert (feature.extra["words"].tolist(), feature.extra["positions"].tolist()) == ([0, 1, 2], [1, 4, 5])
    assert (score.value, score.statistics.tolist()) == (1.0, [[1, 1, 1]])
    assert labels_of(encoded.features, encoded.gold, "classes").tolist() == [1, 2, 0]


def test_a_split_without_a_tagged_word_is_refused(make_text):
    with pytest.raises(DataError, match="no row has words that are tagged"):
        HEAD.encode([{"tokens": ["cat"], "tags": [-100]}], make_text(**NER))


def test_f1_by_type_is_seqevals(make_text, run):
    gold = sentences(np.random.default_rng(3), 40)
    said = [np.roll(s, 1) for s in gold]
    rows = [{"tokens": ["dog"] * len(s), "tags": s.tolist()} for s in gold]
    score = run(HEAD, HEAD.encode(rows, make_text(**NER)), lambda f: logits_of(f, said[f.example], 5))
    names = [[[TAGS[i] for i in s] for s in side] for side in (gold, said)]
    report = classification_report(*names, output_dict=True)
    true, claimed, actual = score.classes.counts.sum(axis=0).T
    assert score.classes.names == ("PER", "LOC")
    assert actual.tolist() == [report[name]["support"] for name in score.classes.names]
    expected = [report[name]["f1-score"] for name in score.classes.names]
    assert (2 * true / (claimed + actual)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("classes", "gold", "said", "found"),
    [
        (["O", "B-X", "I-X", "L-X", "U-X"], [4, 0, 1, 2, 3], [4, 0, 1, 2, 0], [1, 2, 2]),
        (["O", "B-X", "I-X", "E-X", "S-X"], [1, 3, 4, 4, 0], [1, 3, 4, 0, 0], [2, 2, 3]),
        (["X", "O"], [0, 0, 1, 0, 1], [0, 0, 1, 1, 1], [1, 1, 2]),
        (["o", "b-x", "i-x"], [2, 2, 0, 2, 1], [2, 2, 0, 2, 2], [1, 2, 3]),
    ],
)
def test_entities_are_counted_in_the_scheme_of_the_classes(classes, gold, said, found, make_text, run):
    row = {"tokens": ["cat"] * 5, "tags": gold}
    encoded = HEAD.encode([row], make_text(id2label=dict(enumerate(classes))))
    score = run(HEAD, encoded, lambda f: logits_of(f, said, len(classes)))
    assert (score.metric, score.statistics.tolist()) == ("f1", [found])


def test_names_that_rows_bring_are_those_of_classes_without_any(make_text, run):
    row = {"tokens": ["anna", "lives"], "tags": [1, 0], "classes": ("O", "B-PER")}
    encoded = HEAD.encode([row], make_text(id2label={0: "LABEL_0", 1: "LABEL_1"}))
    assert run(HEAD, encoded, lambda f: logits_of(f, [1, 0], 2)).metric == "f1"


def test_sentences_without_words_are_left_out(make_text):
    rows = [{"tokens": [], "tags": []}, {"tokens": ["cat"], "tags": [0]}]
    encoded = HEAD.encode(rows, make_text(**NER))
    assert [feature.example for feature in encoded.features] == [0]
    assert len(encoded.gold) == 1


def test_sentences_without_entities_score_zero_and_not_nan(make_text, run):
    encoded = HEAD.encode([{"tokens": ["cat"], "tags": [0]}], make_text(**NER))
    score = run(HEAD, encoded, lambda f: logits_of(f, [0], 5))
    assert score.value == 0.0
    assert score.right.tolist() == [True]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "tags": [0]}, "row 1 has 2 tokens and 1 tags"),
        ({"tokens": ["a"], "tags": [5]}, "row 1 has 5 as label; give a class id from 0 to 4"),
        ({"tokens": ["a"], "tags": None}, "row 1 has no list of tokens or of tags"),
        ({"tokens": "a", "tags": [0]}, "row 1 has no list of tokens or of tags"),
        ({"tokens": [1], "tags": [0]}, "row 1 has 1 among its tokens; give text"),
    ],
)
def test_rows_that_do_not_fit_are_refused(row, message, make_text):
    with pytest.raises(DataError, match=message):
        HEAD.encode([{"tokens": ["a"], "tags": [0]}, row], make_text(**NER))
