"""What a checkpoint's own model card states, and what it does not."""

from __future__ import annotations

import pytest

from optimize.errors import SourceError
from optimize.manifest import SourceCard
from optimize.source.card import parse_card, read_card
from optimize.source.finding import Found

FRONT = "license: apache-2.0\nlanguage: en\ndatasets:\n- stanfordnlp/sst2\n- 3\ntags: [a]\n"
STATED = SourceCard(license="apache-2.0", language=["en"], datasets=["stanfordnlp/sst2"])


def found(folder):
    return Found("folder", folder.name, None, folder, {})


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_metadata_at_the_beginning_are_read(ending, tmp_path):
    text = f"---\n{FRONT}---\n\n# A model\n".replace("\n", ending)
    (tmp_path / "README.md").write_bytes(text.encode())

    assert read_card(found(tmp_path)) == STATED


@pytest.mark.parametrize(
    "text", ["# A model\n", "", "---\njust a line\n---\n", "---\na: [\n---\n", f"text\n---\n{FRONT}---\n"]
)
def test_a_card_without_such_metadata_states_nothing(text, tmp_path):
    (tmp_path / "README.md").write_text(text)

    assert read_card(found(tmp_path)) == SourceCard()


def test_a_folder_without_a_card_states_nothing(tmp_path):
    assert read_card(found(tmp_path)) == SourceCard()
    assert read_card(Found("demo", "demo", None, None, {})) == SourceCard()


def test_values_that_are_no_line_of_text_are_not_kept():
    assert parse_card('license: "a\\nb"\nlanguage: [en, {de: 1}, ""]\n') == SourceCard(language=["en"])


def test_a_card_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")

    with pytest.raises(SourceError, match=r"README\.md: cannot be read"):
        read_card(found(tmp_path))
