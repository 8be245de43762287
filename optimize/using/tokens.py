"""A model folder's tokenizer, by the tokenizers library alone: what is put around it elsewhere costs time.

The library keeps how texts are cut in the tokenizer itself, so there are two of them: one that never cuts, which any
thread may use, and one that is told how to cut each time, one thread at a time, for the few texts that are too long.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optimize.errors import SourceError
from optimize.files.small import read_json, read_small
from optimize.source.tokenizer import ADVICE, COMPANIONS, MAX_BYTES, SETTINGS, TOKENIZER, check_tokenizer, reading

if TYPE_CHECKING:
    import tokenizers

Strategy = Literal["longest_first", "only_first", "only_second"]
Words = str | Sequence[str]
"""A text, or one that is split into words already."""
SUBWORDS = ("WordPiece", "BPE")
"""Models of the library that may mark pieces inside a word by a prefix."""


@dataclass(frozen=True)
class Tokens:
    """The tokenizer of a folder: its file's text, and the special tokens that its settings name."""

    text: str
    where: str
    specials: dict[str, str]
    side: Literal["left", "right"] = "right"
    lock: Any = field(default_factory=threading.Lock, compare=False)

    @cached_property
    def plain(self) -> tokenizers.Tokenizer:
        """The one that never cuts."""
        return self._parsed()

    @cached_property
    def cutting(self) -> tokenizers.Tokenizer:
        """The one that is told how to cut, with `lock` held."""
        return self._parsed()

    def _parsed(self) -> tokenizers.Tokenizer:
        import tokenizers

        with reading(self.where):
            tokenizer = tokenizers.Tokenizer.from_str(self.text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def id_of(self, name: str) -> int | None:
        """The id of a special token by its name in settings, such as "pad_token"; None where there is none."""
        token = self.specials.get(name)
        return None if token is None else self.plain.token_to_id(token)

    @cached_property
    def pad_id(self) -> int:
        """What texts are padded with."""
        return self.id_of("pad_token") or 0

    @cached_property
    def prefix(self) -> str:
        """What begins a piece inside a word; "" where pieces do not tell."""
        model = self.plain.model
        return (model.continuing_subword_prefix or "") if type(model).__name__ in SUBWORDS else ""

    def encode(
        self,
        first: Words,
        second: str | None = None,
        *,
        limit: int,
        strategy: Strategy = "longest_first",
        words: bool = False,
    ) -> tokenizers.Encoding:
        """A text, or a pair, with its special tokens, cut to `limit` tokens at the tokenizer's own side."""
        whole = self.whole(first, second, words=words)
        return whole if len(whole) <= limit else self._cut(first, second, limit, strategy, words=words)[0]

    def windows(
        self,
        first: Words,
        second: str | None = None,
        *,
        limit: int,
        stride: int,
        strategy: Strategy = "only_first",
        words: bool = False,
    ) -> list[tokenizers.Encoding]:
        """A text, or a pair, in windows of up to `limit` tokens, of which neighbours share `stride`."""
        whole = self.whole(first, second, words=words)
        return [whole] if len(whole) <= limit else self._cut(first, second, limit, strategy, stride, words=words)

    def whole(
        self, first: Words, second: str | None = None, *, words: bool = False, specials: bool = True
    ) -> tokenizers.Encoding:
        """A text, or a pair, however long."""
        return self.plain.encode(first, second, is_pretokenized=words, add_special_tokens=specials)

    def _cut(
        self, first: Words, second: str | None, limit: int, strategy: Strategy, stride: int = 0, *, words: bool
    ) -> list[tokenizers.Encoding]:
        with self.lock:
            self.cutting.enable_truncation(limit, stride=stride, strategy=strategy, direction=self.side)
            found = self.cutting.encode(first, second, is_pretokenized=words)
        return [found, *found.overflowing]

    def joined(self, pieces: Sequence[str]) -> str:
        """Pieces as a text."""
        decoder = self.plain.decoder
        return " ".join(pieces) if decoder is None else decoder.decode(list(pieces))


def read_tokens(folder: Path, vocab_size: int) -> Tokens:
    """The tokenizer of a model folder. Raises SourceError where its files cannot be read, or an id has no embedding."""
    path = folder / TOKENIZER
    text = read_small(path, most=MAX_BYTES, where=str(path), refusal=SourceError, advice=ADVICE)
    check_tokenizer(folder, vocab_size, where=str(folder))
    settings: dict[str, Any] = {}
    for name in (COMPANIONS[1], SETTINGS):
        if (folder / name).exists():
            found = read_json(folder / name, where=str(folder / name), refusal=SourceError, advice=ADVICE)
            settings |= found if isinstance(found, dict) else {}
    specials = {}
    for name, value in settings.items():
        token = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(token, str):
            specials[name] = token
    return Tokens(text, str(path), specials, "left" if settings.get("truncation_side") == "left" else "right")
