"""Credentials are found wherever they are, and vocabularies give no false alarm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimize.errors import RequestError
from optimize.publishing.secrets import require_no_secrets

FOUND = {
    "a private key": "-----BEGIN EC " + "PRIVATE KEY-----\nMHcC",
    "a Hugging Face token": "hf_" + "aB3" * 12,
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "a GitLab token": "glpat-" + "a1B2c" * 4,
    "an AWS access key": "AKIA" + "IOSFODNN7EXAMPL2",
    "a Google API key": "AIza" + "Sy4_-" * 7,
    "an API key": "sk-ant-" + "a1B2_" * 10,
    "an npm token": "npm_" + "a1B2" * 9,
    "a JSON Web Token": "eyJ" + "hbGci" * 5 + ".eyJ" + "zdWIi" * 5 + "." + "abcde" * 6,
    "a password in an address": "https://me:" + "hunter22@example.org/x",
}


@pytest.mark.parametrize(("what", "secret"), FOUND.items(), ids=FOUND)
@pytest.mark.parametrize("name", ["config.json", "model.onnx", "checkpoint/notes.txt"])
def test_a_credential_is_refused_in_any_file_and_not_repeated(what, secret, name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"\0" * 999 + secret.encode() + b"\0 more")

    with pytest.raises(RequestError, match=f"{name}: has what looks like {what}") as refused:
        require_no_secrets(tmp_path)
    assert secret not in str(refused.value)


def test_words_that_begin_like_credentials_are_none(tmp_path):
    words = ["hf_", "sk-", "sk-learn", "AKIA", "ghp_", "xoxb-", "eyJ", "://", "-----BEGIN", "PRIVATE", "KEY-----"]
    words += ["https://user:@host", "http://[::1]:80/a@b", "task-" + "a" * 60, "##hf_", "https://example.org:443/@me"]
    (tmp_path / "tokenizer.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (tmp_path / "empty").touch()

    require_no_secrets(tmp_path)
    assert {path.name for path in Path(tmp_path).iterdir()} == {"tokenizer.json", "empty"}
