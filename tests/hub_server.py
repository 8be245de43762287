"""A small Hugging Face Hub on 127.0.0.1: what huggingface_hub and datasets ask of the real one, and fixtures with it.

A repository is a list of commits, each a mapping from paths to bytes, and names that point to
commits. The server answers for information, trees, path information and files, and refuses the way
the Hub does, with `X-Error-Code`. It can misbehave as well: say nothing, drip, or talk nonsense.
It takes uploads: repositories and branches are made, large files put by the LFS protocol, and commits by one request.
It knows nothing of large-file redirects; of weights it says that Xet has them too, which it has not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

API = re.compile(r"/api/(models|datasets)/([\w.-]+/[\w.-]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
UPLOAD = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/(branch|preupload|commit)/([^/]+)")
BATCH = re.compile(r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch")
LARGE = (".onnx", ".bin", ".safetensors")
"""Ends of names of files that the Hub wants by LFS."""
FILE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
DATE = "2024-01-01T00:00:00.000Z"

Files = Mapping[str, bytes]


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder, as a repository holds them."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@dataclass(frozen=True)
class Manner:
    """How a repository misbehaves: towards questions of the API, or where files are fetched.

    Where it `says` something, with a status and headers, that is all it says. What it `does` is to keep `silent`, to
    drip the body or even the `headers` byte by byte, or to take its time before it answers as it should. Where files
    `drip` or `crumble`, it answers as it should, but byte by byte, or with one byte each time.
    """

    says: bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    does: Literal["silent", "drips", "drips headers", "hesitates", "files drip", "files crumble"] | None = None
    towards: Literal["questions", "files"] = "questions"


@dataclass
class Repository:
    """Commits by their hash, and branches; `refuses` is a status and code to answer everything with."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    refuses: tuple[int, str] | None = None
    manner: Manner | None = None
    private: bool = False
    summaries: list[str] = field(default_factory=list)

    def commit(self, files: Files, branch: str = "main") -> str:
        """Add a commit, point `branch` to it, and return its hash."""
        total = hashlib.sha1(f"{branch}{len(self.commits)}".encode())
        for path, content in sorted(files.items()):
            total.update(path.encode() + content)
        self.commits[total.hexdigest()] = files
        self.branches[branch] = total.hexdigest()
        return total.hexdigest()


@dataclass
class Hub:
    """The server's address and its repositories by (kind, id).

    `requests` is what was asked of it, and `sent` how many bytes of files it sent. `objects` are large files by their
    SHA-256, whether or not a commit names them. Where it `refuses_uploads`, with a status, nothing is written.
    """

    address: str
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    objects: dict[str, bytes] = field(default_factory=dict)
    refuses_uploads: int | None = None
    closed: threading.Event = field(default_factory=threading.Event)

    def model(self, name: str) -> Repository:
        """The model of that name, made where there is none."""
        return self.repositories.setdefault(("models", name), Repository())

    def dataset(self, name: str) -> Repository:
        """The data set of that name, made where there is none."""
        return self.repositories.setdefault(("datasets", name), Repository())

    def environment(self, home: Path) -> dict[str, str]:
        """Environment variables of a process that is to use this Hub and keep its files in `home`."""
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(home)}


