"""The part of GitHub's REST API that comments need, on 127.0.0.1: they are listed by pages, created and updated.

It can misbehave: each of `answers`, a status with headers and a body, stands for one answer of its own; with `deaf` it
does what it is asked and closes the connection without a word.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "ghs_right"
REPOSITORY, NUMBER = "someone/models", 7
COMMENTS = re.compile(rf"/repos/{REPOSITORY}/issues/{NUMBER}/comments")
COMMENT = re.compile(rf"/repos/{REPOSITORY}/issues/comments/(\d+)")
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class GitHub:
    """The server's address, the bodies of comments by their id, and what was asked: method, path and query."""

    address: str = ""
    comments: dict[int, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    deaf: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What GitHub gives a step."""
        return {"GITHUB_API_URL": self.address, "GITHUB_TOKEN": TOKEN, "GITHUB_REPOSITORY": REPOSITORY}


@contextmanager
def serve() -> Iterator[GitHub]:
    """Run it until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    github = GitHub(f"http://127.0.0.1:{server.server_port}")
    server.github = github  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    @property
    def github(self) -> GitHub:
        found: GitHub = self.server.github  # type: ignore[attr-defined]
        return found

    def answer(self) -> None:
        words = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.github.asked.append(f"{self.command} {self.path}")
        if self.github.answers:
            status, headers, body = self.github.answers.pop(0)
        else:
            status, said = self._result(json.loads(words) if words else None)
            headers, body = {}, json.dumps(said).encode()
        if self.github.deaf and self.command == "POST":
            self.github.deaf -= 1
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _result(self, said: Any) -> tuple[int, Any]:
        parts, comments = urlsplit(self.path), self.github.comments
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        one = COMMENT.fullmatch(parts.path)
        if self.command == "PATCH" and one and int(one[1]) in comments:
            comments[int(one[1])] = said["body"]
            return 200, self._shown(int(one[1]))
        if self.command == "POST" and COMMENTS.fullmatch(parts.path):
            number = max(comments, default=100) + 1
            comments[number] = said["body"]
            return 201, self._shown(number)
        if self.command == "GET" and COMMENTS.fullmatch(parts.path):
            query = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
            first = (query["page"] - 1) * query["per_page"]
            return 200, [self._shown(each) for each in list(comments)[first : first + query["per_page"]]]
        return 404, {"message": "Not Found"}

    def _shown(self, number: int) -> dict[str, Any]:
        address = f"https://github.com/{REPOSITORY}/pull/{NUMBER}#issuecomment-{number}"
        return {"id": number, "body": self.github.comments[number], "html_url": address, "user": {"type": "Bot"}}

    def log_message(self, *_: object) -> None:
        """Say nothing."""


for method in ("GET", "POST", "PATCH"):
    setattr(_Handler, f"do_{method}", _Handler.answer)
