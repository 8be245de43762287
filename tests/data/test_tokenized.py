"""Rows as each model's own tokenizer splits them, and how two tokenizers are told apart."""

import json
import shutil

import pytest
import transformers

from optimize.artifact import tokenizer_digest
from optimize.data.tokenized import fewest_tokens, read_text, split_by_tokenizer
from optimize.heads import HEADS

HEAD = "text-classification"


@pytest.fixture
def other(checkpoint, tmp_path):
    """The checkpoint's folder once more, with what `edit` makes of its tokenizer.json."""

    def make(edit, name="other"):
        folder = tmp_path / name
        shutil.copytree(checkpoint(HEAD), folder)
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        edit(content)
        (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    return make


def drop_a_piece(content):
    content["model"]["vocab"] = dict(list(content["model"]["vocab"].items())[:-1])


def test_a_tokenizer_is_known_by_what_it_does_and_not_by_its_files_layout(checkpoint, other, tmp_path):
    used = transformers.AutoTokenizer.from_pretrained(checkpoint(HEAD))
    used("one two", truncation=True, max_length=8, padding="max_length")
    used.save_pretrained(tmp_path / "used")
    folders = [checkpoint(HEAD), other(lambda _: None), tmp_path / "used"]
    assert len({tokenizer_digest(folder) for folder in folders}) == 1
    assert tokenizer_digest(other(drop_a_piece, "less")) != tokenizer_digest(checkpoint(HEAD))


def test_folders_with_one_tokenizer_share_their_features(checkpoint, context, other):
    known = context(HEAD).tuning
    split = split_by_tokenizer(HEADS[HEAD], ({"text": "one", "label": 0},), 64, {checkpoint(HEAD): known})
    less = other(drop_a_piece, "less")
    assert split(checkpoint(HEAD)) is split(other(lambda _: None)) is known
    assert split(less) is split(less) is not known
    assert len(split(less).features) == 1


def test_texts_are_cut_to_so_many_tokens_under_the_folders_own_config(checkpoint):
    text = read_text(checkpoint(HEAD), 16)
    assert text.max_tokens == 16
    assert text.config["vocab_size"] == len(text.tokenizer)


def test_the_folder_with_the_fewest_tokens_is_found(tmp_path, checkpoint):
    small = tmp_path / "small"
    small.mkdir()
    (small / "config.json").write_text('{"vocab_size": 7}', encoding="utf-8")
    assert fewest_tokens([checkpoint(HEAD), small]) == (small, 7)
