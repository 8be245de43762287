"""Each kind of destination with its real client: put, read back, put again, replaced, and begun and not ended."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from publishing.conftest import FILES, contents, lay_out

from optimize.errors import RequestError, UnavailableError
from optimize.interfaces import Silence
from optimize.publishing.checksums import CHECKSUMS
from optimize.publishing.destinations import DESTINATIONS, destination_of, kind_of
from optimize.publishing.destinations.interface import Terms
from optimize.publishing.destinations.store import UNFINISHED
from optimize.publishing.fetching import fetch

NUMBERS = itertools.count()
HF = "hf://me/model"


@pytest.fixture(params=["folder", "archive", "store", "hub"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new address of each kind that needs no server of another process."""
    if request.param == "hub":
        request.getfixturevalue("here")
        return HF
    if request.param == "store":
        return f"memory://bucket/{next(NUMBERS)}"
    return str(tmp_path / ("out" if request.param == "folder" else "out.tar.zst"))


def put(folder: Path, place: str, **terms: object) -> str:
    destination, how = destination_of(place), Terms(**terms)
    destination.check(place, how)
    return destination.put(folder, place, how, Silence())


def test_addresses_say_which_kind_is_meant():
    said = ["out", "out.tar.zst", "hf://a/b", "oci://h/n:t", "s3://b/x", "gs://b/x", "az://c/x", "abfs://c/x"]
    kinds = ["folder", "archive", "hub", "registry", "store", "store", "store", "store"]
    assert [kind_of(each) for each in said] == kinds
    assert set(kinds) == set(DESTINATIONS)


def test_a_publication_is_read_back_as_it_was_put(place, publication):
    assert contents(fetch(put(publication, place))) == contents(publication)
    assert contents(fetch(place)) == contents(publication)


def test_the_same_again_changes_nothing(place, publication):
    assert put(publication, place) == put(publication, place)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "other", {"model.onnx": b"another graph", "new.json": b"[]"})


def test_other_content_is_left_alone_unless_it_may_be_replaced(place, publication, other):
    put(publication, place)
    with pytest.raises(RequestError, match="has other content"):
        put(other, place)
    assert contents(fetch(place)) == contents(publication)

    assert contents(fetch(put(other, place, replace=True))) == contents(other)
    assert contents(fetch(place)) == contents(other)


def test_what_is_not_there_is_refused(place):
    with pytest.raises((RequestError, UnavailableError)):
        fetch(place)


def test_a_publication_that_was_changed_there_is_refused_and_mended(place, publication, change):
    put(publication, place)
    change(place)
    with pytest.raises(RequestError, match=r"is not what its SHA256SUMS says|cannot be unpacked"):
        fetch(place)

    assert contents(fetch(put(publication, place, replace=True))) == contents(publication)


