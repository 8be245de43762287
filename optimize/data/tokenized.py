"""Rows of data as the tokenizer of a model's folder splits them.

A stage may give its model a tokenizer of its own, with fewer word pieces. Each model gets a text as its own tokenizer
splits it; two folders with the same tokenizer files get the very same features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from optimize.artifact import tokenizer_digest
from optimize.checkpoint import read_config
from optimize.interfaces import Encoded, Head, Row, Text
from optimize.sentences.layout import lists_modules, read_encoder

TOKENIZER_SETTINGS = "tokenizer_config.json"


def read_text(folder: Path, max_tokens: int) -> Text:
    """How a model folder's tokenizer splits texts, cut to so many tokens; a sentence encoder may take fewer."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    config = read_config(folder)
    if not lists_modules(folder):
        return Text(tokenizer, config, max_tokens)
    encoder = read_encoder(folder, where=str(folder))
    return Text(tokenizer, config, min(max_tokens, encoder.max_tokens or max_tokens), encoder.prompt)


def tokenizer_limit(folder: Path) -> int | None:
    """The most tokens that a folder's tokenizer says its model takes; None where it says nothing.

    transformers writes 10^30 for that, which sets no limit either.
    """
    path = folder / TOKENIZER_SETTINGS
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    most = content.get("model_max_length")
    return None if most is None else int(most)


def token_limit(head: Head, folder: Path, *, asked: int | None, longest: int) -> int:
    """Tokens that texts are cut to: as asked for, else by head and tokenizer; never more than the `longest`."""
    if asked:
        return min(asked, longest)
    usual = (head.max_tokens, tokenizer_limit(folder), longest)
    return min(limit for limit in usual if limit is not None)


def encode(head: Head, rows: tuple[Row, ...], text: Text) -> Encoded:
    """Tokenized rows; none give none."""
    return head.encode(rows, text) if rows else Encoded((), (), 0)


def split_by_tokenizer(
    head: Head, rows: tuple[Row, ...], max_tokens: int, known: Mapping[Path, Encoded]
) -> Callable[[Path], Encoded]:
    """The rows by a model's folder, encoded once for each tokenizer; `known` are folders with rows already encoded.

    What was fixed on tuning data for the known ones is so for all.
    """
    thresholds = next(iter(known.values())).thresholds
    # By the tokenizer's content: most stages copy their input's tokenizer, and a split takes seconds to encode.
    found = {tokenizer_digest(folder): encoded for folder, encoded in known.items()}

    def encoded(folder: Path) -> Encoded:
        digest = tokenizer_digest(folder)
        if digest not in found:
            found[digest] = replace(encode(head, rows, read_text(folder, max_tokens)), thresholds=thresholds)
        return found[digest]

    return encoded


def fewest_tokens(folders: Iterable[Path]) -> tuple[Path, int]:
    """The folder with the smallest vocabulary, whose ids all of the models know, and its size."""
    folder = min(folders, key=_vocab_size)
    return folder, _vocab_size(folder)


def _vocab_size(folder: Path) -> int:
    return int(read_config(folder)["vocab_size"])
