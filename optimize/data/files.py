"""Which files hold which split: `train.csv`, the shards `train-00000-of-00002.parquet`, `train/0000.parquet`.

They are looked for in the folder itself and where the Hub keeps them in a repository: in `data/`, in `default/`, or in
the folder of a configuration. All shards have to be there: a split that lacks one would be another data set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from optimize.data.forms import SUFFIXES, form_of
from optimize.errors import DataError

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
PLACES = ("data", "default")
"""Folders of a data set that hold what could lie in it directly."""
# Older versions of `datasets` end names in a digest.
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?:-[0-9a-f]+)?")
NUMBER = re.compile(r"\d{1,6}")
Files = tuple[Path, ...]
"""The files of a split, in the order of their rows; most have one."""


class _Shard(NamedTuple):
    """A file that is one of several: what they have in common, its number, and how many there are if that is said."""

    stem: str
    number: int
    of: int | None
    path: Path


def find_files(folder: Path, config: str | None = None) -> dict[str, Files]:
    """The files of each split in a folder, by the splits' usual names; `config` names a folder in it."""
    root = _folder_of(folder, config)
    files = {split: _only(root, split, groups) for split, groups in _groups(root).items() if groups}
    if files:
        return files
    inside = [each.name for each in sorted(root.iterdir()) if each.is_dir() and any(_groups(each).values())]
    if inside and config is None:
        raise DataError(f"{root}: has several data sets ({', '.join(inside)}); name one with --data-config")
    raise DataError(f"{root}: no train, validation or test file ({SUFFIXES}); check --data")


def find_file(path: Path) -> dict[str, Files]:
    """One file as a data set of a single split, which has the file's name."""
    form = form_of(path)
    if form is None:
        raise DataError(f"{path}: is no table that can be read ({SUFFIXES}); check --data")
    return {path.name[: len(form.stem)]: (_regular(path),)}


def name_of(files: Files) -> str:
    """How messages name the files of a split: a file as it is, several by where they lie and what they begin with."""
    if len(files) == 1:
        return str(files[0])
    return f"{files[0].parent}/{files[0].name} and {len(files) - 1} more"


def is_plain_name(name: str) -> bool:
    """Whether something of that name lies in a folder itself, wherever that is."""
    return Path(name).name == name != ".."


def _folder_of(folder: Path, config: str | None) -> Path:
    if config is None:
        return folder
    if not is_plain_name(config) or not (folder / config).is_dir():
        raise DataError(f"--data-config: {folder} has no folder '{config}'; leave it out, or name one that is there")
    return folder / config


def _groups(root: Path) -> dict[str, dict[str, list[Path]]]:
    """By split, what could be it: files that belong together."""
    found: dict[str, dict[str, list[Path]]] = {split: {} for split in SPLITS}
    for place in (root, *(root / each for each in PLACES)):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            _sort_in(path, found)
    return found


def _sort_in(path: Path, found: dict[str, dict[str, list[Path]]]) -> None:
    """Put a file, or all files of a folder that is called like a split, where the split's are."""
    form = form_of(path)
    if form is None:
        split = split_of(path.name.lower())
        if split and path.is_dir():
            inside = [each for each in sorted(path.iterdir()) if form_of(each)]
            if inside:
                found[split][str(path)] = inside
        return
    shard = SHARD.fullmatch(form.stem)
    stem = shard["stem"] if shard else form.stem
    if split := split_of(stem):
        # A file alone is its own group: two of them are two answers to what the split is.
        group = f"{path.parent / stem}{form.suffix}" if shard else str(path)
        found[split].setdefault(group, []).append(path)


def split_of(stem: str) -> str | None:
    """The split that a file or folder of this name holds, if any."""
    return next((split for split, names in SPLITS.items() if stem in names), None)


def _only(folder: Path, split: str, groups: dict[str, list[Path]]) -> Files:
    """The files of a split; refuses two sets of them."""
    if len(groups) > 1:
        first, second = (paths[0].relative_to(folder) for paths in list(groups.values())[:2])
        raise DataError(f"{folder}: {first} and {second} are both '{split}'; keep one of them")
    (paths,) = groups.values()
    return tuple(map(_regular, _in_order(paths)))


def _in_order(paths: Sequence[Path]) -> list[Path]:
    """Shards by their numbers; refuses several files that are no shards, and shards that lack one."""
    shards = list(map(_shard, paths))
    if len(paths) == 1 and shards[0] is None:
        return list(paths)
    known = [each for each in shards if each is not None]
    if len(known) < len(paths) or len({(each.stem, each.of) for each in known}) > 1:
        raise DataError(
            f"{paths[0].parent}: {paths[0].name} and {paths[1].name} are no shards of one split; name them "
            "like train-00000-of-00002, or keep one"
        )
    by_number = {each.number: each.path for each in known}
    if len(by_number) < len(known):
        raise DataError(f"{paths[0].parent}: two shards of '{known[0].stem}' have the same number; keep one of them")
    count = max(known[0].of or 0, max(by_number) + 1)
    for number in range(count):
        if number not in by_number:
            missing = f"shard {number:05} of {count:05} is missing beside {paths[0].name}"
            raise DataError(f"{paths[0].parent}: {missing}; copy all of them")
    return [by_number[number] for number in sorted(by_number)]


def _shard(path: Path) -> _Shard | None:
    form = form_of(path)
    if form is None:
        return None
    if found := SHARD.fullmatch(form.stem):
        return _Shard(found["stem"], int(found["number"]), int(found["count"]), path)
    return _Shard("", int(form.stem), None, path) if NUMBER.fullmatch(form.stem) else None


def _regular(path: Path) -> Path:
    if not path.is_file():  # opening a FIFO would wait for somebody to write it
        raise DataError(f"{path}: is not a regular file; check --data")
    return path
