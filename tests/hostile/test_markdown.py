"""Words of a manifest that are HTML or Markdown: pages show them letter by letter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from report.conftest import REQUEST, document, make_manifest

from optimize.manifest import Manifest
from optimize.report.card import render_card
from optimize.report.markdown import Markdown, code, code_block, plain
from optimize.report.page import render
from optimize.report.tables import markdown_table

HOSTILE = {
    "a script": "<script>alert(1)</script>",
    "an image that runs": "<img src=x onerror=alert(1)>",
    "a comment": "<!-- hidden",
    "a tag that is never closed": "<details><summary>",
    "an autolink": "<javascript:alert(1)>",
    "an entity": "&lt;b&gt;",
    "a link": "[click](https://example.org)",
    "an image": "![x](https://example.org/x.png)",
    "a reference": "[x][y]",
    "a definition": "[x]: https://example.org",
    "a definition on a line of its own": "x\n\n[x]: https://example.org\n\n[x]",
    "a heading": "x\n\n# Verdict: passed",
    "a heading at once": "# Verdict: passed",
    "a list": "x\n\n- passed",
    "a rule": "x\n\n---\n\n",
    "code": "`x",
    "code twice": "x ``` y `` z `",
    "a block of code": "x\n```\n<b>",
    "a block of code of tildes": "x\n~~~\n<b>",
    "emphasis": "**PASSED** *x* __y__ _z_ ~~w~~",
    "an escape": "\\",
    "an escaped link": "\\[x\\](y)",
    "a bar": "x | y |",
    "a table": "x\n\n| a |\n| --- |\n| b |",
    "a carriage return": "x\r\r# y",
    "other line breaks": "x\u2028\u2028# y\x0b\x0c# z",
}
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def tokens(text: str) -> Iterator[Token]:
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def shape(text: str) -> list[str]:
    """What a page is made of, whatever its words are; text that is split in several tokens is one."""
    return [token.type for token in tokens(text) if token.type not in ("text", "inline", "text_special")]


def text_of(markdown: str) -> str:
    return "".join(token.content for token in tokens(markdown) if token.type in ("text", "code_inline", "text_special"))


def spoiled(value: Any, with_: str) -> Any:
    """The same with words put to the end of every string that is not a name that pages go by."""
    if isinstance(value, dict):
        return {name: spoiled(each, with_) if name not in KEPT else each for name, each in value.items()}
    if isinstance(value, list):
        return [spoiled(each, with_) for each in value]
    return f"{value} {with_}" if isinstance(value, str) else value


KEPT = {"outcome", "kind", "head", "target", "artifact_digest", "digest", "shape", "dtype", "speedup", "gates"}


def documents(words: str) -> Manifest:
    content = json.loads(make_manifest(**document()).model_dump_json(by_alias=True))
    return Manifest.model_validate(spoiled(content, words))


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("draw", [render, lambda manifest: render_card(manifest).split("\n---\n", 1)[1]])
def test_a_page_is_made_of_the_same_whatever_its_words_are(words, draw):
    assert shape(draw(documents(words))) == shape(draw(documents("harmless")))


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_the_front_matter_is_the_same_whatever_its_words_are(words):
    front, found = (render_card(documents(each)).split("\n---\n", 1)[0] for each in ("harmless", words))

    assert yaml.safe_load(found.removeprefix("---\n")).keys() == yaml.safe_load(front.removeprefix("---\n")).keys()


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("show", [plain, code], ids=["plain", "code"])
def test_words_are_shown_letter_by_letter(words, show):
    assert text_of(f"a {show(words)} b") == f"a {' '.join(words.split())} b"


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_a_block_of_code_holds_all_of_it_and_nothing_after_it(words):
    fence, paragraph = (token for token in tokens(f"{code_block(words)}\n\nafter") if token.type in ("fence", "text"))

    assert fence.content.split() == words.split()
    assert paragraph.content == "after"


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_a_cell_is_one_cell(words):
    table = markdown_table([("a", "b"), (words, code(words))])

    assert [token.type for token in tokens(table)].count("td_open") == 2


def test_a_cell_that_is_markdown_stays_it():
    assert markdown_table([("a", "b"), ("*x*", Markdown("*x*"))]).splitlines()[2] == r"| \*x\* | *x* |"


@pytest.mark.parametrize("words", ["cpu-fp32", "max_metric_drop", "+0.0100 [-0.0020, +0.0300]", "a -> b_c", "1.5"])
def test_what_is_harmless_is_not_escaped(words):
    assert plain(words) == words.replace(">", "&gt;")


def test_a_card_names_a_pipeline_and_data_by_their_names_alone():
    request = {**REQUEST, "pipeline": "/home/ada/secret/mine.yaml", "data": "/home/ada/data", "data_revision": None}

    card = render_card(make_manifest(request=request))

    assert "--pipeline mine.yaml" in card
    assert "/home/ada" not in card
