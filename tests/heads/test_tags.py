"""Schemes of tags beside seqeval's: what each scheme's tags spell, and what they are called."""

import warnings

import numpy as np
import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE1, IOE2, Entities

from optimize.heads._tags import entities, in_words, scheme_of

TYPES = ["PER", "LOC", "ORG-X"]
BEGINS = {
    IOB1: ("I", "I", "I", "I"),
    IOB2: ("B", "B", "I", "I"),
    IOE1: ("I", "I", "I", "I"),
    IOE2: ("E", "I", "I", "E"),
    IOBES: ("S", "B", "I", "E"),
    BILOU: ("U", "B", "I", "L"),
}
"""How a scheme writes an entity of one word, and the first, inner and last word of a longer one."""


def written(spans, length, scheme):
    """The tags of spans (type, first word, word after the last) in a scheme; none touches another of its type."""
    tags = ["O"] * length
    alone, first, inner, last = BEGINS[scheme]
    for name, start, stop in spans:
        words = [alone] if stop - start == 1 else [first, *[inner] * (stop - start - 2), last]
        tags[start:stop] = [f"{word}-{name}" for word in words]
    return tags


def random_spans(rng):
    spans, start, before = [], 0, None
    for _ in range(rng.integers(0, 5)):
        name = str(rng.choice([each for each in TYPES if each != before]))
        stop = start + int(rng.integers(1, 4))
        spans.append((name, start, stop))
        gap = int(rng.integers(0, 2))
        start, before = stop + gap, None if gap else name
    return spans, start + 1


@pytest.mark.parametrize("scheme", BEGINS, ids=lambda scheme: scheme.__name__)
def test_entities_of_each_scheme_are_those_that_seqeval_finds_strictly(scheme):
    rng = np.random.default_rng(0)
    classes = ["O", *(f"{prefix}-{name}" for prefix in dict.fromkeys(BEGINS[scheme]) for name in TYPES)]
    found = scheme_of(classes)
    for _ in range(100):
        spans, length = random_spans(rng)
        tags = written(spans, length, scheme)
        strict = {(each.tag, each.start, each.end) for each in Entities([tags], scheme).entities[0]}
        ours = [found.tags[classes.index(tag)] for tag in tags]
        assert entities(ours) == strict == set(spans)


@pytest.mark.parametrize("prefixes", ["BIES", "BILU", "BMES", "BMEW"])
def test_of_broken_tags_each_scheme_finds_what_seqeval_does_by_default(prefixes):
    rng = np.random.default_rng(1)
    classes = ["O", *(f"{prefix}-{name}" for prefix in prefixes for name in TYPES)]
    found = scheme_of(classes)
    for _ in range(200):
        drawn = rng.integers(0, len(classes), rng.integers(0, 8))
        # seqeval's default mode knows the prefixes of BIOES alone.
        tags = [classes[each] for each in drawn]
        bioes = [
            tag if tag == "O" else {"L": "E", "U": "S", "M": "I", "W": "S"}.get(tag[0], tag[0]) + tag[1:]
            for tag in tags
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = {(name, start, end + 1) for name, start, end in get_entities(bioes)}
        assert entities(found.tags[each] for each in drawn) == expected, tags


@pytest.mark.parametrize(
    ("classes", "name", "tags"),
    [
        (["O", "B-PER", "I-PER"], "IOB", ("O", "B-PER", "I-PER")),
        (["o", "b_per", "i_per"], "IOB", ("O", "B-per", "I-per")),
        (["O", "I-PER", "I-LOC"], "IOB", ("O", "I-PER", "I-LOC")),
        (["O", "I-PER", "E-PER"], "IOE", ("O", "I-PER", "E-PER")),
        (["O", "B-A", "I-A", "L-A", "U-A"], "BILOU", ("O", "B-A", "I-A", "E-A", "S-A")),
        (["O", "B-A", "M-A", "E-A", "W-A"], "BMEWO", ("O", "B-A", "I-A", "E-A", "S-A")),
        (["PER", "LOC", "O"], "classes as they run", ("I-PER", "I-LOC", "O")),
        (["O", "B-A", "I-A", "[CLS]"], "IOB, and classes without a prefix as long as they run", None),
    ],
)
def test_classes_are_of_a_scheme(classes, name, tags):
    found = scheme_of(classes)
    assert found.name == name
    assert tags is None or found.tags == tags


@pytest.mark.parametrize(
    "classes", [["NOUN", "VERB"], ["O"], ["LABEL_0", "LABEL_1"], ["B-A", "NOUN"], ["O", "B-A", "L-A", "M-A"]]
)
def test_classes_that_are_of_none_are_words(classes):
    assert scheme_of(classes) is None
    assert in_words(None, []) == "no entities among the classes, so words are scored"


@pytest.mark.parametrize(
    ("sentences", "name"),
    [
        ([["B-A", "I-A", "O", "B-B"]], "IOB2"),
        ([["I-A", "I-A", "O", "I-B"], ["I-A", "B-A"]], "IOB1"),
        ([["B-A", "O", "B-A"], ["I-B", "O"]], "IOB2"),
        ([], "IOB2"),
    ],
)
def test_which_iob_it_is_is_what_most_entities_begin_with(sentences, name):
    scheme = scheme_of(["O", "B-A", "I-A", "B-B", "I-B"])
    assert in_words(scheme, sentences) == f"{name}, entities counted as conlleval and seqeval's default do"


def test_a_class_without_a_prefix_is_an_entity_as_long_as_it_runs():
    scheme = scheme_of(["O", "PER", "LOC"])
    drawn = [1, 1, 2, 0, 1]
    assert entities(scheme.tags[each] for each in drawn) == {("PER", 0, 2), ("LOC", 2, 3), ("PER", 4, 5)}
