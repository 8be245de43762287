"""SHA256SUMS: which files a publication has, and what is in them. What it does not name does not belong there.

As sha256sum writes it, so that `sha256sum --check` reads it. It is written last and read first: a place that has it has
all of the publication.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from optimize.artifact import MOST_LEVELS, file_digest, sealed_files
from optimize.errors import RequestError, brief

CHECKSUMS, SIGNATURE = "SHA256SUMS", "model.sig"
UNLISTED = (CHECKSUMS, SIGNATURE)
"""What SHA256SUMS does not name, in the order in which it is read: it cannot hold its own digest, and is signed."""
MOST_BYTES = 2**20
"""Of SHA256SUMS, and of a signature."""
MOST_FILES = 1000
MOST_NAME = 255
"""Letters of a name with its folders."""
LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")
ADVICE = "fetch it again, or publish its run again"


def file_names(folder: Path) -> list[str]:
    """The files of a folder, those of folders in it as well; what is not signed away in SHA256SUMS comes first."""
    return ordered(path.relative_to(folder).as_posix() for path in sealed_files(folder))


def ordered(names: Iterable[str]) -> list[str]:
    """Names in the order in which a publication is read: what says whether the rest is right comes first."""
    rank = {name: place for place, name in enumerate(UNLISTED)}
    return sorted(names, key=lambda name: (rank.get(name, len(rank)), name))


def write_checksums(folder: Path, path: Path | None = None) -> None:
    """Write the digests of all files that are in a folder, into it or to another path."""
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in file_names(folder) if name not in UNLISTED]
    (path or folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def parse_checksums(content: bytes, where: str) -> dict[str, str]:
    """The SHA-256 of each file by its name; refuses what sha256sum does not write, and names that lead elsewhere."""
    if len(content) > MOST_BYTES:
        raise RequestError(f"{where}: its {CHECKSUMS} is larger than {MOST_BYTES // 1024} KiB; {ADVICE}")
    stated: dict[str, str] = {}
    for line in content.decode("utf-8", "replace").splitlines(keepends=True):
        found = LINE.fullmatch(line)
        if found is None or found[2] in stated or found[2] in UNLISTED:
            raise RequestError(f"{where}: its {CHECKSUMS} has a line that means nothing, '{brief(line)}'; {ADVICE}")
        require_safe(found[2], where)
        stated[found[2]] = found[1]
    if not 0 < len(stated) <= MOST_FILES:
        raise RequestError(f"{where}: its {CHECKSUMS} names {len(stated):,} files, not 1 to {MOST_FILES:,}; {ADVICE}")
    return stated


def require_safe(name: str, where: str) -> None:
    """Refuse a name that is not a plain relative path: one that leaves its folder, or is not one line of text."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or len(parts) > MOST_LEVELS or len(name) > MOST_NAME:
        raise RequestError(f"{where}: names '{brief(name)}', which is not a place below it; get it from elsewhere")
    if not name.isprintable() or "\\" in name or ":" in name:
        raise RequestError(f"{where}: names '{brief(name)}', which not every system takes; get it from elsewhere")


def read_checksums(folder: Path) -> dict[str, str]:
    """The files of a publication that lies in a folder, and their SHA-256."""
    with (folder / CHECKSUMS).open("rb") as stream:
        return parse_checksums(stream.read(MOST_BYTES + 1), str(folder))


def faults(folder: Path) -> Iterator[str]:
    """What of a publication's folder is not as its checksums say: files missing, too many, or changed.

    Raises SealError for a link, a pipe or a device in it.
    """
    stated = read_checksums(folder)
    found = set(file_names(folder)) - set(UNLISTED)
    # Names first: a digest of every file is slow, and pointless where one is missing or too many.
    yield from (f"lacks '{brief(name)}'" for name in sorted(set(stated) - found))
    yield from (f"has '{brief(name)}', which its {CHECKSUMS} does not name" for name in sorted(found - set(stated)))
    for name in sorted(found & set(stated)):
        if file_digest(folder / name) != stated[name]:
            yield f"'{brief(name)}' is not what its {CHECKSUMS} says"


def require_intact(folder: Path) -> None:
    """Refuse a folder that is not exactly what its checksums say."""
    for fault in faults(folder):
        raise RequestError(f"{folder}: {fault}; {ADVICE}")
