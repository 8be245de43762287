"""Reviews of everyday things, labelled negative or positive.

Negation turns an adjective round, a main clause outweighs the concession beside it, and three
remarks are settled by majority, so counting friendly words is not enough. One label in twenty-five
is turned round at random: no model can score 1.0, as no annotator agrees with all others.
"""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from optimize.demo.recipe import Recipe
from optimize.demo.words import SHARED, listed, sentence, write
from optimize.interfaces import Row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LABELS = ("negative", "positive")
NOISE = 0.04

ASPECTS = {
    "hotel": listed("room bed breakfast staff view shower location pool"),
    "restaurant": listed("food service menu wine dessert kitchen table waiter"),
    "phone": listed("screen battery camera speaker design keyboard price signal"),
    "film": listed("story acting music ending script dialogue director cast"),
    "novel": listed("plot style hero opening language chapter cover pace"),
    "jacket": listed("fabric zip colour fit lining collar pocket hood"),
    "train": listed("seat ticket journey driver window timetable carriage lunch"),
    "course": listed("teacher lesson book exam topic classroom homework website"),
}
PRAISE = listed(
    "good great excellent lovely wonderful superb pleasant perfect brilliant charming "
    "impressive delightful fantastic solid"
)
BLAME = listed(
    "bad awful terrible horrible poor dreadful disappointing boring useless cheap annoying weak shabby broken"
)
DEGREES = ["", "", "really ", "very ", "quite ", "truly ", "rather ", "simply "]
OPENINGS = [
    "",
    "",
    "{name} and I came in {month}. ",
    "This was our second try. ",
    "We paid for it on {day}. ",
    "I read about it in {city}. ",
    "My friend {name} told me about it. ",
    "After {number} days I can say this. ",
]
CONTRASTS = [
    "although {weak}, {strong}",
    "even though {weak}, {strong}",
    "{weak}, but {strong}",
    "{strong}, although {weak}",
    "{strong}, despite the fact that {weak}",
    "{weak}; however, {strong}",
]


def _remark(rng: Random, aspect: str, positive: bool) -> str:
    """Say something about the aspect, one time in seven by denying the opposite."""
    degree = rng.choice(DEGREES)
    if rng.random() < 0.15:
        word = rng.choice(BLAME if positive else PRAISE)
        return f"the {aspect} was {rng.choice(['not', 'never'])} {degree}{word}"
    word = rng.choice(PRAISE if positive else BLAME)
    verb = rng.choice(["was", "was", "seemed", "felt", "looked"])
    return f"the {aspect} {verb} {degree}{word}"


def _review(rng: Random, aspects: Sequence[str], positive: bool) -> str:
    """Write one, two or three remarks that add up to the wanted opinion."""
    first, second, third = rng.sample(aspects, 3)
    (shape,) = rng.choices(["one", "two", "contrast", "majority"], weights=[6, 8, 3, 3])
    agreeing = _remark(rng, first, positive)
    if shape == "one":
        return sentence(agreeing)
    if shape == "two":
        return f"{sentence(agreeing)} {sentence(_remark(rng, second, positive))}"
    opposing = _remark(rng, second, not positive)
    if shape == "contrast":
        return sentence(rng.choice(CONTRASTS).format(weak=opposing, strong=agreeing))
    remarks = [agreeing, opposing, _remark(rng, third, positive)]
    rng.shuffle(remarks)
    return " ".join(sentence(remark) for remark in remarks)


def draw(rng: Random) -> Row:
    """Draw one review with its label."""
    subject = rng.choice(list(ASPECTS))
    positive = rng.random() < 0.5
    opening = write(rng, rng.choice(OPENINGS), SHARED)
    closing = rng.choice(["", "", f" So much for the {subject}.", f" That was our {subject}."])
    text = opening + _review(rng, ASPECTS[subject], positive) + closing
    flipped = rng.random() < NOISE
    return {"text": text, "label": int(positive != flipped)}


def loss(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], rng: Random) -> "Tensor":
    """Return the cross entropy of the labels."""
    import torch

    batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    result: Tensor = model(**batch, labels=torch.tensor([row["label"] for row in rows])).loss
    return result


RECIPE = Recipe(
    draw=draw,
    texts=lambda row: [row["text"]],
    loss=loss,
    architecture="DistilBertForSequenceClassification",
    labels=LABELS,
    steps=900,
    batch_size=16,
)
