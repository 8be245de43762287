"""Hubs that refuse, fail, talk nonsense, say nothing or drip: one line with the right remedy, and in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile.cases import HEAD, Asked, assert_refused
from hub_server import Hub, Manner, Repository, point_to, read_folder

from optimize.data.splits import Wanted, load_splits
from optimize.errors import SourceError, UnavailableError
from optimize.heads import HEADS
from optimize.hub import client, patience, refusals
from optimize.hub.repository import COMMIT, download
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint

NAME = "tester/small"
NOWHERE = "http://127.0.0.1:9"


def refuse(status: int, code: str = "", message: str = "", **headers: str) -> Manner:
    """An answer with an error status, the Hub's own code and message, and further headers."""
    named = {"X-Error-Code": code, "X-Error-Message": message} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return Manner(b"{}", status, {name: value for name, value in named.items() if value})


def say(body: object) -> Manner:
    """An answer of status 200: bytes as they are, anything else as JSON."""
    return Manner(body if isinstance(body, bytes) else json.dumps(body).encode())


def info(**changes: object) -> Manner:
    """What the Hub tells of a repository, with changes."""
    told = {"_id": "1", "id": NAME, "sha": "a" * 40, "siblings": [{"rfilename": "config.json"}], "tags": []}
    common = {"private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0}
    return say(told | common | changes)


NONSENSE = "the Hub gives an answer that makes no sense"
LATE = "the Hub does not answer in time"
MANNERS: dict[str, tuple[Manner, int, str]] = {
    "a private or missing repository": (refuse(401, "RepoNotFound"), 2, "not on the Hub; check --"),
    "a missing repository": (refuse(404, "RepoNotFound"), 2, "no such folder, and not on the Hub; check --"),
    "no code with 401": (
        refuse(401),
        2,
        "the Hub wants to know who asks (401); log in with 'hf auth login' or set HF_",
    ),
    "a gated one, nobody": (refuse(401, "GatedRepo"), 2, "is gated; accept its terms on the Hub, and log in"),
    "a gated one, a stranger": (refuse(403, "GatedRepo"), 2, "is gated; accept its terms on the Hub, and log in"),
    "a token that may not": (refuse(403), 2, "does not let this account do that (403); check what HF_TOKEN may do"),
    "a disabled one": (refuse(403, message="Access to this resource is disabled."), 2, "is disabled on the Hub"),
    "no code with 404": (refuse(404), 2, "the Hub has not what was asked for (404)"),
    "another error": (refuse(418), 2, "the Hub has not what was asked for (418)"),
    "too many questions": (refuse(429, Retry_After="7"), 3, "(429); wait 7 s, or log in with"),
    "too many, no matter for how long": (refuse(429), 3, "(429); wait some minutes, or log in with"),
    "too many, until a date": (refuse(429, Retry_After="Fri, 31 Dec"), 3, "(429); wait some minutes"),
    "a proxy that asks": (
        refuse(407),
        3,
        "the proxy wants to know who asks (407); put user and password in HTTPS_PROXY",
    ),
    "500": (refuse(500), 3, "the Hub is out of order (500); try again later, set HF_HUB_OFFLINE=1"),
    "502": (refuse(502), 3, "the Hub is out of order (502)"),
    "503": (refuse(503), 3, "the Hub is out of order (503)"),
    "504": (refuse(504), 3, "the Hub is out of order (504)"),
    "a redirection to itself": (Manner(b"", 302, {"Location": "small"}), 3, NONSENSE),
    "a list": (say([]), 3, NONSENSE),
    "an empty object": (say({}), 3, NONSENSE),
    "null": (say(None), 3, NONSENSE),
    "a word": (say("hello"), 3, NONSENSE),
    "a number": (say(7), 3, NONSENSE),
    "nothing": (say(b""), 3, NONSENSE),
    "a page": (say(b"<html><body>Log in to this network</body></html>"), 3, NONSENSE),
    "half an object": (say(b'{"id": "tester/sm'), 3, NONSENSE),
    "bytes that are no text": (say(b"\xff\xfe\x00"), 3, NONSENSE),
    "nested without end": (say(b"[" * 200_000), 3, NONSENSE),
    "no files": (info(siblings=[]), 3, NONSENSE),
    "files that are null": (info(siblings=None), 3, NONSENSE),
    "files that are a word": (info(siblings="config.json"), 3, NONSENSE),
    "files that are words": (info(siblings=["config.json"]), 3, NONSENSE),
    "files of null": (info(siblings=[None]), 3, NONSENSE),
    "files without names": (info(siblings=[{}]), 3, NONSENSE),
    "names that are numbers": (info(siblings=[{"rfilename": 1}]), 3, NONSENSE),
    "no commit": (info(sha=None), 3, NONSENSE),
    "a commit that is none": (info(sha="main"), 3, NONSENSE),
    "a commit that is a path": (info(sha="../../../etc"), 3, NONSENSE),
    "a commit that is a number": (info(sha=1), 3, NONSENSE),
    "silence": (Manner(does="silent"), 3, LATE),
    "a drip": (Manner(does="drips"), 3, LATE),
    "a drip before the answer": (Manner(does="drips headers"), 3, LATE),
}
FILES: dict[str, tuple[Manner, int, str]] = {
    "silence": (Manner(does="silent", towards="files"), 3, LATE),
    "a drip": (Manner(does="drips", towards="files"), 3, ""),
    "a drip before the answer": (Manner(does="drips headers", towards="files"), 3, LATE),
    "a page": (Manner(b"<html>", towards="files"), 3, NONSENSE),
    "no file": (Manner(b"", 404, {"X-Error-Code": "EntryNotFound"}, towards="files"), 2, "(404); check --model"),
    "out of order": (Manner(b"", 503, towards="files"), 3, "the Hub is out of order (503)"),
    "too many": (Manner(b"", 429, towards="files"), 3, "(429); wait some minutes"),
    "gated": (Manner(b"", 403, {"X-Error-Code": "GatedRepo"}, towards="files"), 2, "is gated; accept its terms"),
}


@pytest.fixture
def small(here: Hub, checkpoint: Callable[[str], Path]) -> Repository:
    """The small checkpoint on the Hub, which this process uses."""
    here.model(NAME).commit(read_folder(checkpoint(HEAD)))
    return here.model(NAME)


@pytest.fixture
def rows(here: Hub, data_folder: Callable[[str], Path]) -> Repository:
    """The small data set on the Hub, which this process uses."""
    here.dataset(NAME).commit(read_folder(data_folder(HEAD)))
    return here.dataset(NAME)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for less than a second where a user waits for a minute, and not at all between attempts."""
    for name, seconds in (("CONNECT", 0.3), ("SILENT", 0.3), ("ANSWER", 0.8), ("WORDLESS", 0.7)):
        monkeypatch.setattr(patience, f"{name}_SECONDS", seconds)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def waited(asked: Asked) -> Asked:
    """What came of it, without the line that says what is waited for: a busy machine makes anyone wait."""
    lines = asked.err.splitlines(keepends=True)
    return Asked(asked.code, asked.out, "".join(each for each in lines if not each.startswith("waiting for the Hub: ")))


def plan_of(kind: str, checkpoint: Callable[[str], Path], data_folder: Callable[[str], Path]) -> list[str]:
    """Words that ask the Hub for one of the two, and for nothing else."""
    model = NAME if kind == "model" else str(checkpoint(HEAD))
    data = NAME if kind == "data" else str(data_folder(HEAD))
    return ["plan", "--model", model, "--data", data]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", ["model", "data"])
@pytest.mark.parametrize(("manner", "code", "says"), MANNERS.values(), ids=MANNERS)
def test_a_hub_that_does_not_answer_as_it_should_is_one_line(
    optimize, here: Hub, checkpoint, data_folder, tmp_path: Path, kind: str, manner, code: int, says: str
) -> None:
    (here.model(NAME) if kind == "model" else here.dataset(NAME)).manner = manner

    asked = waited(optimize(*plan_of(kind, checkpoint, data_folder)))

    assert_refused(asked, code, says, tmp_path)
    assert f"optimize: {NAME}: " in asked.err


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("manner", "code", "says"), FILES.values(), ids=FILES)
def test_a_config_that_does_not_come_as_it_should_is_one_line(
    optimize, small: Repository, data_folder, tmp_path: Path, manner, code: int, says: str
) -> None:
    small.manner = manner

    asked = waited(optimize("plan", "--model", NAME, "--data", str(data_folder(HEAD))))

    assert_refused(asked, code, says, tmp_path)
    assert f"optimize: {NAME}" in asked.err


@pytest.mark.usefixtures("hasty")
def test_a_token_that_the_hub_does_not_know_is_said_to_be_one(optimize, here: Hub, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    here.model(NAME).manner = refuse(401, message="Invalid credentials in Authorization header")

    asked = optimize("plan", "--model", NAME, "--data", "x")

    assert_refused(asked, 2, "the Hub does not know the token that it was given (401)", tmp_path)
    assert "hf_expired" not in asked.err


@pytest.mark.usefixtures("small")
def test_whoever_waits_is_told_what_for(optimize, here: Hub, data_folder, monkeypatch) -> None:
    here.model(NAME).manner = Manner(does="hesitates")
    monkeypatch.setattr(patience, "WORDLESS_SECONDS", 0.1)

    asked = optimize("plan", "--model", NAME, "--data", str(data_folder(HEAD)))

    first, *_ = asked.err.splitlines()  # a busy machine makes anyone wait for the config too
    assert (asked.code, first) == (0, f"waiting for the Hub: {NAME}, 60 s at most")


def session() -> Any:
    """What huggingface_hub asks with."""
    from huggingface_hub.utils import get_session

    client.limit_clients()
    return get_session()


@pytest.mark.usefixtures("hasty")
def test_a_file_that_drips_has_an_end_too(here: Hub) -> None:
    """Each byte comes in time; all of them together would take days."""
    here.model(NAME).manner = Manner(does="drips", towards="files")

    with pytest.raises(TimeoutError, match="bytes in"):
        session().get(f"{here.address}/{NAME}/resolve/main/model.safetensors", timeout=None)


def test_a_file_arrives_whole_and_a_caller_s_own_limit_counts(here: Hub) -> None:
    content = bytes(range(256)) * 5000
    here.model(NAME).commit({"model.safetensors": content})

    assert session().get(f"{here.address}/{NAME}/resolve/main/model.safetensors").content == content
    here.model(NAME).manner = Manner(does="silent", towards="files")
    with pytest.raises(client.library().ReadTimeout):
        session().get(f"{here.address}/{NAME}/resolve/main/model.safetensors", timeout=0.1)


WEIGHTS = refusals.Repository("model", NAME, None, "--model", SourceError)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("does", ["files drip", "files crumble"])
def test_weights_that_come_byte_by_byte_are_given_up(small: Repository, does: Any) -> None:
    """huggingface_hub goes on where an answer broke off, as often as it likes once a byte came."""
    small.manner = Manner(does=does, towards="files")

    with pytest.raises(UnavailableError, match=f"{NAME}: .*{LATE}"):
        download(WEIGHTS, ["model.safetensors"])


@pytest.mark.parametrize("header", [{"Retry-After": "86400"}, {"RateLimit": '"resolvers";r=0;t=86400'}], ids=str)
def test_a_hub_that_wants_to_be_left_alone_for_a_day_is_not_waited_for(small, monkeypatch, header) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    small.manner = Manner(b"", 429, header, towards="files")

    with pytest.raises(UnavailableError, match=r"too many questions from here \(429\); wait"):
        download(WEIGHTS, ["model.safetensors"])
    assert sum(slept) < 60


def test_a_caller_s_own_client_is_kept(here: Hub, monkeypatch) -> None:
    from huggingface_hub.utils import _http

    make = getattr(client.library(), "Client", None) or client.library().Session
    (name,) = {"_GLOBAL_CLIENT_FACTORY", "_GLOBAL_BACKEND_FACTORY"} & set(dir(_http))
    own = make()
    monkeypatch.setattr(_http, name, lambda: own)
    client.limit_clients.__wrapped__()

    assert session() is own
    here.model(NAME).manner = Manner(does="silent", towards="files")
    monkeypatch.setattr(patience, "SILENT_SECONDS", 0.1)
    with pytest.raises(client.library().ReadTimeout):
        own.get(f"{here.address}/{NAME}/resolve/main/model.safetensors", timeout=None)


NETWORKS: dict[str, tuple[str, dict[str, str], str]] = {
    "nobody listens": (NOWHERE, {}, "the Hub cannot be reached (ConnectionError); check the network, set HF_HUB_OFF"),
    "no such host": ("http://hub.invalid", {}, "the Hub cannot be reached (ConnectionError)"),
    "no TLS": ("", {}, "the Hub shows a certificate that is not trusted here; check the clock, and "),
    "no proxy": (NOWHERE, {"http_proxy": "http://127.0.0.1:9"}, "the Hub cannot be reached through the proxy; check H"),
    "a proxy that is none": (NOWHERE, {"http_proxy": "ftp://127.0.0.1:9"}, "the Hub cannot be reached through the pro"),
    "another kind of proxy": (NOWHERE, {"http_proxy": "socks5://127.0.0.1:9"}, "the Hub cannot be reached through the"),
    "an address that is none": ("hub.example", {}, "the Hub has no such address"),
    "a scheme that is none": ("gopher://127.0.0.1", {}, "the Hub has no such address"),
    "a host that is none": ("http://", {}, "the Hub has no such address"),
}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("address", "environment", "says"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_that_fails_is_one_line(optimize, here: Hub, monkeypatch, tmp_path, address, environment, says):
    for name, value in {"no_proxy": "", "NO_PROXY": "", **environment}.items():
        monkeypatch.setenv(name, value)
    # The server speaks no TLS, which is as good as a certificate that is not trusted.
    point_to(address or here.address.replace("http:", "https:"), monkeypatch)

    asked = waited(optimize("plan", "--model", NAME, "--data", "x"))

    assert_refused(asked, 3, f"{NAME}: no such folder, and {says}", tmp_path)


NO_IDS = ("./none", "../none", "/none", "~/none", "a/b/c", "no name", "a\\b", "a//b", "-x/y", "a..b", "x" * 97)


@pytest.mark.parametrize("option", ["--model", "--data"])
@pytest.mark.parametrize("name", NO_IDS)
def test_the_hub_is_not_asked_for_what_can_be_no_id(
    optimize, here: Hub, checkpoint, tmp_path: Path, option: str, name: str
) -> None:
    model = name if option == "--model" else str(checkpoint(HEAD))

    asked = optimize("plan", f"--model={model}", f"--data={name}")

    assert_refused(asked, 2, f"{name}: no such folder; check {option}", tmp_path)
    assert here.requests == []


@pytest.mark.parametrize("option", ["--model", "--data"])
def test_the_hub_is_not_asked_for_what_is_here_and_no_folder(
    optimize, here: Hub, checkpoint, tmp_path: Path, monkeypatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    model = "pipe" if option == "--model" else str(checkpoint(HEAD))

    asked = optimize("plan", "--model", model, "--data", "pipe")

    assert_refused(asked, 2, f"pipe: is not a folder; check {option}", tmp_path)
    assert here.requests == []


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Say in this process what HF_HUB_OFFLINE says to a new one, with no Hub to fall back on."""
    import datasets
    import huggingface_hub

    def switch() -> None:
        point_to(NOWHERE, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    return switch


def want(**changes: Any) -> Wanted:
    few = {"examples": 10, "calibration_examples": 4, "tuning_examples": 4, "seed": 0}
    return Wanted(data=NAME, config=None, columns={}, certify_on=None, **(few | changes))


@pytest.mark.usefixtures("rows", "small")
def test_offline_what_was_downloaded_is_all_it_takes(optimize, offline, tmp_path: Path, silent) -> None:
    online = acquire_checkpoint(*inspect_checkpoint(NAME), root=tmp_path / "1", seed=0, progress=silent)
    read = load_splits(want(), HEADS[HEAD], {})
    planned = optimize("plan", "--model", NAME, "--data", NAME, "--json")
    offline()

    again = acquire_checkpoint(*inspect_checkpoint(NAME), root=tmp_path / "2", seed=0, progress=silent)

    assert again.artifact.digest == online.artifact.digest
    assert load_splits(want(), HEADS[HEAD], {}).records == read.records
    assert optimize("plan", "--model", NAME, "--data", NAME, "--json") == planned
    assert COMMIT.fullmatch(json.loads(planned.out)["data_revision"])


@pytest.mark.usefixtures("rows", "small")
def test_tables_of_the_hub_leave_nothing_that_could_be_believed(tmp_path: Path, monkeypatch) -> None:
    import datasets

    home, temporary = tmp_path / "datasets", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    load_splits(want(), HEADS[HEAD], {})

    assert (home.exists(), list(temporary.iterdir())) == (False, [])


@pytest.mark.usefixtures("rows", "small")
def test_offline_is_so_in_a_process_of_its_own(checkpoint, silent, tmp_path: Path) -> None:
    acquire_checkpoint(*inspect_checkpoint(NAME), root=tmp_path / "cache", seed=0, progress=silent)
    load_splits(want(), HEADS[HEAD], {})
    settings = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "home"), "HF_ENDPOINT": NOWHERE}
    words = (sys.executable, "-m", "optimize", "plan", "--model", NAME, "--data", NAME)

    done = subprocess.run(words, env=os.environ | settings, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def hold(folder: Path, *commits: str, branch: str | None = None) -> None:
    """A repository in the Hub's cache, as huggingface_hub lays it out, with nothing but a config at each commit."""
    for commit in commits:
        path = folder / "models--tester--small" / "snapshots" / commit / "config.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}", encoding="utf-8")
    (folder / "models--tester--small" / "refs").mkdir()
    if branch:
        (folder / "models--tester--small" / "refs" / branch).write_text(commits[0], encoding="utf-8")


