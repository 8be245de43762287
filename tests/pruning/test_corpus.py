"""A corpus: read from any layout, or why it is none."""

import json

from optimize.pruning.corpus import read_corpus, why_no_corpus


def test_a_corpus_is_read_line_by_line_by_string_and_by_folder(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n  two  \n", encoding="utf-8")
    row = {"id": 7, "words": ["three", "", "four"], "answers": {"text": ["five"]}}
    (tmp_path / "b.jsonl").write_text(json.dumps(row) + "\n\n", encoding="utf-8")
    (tmp_path / "c.md").write_text("not read", encoding="utf-8")

    assert list(read_corpus(tmp_path)) == ["one", "two", "three  four", "five"]
    assert list(read_corpus(tmp_path / "c.md")) == ["not read"]
    assert why_no_corpus(tmp_path) is None
