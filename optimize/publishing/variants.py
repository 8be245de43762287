"""Several models of one checkpoint in one publication: which there are, which is meant, and each as if it were alone.

Graphs lie in `onnx/` and `openvino/`, and what all share, such as config and tokenizer, at the top. The rest of what
each run would have published alone lies in `variants/NAME`, with its checksums; by their digests it is put together
again, and is then read as any other.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from optimize.errors import RequestError, unknown_name
from optimize.publishing.checksums import ADVICE, CHECKSUMS, parse_checksums, read_checksums

FOLDER = "variants"
NAMED = re.compile(r"(?P<publication>.+)#(?P<name>(?:openvino_)?model[a-z0-9_]*)")
"""One of the models of a publication, as `hf://user/name#model_fp16`."""


def variant_names(folder: Path) -> list[str]:
    """The models of a publication of several; none where it is one of a single run."""
    return sorted(path.parent.name for path in (folder / FOLDER).glob(f"*/{CHECKSUMS}"))


def split(where: str) -> tuple[str, str | None]:
    """The place of a publication, and which of its models is meant, if one is named; a folder of that name first."""
    found = NAMED.fullmatch(where)
    return (where, None) if found is None or Path(where).exists() else (found["publication"], found["name"])


def choose(folder: Path, name: str | None, where: str) -> str:
    """The variant that is meant; refuses a name that the publication lacks, and none where there are several."""
    names = variant_names(folder)
    if name is None:
        raise RequestError(f"{where}: has several models ({', '.join(names)}); name one, as in '{where}#{names[0]}'")
    if name not in names:
        if not names:
            raise RequestError(f"{where}: holds one model, which has no name; leave out '#{name}'")
        raise unknown_name(f"{where}: model", name, names)
    return name


def stated(folder: Path, name: str) -> bytes:
    """The checksums of what a variant's run would have published alone."""
    return (folder / FOLDER / name / CHECKSUMS).read_bytes()


def lay_out(folder: Path, name: str, out: Path) -> None:
    """Fill the empty folder `out` with what a variant's run would have published alone.

    Raises RequestError where the publication lacks one of its files, or has less than they would take.
    """
    where, all_files = f"{folder / FOLDER / name}", read_checksums(folder)
    places = {digest: file for file, digest in all_files.items()}
    left = sum((folder / file).stat().st_size for file in all_files)
    for file, digest in parse_checksums(stated(folder, name), where).items():
        if digest not in places:
            raise RequestError(f"{where}: its '{file}' is nowhere in the publication; {ADVICE}")
        left -= (folder / places[digest]).stat().st_size
        if left < 0:  # one large file under many names
            raise RequestError(f"{where}: names more than the publication holds; get it from elsewhere")
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / places[digest], out / file)
    (out / CHECKSUMS).write_bytes(stated(folder, name))