CACHES: dict[str, tuple[tuple[str, ...], str | None, list[str], str]] = {
    "nothing": ((), None, [], "not in the Hub's cache; check --model, or unset HF_HUB_OFFLINE"),
    "two commits": (("a" * 40, "b" * 40), None, [], "in the Hub's cache at 2 commits; name one with --revision"),
    "another branch": (("a" * 40,), "main", ["--revision", "trial"], "not in the Hub's cache"),
    "half of it": (("a" * 40,), "main", [], "no model.safetensors, pytorch_model.bin"),
    "half, of two": (("a" * 40, "b" * 40), "main", [], "no model.safetensors, pytorch_model.bin"),
    "half, by commit": (("a" * 40, "b" * 40), None, ["--revision", "b" * 40], "no model.safetensors, pytorch_"),
}


@pytest.mark.parametrize(("commits", "branch", "words", "says"), CACHES.values(), ids=CACHES)
def test_offline_what_is_missing_is_said(optimize, here, offline, tmp_path, commits, branch, words, says) -> None:
    offline()
    if commits:
        hold(tmp_path / "home", *commits, branch=branch)

    asked = optimize("plan", "--model", NAME, "--data", "x", *words)

    assert_refused(asked, 2 if "no model" in says else 3, says, tmp_path)
    assert here.requests == []


def test_offline_a_mistyped_folder_is_said_to_be_none(optimize, here, offline, tmp_path: Path) -> None:
    offline()

    assert_refused(optimize("plan", "--model", "my-modle", "--data", "x"), 3, "my-modle: no such folder, and", tmp_path)
