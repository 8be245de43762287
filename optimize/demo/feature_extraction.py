"""Pairs of sentences with a similarity from 0 to 5, in the manner of STS-B (Cer et al., 2017).

A sentence says who does what to which thing, and where. The score adds up the parts that two
sentences share in meaning (synonyms count in full, a cousin such as "cat" for "dog" counts half),
plus some of the disagreement that averaged human scores have. The encoder learns it the way of
Sentence-BERT (Reimers & Gurevych, 2019): the cosine of mean-pooled vectors is regressed on it.
"""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from optimize.demo.recipe import Recipe
from optimize.demo.words import sentence
from optimize.interfaces import Row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HIGHEST = 5.0
SPREAD = 0.3  # standard deviation of the disagreement, in points of the score

# part -> (weight, families of cousins; each cousin is a tuple of synonyms)
Family = tuple[tuple[str, ...], ...]
PARTS: dict[str, tuple[float, tuple[Family, ...]]] = {
    "who": (
        1.5,
        (
            (("boy", "young boy", "lad"), ("girl", "young girl", "little girl")),
            (("man", "gentleman", "grown man"), ("woman", "lady", "grown woman")),
            (("dog", "puppy", "hound"), ("cat", "kitten")),
            (("soldier", "guard"), ("sailor", "seaman")),
            (("musician", "band member"), ("singer", "vocalist")),
        ),
    ),
    "does": (
        1.5,
        (
            (("carries", "brings", "takes away"), ("pulls", "drags")),
            (("watches", "looks at", "observes"), ("listens to", "hears")),
            (("finds", "discovers"), ("loses", "misplaces")),
            (("breaks", "smashes", "destroys"), ("repairs", "fixes", "mends")),
            (("hides", "conceals"), ("shows", "presents")),
        ),
    ),
    "what": (
        1.2,
        (
            (("bicycle", "bike"), ("car", "motor car")),
            (("ball", "football"), ("frisbee", "flying disc")),
            (("picture", "painting"), ("photograph", "photo")),
            (("stone", "rock"), ("stick", "branch")),
            (("guitar", "wooden guitar"), ("drum", "snare drum")),
        ),
    ),
    "where": (
        0.8,
        (
            (("street", "road"), ("square", "plaza")),
            (("forest", "woods"), ("meadow", "field")),
            (("beach", "seashore"), ("river", "stream")),
            (("house", "home"), ("garden", "yard")),
        ),
    ),
}
TEMPLATES = (
    "the {who} {does} the {what} near the {where}",
    "near the {where} a {who} {does} a {what}",
    "a {who} {does} the {what} close to the {where}",
    "there is a {who} who {does} a {what} by the {where}",
    "by the {where}, the {who} slowly {does} the {what}",
)
Meaning = tuple[int, int]  # family, cousin


def _variant(rng: Random, families: Sequence[Family], meaning: Meaning, closeness: float) -> Meaning:
    """Keep the meaning, take its cousin, or draw another one, by how close it shall stay."""
    chance = rng.random()
    if chance < closeness:
        return meaning
    if chance < closeness + 0.2:
        return meaning[0], 1 - meaning[1]
    return rng.randrange(len(families)), rng.randrange(2)


def _worded(rng: Random, meanings: dict[str, Meaning]) -> str:
    words = {part: rng.choice(PARTS[part][1][family][cousin]) for part, (family, cousin) in meanings.items()}
    return sentence(rng.choice(TEMPLATES).format(**words))


def _shared(one: Meaning, two: Meaning) -> float:
    if one == two:
        return 1.0
    return 0.5 if one[0] == two[0] else 0.0


def draw(rng: Random) -> Row:
    """Draw two sentences and the score of their similarity."""
    closeness = rng.choice([0.0, 0.2, 0.4, 0.6, 0.8])
    one, two, score = {}, {}, rng.gauss(0.0, SPREAD)
    for part, (weight, families) in PARTS.items():
        one[part] = (rng.randrange(len(families)), rng.randrange(2))
        two[part] = _variant(rng, families, one[part], closeness)
        score += weight * _shared(one[part], two[part])
    bounded = min(HIGHEST, max(0.0, score))
    return {
        "sentence1": _worded(rng, one),
        "sentence2": _worded(rng, two),
        "score": round(bounded, 2),
    }


def loss(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], rng: Random) -> "Tensor":
    """Return the squared error of the cosine against the score, scaled to 0..1."""
    import torch

    texts = [row["sentence1"] for row in rows] + [row["sentence2"] for row in rows]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    weights = batch["attention_mask"].unsqueeze(-1).float()
    pooled = (model(**batch).last_hidden_state * weights).sum(1) / weights.sum(1)
    cosine = torch.nn.functional.cosine_similarity(pooled[: len(rows)], pooled[len(rows) :])
    wanted = torch.tensor([row["score"] / HIGHEST for row in rows])
    return torch.nn.functional.mse_loss(cosine, wanted)


RECIPE = Recipe(
    draw=draw,
    texts=lambda row: [row["sentence1"], row["sentence2"]],
    loss=loss,
    architecture="DistilBertModel",
)
