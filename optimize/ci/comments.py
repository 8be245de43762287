"""A comment on a pull request, through GitHub's REST API: made once, found again by a hidden marker, and updated.

Who creates a comment may not hear that it was created. So a try that fails is made again from the beginning, by looking
for the marker first, and nothing is said twice.
https://docs.github.com/en/rest/issues/comments
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter

from optimize.ci.findings import subject_of
from optimize.errors import OptimizeError, RequestError, UnavailableError, brief
from optimize.hub import client
from optimize.hub.patience import answer
from optimize.interfaces import Progress
from optimize.manifest import Manifest

PUBLIC_API = "https://api.github.com"
VERSION = "2022-11-28"
"""Of GitHub's REST API; it keeps each for years."""
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
PAGE, MOST_PAGES = 100, 100
"""Comments that GitHub lists at a time, at most, and pages that are looked through."""
PAUSES = (1.0, 4.0, 16.0)
"""Seconds before each further try."""
MOST_SECONDS = 60.0
"""Longest that a rate limit is waited for."""
PATIENCE = 30.0


class Comment(BaseModel):
    """What is read of a comment."""

    id: int
    body: str | None = None
    html_url: str = ""


Content = TypeVar("Content")


class PassingError(Exception):
    """What may go well if it is tried again, after so many seconds at least."""

    def __init__(self, refusal: OptimizeError, seconds: float = 0.0) -> None:
        self.refusal, self.seconds = refusal, seconds


@dataclass(frozen=True)
class PullRequest:
    """A pull request, and how GitHub is asked about it."""

    repository: str
    number: int
    token: str
    api: str = PUBLIC_API

    def __str__(self) -> str:
        return f"{self.repository}#{self.number}"


def pull_request(repository: str | None, number: int, environment: Mapping[str, str]) -> PullRequest:
    """A pull request with the token and the API that GitHub's environment names; refuses what cannot be asked for."""
    if repository is None or not REPOSITORY.fullmatch(repository):
        raise RequestError(f"--repository: '{brief(repository or '')}' is not a repository; write owner/name")
    token = environment.get("GITHUB_TOKEN", "").strip()
    if not token:
        raise RequestError("GITHUB_TOKEN: is not set; give the step a token that may write to pull requests")
    return PullRequest(repository, number, token, (environment.get("GITHUB_API_URL") or PUBLIC_API).rstrip("/"))


def marker_of(manifest: Manifest) -> str:
    """What a comment begins with, and no reader sees: one for each head, target and pipeline."""
    digest = hashlib.sha256("\0".join(subject_of(manifest)).encode("utf-8", "surrogatepass")).hexdigest()
    return f"<!-- distilbert-optimize {digest[:16]} -->"


def put_comment(
    marker: str, text: str, place: PullRequest, *, progress: Progress, pauses: Sequence[float] = PAUSES
) -> str:
    """Put text into the comment of a marker, new or old; the comment's address. Tries again what may pass."""
    try:
        return _put(marker, text, place, progress)
    except PassingError as passing:
        if not pauses or passing.seconds > MOST_SECONDS:
            raise passing.refusal from None
        time.sleep(max(pauses[0], passing.seconds))
    return put_comment(marker, text, place, progress=progress, pauses=pauses[1:])


def _put(marker: str, text: str, place: PullRequest, progress: Progress) -> str:
    comments, body = f"/repos/{place.repository}/issues/{place.number}/comments", {"body": f"{marker}\n{text}"}
    old = _find(marker, comments, place, progress)
    if old is None:
        said = _ask("POST", comments, place, progress, wanted=201, json=body)
    else:
        where = f"/repos/{place.repository}/issues/comments/{old.id}"
        said = _ask("PATCH", where, place, progress, wanted=200, json=body)
    return _read(TypeAdapter(Comment), said, place).html_url


def _find(marker: str, comments: str, place: PullRequest, progress: Progress) -> Comment | None:
    """The first comment that begins with the marker; one that quotes it is somebody else's."""
    for page in range(1, MOST_PAGES + 1):
        said = _ask("GET", comments, place, progress, wanted=200, params={"per_page": PAGE, "page": page})
        found = _read(TypeAdapter(list[Comment]), said, place)
        for each in found:
            if (each.body or "").startswith(marker):
                return each
        if len(found) < PAGE:
            break
    return None


def _read(kind: TypeAdapter[Content], response: Any, place: PullRequest) -> Content:
    try:
        return kind.validate_json(response.content)
    except ValueError as error:
        raise PassingError(
            UnavailableError(f"{place}: {place.api} gives no answer that makes sense; look at it")
        ) from error


def _ask(method: str, path: str, place: PullRequest, progress: Progress, *, wanted: int, **words: Any) -> Any:
    """GitHub's answer with the status that is `wanted`; any other is a refusal, or something to try again."""
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {place.token}",
        "X-GitHub-Api-Version": VERSION,
        "User-Agent": "distilbert-optimize",
    }

    def ask() -> Any:
        return client.library().request(method, place.api + path, headers=headers, timeout=PATIENCE, **words)

    try:
        response = answer(ask, about=str(place), progress=progress, whom="GitHub")
    except client.errors() as error:
        what = type(client.failure(error)).__name__
        refusal = UnavailableError(
            f"{place}: {place.api} cannot be asked ({what}); look at the network, then try again"
        )
        raise PassingError(refusal) from error
    if response.status_code != wanted:
        raise _refusal(response, place)
    return response


def _refusal(response: Any, place: PullRequest) -> Exception:
    """What a status means that was not wanted."""
    status, seconds = response.status_code, _pause(response.headers)
    if status >= 500:
        return PassingError(
            UnavailableError(f"{place}: {place.api} is out of order ({status}); try again later"), seconds
        )
    if status == 429 or (status == 403 and seconds):
        refusal = UnavailableError(f"{place}: GitHub's rate limit is reached; try again in {seconds:,.0f} s")
        return PassingError(refusal, seconds)
    if status == 401:
        return RequestError("GITHUB_TOKEN: is not accepted; give a token that is valid")
    if status == 403:
        return RequestError(
            f"GITHUB_TOKEN: may not write to {place}; give the job `permissions: pull-requests: write`, which no "
            "pull request of a fork has"
        )
    if status in (404, 410):
        return RequestError(
            f"{place}: is not there, or the token may not see it; check --repository and --pull-request"
        )
    return RequestError(f"{place}: GitHub refuses the comment ({status}); look whether it is locked or has moved")


def _pause(headers: Mapping[str, str]) -> float:
    """Seconds for which GitHub wants to be left alone, in either way in which it says so; 0 where it says nothing."""
    after = headers.get("Retry-After", "")
    if after.isdecimal():
        return float(after)
    reset = headers.get("X-RateLimit-Reset", "")
    if headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        return max(1.0, float(reset) - time.time())
    return 0.0
