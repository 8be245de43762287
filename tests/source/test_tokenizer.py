"""Tokenizers as people have them: cased, of other lengths, of transformers 4 and 5, and with tokens added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from source.cases import (
    HEAD,
    Change,
    both,
    configure,
    edit_json,
    keep_vocabulary_alone,
    remove,
    remove_tokenizer,
    replace,
    write,
)

from optimize.data.tokenized import tokenizer_limit
from optimize.errors import SourceError

SETTINGS = "tokenizer_config.json"
TABLE = "distilbert.embeddings.word_embeddings.weight"
POSITIONS = "distilbert.embeddings.position_embeddings.weight"
OF_FIVE = {"backend": "tokenizers", "added_tokens_decoder": ..., "additional_special_tokens": ...}
"""What transformers 5 writes, and leaves out, beside the keys that a case is about."""
JAPANESE = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}
ACCENTED = {"do_lower_case": False, "strip_accents": False, "tokenizer_class": "BertTokenizer"}


def read(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", ["TokenizersBackend", "PreTrainedTokenizerFast", "DistilBertTokenizerFast", ...])
def test_a_tokenizer_of_either_transformers_splits_as_before(changed, acquire, checkpoint, name: object) -> None:
    text = "The film was great, wasn't it?"
    folder = changed(edit_json(SETTINGS, **{**OF_FIVE, "tokenizer_class": name}))

    entry = acquire(folder)

    assert read(entry.artifact.path)(text)["input_ids"] == read(checkpoint(HEAD))(text)["input_ids"]


@pytest.mark.skipif(hasattr(transformers, "TokenizersBackend"), reason="transformers 5 goes by tokenizer.json alone")
def test_a_tokenizer_of_no_known_class_is_refused(changed, acquire) -> None:
    folder = changed(edit_json(SETTINGS, tokenizer_class="No"))

    with pytest.raises(SourceError, match=r"its tokenizer cannot be loaded \(.*class No"):
        acquire(folder)


def test_special_tokens_of_transformers_5_stay_special(changed, acquire) -> None:
    token = "[UNK]"
    folder = changed(edit_json(SETTINGS, **{**OF_FIVE, "extra_special_tokens": [token]}))

    assert token in read(acquire(folder).artifact.path).all_special_tokens


def test_a_cased_vocabulary_of_many_languages_keeps_case_and_accents(changed, acquire) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Ärger", "arger", "ärger", "犬", "кот", "##ов"]
    vocabulary = "".join(f"{word}\n" for word in words).encode()
    folder = changed(
        both(remove("tokenizer.json"), both(write("vocab.txt", vocabulary), edit_json(SETTINGS, **ACCENTED)))
    )

    tokenizer = read(acquire(folder).artifact.path)

    assert tokenizer.tokenize("Ärger ärger 犬犬 котов") == ["Ärger", "ärger", "犬", "犬", "кот", "##ов"]


@pytest.mark.parametrize(("written", "limit"), [(48, 48), (None, None), (..., None), (10**30, 10**30), (96.0, 96)])
def test_a_tokenizers_own_limit_is_kept(changed, acquire, written: object, limit: int | None) -> None:
    entry = acquire(changed(edit_json(SETTINGS, model_max_length=written)))

    found = tokenizer_limit(entry.artifact.path)

    assert found == limit or (limit is None and found >= 10**30)


def grow(rows: int, **changes: Any) -> Change:
    """More rows in the embedding, as `resize_token_embeddings` makes them."""
    more = replace(TABLE, lambda table: torch.cat([table, torch.full((rows - len(table), table.shape[1]), 0.01)]))
    return both(more, configure(vocab_size=rows, **changes))


def test_an_embedding_padded_to_a_multiple_is_kept_whole(changed, acquire) -> None:
    entry = acquire(changed(grow(256 * 8)))

    config = json.loads((entry.artifact.path / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == 256 * 8 > len(read(entry.artifact.path))


def test_a_masked_language_model_is_padded_with_its_bias(checkpoint, acquire, tmp_path: Path) -> None:
    model = transformers.DistilBertForMaskedLM.from_pretrained(checkpoint("fill-mask"))
    tokenizer = read(checkpoint("fill-mask"))
    tokenizer.add_tokens(["covid"])
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    for each in (model, tokenizer):
        each.save_pretrained(tmp_path / "model")

    entry = acquire(tmp_path / "model")

    again = transformers.DistilBertForMaskedLM.from_pretrained(entry.artifact.path)
    assert again.vocab_projector.weight is again.distilbert.embeddings.word_embeddings.weight
    assert len(again.vocab_projector.bias) == len(again.vocab_projector.weight) == again.config.vocab_size
    assert again.config.vocab_size % 64 == 0
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def shorten_bias(folder: Path) -> None:
    replace("vocab_projector.bias", lambda bias: bias[:-1])(folder)


REFUSED: dict[str, tuple[Change, str, str]] = {
    "a table larger than its config": (
        replace(TABLE, lambda table: torch.cat([table, table[:1]])),
        HEAD,
        "word_embeddings.weight has not the shape",
    ),
    "a bias shorter than the table": (shorten_bias, "fill-mask", "vocab_projector.bias has not the shape"),
    "sentence pieces alone": (
        both(remove_tokenizer, write("spiece.model", b"x")),
        HEAD,
        "no tokenizer.json or vocab.txt; install sentencepiece, load spiece.model with AutoTokenizer",
    ),
    "words of Japanese": (
        both(
            keep_vocabulary_alone,
            edit_json(SETTINGS, tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="mecab"),
        ),
        HEAD,
        "for installation.); install that, and save the tokenizer with a tokenizer.json",
    ),
    "a class of the checkpoint's own code": (
        both(
            keep_vocabulary_alone,
            edit_json(SETTINGS, tokenizer_class="MyTokenizer", auto_map={"AutoTokenizer": ["my.MyTokenizer", None]}),
        ),
        HEAD,
        "its tokenizer cannot be loaded (",
    ),
}


@pytest.mark.parametrize(("change", "head", "says"), REFUSED.values(), ids=REFUSED)
def test_a_tokenizer_that_does_not_fit_is_refused_in_one_line(changed, acquire, change, head: str, says: str) -> None:
    folder = changed(change, head)

    with pytest.raises(SourceError) as refused:
        acquire(folder)

    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
