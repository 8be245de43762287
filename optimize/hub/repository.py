"""What is known of a repository, and its files: asked of the Hub, or, offline, of what was downloaded before."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.errors import UnavailableError
from optimize.hub.patience import answer
from optimize.hub.refusals import Repository, asking_hub
from optimize.interfaces import Progress

if TYPE_CHECKING:
    from huggingface_hub import CachedRevisionInfo

COMMIT = re.compile(r"[0-9a-f]{40}")


def is_offline() -> bool:
    """Whether the user says, with HF_HUB_OFFLINE, that the Hub is not to be asked."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def inspect_repository(asked: Repository, progress: Progress) -> tuple[str, set[str]]:
    """The commit that is meant, and the names of its files; offline, those that are in the Hub's cache.

    Refuses, without asking, a name that no repository can have, and that of something that is here.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id  # `utils` does not say that it exports it

    try:
        validate_repo_id(asked.name)
    except HFValidationError as error:
        what = "no such folder" if not asked.by_address else "no name that a repository can have"
        raise asked.refusal(f"{asked.name}: {what}; check {asked.option}") from error
    if not asked.by_address and Path(asked.name).exists():
        raise asked.refusal(f"{asked.name}: is not a folder; check {asked.option}")
    if is_offline():
        found = _cached(asked)
        return found.commit_hash, {str(file.file_path.relative_to(found.snapshot_path)) for file in found.files}
    with asking_hub(asked):
        return answer(lambda: _ask_what_it_is(asked), about=asked.name, progress=progress)


def _ask_what_it_is(asked: Repository) -> tuple[str, set[str]]:
    import huggingface_hub

    api = huggingface_hub.HfApi()
    ask = api.model_info if asked.kind == "model" else api.dataset_info
    info = ask(asked.name, revision=asked.revision)
    names = {sibling.rfilename for sibling in info.siblings or ()}
    if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
        raise ValueError("it names no commit")
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("it lists no files")
    return info.sha, names


def download_small(asked: Repository, name: str, progress: Progress) -> Path:
    """One small file, such as a config, in the Hub's cache."""
    with asking_hub(asked):
        return answer(lambda: _download(asked, name), about=f"{asked.name}/{name}", progress=progress)


def download(asked: Repository, names: Collection[str]) -> Path:
    """The folder in the Hub's cache that holds these files, each at its place."""
    with asking_hub(asked):
        folders = {root_of(_download(asked, name), name) for name in sorted(names)}
    (folder,) = folders  # a commit's files lie in one folder
    return folder


def root_of(path: Path, name: str) -> Path:
    """The folder of a commit that has a file of this name at this path."""
    return path.parents[name.count("/")]


def _download(asked: Repository, name: str) -> Path:
    import huggingface_hub

    return Path(huggingface_hub.hf_hub_download(asked.name, name, repo_type=asked.kind, revision=asked.revision))


def cached_folder(asked: Repository) -> Path:
    """The folder of a commit in the Hub's cache; refuses one that is not there."""
    return _cached(asked).snapshot_path


def _cached(asked: Repository) -> CachedRevisionInfo:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        repositories = frozenset()
    there = [
        revision
        for repository in repositories
        if (repository.repo_type, repository.repo_id) == (asked.kind, asked.name)
        for revision in repository.revisions
    ]
    wanted = asked.revision or "main"
    found = [revision for revision in there if wanted in (revision.commit_hash, *revision.refs)]
    # What was downloaded at a commit leaves no word of the branch; a single commit is the one that is meant.
    if not found and asked.revision is None:
        found = there
    if len(found) == 1:
        return found[0]
    lies = f"in the Hub's cache at {len(found)} commits" if found else "not in the Hub's cache"
    todo = f"name one with {asked.revision_option}" if found else f"check {asked.option}, or unset HF_HUB_OFFLINE"
    raise UnavailableError(f"{asked.named} {lies}; {todo}")
