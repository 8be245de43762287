"""SQuAD's own files: articles of paragraphs of questions, made into one row a question.

Of SQuAD 2.0, a question that `is_impossible` has no answer; what merely looked like one (`plausible_answers`) is left
out. Rows that are not nested in this way stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def is_article(value: object) -> bool:
    """Say whether a JSON value is an article: a mapping with a list of paragraphs."""
    return isinstance(value, Mapping) and isinstance(value.get("paragraphs"), list)


def flat_rows(values: Iterable[object]) -> Iterator[object]:
    """The questions of articles, and other values as they are; raises TypeError for a broken article."""
    for value in values:
        if isinstance(value, Mapping) and is_article(value):
            for paragraph in value["paragraphs"]:
                yield from _questions(paragraph, value.get("title"))
        else:
            yield value


def _questions(paragraph: object, title: object) -> Iterator[dict[str, object]]:
    asked = paragraph.get("qas") if isinstance(paragraph, Mapping) else None
    if not isinstance(paragraph, Mapping) or not isinstance(asked, list):
        raise TypeError("a paragraph has no list 'qas'")
    for each in asked:
        if not isinstance(each, Mapping):
            raise TypeError("a question is no mapping")
        answers = [] if each.get("is_impossible") else each.get("answers") or []
        if not isinstance(answers, list) or not all(isinstance(answer, Mapping) for answer in answers):
            raise TypeError("a question's 'answers' are no list of mappings")
        yield {
            "id": each.get("id"),
            "title": title,
            "context": paragraph.get("context"),
            "question": each.get("question"),
            "answers": {name: [answer.get(name) for answer in answers] for name in ("text", "answer_start")},
        }


def articles_in(content: object) -> list[object]:
    """The articles of a file's JSON: its list, or what its "data" lists; none where it holds something else."""
    values = content.get("data") if isinstance(content, Mapping) else content
    return values if isinstance(values, list) and any(map(is_article, values)) else []


def write_flat(path: Path, target: Path) -> bool:
    """Write the rows of a file of articles with one on each line; nothing, and False, where a file has none."""
    articles = articles_in(json.loads(path.read_text(encoding="utf-8-sig")))
    if articles:
        with target.open("x", encoding="utf-8") as stream:
            for row in flat_rows(articles):
                stream.write(json.dumps(row) + "\n")
    return bool(articles)