@pytest.fixture
def change(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Changes a file at a place, as somebody would who may write there."""

    def act(place: str) -> None:
        kind = kind_of(place)
        if kind == "folder":
            (Path(place) / "model.onnx").write_bytes(b"swapped")
        elif kind == "archive":
            content = bytearray(Path(place).read_bytes())
            content[len(content) // 2] ^= 255
            Path(place).write_bytes(bytes(content))
        elif kind == "store":
            fsspec.filesystem("memory").pipe_file(f"{place.partition('://')[2]}/model.onnx", b"swapped")
        else:
            repository = request.getfixturevalue("here").model("me/model")
            files = repository.commits[repository.branches["main"]]
            repository.commit({**files, "model.onnx": b"swapped"})

    return act


# Object stores.


def killed_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The store fails at the call after so many that write."""
    system, left = fsspec.filesystem("memory"), itertools.count()

    def limited(real):
        def call(*words, **named):
            if next(left) >= count:
                raise KeyboardInterrupt
            return real(*words, **named)

        return call

    for name in ("pipe_file", "put_file", "rm_file"):
        monkeypatch.setattr(system, name, limited(getattr(system, name)))


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("count", range(9))
def test_an_upload_to_a_store_that_is_killed_is_no_publication_and_is_right_after_the_retry(
    count, replaced, publication, other, monkeypatch
):
    place = f"memory://bucket/{next(NUMBERS)}"
    if replaced:
        put(other, place)
    with monkeypatch.context() as patch:
        killed_after(patch, count)
        try:
            put(publication, place, replace=replaced)
            done = True
        except KeyboardInterrupt:
            done = False
    if not done:
        if fsspec.filesystem("memory").exists(f"{place.partition('://')[2]}/{CHECKSUMS}"):
            # Of what was there all can be read until its own files change: not before two new ones are there.
            assert contents(fetch(place)) == contents(other if replaced and count <= 3 else publication)
        else:
            assert not replaced or count > 3
            with pytest.raises(RequestError, match=r"an upload that was not finished is there|no publication is there"):
                fetch(place)

    put(publication, place, replace=replaced)

    assert contents(fetch(place)) == contents(publication)
    names = {path.rpartition(f"{place.rpartition('/')[2]}/")[2] for path in fsspec.filesystem("memory").find(place)}
    assert names == {*FILES, CHECKSUMS}


def test_what_was_to_be_replaced_is_left_alone_by_others_until_it_is_no_longer_whole(publication, other, monkeypatch):
    place = f"memory://bucket/{next(NUMBERS)}"
    put(publication, place)
    with monkeypatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            put(other, place, replace=True)

    with pytest.raises(RequestError, match="has other content"):
        put(other, place)
    assert contents(fetch(place)) == contents(publication)


def test_an_unfinished_upload_is_not_fetched(publication):
    place = f"memory://bucket/{next(NUMBERS)}"
    fsspec.filesystem("memory").pipe_file(f"{place.partition('://')[2]}/{UNFINISHED}", b"")
    with pytest.raises(RequestError, match="an upload that was not finished is there"):
        fetch(place)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nosuch://bucket/x", "is no address of a kind that is known"),
        ("memory://", "names no folder"),
        ("simplecache::s3://bucket/x", "is a chain of addresses"),
        ("hf://name-alone", "names no repository"),
        ("oci://host", "names nothing in a registry"),
    ],
)
def test_addresses_that_name_nothing_are_refused(address, says, publication):
    with pytest.raises(RequestError, match=says):
        put(publication, address)


@pytest.mark.parametrize("address", ["https://host/models", "HTTP://host/models", "github://me:repository@/models"])
def test_what_can_only_be_read_is_refused_before_it_is_asked(address, publication):
    with pytest.raises(RequestError, match="/models: can only be read; name a place that can be written to"):
        put(publication, address)


# The Hub.


def test_a_repository_is_private_unless_it_is_to_be_public(here, publication):
    put(publication, "hf://me/private", message="First")
    put(publication, "hf://me/public", public=True)

    assert (here.model("me/private").private, here.model("me/public").private) == (True, False)
    assert here.model("me/private").summaries == ["First"]


def test_a_branch_and_a_pull_request_leave_main_alone(here, publication, other):
    put(publication, HF)
    repository = here.model("me/model")
    before = repository.branches["main"]

    put(other, f"{HF}@next", replace=True)
    proposed = put(other, HF, pull_request=True)

    assert repository.branches["main"] == before
    assert contents(fetch(f"{HF}@next")) == contents(fetch(proposed)) == contents(other)


def test_large_files_that_the_hub_has_are_not_sent_again(here, publication):
    put(publication, HF)
    sent = [each for each in here.requests if each.startswith("PUT ")]
    put(publication, "hf://me/second")

    assert len(sent) == 1
    assert [each for each in here.requests if each.startswith("PUT ")] == sent


def test_nothing_is_seen_of_a_commit_that_the_hub_refuses(here, publication):
    put(publication, "hf://me/other")
    here.model("me/model").commit({".gitattributes": b""})
    here.refuses_uploads = 403
    with pytest.raises(RequestError, match="does not let this account do that"):
        put(publication, HF)
    assert [set(files) for files in here.model("me/model").commits.values()] == [{".gitattributes"}]
