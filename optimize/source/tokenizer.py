"""A checkpoint's tokenizer: whether its files can be read and its tokens have a place in the embedding.

The files are looked at without transformers, which takes seconds to import, so that `plan` refuses what cannot work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.errors import OptimizeError, SourceError, brief, first_line
from optimize.files.small import read_json, read_small

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
COMPANIONS = (SETTINGS, "special_tokens_map.json", "added_tokens.json")
VOCABULARIES = (TOKENIZER, "vocab.txt")
FILES = ("tokenizer*.json", "vocab.txt", *COMPANIONS[1:])
KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "model_max_length": ((int, float), "a number"),
    "added_tokens_decoder": (dict, "a mapping"),
    "extra_special_tokens": ((dict, list), "a mapping or a list"),
    "tokenizer_class": (str, "a class's name"),
}
"""What transformers reads without looking: of which kind it has to be."""
FEWEST_TOKENS = 8
"""Fewer leave no text between the special tokens of a pair."""
BACKEND, FAST = "TokenizersBackend", "PreTrainedTokenizerFast"
"""What transformers 5 and 4 call a tokenizer of which tokenizer.json says everything."""
PROBES: tuple[tuple[str, str | None], ...] = (("probe", None), ("probe \u2603", "second"))
ADVICE = "save it again"
MAX_BYTES = 2**28
"""A tokenizer of a million tokens has about 100 MiB."""


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer, in one of the forms that are read."""
    return any((folder / name).exists() for name in VOCABULARIES)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder's tokenizer."""
    return sorted({path for pattern in FILES for path in folder.glob(pattern)})


def check_tokenizer(folder: Path, vocab_size: int, *, where: str) -> None:
    """Refuse files of a tokenizer that nothing can read, or whose tokens the embedding lacks."""
    for name in COMPANIONS:
        if (folder / name).exists():
            _check_settings(folder / name)
    path = folder / TOKENIZER
    if path.exists():
        import tokenizers

        read_small(path, most=MAX_BYTES, where=str(path), refusal=SourceError, advice=ADVICE)
        with reading(where):
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
            ids = [each for one, two in PROBES for each in tokenizer.encode(one, two).ids]
            ids += tokenizer.get_vocab(with_added_tokens=True).values()
        check_ids(ids, vocab_size, where=where)


def check_loaded(tokenizer: PreTrainedTokenizerBase, vocab_size: int, *, where: str) -> None:
    """The same of a tokenizer that transformers has loaded, and one that no tokenizer.json holds."""
    if not tokenizer.is_fast:
        raise SourceError(
            f"{where}: its tokenizer is {type(tokenizer).__name__}, which runs as Python alone; "
            "save one of the tokenizers library"
        )
    with reading(where):
        ids = [each for one, two in PROBES for each in tokenizer(one, two)["input_ids"]]
        ids += tokenizer.get_vocab().values()
    check_ids(ids, vocab_size, where=where)


def check_ids(ids: Iterable[int], vocab_size: int, *, where: str) -> None:
    """Refuse tokens without a row in the embedding; `ids` are all that there are."""
    highest = max(ids, default=-1)
    if highest < 0:
        raise SourceError(f"{where}: its tokenizer has no tokens; save the one that the model was trained with")
    if highest >= vocab_size:
        raise SourceError(
            f"{where}: the tokenizer has {highest + 1} tokens, the embedding {vocab_size}; "
            "resize the embedding or save the tokenizer it was trained with"
        )


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Say in our words whatever a library raises over a tokenizer's files, which are anybody's."""
    try:
        yield
    except (OptimizeError, MemoryError):
        raise
    except ImportError as error:
        said = brief(first_line(error), 200)
        advice = f"install that, and save the tokenizer with a {TOKENIZER}, without which it is not read"
        raise SourceError(f"{where}: its tokenizer cannot be loaded ({said}); {advice}") from error
    except BaseException as error:
        # Rust's panics come as a class of pyo3's that nobody exports, below BaseException.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = brief(first_line(error), 200)
        raise SourceError(f"{where}: its tokenizer cannot be loaded ({said}); {ADVICE}") from error


def _check_settings(path: Path) -> None:
    content = read_json(path, where=str(path), refusal=SourceError, advice=ADVICE)
    if not isinstance(content, dict):
        raise SourceError(f"{path}: holds no JSON object; {ADVICE}")
    for name, (kind, words) in KINDS.items() if path.name == SETTINGS else ():
        value: Any = content.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise SourceError(f"{path}: {name} is '{brief(value)}', not {words}; {ADVICE}")
    longest = content.get("model_max_length") if path.name == SETTINGS else None
    if longest is not None and longest < FEWEST_TOKENS:
        raise SourceError(f"{path}: model_max_length is '{brief(longest)}', not {FEWEST_TOKENS} or more; {ADVICE}")


def settle(folder: Path) -> None:
    """Put what transformers 5 says of a tokenizer in the words of transformers 4, where that is installed.

    In place, so `folder` is a copy of ours. transformers 5 itself reads both.
    """
    import transformers

    path = folder / SETTINGS
    if hasattr(transformers, BACKEND) or not path.exists():
        return
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content.get("tokenizer_class") == BACKEND:
        content["tokenizer_class"] = FAST
    if isinstance(content.get("extra_special_tokens"), list):
        content["additional_special_tokens"] = content.pop("extra_special_tokens")
    path.write_text(json.dumps(content), encoding="utf-8")
