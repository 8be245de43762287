from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ci.github_server import NUMBER, REPOSITORY, TOKEN, GitHub, serve
from doubles import Silent
from report.conftest import document, make_manifest

from optimize import manifest as manifests
from optimize.ci import comments
from optimize.ci.comments import PAUSES, marker_of, pull_request, put_comment
from optimize.errors import RequestError, UnavailableError

MARKER = "<!-- distilbert-optimize 0123456789abcdef -->"
LIST, CREATE = f"GET /repos/{REPOSITORY}/issues/{NUMBER}/comments", f"POST /repos/{REPOSITORY}/issues/{NUMBER}/comments"


@pytest.fixture
def github() -> Iterator[GitHub]:
    with serve() as found:
        yield found


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited for, which pass at once."""
    found = list[float]()
    monkeypatch.setattr(comments.time, "sleep", found.append)
    return found


@pytest.fixture
def put(github: GitHub) -> Callable[..., str]:
    def call(text: str = "text", marker: str = MARKER, **changes: str) -> str:
        place = pull_request(REPOSITORY, NUMBER, {**github.environment, **changes})
        return put_comment(marker, text, place, progress=Silent())

    return call


def test_the_first_run_creates_a_comment_and_later_ones_update_it(put, github):
    first, second = put("one"), put("two")

    assert github.comments == {101: f"{MARKER}\ntwo"}
    assert first == second == f"https://github.com/{REPOSITORY}/pull/{NUMBER}#issuecomment-101"
    assert [each.split(" ")[0] for each in github.asked] == ["GET", "POST", "GET", "PATCH"]


def test_a_comment_is_found_on_whichever_page(put, github):
    github.comments |= dict.fromkeys(range(1, 231), "others")
    github.comments[230] = f"{MARKER}\nold"

    put("new")

    assert github.comments[230] == f"{MARKER}\nnew"
    assert len(github.comments) == 230
    assert [each.partition("&page=")[2] for each in github.asked[:3]] == ["1", "2", "3"]


def test_comments_of_others_are_left_alone_also_where_they_quote_ours(put, github):
    others = {1: f"> {MARKER}\n> text", 2: "no", 3: MARKER.replace("0", "1", 1), 4: ""}
    github.comments |= others

    put()

    assert github.comments == {**others, 5: f"{MARKER}\ntext"}


def test_a_comment_that_was_created_without_a_word_is_not_created_again(put, github, slept):
    github.deaf = 1

    put()

    assert github.comments == {101: f"{MARKER}\ntext"}
    assert slept == [PAUSES[0]]


@pytest.mark.parametrize("status", [500, 502, 503])
def test_what_is_out_of_order_is_asked_again(status, put, github, slept):
    github.answers = [(status, {}, b"")] * 2

    put()

    assert len(github.comments) == 1
    assert slept == [*PAUSES[:2]]


def test_what_stays_out_of_order_is_given_up(put, github, slept):
    github.answers = [(500, {}, b"")] * 99

    with pytest.raises(UnavailableError, match=f"{REPOSITORY}#{NUMBER}: .* is out of order \\(500\\); try again later"):
        put()

    assert slept == [*PAUSES]
    assert len(github.asked) == len(PAUSES) + 1


@pytest.mark.parametrize("status", [403, 429])
def test_a_rate_limit_is_waited_for_as_long_as_github_says(status, put, github, slept):
    github.answers = [(status, {"retry-after": "30"}, b"")]

    put()

    assert slept == [30.0]
    assert len(github.comments) == 1


def test_a_rate_limit_that_ends_much_later_is_refused_at_once(put, github, slept):
    reset = str(int(time.time()) + 1800)
    github.answers = [(403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}, b"")]

    with pytest.raises(UnavailableError, match=r"rate limit is reached; try again in 1,(79\d|800) s"):
        put()
    assert slept == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "GITHUB_TOKEN: is not accepted"),
        (403, "GITHUB_TOKEN: may not write to someone/models#7; give the job `permissions: pull-requests: write`"),
        (404, "someone/models#7: is not there, or the token may not see it"),
        (410, "someone/models#7: is not there"),
        (422, r"GitHub refuses the comment \(422\)"),
        (301, r"GitHub refuses the comment \(301\)"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_tried_again(status, words, put, github, slept):
    github.answers = [(status, {"x-ratelimit-remaining": "4999", "x-ratelimit-reset": "1"}, b'{"message": "No"}')]

    with pytest.raises(RequestError, match=words):
        put()
    assert (slept, len(github.asked)) == ([], 1)


def test_a_wrong_token_is_refused_and_not_repeated(put, github):
    with pytest.raises(RequestError, match="GITHUB_TOKEN: is not accepted") as refused:
        put(GITHUB_TOKEN="ghs_wrong")

    assert "ghs_wrong" not in str(refused.value)
    assert github.comments == {}


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'[{"id": "none"}]', b""])
def test_an_answer_without_sense_is_no_comment(body, put, github):
    github.answers = [(200, {}, body)] * 99

    with pytest.raises(UnavailableError, match="gives no answer that makes sense"):
        put()
    assert github.comments == {}


def test_an_address_where_nobody_answers_is_unavailable(put):
    with pytest.raises(UnavailableError, match=r"cannot be asked \(ConnectionError\); look at the network"):
        put(GITHUB_API_URL="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("repository", "environment", "words"),
    [
        (None, {"GITHUB_TOKEN": TOKEN}, "--repository: '' is not a repository"),
        ("models", {"GITHUB_TOKEN": TOKEN}, "--repository: 'models' is not a repository"),
        ("a/b/../c", {"GITHUB_TOKEN": TOKEN}, "is not a repository"),
        (REPOSITORY, {}, "GITHUB_TOKEN: is not set"),
        (REPOSITORY, {"GITHUB_TOKEN": " "}, "GITHUB_TOKEN: is not set"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_without_asking(repository, environment, words):
    with pytest.raises(RequestError, match=words):
        pull_request(repository, NUMBER, environment)


def test_without_another_address_it_is_githubs_own():
    assert pull_request(REPOSITORY, NUMBER, {"GITHUB_TOKEN": TOKEN}).api == "https://api.github.com"


def test_each_head_target_and_pipeline_has_a_marker_of_its_own():
    one = make_manifest()
    others = [
        make_manifest(request={**document()["request"], **changes})
        for changes in ({"head": "fill-mask"}, {"target": "openvino"}, {"pipeline": "cpu-static"})
    ]
    again = make_manifest(id="12345678", request={**document()["request"], "model": "else", "seed": 9})

    assert marker_of(again) == marker_of(one)
    assert len({marker_of(each) for each in (one, *others)}) == 4
    assert marker_of(one).startswith("<!-- ")


def test_the_command_comments_and_says_where(github, optimize, tmp_path, monkeypatch, capsys):
    manifests.write(make_manifest(), tmp_path)
    for name, value in github.environment.items():
        monkeypatch.setenv(name, value)

    assert optimize("comment", str(tmp_path), "--pull-request", str(NUMBER)) == 0
    assert capsys.readouterr().out == f"https://github.com/{REPOSITORY}/pull/{NUMBER}#issuecomment-101\n"
    assert optimize("comment", str(tmp_path), "--pull-request", str(NUMBER), "--repository", REPOSITORY, "--json") == 0

    assert json.loads(capsys.readouterr().out)["comment"].endswith("-101")
    (body,) = github.comments.values()
    assert body.startswith(f"{marker_of(make_manifest())}\n### text-classification on cpu")
    assert [each.partition("?")[0] for each in github.asked[:2]] == [LIST, CREATE]


def test_a_folder_without_a_run_is_refused_before_anybody_is_asked(
    github, optimize, tmp_path: Path, monkeypatch, capsys
):
    for name, value in github.environment.items():
        monkeypatch.setenv(name, value)

    assert optimize("comment", str(tmp_path), "--pull-request", str(NUMBER)) == 2
    assert "no readable manifest.json" in capsys.readouterr().err
    assert github.asked == []
