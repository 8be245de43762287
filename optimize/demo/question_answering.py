"""Short contexts about two or three people, and a question that one span answers.

Every sentence states one fact of one person. Where only one fact of the asked sort is stated,
the kind of question finds the answer; where two people have a fact of the same sort, the name has to
be matched as well. The shape follows SQuAD 1.1 (Rajpurkar et al., 2016).
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING

from optimize.demo.recipe import Recipe
from optimize.demo.words import FIRST_NAMES, sentence, write
from optimize.interfaces import Row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAME_SORT = 0.12  # share of contexts in which the question's sort alone does not decide

# sort -> (statements with the answer in angle brackets, questions); WHO is the person.
FACTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "home": (
        ("WHO lives in <{city}>", "WHO has a small flat in <{city}>", "WHO settled in <{city}>"),
        ("Where does WHO live?", "In which city is the home of WHO?"),
    ),
    "trip": (
        (
            "WHO flew to <{city}>",
            "WHO spent the summer in <{city}>",
            "WHO took a train to <{city}>",
        ),
        ("Where did WHO travel?", "To which city did WHO go?"),
    ),
    "job": (
        ("WHO works as a <{job}>", "WHO is a <{job}>", "WHO earns a living as a <{job}>"),
        ("What is the job of WHO?", "What does WHO do for a living?"),
    ),
    "purchase": (
        ("WHO bought <a {colour} {thing}>", "WHO paid for <a {colour} {thing}> at the market"),
        ("What did WHO buy?", "Which thing was bought by WHO?"),
    ),
    "loss": (
        ("WHO lost <a {colour} {thing}>", "WHO left <a {colour} {thing}> on the bus"),
        ("What did WHO lose?", "Which thing is missing from the bags of WHO?"),
    ),
    "meal": (
        ("WHO cooked <{food} and {food}>", "WHO made <{food} with {food}> for everyone"),
        ("What did WHO cook?", "Which dishes did WHO make?"),
    ),
    "pet": (
        ("WHO owns <a {colour} {animal}>", "WHO takes care of <a {colour} {animal}>"),
        ("Which pet does WHO own?", "Which animal does WHO keep?"),
    ),
    "date": (
        ("WHO arrived on <{day}>", "WHO came home on <{day} evening>", "WHO returned in <{month}>"),
        ("When did WHO arrive?", "On which date did WHO come?"),
    ),
    "birthday": (
        ("WHO was born in <{month}>", "WHO has a birthday in <{month}>"),
        ("When was WHO born?", "In which month is the birthday of WHO?"),
    ),
    "amount": (
        ("WHO waited for <{number} hours>", "WHO had to stay for <{number} days>"),
        ("How long did WHO wait?", "For how long did WHO stay?"),
    ),
}
TITLES = ("Neighbours", "Friends", "A family album", "Village news", "Old classmates")


def _sorts(rng: Random, count: int) -> list[str]:
    """Choose the sort of fact of each sentence; the first one is asked for."""
    sorts = rng.sample(list(FACTS), count)
    if rng.random() < SAME_SORT:
        sorts[1] = sorts[0]
    return sorts


def draw(rng: Random) -> Row:
    """Draw one context with its question and the span that answers it."""
    count = rng.choice([2, 2, 3])
    sorts = _sorts(rng, count)
    people = rng.sample(FIRST_NAMES, count)
    # The angle brackets stay until the sentences are in order, to say where the answer came to stand.
    facts = [
        sentence(write(rng, rng.choice(FACTS[sort][0])).replace("WHO", person))
        for sort, person in zip(sorts, people, strict=True)
    ]
    asked = facts[0]
    rng.shuffle(facts)
    marked = " ".join(fact if fact is asked else re.sub("[<>]", "", fact) for fact in facts)
    start, end = marked.index("<"), marked.index(">")
    context = re.sub("[<>]", "", marked)
    question = rng.choice(FACTS[sorts[0]][1]).replace("WHO", people[0])
    return {
        "id": sha256(f"{context}\n{question}".encode()).hexdigest()[:24],
        "title": rng.choice(TITLES),
        "context": context,
        "question": question,
        "answers": {"text": [marked[start + 1 : end]], "answer_start": [start]},
    }


def loss(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], rng: Random) -> "Tensor":
    """Return the mean cross entropy of the first and the last token of the answer."""
    import torch

    questions = [row["question"] for row in rows]
    contexts = [row["context"] for row in rows]
    batch = tokenizer(questions, contexts, padding=True, return_tensors="pt")
    first, last = [], []
    for index, row in enumerate(rows):
        start = row["answers"]["answer_start"][0]
        end = start + len(row["answers"]["text"][0]) - 1
        first.append(batch.char_to_token(index, start, sequence_index=1))
        last.append(batch.char_to_token(index, end, sequence_index=1))
    spans = {"start_positions": torch.tensor(first), "end_positions": torch.tensor(last)}
    result: Tensor = model(**batch, **spans).loss
    return result


RECIPE = Recipe(
    draw=draw,
    texts=lambda row: [row["context"], row["question"]],
    loss=loss,
    architecture="DistilBertForQuestionAnswering",
    train_rows=8000,
    steps=900,
    batch_size=12,
)
