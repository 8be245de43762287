"""A WordPiece tokenizer with fewer pieces: which are left, and its files with the ids that they then have.

WordPiece takes the longest piece that fits, from the left. A text that was split into pieces that are left is
therefore split as before, and the order of ids is kept, so that its ids map one to one. A word with a piece that is
gone falls apart into shorter ones, at worst into characters.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from optimize.checkpoint import read_config
from optimize.errors import StageError

Json = dict[str, Any]
"""An object of a JSON file whose format is that of the tokenizers library."""

NAME = "prune_vocabulary"
BATCH_TEXTS = 1000
PLAIN_VOCABULARY = "vocab.txt"
"""transformers 4 writes it beside tokenizer.json; 5 does not, and reads it in that one's place where it is there."""
TEMPLATE, PAIRS = "TemplateProcessing", ("BertProcessing", "RobertaProcessing")


@dataclass(frozen=True)
class Vocabulary:
    """A WordPiece tokenizer's pieces by id, added ones included, the ids of those, and of them the special ones'."""

    pieces: Mapping[int, str]
    added: frozenset[int]
    special: frozenset[int]
    unknown: int
    prefix: str

    def characters(self) -> set[int]:
        """The pieces that are a single character, at the beginning of a word or within."""
        return {token for token, piece in self.pieces.items() if len(piece.removeprefix(self.prefix)) == 1}

    def texts(self, ids: Iterable[int]) -> list[tuple[int, ...]]:
        """What stands between special tokens: a text, or the texts of a pair."""
        found: list[list[int]] = [[]]
        for token in ids:
            if token != self.unknown and token in self.special:
                found.append([])
            else:
                found[-1].append(token)
        return [tuple(text) for text in found if text]

    def words(self, ids: Iterable[int]) -> list[list[int]]:
        """The tokens of each word, special ones left out; an unknown word is one token."""
        found: list[list[int]] = []
        for token in ids:
            if token != self.unknown and token in self.special:
                continue
            if found and self.pieces[token].startswith(self.prefix):
                found[-1].append(token)
            else:
                found.append([token])
        return found


def read_vocabulary(folder: Path) -> Vocabulary:
    """The pieces of a folder's tokenizer; raises StageError for one that is not a WordPiece."""
    tokenizer = _read(folder / "tokenizer.json")
    model = tokenizer["model"]
    if model.get("type") != "WordPiece":
        raise StageError(f"{NAME}: the tokenizer is {model.get('type')}, not WordPiece; leave the stage out")
    added = {int(each["id"]): each["content"] for each in tokenizer["added_tokens"]}
    special = frozenset(int(each["id"]) for each in tokenizer["added_tokens"] if each["special"])
    pieces = {int(token): piece for piece, token in model["vocab"].items()} | added
    unknown = model["vocab"][model["unk_token"]]
    return Vocabulary(pieces, frozenset(added), special, unknown, model["continuing_subword_prefix"])


@dataclass(frozen=True)
class Counts:
    """How often each id comes up in so many texts, and how often in those of them that were set apart."""

    tokens: Counter[int]
    texts: int
    apart: Counter[int]
    texts_apart: int

    def of_others(self) -> Counter[int]:
        """How often each id comes up in the texts that were not set apart."""
        return self.tokens - self.apart


def count_tokens(folder: Path, texts: Iterable[str], apart: Collection[tuple[int, ...]] = ()) -> Counts:
    """Count the ids of texts, which are not cut; those whose ids are in `apart` are also counted by themselves."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts, counts_apart = Counter[int](), Counter[int]()
    number, number_apart, rest = 0, 0, iter(texts)
    # A corpus may be larger than memory; a batch is what the tokenizer spreads over its threads.
    while batch := list(islice(rest, BATCH_TEXTS)):
        number += len(batch)
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            counts.update(encoding.ids)
            if tuple(encoding.ids) in apart:
                number_apart += 1
                counts_apart.update(encoding.ids)
    return Counts(counts, number, counts_apart, number_apart)


def choose_kept(
    vocabulary: Vocabulary, counts: Mapping[int, int], *, min_count: int, named: Iterable[int]
) -> list[int]:
    """The ids that are left, in order: characters, what comes up often enough, what is added, and `named` ones."""
    used = {token for token, count in counts.items() if count >= min_count}
    return sorted(used | vocabulary.characters() | vocabulary.added | {vocabulary.unknown} | set(named))


def named_ids(folder: Path) -> dict[str, int]:
    """Ids of the vocabulary that a checkpoint's config names, such as `pad_token_id`."""
    config = read_config(folder)
    found: dict[str, int] = {}
    for name, value in config.items():
        # None where the model has no such token, and out of range where a default is another vocabulary's.
        if name.endswith("_token_id") and isinstance(value, int) and 0 <= value < config["vocab_size"]:
            found[name] = value
    return found


def write_tokenizer(source: Path, out: Path, new_ids: Mapping[int, int]) -> None:
    """Write those of a tokenizer's files that hold ids, with new ones and without pieces that have none.

    Raises StageError for a post-processor that is not known here.
    """
    tokenizer = _read(source / "tokenizer.json")
    pieces: dict[str, int] = tokenizer["model"]["vocab"]
    kept = sorted((new_ids[old], piece) for piece, old in pieces.items() if old in new_ids)
    tokenizer["model"]["vocab"] = {piece: token for token, piece in kept}
    for each in tokenizer["added_tokens"]:
        each["id"] = new_ids[each["id"]]
    if tokenizer["padding"]:
        tokenizer["padding"]["pad_id"] = new_ids[tokenizer["padding"]["pad_id"]]
    for processor in _processors(tokenizer["post_processor"]):
        _renumber(processor, new_ids)
    _write(out / "tokenizer.json", tokenizer)
    if (source / PLAIN_VOCABULARY).exists():
        (out / PLAIN_VOCABULARY).write_text("".join(f"{piece}\n" for _, piece in kept), encoding="utf-8")
    _rewrite_companions(source, out, new_ids)


def _rewrite_companions(source: Path, out: Path, new_ids: Mapping[int, int]) -> None:
    """Write the other files that hold ids, where the source has them."""
    config, added = source / "tokenizer_config.json", source / "added_tokens.json"
    if config.is_file():
        content = _read(config)
        # transformers 5 writes none, and would take an empty one for the word that nothing was added.
        if decoder := content.get("added_tokens_decoder"):
            content["added_tokens_decoder"] = {str(new_ids[int(old)]): token for old, token in decoder.items()}
        _write(out / config.name, content)
    if added.is_file():
        _write(out / added.name, {token: new_ids[old] for token, old in _read(added).items()})


def _processors(processor: Json | None) -> Iterator[Json]:
    """The steps of a post-processor, which may be one, several or none."""
    if processor and processor["type"] == "Sequence":
        for each in processor["processors"]:
            yield from _processors(each)
    elif processor:
        yield processor


def _renumber(processor: Json, new_ids: Mapping[int, int]) -> None:
    """Give the special tokens that a post-processor adds their new ids, in place."""
    if processor["type"] == TEMPLATE:
        for token in processor["special_tokens"].values():
            token["ids"] = [new_ids[old] for old in token["ids"]]
    elif processor["type"] in PAIRS:
        for name in ("sep", "cls"):
            processor[name][1] = new_ids[processor[name][1]]
    else:
        raise StageError(
            f"{NAME}: the tokenizer has a {processor['type']}, which is not known here; leave the stage out"
        )


def _read(path: Path) -> Json:
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