@contextmanager
def serve() -> Iterator[Hub]:
    """Run an empty Hub until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    # How often it looks whether it is to end, which each test waits for.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _RefusalError(Exception):
    """An answer with an error status and the Hub's own error code."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    habit: str | None = None

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        hub.requests.append(f"{self.command} {self.path}")
        content = self._body()
        path = urlsplit(self.path).path
        if self.command in ("POST", "PUT") and (answer := _upload(hub, self.path, content)) is not None:
            self._send(hub.refuses_uploads or answer[0], json.dumps(answer[1]).encode(), {})
            return
        body = content.decode()
        api, file = API.fullmatch(path), FILE.fullmatch(path)
        manner = _manner(hub, api, file)
        if manner and self._misbehaves(hub, manner):
            return
        self.habit = manner.does if manner else None
        try:
            if found := api:
                self._send(200, json.dumps(_describe(hub, *found.groups(), body)).encode(), {})
            elif found := file:
                hub.sent += self._send(200, *_file(hub, *found.groups()))
            else:
                raise _RefusalError(404, "EntryNotFound")
        except _RefusalError as refusal:
            status, code = refusal.args
            self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code} (test hub)"})

    def _misbehaves(self, hub: Hub, manner: Manner) -> bool:
        """Whether that was all: else the answer is still to come."""
        if manner.does == "hesitates":
            hub.closed.wait(0.3)
        if manner.does in ("hesitates", "files drip", "files crumble"):
            return False
        if manner.does is None:
            self._send(manner.status, manner.says or b"", manner.headers)
            return True
        self.close_connection = True
        if manner.does == "silent":
            hub.closed.wait()
            return True
        status = b"HTTP/1.1 200 OK\r\n"
        with suppress(OSError):  # whoever asked has had enough
            self.wfile.write(status if manner.does == "drips headers" else status + b"ETag: 1\r\n\r\n")
            while not hub.closed.wait(0.05):
                self.wfile.write(b"X-Y: z\r\n" if manner.does == "drips headers" else b" ")
        return True

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> int:
        """Answer; how many bytes of content were sent."""
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span and status == 200:
            first, last = int(span[1]), int(span[2] or len(content) - 1)
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        return 0 if self.command == "HEAD" else self._write(content)

    def _write(self, content: bytes) -> int:
        if self.habit == "files crumble":
            content, self.close_connection = content[:1], True
        if self.habit != "files drip":
            return self.wfile.write(content)
        with suppress(OSError):  # whoever asked has had enough
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.server.hub.closed.wait(0.05)  # type: ignore[attr-defined]
        return len(content)


def _manner(hub: Hub, api: re.Match[str] | None, file: re.Match[str] | None) -> Manner | None:
    if api is not None:
        repository, towards = hub.repositories.get((api[1], api[2])), "questions"
    elif file is not None:
        repository, towards = hub.repositories.get(("datasets" if file[1] else "models", file[2])), "files"
    else:
        return None
    manner = repository.manner if repository else None
    return manner if manner and manner.towards == towards else None


def _upload(hub: Hub, asked: str, content: bytes) -> tuple[int, Any] | None:
    """What is answered to something that writes; None where it is nothing of that kind."""
    path = urlsplit(asked).path
    if path.startswith("/lfs/"):
        if hub.refuses_uploads is None:
            hub.objects[path.removeprefix("/lfs/")] = content
        return 200, {}
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if path == "/api/repos/create":
        return _create(hub, json.loads(content))
    if found := BATCH.fullmatch(path):
        return 200, {"objects": [_lfs(hub, each) for each in json.loads(content)["objects"]], "transfer": "basic"}
    if (found := UPLOAD.fullmatch(path)) is None:
        return None
    repository, revision = hub.repositories.get(("models", found[1])), unquote(found[3])
    if repository is None:
        return 404, {}
    if found[2] == "branch":
        new = repository.branches.setdefault(revision, repository.branches["main"])
        return 200, {"oid": new}
    if found[2] == "preupload":
        files = json.loads(content)["files"]
        return 200, {"files": [{**_mode(each["path"]), "path": each["path"]} for each in files]}
    return _commit(hub, found[1], revision, content, pull_request="create_pr=1" in asked)


def _create(hub: Hub, asked: dict[str, Any]) -> tuple[int, Any]:
    name = f"{asked['organization']}/{asked['name']}"
    if ("models", name) in hub.repositories:
        return 409, {"url": f"{hub.address}/{name}"}
    made = hub.model(name)
    made.private = asked.get("private") is True or asked.get("visibility") == "private"
    made.commit({".gitattributes": b"*.onnx filter=lfs\n"})
    return 200, {"url": f"{hub.address}/{name}"}


