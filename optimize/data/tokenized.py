"""Rows of data as the tokenizer of a model's folder splits them.

A stage may give its model a tokenizer of its own, with fewer word pieces. Each model is asked what its own makes of a
text; two folders with the same tokenizer files get the very same features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from optimize.artifact import tokenizer_digest
from optimize.checkpoint import read_config
from optimize.interfaces import Encoded, Head, Text


def read_text(folder: Path, max_tokens: int) -> Text:
    """How a model folder's tokenizer splits texts, cut to so many tokens."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Text(tokenizer, read_config(folder), max_tokens)


def encode(head: Head, rows: tuple[Any, ...], text: Text) -> Encoded:
    """Tokenized rows; none give none."""
    return head.encode(rows, text) if rows else Encoded((), (), 0)


def split_by_tokenizer(
    head: Head, rows: tuple[Any, ...], max_tokens: int, known: Mapping[Path, Encoded]
) -> Callable[[Path], Encoded]:
    """The rows by a model's folder, encoded once a tokenizer; `known` are folders whose rows are there already."""
    found = {tokenizer_digest(folder): encoded for folder, encoded in known.items()}

    def encoded(folder: Path) -> Encoded:
        digest = tokenizer_digest(folder)
        if digest not in found:
            found[digest] = encode(head, rows, read_text(folder, max_tokens))
        return found[digest]

    return encoded


def fewest_tokens(folders: Iterable[Path]) -> tuple[Path, int]:
    """The folder with the smallest vocabulary, whose ids all of the models know, and its size."""
    sizes = {folder: int(read_config(folder)["vocab_size"]) for folder in folders}
    folder = min(sizes, key=lambda one: sizes[one])
    return folder, sizes[folder]
