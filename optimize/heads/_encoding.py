"""From rows to token ids: what every head needs, and how a text that is too long is cut.

A split is tokenized whole and uncut, in one call; only what turns out too long is tokenized again
with truncation. So nothing is ever cut without being counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from optimize.errors import DataError, shown
from optimize.interfaces import Feature, Row, Text

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

Shorten = Literal["longest_first", "only_first"]
Words = str | Sequence[str]
"""A text, or one that is split into words already."""


class Tokens(NamedTuple):
    """One text's encoding with its special tokens, and whether text had to be cut."""

    encoding: Encoding
    cut: bool


def unfit(what: str, remedy: str) -> DataError:
    """Build the refusal of a row; whoever knows which one it is puts that before it."""
    return DataError(f"{what}; {remedy}")


def faults(rows: Sequence[Row], parse: Callable[[Row], object]) -> dict[int, str]:
    """Return by index what is wrong with the rows that `parse` refuses."""
    found = {}
    for index, row in enumerate(rows):
        try:
            parse(row)
        except DataError as error:
            found[index] = str(error)
    return found


def require_fit(head: str, rows: Sequence[Row], found: Mapping[int, str]) -> None:
    """Refuse a split without rows, or one that has faults."""
    if not rows:
        raise DataError(f"{head}: there are no rows; give a split that has some")
    if found:
        index = min(found)
        raise DataError(f"{head}: row {index} {found[index]}")


def string_in(row: Row, role: str) -> str:
    """Return the text that a row holds as `role`."""
    value = row.get(role)
    if not isinstance(value, str):
        raise unfit(
            f"has no {role}" if value is None else f"has {kind_of(value)} as {role}", "give a string or remove the row"
        )
    require_unicode([value], role)
    return value


def require_unicode(texts: Iterable[str], role: str) -> None:
    """Refuse halves of characters, which JSON can hold and no tokenizer takes."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise unfit(f"has half a character as {role} ({shown(text[error.start])})", "write it as UTF-8") from error


def kind_of(value: object) -> str:
    """Name the kind of a value, as in "an int"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def is_list(value: object) -> bool:
    """Say whether a row's value is a list, as whatever reads rows gives one."""
    return isinstance(value, list | tuple | np.ndarray)


def any_has(rows: Sequence[Row], role: str) -> bool:
    """Say whether any row holds something as `role`."""
    return any(row.get(role) is not None for row in rows)


def number_in(row: Row, role: str) -> float:
    """Return the finite number that a row holds as `role`."""
    value: Any = row.get(role)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not np.isfinite(number):
        raise unfit(f"has {shown(value)} as {role}", "give a finite number")
    return number


def class_id(value: Any, classes: int) -> int:
    """Return a label as a class id below `classes`."""
    try:
        number = int(value)
        # int() would take 1.7 for class 1.
        fits = number == float(value) and 0 <= number < classes
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise unfit(f"has {shown(value)} as label", f"give a class id from 0 to {classes - 1}")
    return number


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes by id; LABEL_0, LABEL_1, and so on where none are given."""
    names = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    count = int(config.get("num_labels") or len(names) or 2)
    return tuple(names.get(index, f"LABEL_{index}") for index in range(count))


def token_limit(text: Text) -> int:
    """Return how many tokens a feature may have: the request's limit or the model's, if lower."""
    return min(text.max_tokens, int(text.config.get("max_position_embeddings", text.max_tokens)))


def require_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot say which word or character a token came from."""
    if not getattr(tokenizer, "is_fast", False):
        name = type(tokenizer).__name__
        raise DataError(f"{name}: is not a fast tokenizer; save one that has a tokenizer.json")


def tokenize(
    text: Text,
    firsts: Sequence[Words],
    seconds: Sequence[str] | None = None,
    *,
    shorten: Shorten = "longest_first",
    words: bool = False,
) -> list[Tokens]:
    """Tokenize texts, or pairs of texts; with `words`, each text is a list of words.

    A single text is cut at the tokenizer's own truncation side. `only_first` cuts the first text
    of a pair only, as long as the second fits.
    """
    require_fast(text.tokenizer)
    limit = token_limit(text)
    whole = text.tokenizer(
        list(firsts),
        None if seconds is None else list(seconds),
        is_split_into_words=words,
        verbose=False,
    ).encodings
    found = []
    for i, encoding in enumerate(whole):
        if len(encoding) <= limit:
            found.append(Tokens(encoding, cut=False))
        else:
            second = seconds[i] if seconds is not None else None
            found.append(_cut(text, firsts[i], second, shorten=shorten, words=words))
    return found


def _cut(text: Text, first: Words, second: str | None, *, shorten: Shorten, words: bool) -> Tokens:
    limit = token_limit(text)
    if second is not None and shorten == "only_first":
        # transformers only logs an error, and cuts nothing, where the second text alone is too long.
        plain = text.tokenizer(second, add_special_tokens=False, verbose=False)["input_ids"]
        fits = len(plain) + text.tokenizer.num_special_tokens_to_add(pair=True) < limit
        shorten = "only_first" if fits else "longest_first"
    batch = text.tokenizer(
        [first],
        None if second is None else [second],
        is_split_into_words=words,
        truncation=shorten,
        max_length=limit,
    )
    return Tokens(batch.encodings[0], cut=True)


def count_cut(tokens: Sequence[Tokens]) -> int:
    """Return how many texts were cut."""
    return sum(item.cut for item in tokens)


def feature(ids: Sequence[int], example: int, extra: Mapping[str, object] | None = None) -> Feature:
    """Make the unpadded feature of one sequence of token ids."""
    input_ids = np.asarray(ids, dtype=np.int64)
    inputs = {"input_ids": input_ids, "attention_mask": np.ones_like(input_ids)}
    return Feature(inputs, example, extra or {})
