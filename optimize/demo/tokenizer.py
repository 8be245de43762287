"""A lowercase WordPiece tokenizer whose vocabulary is counted from the training text.

`tokenizers` normalizes and splits the text, as it later does for the model, but its
WordPieceTrainer is not used: in 0.22.2 it walks a hash map in random order, so that two processes
give the same text different ids, and at times different pieces. Counting is enough for
this text: frequent words stay whole, and rare ones are cut at their most frequent beginnings and
ends, down to single characters.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WHOLE_WORD_SHARE = 1 / 300  # a word stays whole if it occurs once in so many texts
MOST_WORDS = 1500
MOST_PIECES = 200
MODEL_MAX_LENGTH = 512


def _ranked(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))


def count_words(texts: Iterable[str]) -> Counter[str]:
    """Count the lowercase words and punctuation marks, split as BERT does."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        pieces = splitter.pre_tokenize_str(normalizer.normalize_str(text))
        counts.update(word for word, _ in pieces)
    return counts


def build_vocabulary(texts: Iterable[str]) -> list[str]:
    """Return the pieces in id order: special tokens, characters, whole words, parts of words."""
    rows = list(texts)
    counts = count_words(rows)
    enough = max(2.0, WHOLE_WORD_SHARE * len(rows))
    whole = [word for word in _ranked(counts) if counts[word] >= enough][:MOST_WORDS]
    parts: Counter[str] = Counter()
    for word in set(counts) - set(whole):
        # Parts of one letter are characters, which are pieces anyhow.
        for cut in range(2, len(word) - 1):
            parts[word[:cut]] += counts[word]
            parts[f"##{word[cut:]}"] += counts[word]
    letters = sorted({letter for word in counts for letter in word})
    continued = [f"##{letter}" for letter in letters if letter.isalnum()]
    pieces = [*SPECIALS, *letters, *continued, *whole, *_ranked(parts)[:MOST_PIECES]]
    return list(dict.fromkeys(pieces))


def build_tokenizer(texts: Iterable[str]) -> "PreTrainedTokenizerFast":
    """Return a DistilBertTokenizerFast over the vocabulary of the texts."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import DistilBertTokenizerFast

    vocabulary = {piece: index for index, piece in enumerate(build_vocabulary(texts))}
    backend = BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)
    return DistilBertTokenizerFast(
        tokenizer_object=backend._tokenizer,
        do_lower_case=True,
        model_max_length=MODEL_MAX_LENGTH,
    )
