"""Little stories in which almost every word follows from the others.

A trade fixes its two workers, its place, goods and tools; names come back several times; days
and numbers follow each other in order; the pronoun agrees with the name. A masked word can mostly
be worked out, and the few free choices keep the score below 1.0. Masks cover whole words, 15 % of
them as in BERT (Devlin et al., 2019), are drawn anew at every step, and always read [MASK].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from optimize.demo.recipe import Recipe
from optimize.demo.words import DAYS, NUMBERS, sentence
from optimize.interfaces import Row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MASKED_SHARE = 0.15


@dataclass(frozen=True)
class Trade:
    """Who works where, and what they did to what: "the baker baked the fresh bread"."""

    people: tuple[str, str]  # she, he
    worker: str
    place: str
    deed: tuple[str, str, str]  # verb in the past tense, adjective, noun
    tools: tuple[str, str, str]  # each fits after "needs the"


TRADES = (
    Trade(("Anna", "Ben"), "baker", "bakery", ("baked", "fresh", "bread"), ("oven", "flour", "tray")),
    Trade(
        ("Clara", "Daniel"),
        "nurse",
        "hospital",
        ("treated", "sick", "patient"),
        ("bandage", "needle", "bed"),
    ),
    Trade(
        ("Emma", "Felix"),
        "teacher",
        "school",
        ("taught", "difficult", "lesson"),
        ("chalk", "desk", "book"),
    ),
    Trade(
        ("Grace", "Henry"),
        "farmer",
        "farm",
        ("harvested", "golden", "wheat"),
        ("tractor", "barn", "rake"),
    ),
    Trade(
        ("Irene", "Jack"),
        "pilot",
        "airport",
        ("flew", "large", "plane"),
        ("runway", "radar", "map"),
    ),
    Trade(
        ("Karen", "Leo"),
        "sailor",
        "harbour",
        ("steered", "wooden", "ship"),
        ("anchor", "sail", "rope"),
    ),
    Trade(
        ("Maria", "Nathan"),
        "chef",
        "restaurant",
        ("cooked", "spicy", "meal"),
        ("knife", "pan", "menu"),
    ),
    Trade(
        ("Olivia", "Peter"),
        "librarian",
        "library",
        ("lent", "old", "novel"),
        ("shelf", "card", "stamp"),
    ),
    Trade(
        ("Rachel", "Simon"),
        "artist",
        "studio",
        ("painted", "bright", "portrait"),
        ("brush", "canvas", "easel"),
    ),
    Trade(
        ("Tina", "Victor"),
        "gardener",
        "garden",
        ("watered", "tall", "rose"),
        ("spade", "hose", "bucket"),
    ),
    Trade(
        ("Wendy", "Adam"),
        "mechanic",
        "garage",
        ("repaired", "rusty", "car"),
        ("wrench", "drill", "pump"),
    ),
    Trade(
        ("Bella", "Carl"),
        "barber",
        "salon",
        ("trimmed", "grey", "beard"),
        ("razor", "comb", "towel"),
    ),
)
OPENINGS = (
    "{name} is a {worker}, and {name} works in the {place}",
    "{name} the {worker} went to the {place}, where every {worker} works",
)
MIDDLES = (
    "every morning {pronoun} {verb} the {quality} {goods} in the {place}",
    "the {worker} needs the {tool} and the {other} in the {place}",
    "from {day} to {next_day} {name} the {worker} {verb} the {quality} {goods}",
    "the {worker} has {number} or {next_number} of them in the {place}",
)
ENDINGS = (
    "so {name} is a good {worker}, and the {quality} {goods} is good too",
    "after {day} comes {next_day}, and {name} goes back to the {place}",
)


def _slots(rng: Random) -> dict[str, str]:
    """Choose who and when; all else follows from that."""
    trade = rng.choice(TRADES)
    who = rng.randrange(2)
    verb, quality, goods = trade.deed
    tool, other = rng.sample(trade.tools, 2)
    day, number = rng.randrange(len(DAYS)), rng.randrange(len(NUMBERS) - 1)
    return {
        "name": trade.people[who],
        "pronoun": ("she", "he")[who],
        "worker": trade.worker,
        "place": trade.place,
        "verb": verb,
        "quality": quality,
        "goods": goods,
        "tool": tool,
        "other": other,
        "day": DAYS[day],
        "next_day": DAYS[(day + 1) % len(DAYS)],
        "number": NUMBERS[number],
        "next_number": NUMBERS[number + 1],
    }


def draw(rng: Random) -> Row:
    """Draw one story of two to four sentences."""
    middles = rng.sample(MIDDLES, rng.choice([1, 1, 2]))
    endings = rng.sample(ENDINGS, rng.choice([0, 1]))
    parts = [rng.choice(OPENINGS), *middles, *endings]
    slots = _slots(rng)
    return {"text": " ".join(sentence(part.format(**slots)) for part in parts)}


def _masked(word_ids: Sequence[int | None], rng: Random) -> list[bool]:
    """Mark all sub-tokens of a random 15 % of the words, and of one word at least."""
    words = sorted({word for word in word_ids if word is not None})
    chosen = set(rng.sample(words, max(1, round(MASKED_SHARE * len(words)))))
    return [word in chosen for word in word_ids]


def loss(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], rng: Random) -> "Tensor":
    """Return the cross entropy of the words hidden at this step."""
    import torch

    batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    mask = torch.tensor([_masked(batch.word_ids(index), rng) for index in range(len(rows))])
    labels = batch["input_ids"].masked_fill(~mask, -100)
    hidden = batch["input_ids"].masked_fill(mask, tokenizer.mask_token_id)
    attention = batch["attention_mask"]
    result: Tensor = model(input_ids=hidden, attention_mask=attention, labels=labels).loss
    return result


RECIPE = Recipe(
    draw=draw,
    texts=lambda row: [row["text"]],
    loss=loss,
    architecture="DistilBertForMaskedLM",
    steps=700,
    batch_size=12,
    learning_rate=1.5e-3,
)
