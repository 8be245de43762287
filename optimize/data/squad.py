"""SQuAD's own files: articles of paragraphs of questions, made into one row a question.

Of SQuAD 2.0, a question that `is_impossible` has no answer; what merely looked like one (`plausible_answers`) is left
out. Rows that are not nested in this way stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping


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
