"""Tokenizers that cannot be read or do not fit the model: one line, exit code 2, mostly by plan."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from hostile.cases import PROGRESS, Change, assert_refused, remove, write

FAR = 10**6
"""An id beyond any embedding."""


def edit(change: Callable[[dict[str, Any]], object], name: str = "tokenizer.json") -> Change:
    def act(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return act


def settings(**values: object) -> Change:
    return edit(lambda content: content.update(values), "tokenizer_config.json")


def words(vocabulary: dict[str, int]) -> Change:
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    return edit(lambda content: content.update(model=model, added_tokens=[], post_processor=None))


def add(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["beyond"] = FAR


def template(content: dict[str, Any]) -> None:
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [FAR], "tokens": ["[CLS]"]}},
    }


FILES: dict[str, tuple[Change, str]] = {
    "an empty file": (write("tokenizer.json", b""), "its tokenizer cannot be loaded"),
    "a list": (write("tokenizer.json", b"[]"), "its tokenizer cannot be loaded"),
    "zeros": (write("tokenizer.json", b"\0" * 99), "its tokenizer cannot be loaded"),
    "no UTF-8": (write("tokenizer.json", b'{"\xe9": 1}'), "tokenizer.json: cannot be read (byte 2 is not UTF-8)"),
    "deep": (write("tokenizer.json", b'{"model":' * 99_000), "its tokenizer cannot be loaded"),
    "a FIFO": (
        lambda folder: (remove("tokenizer.json")(folder), os.mkfifo(folder / "tokenizer.json")),
        "tokenizer.json: cannot be read (it is not a regular file)",
    ),
    "no model": (edit(lambda content: content.pop("model")), "its tokenizer cannot be loaded"),
    "no such model": (edit(lambda content: content["model"].update(type="Words")), "its tokenizer cannot be loaded"),
    "an empty vocabulary": (words({}), "its tokenizer "),
    "no unknown token": (words({"a": 0}), "its tokenizer cannot be loaded"),
    "a token beyond the embedding": (edit(add), f"the tokenizer has {FAR + 1} tokens, the embedding"),
    "a template beyond the embedding": (edit(template), f"the tokenizer has {FAR + 1} tokens, the embedding"),
    "a length in words": (settings(model_max_length="x"), "model_max_length is 'x', not a number"),
    "a length that is true": (settings(model_max_length=True), "model_max_length is 'True', not a number"),
    "tokens in words": (settings(added_tokens_decoder="x"), "added_tokens_decoder is 'x', not a mapping"),
    "tokens in a list": (settings(added_tokens_decoder=[1]), "added_tokens_decoder is '[1]', not a mapping"),
    "special tokens in words": (settings(extra_special_tokens="x"), "extra_special_tokens is 'x', not a mapping"),
    "no length": (settings(model_max_length=0), "model_max_length is '0', not 8 or more"),
    "a length below none": (settings(model_max_length=-(10**400)), "model_max_length is '-1000"),
    "a class that is a number": (settings(tokenizer_class=5), "tokenizer_class is '5', not a class's name"),
    "a long value": (settings(model_max_length="x" * 9_000), "x…', not a number"),
    "settings of a list": (write("tokenizer_config.json", b"[]"), "tokenizer_config.json: holds no JSON object"),
    "deep settings": (write("tokenizer_config.json", b"[" * 99_000), "it is nested deeper than 32 levels"),
    "a key twice": (write("tokenizer_config.json", b'{"a": 1, "a": 2}'), "'a' is there twice in one object"),
    "a list of special tokens": (write("special_tokens_map.json", b"[]"), "special_tokens_map.json: holds no JSON"),
    "added tokens in words": (write("added_tokens.json", b'"x"'), "added_tokens.json: holds no JSON object"),
}


@pytest.mark.parametrize(("change", "says"), FILES.values(), ids=FILES)
def test_a_tokenizer_that_cannot_work_is_refused_by_plan(optimize, folders, tmp_path: Path, change, says: str) -> None:
    asked = optimize("plan", *folders(change))

    assert_refused(asked, 2, says, tmp_path)
    assert len(asked.err) < len(str(tmp_path)) + 500


LATER: dict[str, Change] = {
    "a class that is none": settings(tokenizer_class="NoSuchTokenizer", auto_map=None),
    "a class of a package that is absent": settings(
        tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="mecab"
    ),
    "added tokens that are numbers": settings(added_tokens_decoder={"x": 5}),
    "an added token that is a number": settings(added_tokens_decoder={"0": {"content": 5}}),
    "a switch in words": settings(do_lower_case="x"),
    "a special token that is a number": settings(unk_token=5),
    "a special token that is a list": settings(pad_token=["x"]),
    "special tokens that are numbers": settings(extra_special_tokens={"a": 5}),
}


@pytest.mark.parametrize("change", LATER.values(), ids=LATER)
def test_a_tokenizer_that_transformers_cannot_load_is_one_line(optimize, folders, tmp_path: Path, change) -> None:
    asked = optimize("run", *folders(change))

    assert_refused(asked, 2, "its tokenizer cannot be loaded (", tmp_path, progress=PROGRESS[:1])


def test_a_tokenizer_that_is_python_alone_is_one_line(optimize, folders, tmp_path: Path) -> None:
    asked = optimize("run", *folders(settings(tokenizer_class="BertJapaneseTokenizer")))

    # transformers 5 asks for that class's own files first.
    newer = int(transformers.__version__.partition(".")[0]) > 4
    says = "its tokenizer cannot be loaded (" if newer else "BertJapaneseTokenizer, which runs as Python alone"
    assert_refused(asked, 2, says, tmp_path, progress=PROGRESS[:1])
