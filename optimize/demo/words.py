"""Shared word lists, and the one way to put them into a sentence.

The demo text is written from templates whose `{slots}` name a list here or in the head's own
file. The lists hold common English words, chosen so that every combination reads as a sentence
somebody could have written; none of it is taken from a corpus.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random

Words = Mapping[str, Sequence[str]]


def listed(words: str) -> tuple[str, ...]:
    """Return the words of a string, split at spaces."""
    return tuple(words.split())


FIRST_NAMES = listed(
    "Anna Ben Clara Daniel Emma Felix Grace Henry Irene Jack Karen Leo Maria Nathan Olivia Peter "
    "Rachel Simon Tina Victor Wendy Adam Bella Carl Diana Edward Fiona George Helen Ivan Julia "
    "Kevin Laura Martin Nora Oscar Paula Robert Sarah Thomas"
)

CITIES = listed(
    "Lisbon Oslo Berlin Madrid Vienna Dublin Prague Athens Warsaw Geneva Chicago Boston Toronto "
    "Nairobi Lagos Mumbai Tokyo Seoul Lima Havana Cairo Hamburg Glasgow Naples"
)

DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

MONTHS = listed("January February March April May June July August September October November December")

COLOURS = listed("red blue green yellow black white brown purple")

NUMBERS = listed("two three four five six seven eight nine ten eleven twelve")

JOBS = listed(
    "nurse teacher baker pilot farmer lawyer painter driver singer plumber dentist waiter chef "
    "gardener tailor librarian carpenter journalist builder butcher"
)

THINGS = listed(
    "bicycle umbrella lamp guitar jacket camera kettle ladder mirror blanket suitcase clock kite "
    "tent helmet basket violin scarf radio drum"
)

FOODS = listed("pizza soup rice pasta salad bread cheese cake noodles pancakes beans curry fish dumplings")

ANIMALS = listed("dog cat horse rabbit parrot goat turtle pony hamster goose")

SHARED: Words = {
    "name": FIRST_NAMES,
    "city": CITIES,
    "day": DAYS,
    "month": MONTHS,
    "colour": COLOURS,
    "number": NUMBERS,
    "job": JOBS,
    "thing": THINGS,
    "food": FOODS,
    "animal": ANIMALS,
}


def write(rng: Random, template: str, words: Words = SHARED) -> str:
    """Fill every `{slot}` of the template with a word of that list, no word twice."""
    used: set[str] = set()

    def fill(slot: re.Match[str]) -> str:
        word = rng.choice([word for word in words[slot[1]] if word not in used])
        used.add(word)
        return word

    return re.sub(r"\{(\w+)\}", fill, template)


def sentence(text: str) -> str:
    """Give the text a capital first letter, and a full stop where it has no closing mark."""
    closed = text if text.endswith((".", "!", "?")) else f"{text}."
    return closed[0].upper() + closed[1:]
