"""What is proven of a publication, line by line: files, model, verdict, where it comes from, who signed it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from optimize.artifact import Artifact
from optimize.errors import RequestError, brief
from optimize.files.small import read_json
from optimize.finished import judge_again, read_run
from optimize.interfaces import Progress
from optimize.manifest import CHECKPOINT, FILE, Manifest
from optimize.publishing.checksums import CHECKSUMS, SIGNATURE, parse_checksums, read_checksums
from optimize.publishing.fetching import fetch_all, one_of
from optimize.publishing.names import CARD_FILE, JUDGED, OURS, RESULTS
from optimize.publishing.provenance import BOM, STATEMENT, Digests, bom, same, statement
from optimize.publishing.signing import check_key, why_unsigned
from optimize.publishing.variants import FOLDER, split, stated, variant_names

GRAPHS = (".onnx", ".onnx_data", ".xml", ".bin")
"""How files end that hold a model or its weights."""
What = Literal["files", "model", "verdict", "provenance", "bill of materials", "signature"]


@dataclass(frozen=True)
class Finding:
    """One thing that a publication says of itself, and what is known of it."""

    what: What
    outcome: Literal["proven", "not proven", "wrong"]
    words: str


def verify(where: str, *, key: Path | None = None, progress: Progress | None = None) -> list[Finding]:
    """All that can be checked of the publication at an address.

    Raises RequestError where its files are not what its checksums say, since then nothing else means anything.
    """
    if key:
        check_key(key, "--key")
    place, name = split(where)
    if name is not None:
        raise RequestError(f"{where}: is a part of a publication, which is checked whole; leave out '#{name}'")
    folder = fetch_all(place, progress=progress)
    if not (folder / CHECKSUMS).is_file():
        raise RequestError(f"{where}: is a run, not a publication; publish it, or certify it again")
    digests = read_checksums(folder)
    words = f"all {len(digests)} are what {CHECKSUMS} says; that somebody wrote it anew only a signature excludes"
    names = variant_names(folder)
    findings = [Finding("files", "proven", words)]
    if names:
        findings += [Finding("files", "wrong", f"'{brief(file)}' is of none of its models") for file in _strays(folder)]
    else:
        findings += findings_of(folder)
    for name in names:
        own = one_of(folder, name)
        findings += [replace(each, words=f"{name}: {each.words}") for each in findings_of(own)]
    return [*findings, _of_signature(folder, key)]


def _strays(folder: Path) -> Iterator[str]:
    """Files of a publication of several that belong to none of its models."""
    known = set[str]()
    for name in variant_names(folder):
        known |= set(parse_checksums(stated(folder, name), f"{folder / FOLDER / name}").values())
    for file, digest in read_checksums(folder).items():
        of_all = file == CARD_FILE or file.startswith(f"{RESULTS}/") or PurePosixPath(file).name == CHECKSUMS
        if digest not in known and not of_all:
            yield file


def findings_of(folder: Path) -> Iterator[Finding]:
    """What the publication of one model, whose files were found to be what its checksums say, says of the model."""
    digests, record = read_checksums(folder), read_run(folder)
    yield from _of_model(folder, record, digests)
    yield from _of_origin(folder, record, digests)


def published_model(folder: Path, record: Manifest, digests: Digests) -> Artifact:
    """The model of a publication: what of its files is not ours, sealed as the run's model folder was.

    Where a layout arranged them otherwise, the publication says itself what they were.
    """
    if JUDGED in digests:
        digests = parse_checksums((folder / JUDGED).read_bytes(), str(folder / JUDGED))
    names = [PurePosixPath(name) for name in digests]
    lines = [f"{name}\0{digests[str(name)]}\n" for name in sorted(names) if name.parts[0] not in OURS]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    made = record.stages[-1].artifact
    return Artifact(kind=made.kind, path=folder, digest=digest, size_bytes=made.size_bytes)


def _of_model(folder: Path, record: Manifest, digests: Digests) -> Iterator[Finding]:
    found, made = published_model(folder, record, digests), record.stages[-1].artifact
    if found.digest != made.digest:
        yield Finding("model", "wrong", f"is not the one that {FILE} says was judged")
        return
    yield _of_arranged(folder, digests, f"is the one that {FILE} says was judged ({made.digest[:12]})")
    try:
        verdict = judge_again(folder, record, found)
    except RequestError as error:
        yield Finding("verdict", "wrong", str(error))
        return
    if verdict.outcome == "passed":
        yield Finding("verdict", "proven", f"passed, by the measurements in {FILE}; `optimize run` measures again")
    else:
        yield Finding("verdict", "not proven", f"{verdict.outcome}, by the measurements in {FILE}")


def _of_arranged(folder: Path, digests: Digests, words: str) -> Finding:
    """Whether every graph that is there is one of the judged model's; in an archive, nobody has looked."""
    if JUDGED not in digests:
        return Finding("model", "proven", words)
    judged = set(parse_checksums((folder / JUDGED).read_bytes(), str(folder / JUDGED)).values())
    paths = {PurePosixPath(name): digest for name, digest in digests.items()}
    graphs = [digest for path, digest in paths.items() if path.suffix in GRAPHS and path.parts[0] != CHECKPOINT]
    if not judged.issuperset(graphs):
        return Finding("model", "wrong", f"has a graph that is not in {JUDGED}")
    if not graphs:
        return Finding("model", "not proven", f"lies in an archive; {JUDGED} says what has to be in it")
    return Finding("model", "proven", f"{words}, arranged otherwise")


def _of_origin(folder: Path, record: Manifest, digests: Digests) -> Iterator[Finding]:
    about = {name: digest for name, digest in digests.items() if name not in (STATEMENT, BOM)}
    expected = {STATEMENT: statement(record, about), BOM: bom(record, about)}
    whats: tuple[tuple[What, str], ...] = (("provenance", STATEMENT), ("bill of materials", BOM))
    for what, name in whats:
        if name not in digests:
            yield Finding(what, "not proven", f"it has no {name}")
        elif same(_content(folder / name), expected[name]):
            yield Finding(what, "proven", f"{name} says what {FILE} and the files say")
        else:
            yield Finding(what, "wrong", f"{name} is not what follows from {FILE} and the files")


def _content(path: Path) -> object:
    return read_json(path, where=str(path), refusal=RequestError, advice="get it from elsewhere")


def _of_signature(folder: Path, key: Path | None) -> Finding:
    signed = (folder / SIGNATURE).is_file()
    if key is None:
        words = "give the public --key of who signed it" if signed else "it is not signed"
        return Finding("signature", "not proven", words)
    if not signed:
        return Finding("signature", "wrong", "it is not signed, and a key was given")
    reason = why_unsigned(folder, key)
    if reason is None:
        return Finding("signature", "proven", f"all files were signed with the key of {key}")
    return Finding("signature", "wrong", reason)
