"""A repository of the Hugging Face Hub: one commit, or a pull request, that has exactly the publication.

Large files go first, by the Hub's own means, and what it has of them already is not sent again; nobody sees anything
until the commit, which is refused where somebody else committed meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from optimize.artifact import CHUNK_BYTES
from optimize.errors import RequestError, UnavailableError
from optimize.hub.refusals import Repository, asking_hub
from optimize.hub.repository import download, inspect_repository, is_offline
from optimize.interfaces import Progress
from optimize.publishing.checksums import CHECKSUMS, file_names, ordered
from optimize.publishing.destinations.interface import Sent, Terms

ADDRESS = re.compile(r"hf://(?P<name>[^/@]+/[^/@]+)(?:@(?P<branch>[^/]+))?/?", re.IGNORECASE)
OF_THE_HUB = frozenset({".gitattributes"})
"""What the Hub puts into a repository by itself."""
MESSAGE = "Publish with distilbert-optimize"


class Hub:
    """The destination of `hf://user/name`, or `hf://user/name@branch`; private, unless `--public` makes it."""

    has = frozenset({"replace", "public", "pull_request", "message"})

    def check(self, place: str, terms: Terms) -> None:
        """Refuse what names no repository, and to publish where the Hub may not be asked."""
        asked = _repository(place)
        if is_offline():
            raise UnavailableError(f"{asked.name}: the Hub may not be asked; unset HF_HUB_OFFLINE")

    def put(self, folder: Path, place: str, terms: Terms, progress: Progress) -> str:
        """Commit the publication; where a repository is there already, it stays as public or private as it is."""
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        asked, api = _repository(place), HfApi()
        disable_progress_bars()
        with asking_hub(asked):
            api.create_repo(asked.name, private=not terms.public, exist_ok=True)
            if asked.revision and not terms.pull_request:
                api.create_branch(asked.name, branch=asked.revision, exist_ok=True)
            there = api.model_info(asked.name, revision=asked.revision)
        commit, found = str(there.sha), {each.rfilename for each in there.siblings or ()} - OF_THE_HUB
        names = file_names(folder)
        if not terms.replace and found == set(names) and _sums(asked, commit) == (folder / CHECKSUMS).read_bytes():
            return _address(asked, commit)
        if found and not (terms.replace or terms.pull_request):
            raise RequestError(
                f"{place}: has other content; name a new repository or branch, add --replace, or open a --pull-request"
            )
        return _address(asked, _commit(folder, names, sorted(found - set(names)), asked, commit, terms))

    def read(self, place: str, progress: Progress) -> Generator[Sent]:
        """The files of a repository at one commit, through the Hub's cache."""
        asked = _repository(place)
        commit, names = inspect_repository(asked, progress)
        pinned = _pinned(asked, commit)
        for name in ordered(names - OF_THE_HUB):
            yield Sent(name, _size(pinned, name), _chunks(pinned, name))


def _commit(folder: Path, names: list[str], old: list[str], asked: Repository, parent: str, terms: Terms) -> str:
    """One commit on top of `parent` that adds files and removes `old` ones; its hash."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    added = [CommitOperationAdd(name, folder / name) for name in names]
    removed = [CommitOperationDelete(name) for name in old]
    with asking_hub(asked):
        try:
            made = HfApi().create_commit(
                asked.name,
                [*added, *removed],
                commit_message=terms.message or MESSAGE,
                revision=asked.revision,
                create_pr=terms.pull_request,
                parent_commit=parent,
            )
        except RuntimeError as error:
            raise error.__cause__ or error from None  # huggingface_hub hides in it why a large file was not taken
    return str(made.oid)


def _repository(place: str) -> Repository:
    found = ADDRESS.fullmatch(place)
    if found is None:
        raise RequestError(f"{place}: names no repository; write hf://user/name, or hf://user/name@branch")
    branch = unquote(found["branch"]) if found["branch"] else None
    return Repository("model", found["name"], branch, "the address", RequestError, by_address=True)


def _pinned(asked: Repository, commit: str) -> Repository:
    return Repository("model", asked.name, commit, asked.option, asked.refusal, by_address=True)


def _address(asked: Repository, commit: str) -> str:
    return f"hf://{asked.name}@{commit}"


def _sums(asked: Repository, commit: str) -> bytes:
    return (download(_pinned(asked, commit), [CHECKSUMS]) / CHECKSUMS).read_bytes()


def _size(asked: Repository, name: str) -> int:
    """Bytes of a file as the Hub states them; offline, of what was downloaded before."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if is_offline():
        return (download(asked, [name]) / name).stat().st_size
    with asking_hub(asked):
        stated = get_hf_file_metadata(hf_hub_url(asked.name, name, revision=asked.revision)).size
        if stated is None:
            raise ValueError(f"it does not say how large {name} is")
    return stated


def _chunks(asked: Repository, name: str) -> Iterator[bytes]:
    """A file's content; nothing is downloaded before the first of it is asked for."""
    with (download(asked, [name]) / name).open("rb") as stream:
        yield from iter(partial(stream.read, CHUNK_BYTES), b"")
