"""A WordPiece tokenizer of a few dozen words, and a way to run a head on made-up outputs."""

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import BertWordPieceTokenizer
from transformers import DistilBertTokenizerFast

from optimize.interfaces import Encoded, Feature, Feed, Head, Score, Text

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["##s", "##ing", "##ed", "##er", "##ly"]
WORDS = (
    "the a an cat dog bird sat ran flew on under over mat tree house in park anna bob lives paris "
    "london who where does what is was red blue green big small good bad movie very not i you he "
    "she it and or but play walk work eat 1 2 3 . , ? ! _ -"
)


@pytest.fixture(scope="session")
def tokenizer() -> DistilBertTokenizerFast:
    """Return a DistilBERT tokenizer without any download."""
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *PIECES, *WORDS.split()])}
    backend = BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)
    return DistilBertTokenizerFast(tokenizer_object=backend._tokenizer, do_lower_case=True)


@pytest.fixture
def make_text(tokenizer: DistilBertTokenizerFast) -> Callable[..., Text]:
    """Return a function that makes a Text of config entries and a limit."""

    def make(max_tokens: int = 64, **config: Any) -> Text:
        return Text(tokenizer, config, max_tokens)

    return make


@pytest.fixture
def run() -> Callable[[Head, Encoded, Callable[[Feature], Feed]], Score]:
    """Return a function that scores what a made-up model answers to each feature."""

    def score(head: Head, encoded: Encoded, model: Callable[[Feature], Feed]) -> Score:
        answers = [head.decide(f, head.read(f, model(f))) for f in encoded.features]
        return head.score(encoded, answers)

    return score
