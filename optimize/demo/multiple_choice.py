"""Short dialogues: a remark that ends in a question, and four replies, one of which answers it.

The sort of question (where, when, who, how many ...) tells which sort of reply fits; the thing
that is talked about changes nothing. The shape follows dialogue sets such as MuTual (Cui et al.,
2020), whose replies are likewise chosen from four. In one row of twenty a random reply is called
the right one, as annotators slip too, so no model scores 1.0.
"""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from optimize.demo.recipe import Recipe
from optimize.demo.words import SHARED, Words, listed, sentence, write
from optimize.interfaces import Row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHOICES = 4
NOISE = 0.05

WORDS: Words = {
    **SHARED,
    "room": listed("kitchen cellar attic garage bathroom hallway bedroom office"),
    "spot": ("behind the door", "under the table", "on the shelf", "next to the window"),
    "hour": ("noon", "midnight", "half past six", "a quarter to nine", "ten in the morning"),
    "reason": ("broken", "too small", "too expensive", "dirty", "out of fashion", "too heavy"),
}
REMARKS = (
    "{name}, I need the {thing}.",
    "I have been thinking about the {thing}.",
    "You told me about the {thing} on {day}.",
    "We talked about a {colour} {thing} last {month}.",
    "{name} the {job} called me today.",
    "Look, here is the old {thing} again!",
    "There is not much time left, {name}.",
    "My {animal} is asleep.",
)
# sort -> (questions, replies)
DIALOGUES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "where": (
        ("Where is the {thing}?", "Where did you put the {thing}?", "Where can I find it?"),
        ("It is in the {room}.", "In the {room}, {spot}.", "It should be {spot}."),
    ),
    "when": (
        ("When will you need the {thing}?", "When shall we meet?", "When did you get it?"),
        ("On {day} at {hour}.", "It was in {month}.", "At {hour}, as always."),
    ),
    "who": (
        ("Who owns the {thing}?", "Who sent you the {thing}?", "Who told you so?"),
        ("It was {name}.", "{name}, the {job}.", "My neighbour {name} did."),
    ),
    "how many": (
        ("How many of them do you have?", "How many {thing}s are left?", "How many did you see?"),
        ("I counted {number} of them.", "Only {number}, I think.", "More than {number}."),
    ),
    "why": (
        ("Why did you sell the {thing}?", "Why do you not use it?", "Why did you bring it back?"),
        ("Because it is {reason}.", "It was {reason}, that is why.", "Since it was {reason}."),
    ),
    "colour": (
        ("What colour is the {thing}?", "Which colour did you choose?", "Was it a bright colour?"),
        ("It is {colour} and {colour}.", "A dark {colour}.", "Mostly {colour}."),
    ),
    "eat": (
        ("What would you like to eat?", "What did you eat on {day}?", "What is there to eat?"),
        ("Some {food} with {food}.", "A plate of {food}.", "I would love {food}."),
    ),
}


def draw(rng: Random) -> Row:
    """Draw one remark and question, four replies, and the index of the one that fits."""
    # All of different sorts, so that one reply alone fits the question.
    sorts = rng.sample(list(DIALOGUES), CHOICES)
    right = rng.randrange(CHOICES)
    question = rng.choice(DIALOGUES[sorts[right]][0])
    remark = rng.choice(REMARKS)
    replies = [sentence(write(rng, rng.choice(DIALOGUES[sort][1]), WORDS)) for sort in sorts]
    label = rng.randrange(CHOICES) if rng.random() < NOISE else right
    context = f"{write(rng, remark, WORDS)} {write(rng, question, WORDS)}"
    return {"context": context, "choices": replies, "label": label}


def loss(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], rng: Random) -> "Tensor":
    """Return the cross entropy over the four replies."""
    import torch

    contexts = [row["context"] for row in rows for _ in row["choices"]]
    choices = [choice for row in rows for choice in row["choices"]]
    batch = tokenizer(contexts, choices, padding=True, return_tensors="pt")
    shaped = {name: tensor.view(len(rows), CHOICES, -1) for name, tensor in batch.items()}
    result: Tensor = model(**shaped, labels=torch.tensor([row["label"] for row in rows])).loss
    return result


RECIPE = Recipe(
    draw=draw,
    texts=lambda row: [row["context"], *row["choices"]],
    loss=loss,
    architecture="DistilBertForMultipleChoice",
    steps=600,
    batch_size=8,
)
