"""Data at addresses: what is downloaded, what is refused, and that no credential is ever said or kept."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hub_server import Hub

from optimize import planning
from optimize.cli.logs import write_log
from optimize.data import remote
from optimize.data.splits import inspect_data, load_splits
from optimize.data.urls import redacted, without_secrets
from optimize.data.wanted import Splits, Wanted, name_data
from optimize.errors import DataError, OptimizeError, UnavailableError
from optimize.heads import HEADS

HEAD = HEADS["text-classification"]
SENTIMENT = {"id2label": {"0": "negative", "1": "positive"}}
USER = "ada:se%20cret"
SECRET = "X-Signature=5ec7e7"


def reviews(count: int, start: int = 0) -> bytes:
    return "".join(
        json.dumps({"text": f"review {i}", "label": i % 2}) + "\n" for i in range(start, start + count)
    ).encode()


def want(data: str, **changes: Any) -> Wanted:
    usual: dict[str, Any] = {"config": None, "columns": {}, "certify_on": None, "examples": 99}
    return Wanted(data, calibration_examples=4, tuning_examples=4, seed=0, **(usual | changes))


def load(data: str, **changes: Any) -> Splits:
    inspect_data(want(data, **changes), HEAD)
    return load_splits(want(data, **changes), HEAD, SENTIMENT)


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and some paths that are no files of it."""

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self._answer(super().do_GET)

    def do_HEAD(self) -> None:
        self._answer(super().do_HEAD)

    def _answer(self, usual: Callable[[], None]) -> None:
        heard: list[str] = self.server.heard  # type: ignore[attr-defined]
        heard.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}".strip())
        if self.path.startswith("/status/"):
            self.send_error(int(self.path.split("/")[2]))
        elif self.path.startswith("/short/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(reviews(3))
        elif self.path.startswith("/drips/"):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # whoever asked has had enough
                for _ in range(40):
                    self.wfile.write(b" ")
                    time.sleep(0.05)
        else:
            usual()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """A folder, its address, and what was asked of it."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *words: _Handler(*words, directory=str(folder)))
    server.daemon_threads = True
    server.heard = heard = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", heard
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz"])
def test_a_file_at_an_address_is_cut_as_one_that_lies_here(served, tmp_path: Path, name: str) -> None:
    folder, address, _ = served
    content = reviews(60)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    splits = load(f"{address}/{name}")

    assert splits.records == load(str(folder / name)).records
    assert load(f"file://{folder / name}") == load(str(folder / name))


def test_a_folder_at_an_address_is_listed_and_what_is_not_used_is_not_downloaded(served) -> None:
    folder, address, heard = served
    (folder / "set" / "data").mkdir(parents=True)
    for name, rows in {"train": reviews(20), "test": reviews(5, 50), "notes": b""}.items():
        (folder / "set" / "data" / f"{name}.jsonl").write_bytes(rows)
    (folder / "set" / "dev-00000-of-00001.jsonl").write_bytes(reviews(9, 100))

    splits = load(f"{address}/set/")

    assert {name: record.origin for name, record in splits.records.items()} == {
        "calibration": "train",
        "tuning": "train",
        "certification": "validation",
    }
    assert splits.records == load(str(folder / "set")).records
    assert not [line for line in heard if "test.jsonl" in line or "notes" in line]


def test_a_plan_downloads_nothing(served) -> None:
    folder, address, heard = served
    (folder / "train.jsonl").write_bytes(reviews(9))

    inspect_data(want(f"{address}/train.jsonl"), HEAD)

    assert heard == ["HEAD /train.jsonl"]


def test_what_any_file_system_of_fsspec_lists_is_read(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe({"/bucket/set/train.jsonl": reviews(20), "/bucket/set/test.jsonl.gz": gzip.compress(reviews(5, 50))})

    assert load("memory://bucket/set").records["certification"].count == 5
    with pytest.raises(DataError, match=r"memory://bucket/else: is not there"):
        load("memory://bucket/else")
    with pytest.raises(DataError, match=r"memory://bucket: no train, validation or test file"):
        load("memory://bucket")


REFUSED: dict[str, tuple[str, type[OptimizeError], str]] = {
    "nothing": ("/train.jsonl", DataError, "is not there; check --data"),
    "no folder": ("/folder", DataError, "is not there; check --data"),
    "not allowed": ("/status/403/train.jsonl", DataError, "these credentials do not allow that"),
    "nobody known": ("/status/401/train.jsonl", DataError, "these credentials do not allow that"),
    "out of order": ("/status/503/train.jsonl", UnavailableError, "is out of order (503); try again later"),
    "out of order, a folder": ("/status/500/set", UnavailableError, "is out of order (500)"),
    "cut short": ("/short/train.jsonl", UnavailableError, "cannot be reached (ContentLengthError); check the network"),
    "a chain": ("/x.zip::/train.jsonl", DataError, "is a chain of addresses; name one"),
}


@pytest.mark.parametrize(("path", "kind", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_one_line_without_credentials(served, path: str, kind, says: str) -> None:
    address = served[1].replace("//", f"//{USER}@")

    with pytest.raises(kind) as refused:
        load(f"{address}{path}?{SECRET}")

    message = str(refused.value)
    assert says in message
    assert message.startswith(f"{served[1]}{path.removesuffix('/')}: ")
    assert [word for word in (USER, "cret", SECRET) if word in message] == []


def test_nobody_at_an_address_is_no_fault_of_the_request(monkeypatch) -> None:
    with pytest.raises(UnavailableError, match=r"^http://127\.0\.0\.1:9/train\.jsonl: cannot be reached \(ClientConn"):
        load(f"http://{USER}@127.0.0.1:9/train.jsonl?{SECRET}")


UNKNOWN: dict[str, tuple[str, type[OptimizeError], str]] = {
    "a library that is not here": (
        "s3://bucket/train.jsonl",
        UnavailableError,
        "needs s3fs, which is not installed; install",
    ),
    "no such kind": ("nonsense://x/train.jsonl", DataError, "is no address of a kind that is known"),
    "no address": ("http://[x/train.jsonl", DataError, "is no address of a kind that is known"),
    "another machine": ("file://elsewhere/train.jsonl", DataError, "is on another machine"),
    "a model of the Hub": (
        "hf://owner/name",
        DataError,
        "names no data set of the Hub; write hf://datasets/owner/name",
    ),
}


@pytest.mark.parametrize(("address", "kind", "says"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_address_that_nothing_here_can_read_is_refused(monkeypatch, address: str, kind, says: str) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed

    with pytest.raises(kind) as refused:
        load(address)

    assert says in str(refused.value)


def test_what_next_to_never_arrives_is_given_up(served, monkeypatch) -> None:
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.3)

    with pytest.raises(UnavailableError, match="does not answer in time"):
        load_splits(want(f"{served[1]}/drips/train.jsonl"), HEAD, SENTIMENT)


@pytest.mark.parametrize("size_is_known", [True, False])
def test_what_is_too_large_is_refused_before_or_while_it_is_downloaded(served, monkeypatch, size_is_known) -> None:
    folder, address, heard = served
    (folder / "train.jsonl").write_bytes(reviews(99))
    monkeypatch.setattr(remote, "MOST_BYTES", 1000)
    if not size_is_known:
        monkeypatch.setattr(remote, "_size", lambda entry: None)

    with pytest.raises(DataError, match=r"train\.jsonl: is larger than 0 GiB; download it"):
        (inspect_data if size_is_known else load_splits)(
            want(f"{address}/train.jsonl"), HEAD, *(() if size_is_known else (SENTIMENT,))
        )

    assert [line for line in heard if line.startswith("GET")] == [] or not size_is_known


def test_bad_rows_at_an_address_are_named_by_it(served) -> None:
    folder, address, _ = served
    (folder / "set").mkdir()
    (folder / "set" / "train.jsonl").write_bytes(reviews(9) + b'{"text": null, "label": 1}\n')

    with pytest.raises(DataError, match=rf"^{address}/set/train\.jsonl, line 10: has no text"):
        load(f"{address.replace('//', '//a:b@')}/set/?{SECRET}")


def test_credentials_reach_the_server_and_nothing_else(served, checkpoint, tmp_path: Path) -> None:
    folder, address, heard = served
    (folder / "train.jsonl").write_bytes(reviews(40))
    asked = f"{address.replace('//', f'//{USER}@')}/train.jsonl?{SECRET}"
    options = planning.Options(model=str(checkpoint(HEAD.name)), data=asked, cache=tmp_path / "cache")

    made = planning.make_plan(options)
    splits = load_splits(made.wanted, made.head, SENTIMENT)

    assert heard[-1] == f"GET /train.jsonl?{SECRET} Basic {base64.b64encode(b'ada:se cret').decode()}"
    assert made.request.data == f"{address}/train.jsonl"
    assert "cret" not in f"{made.request}{splits.records}{splits.notes}"


def test_logs_have_no_credentials(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("optimize.cli.logs._folders", lambda: iter([tmp_path]))
    monkeypatch.setattr("sys.argv", ["optimize", "run", f"--data=https://{USER}@host/train.jsonl?{SECRET}"])

    log = write_log(RuntimeError(f"GET s3://{USER}@host/x?{SECRET} failed"))

    text = log.read_text(encoding="utf-8")
    assert ("https://host/train.jsonl" in text, "s3://host/x failed" in text) == (True, True)
    assert [word for word in (USER, SECRET) if word in text] == []


SHOWN = {
    f"https://{USER}@host:8/a/b.csv?{SECRET}#f": "https://host:8/a/b.csv",
    "s3://bucket/a.csv?versionId=1": "s3://bucket/a.csv",
    "hf://datasets/owner/name@main/x.csv": "hf://datasets/owner/name@main/x.csv",
    "/home/ada/a?b.csv": "/home/ada/a?b.csv",
    "owner/name": "owner/name",
    f"http://{USER}@[x/y?{SECRET}": "http://…",
}


@pytest.mark.parametrize(("address", "shown"), SHOWN.items())
def test_what_is_shown_of_an_address(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
    assert redacted(f"--data={address} x") == f"--data={shown} x"


def test_a_file_or_folder_of_a_data_set_on_the_hub_is_read_at_its_commit(here: Hub, monkeypatch) -> None:
    files = {"a/train.jsonl": reviews(20), "a/test.jsonl": reviews(5, 50), "b/train.jsonl": b"", "README.md": b""}
    commit = here.dataset("tester/many").commit(files)
    data, _ = name_data("hf://datasets/tester/many@main/a/", None)

    planned = inspect_data(want(data), HEAD)
    here.dataset("tester/many").commit({"a/train.jsonl": b"moved on"})
    splits = load_splits(want(data, revision=planned), HEAD, SENTIMENT)

    assert planned == commit
    assert {name: record.count for name, record in splits.records.items()} == {
        "calibration": 4,
        "tuning": 4,
        "certification": 5,
    }
    assert not [line for line in here.requests if "b/train" in line]
    alone = load_splits(want("hf://datasets/tester/many/a/test.jsonl", revision=commit), HEAD, SENTIMENT)
    assert alone.records["certification"].origin == "test"
    with pytest.raises(DataError, match=r"^hf://datasets/tester/many/c: is not in that data set; check --data"):
        load_splits(want("hf://datasets/tester/many/c", revision=commit), HEAD, SENTIMENT)
    with pytest.raises(DataError, match=r"^hf://datasets/tester/many/b/train\.jsonl: is empty"):
        load_splits(want("hf://datasets/tester/many/b/train.jsonl", revision=commit), HEAD, SENTIMENT)


def test_an_address_of_a_whole_data_set_on_the_hub_is_its_id() -> None:
    assert name_data("hf://datasets/owner/name", "v1") == ("owner/name", "v1")
    assert name_data("hf://datasets/owner/name@refs%2Fpr%2F1", None) == ("owner/name", "refs/pr/1")
    assert name_data("hf://datasets/owner/name@v1/a/b.csv", None) == ("hf://datasets/owner/name/a/b.csv", "v1")
    assert name_data("https://host/x.csv", None) == ("https://host/x.csv", None)
    with pytest.raises(DataError, match="give one of the two"):
        name_data("hf://datasets/owner/name@v1", "v2")