def _lfs(hub: Hub, asked: dict[str, Any]) -> dict[str, Any]:
    there = {} if asked["oid"] in hub.objects else {"upload": {"href": f"{hub.address}/lfs/{asked['oid']}"}}
    return {**asked, "actions": there} if there else asked


def _mode(path: str) -> dict[str, Any]:
    return {"uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}


def _commit(hub: Hub, name: str, revision: str, content: bytes, *, pull_request: bool) -> tuple[int, Any]:
    if hub.refuses_uploads:
        return hub.refuses_uploads, {}
    repository = hub.model(name)
    lines = [json.loads(line) for line in content.splitlines()]
    parent = repository.branches.get(revision, revision)
    if lines[0]["value"].get("parentCommit") not in (None, parent):
        return 412, {"error": "a commit has happened since"}
    files = dict(repository.commits[parent])
    for line in lines[1:]:
        path = line["value"]["path"]
        if line["key"] == "file":
            files[path] = base64.b64decode(line["value"]["content"])
        elif line["key"] == "lfsFile":
            files[path] = hub.objects[line["value"]["oid"]]
        else:
            del files[path]
    branch = f"refs/pr/{len(repository.summaries) + 1}" if pull_request else revision
    made = repository.commit(files, branch)
    repository.summaries.append(lines[0]["value"]["summary"])
    url = f"{hub.address}/{name}/commit/{made}"
    pull = {"pullRequestUrl": f"{hub.address}/{name}/discussions/{branch.rpartition('/')[2]}"} if pull_request else {}
    return 200, {"success": True, "commitOid": made, "commitUrl": url, **pull}


def _resolve(hub: Hub, kind: str, name: str, revision: str) -> tuple[str, Files]:
    repository = hub.repositories.get((kind, name))
    if repository is None:
        raise _RefusalError(404, "RepoNotFound")
    if repository.refuses is not None:
        raise _RefusalError(*repository.refuses)
    commit = repository.branches.get(unquote(revision), unquote(revision))
    if commit not in repository.commits:
        raise _RefusalError(404, "RevisionNotFound")
    return commit, repository.commits[commit]


def _describe(hub: Hub, kind: str, name: str, what: str | None, revision: str | None, path: str, body: str) -> Any:
    commit, files = _resolve(hub, kind, name, revision or "main")
    if what == "tree":
        below = f"{path}/" if path else ""
        return [_entry(file, content) for file, content in files.items() if file.startswith(below)]
    if what == "paths-info":
        wanted = parse_qs(body).get("paths") or json.loads(body or "{}").get("paths", [])
        return [_entry(file, files[file]) for file in wanted if file in files]
    siblings = [{"rfilename": file} for file in files]
    common = {"_id": "1", "id": name, "sha": commit, "siblings": siblings, "tags": [], "lastModified": DATE}
    return {**common, "private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}


def _file(hub: Hub, dataset: str | None, name: str, revision: str, path: str) -> tuple[bytes, dict[str, str]]:
    commit, files = _resolve(hub, "datasets" if dataset else "models", name, revision)
    path = unquote(path)
    if path not in files:
        raise _RefusalError(404, "EntryNotFound")
    etag = hashlib.sha1(files[path]).hexdigest()
    xet = {"X-Xet-Hash": etag + etag[:24], "Link": f'<{hub.address}/xet>; rel="xet-auth"'} if "model" in path else {}
    return files[path], {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes", **xet}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub without anything in it."""
    with serve() as running:
        yield running


@pytest.fixture
def here(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Let this process use the Hub; the libraries read their environment when they are imported."""
    import datasets
    import huggingface_hub

    point_to(hub.address, monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    yield hub
    close_clients()


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make another address the Hub's in this process, asked through the proxies that the environment names now."""
    import datasets
    import huggingface_hub

    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    for module in (huggingface_hub.constants, huggingface_hub.file_download):  # which one reads it has changed
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
    close_clients()


def close_clients() -> None:
    """Have huggingface_hub open new connections, with settings of now."""
    from huggingface_hub import utils

    close = getattr(utils, "close_session", None) or utils.reset_sessions  # the latter before 1.0
    close()
