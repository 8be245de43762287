"""What is told of a plan's checkpoint and data before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest

from optimize.building import Loaded

UNBOUNDED = 10**30


@pytest.mark.parametrize(
    ("asked", "custom", "tokenizer", "positions", "fixed", "tokens"),
    [
        (None, None, 512, 512, None, 512),
        (None, None, 128, 512, None, 128),
        (None, None, 1024, 1024, None, 1024),
        (None, None, UNBOUNDED, 1024, None, 1024),
        (None, None, None, 128, None, 128),
        (None, None, 512, 128, None, 128),
        (None, 384, 512, 512, None, 384),
        (None, 384, 128, 512, None, 128),
        (None, None, 512, 512, 96, 96),
        (256, None, 128, 512, None, 256),
        (256, 384, 512, 128, None, 128),
    ],
)
def test_texts_are_cut_to_what_is_asked_else_to_the_least_that_head_tokenizer_and_model_take(
    tmp_path: Path, asked: Any, custom: Any, tokenizer: Any, positions: int, fixed: Any, tokens: int
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": tokenizer}), encoding="utf-8")
    plan: Any = Some(request=Some(max_tokens=asked), head=Some(max_tokens=custom), longest=fixed)
    nothing: Any = None
    origin: Any = Some(artifact=Some(path=tmp_path))

    loaded = Loaded(plan, origin, {"max_position_embeddings": positions}, nothing, nothing)

    assert loaded.max_tokens == tokens
