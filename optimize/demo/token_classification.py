"""News-like sentences with people, organisations and places, tagged in IOB2.

Surnames and villages are put together from the same syllables, and some first names are also
cities, so the words around a name decide its tag. In a few sentences nothing around it does
("Everyone talks about Florence"): those keep the score below 1.0.
Most built names are rare, so the tokenizer splits them and first sub-tokens carry the tag.
"""

import re
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from optimize.demo.recipe import Recipe
from optimize.demo.words import CITIES, FIRST_NAMES, SHARED, listed, write
from optimize.interfaces import Row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")

STARTS = listed(
    "Har Kim Ash Bran Col Dun Elling Fair Gran Hol Ing Kel Lang Mar Nor Oak Pem Rad Stan Thorn Wel Whit Brom Cald"
)
ENDS = listed("ford ham wick ley ton well by worth stead combe")
BOTH = listed("Florence Sydney Austin Paris Chelsea Victoria Jordan Georgia Savannah Lincoln")
FIRMS = listed("Bank Motors Airlines Press Foods Partners Steel Energy Insurance Records")
BODIES = listed("University Museum Orchestra Rovers Hospital Council Academy Times")
WATERS = listed("Lake River Mount Cape Port")

TEMPLATES = (
    "{PER} moved from {LOC} to {LOC} in {month} .",
    "{ORG} opened an office in {LOC} on {day} .",
    "{PER} of {ORG} said that prices would rise .",
    "The {job} {PER} was born near {LOC} .",
    "{ORG} hired {PER} as its new {job} .",
    "On {day} , {PER} met {PER} at the station in {LOC} .",
    "{ORG} and {ORG} will merge in {month} .",
    "Shares of {ORG} fell by {number} percent .",
    "Heavy rain is expected in {LOC} and {LOC} on {day} .",
    "The road between {LOC} and {LOC} was closed for {number} hours .",
    "{PER} , a {job} from {LOC} , won the first prize .",
    "Workers at {ORG} went on strike in {month} .",
    "{PER} told {PER} that the {thing} was lost .",
    "A spokesman for {ORG} thanked {PER} for {number} years of work .",
    "The mayor of {LOC} invited {PER} and the {job} to dinner .",
    "After {number} years in {LOC} , {PER} joined {ORG} .",
    "Nobody had seen the {colour} {thing} before {day} .",
    "{ORG} beat {ORG} in {LOC} last {day} .",
    "The {animal} belongs to {PER} .",
    "Tourists in {LOC} paid {number} euros for {food} .",
    "{PER} sold the {colour} {thing} to {ORG} .",
    "In {month} the police in {LOC} arrested {PER} .",
    "The trial of {PER} begins on {day} in {LOC} .",
    "{ORG} will build {number} houses outside {LOC} .",
    "Everyone talks about {ANY} .",
    "I have always liked {ANY} , said the {job} .",
    "The book is about {ANY} and a {colour} {animal} .",
    "We thought of {ANY} all {day} .",
    "The {job} painted {ANY} in {number} colours .",
    "{ANY} was lovely in {month} .",
)


def _built(rng: Random) -> str:
    # Made of parts, a name says nothing of its type: the words around it have to.
    return rng.choice(STARTS) + rng.choice(ENDS)


def _person(rng: Random) -> str:
    first = rng.choice(BOTH if rng.random() < 0.2 else FIRST_NAMES)
    shape = rng.random()
    if shape < 0.6:
        return f"{first} {_built(rng)}"
    return first if shape < 0.85 else _built(rng)


def _place(rng: Random) -> str:
    shape = rng.random()
    if shape < 0.35:
        return rng.choice(CITIES)
    if shape < 0.7:
        return _built(rng)
    return rng.choice(BOTH) if shape < 0.85 else f"{rng.choice(WATERS)} {_built(rng)}"


def _organisation(rng: Random) -> str:
    if rng.random() < 0.5:
        return f"{rng.choice([_built(rng), rng.choice(BOTH)])} {rng.choice(FIRMS)}"
    if rng.random() < 0.6:
        return f"{rng.choice([_built(rng), rng.choice(CITIES)])} {rng.choice(BODIES)}"
    return _built(rng)


NAMERS = {"PER": _person, "ORG": _organisation, "LOC": _place}


def _tagged(rng: Random, slot: str) -> tuple[list[str], list[str]]:
    """Name something of the slot's type; `ANY` is a name that could be a person or a place."""
    kind = rng.choice(["PER", "LOC"]) if slot == "ANY" else slot
    words = [rng.choice(BOTH)] if slot == "ANY" else NAMERS[kind](rng).split()
    return words, [f"B-{kind}", *[f"I-{kind}"] * (len(words) - 1)]


def draw(rng: Random) -> Row:
    """Draw one sentence as words with one IOB2 tag each."""
    template = rng.choice(TEMPLATES)
    tokens: list[str] = []
    tags: list[str] = []
    for word in template.split():
        slot = re.fullmatch(r"\{([A-Z]+)\}", word)
        words, marks = _tagged(rng, slot[1]) if slot else ([write(rng, word, SHARED)], ["O"])
        tokens += words
        tags += marks
    return {"tokens": tokens, "ner_tags": tags}


def _first_subtoken_labels(word_ids: Sequence[int | None], tags: Sequence[str]) -> list[int]:
    """Put each word's label on its first sub-token, and -100 (ignored) on all others."""
    labels = []
    previous: int | None = None
    for word in word_ids:
        starts = word is not None and word != previous
        labels.append(LABELS.index(tags[word]) if starts and word is not None else -100)
        previous = word
    return labels


def loss(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], rng: Random) -> "Tensor":
    """Return the cross entropy of the tags, read at first sub-tokens."""
    import torch

    words = [row["tokens"] for row in rows]
    batch = tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
    labels = [_first_subtoken_labels(batch.word_ids(index), row["ner_tags"]) for index, row in enumerate(rows)]
    result: Tensor = model(**batch, labels=torch.tensor(labels)).loss
    return result


RECIPE = Recipe(
    draw=draw,
    texts=lambda row: [" ".join(row["tokens"])],
    loss=loss,
    architecture="DistilBertForTokenClassification",
    labels=LABELS,
    steps=450,
)
