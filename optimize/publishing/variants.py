"""Several runs of one checkpoint in one publication, where the Hub's readers look for a model's variants.

Graphs lie in `onnx/` and `openvino/`, and what all runs share, such as config and tokenizer, at the top. The rest of
what each run would have published alone lies in `variants/NAME`, with its checksums; by their digests it is put
together again, and is then read as any other.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from optimize.artifact import Artifact, file_digest, sealed_files
from optimize.errors import RequestError, unknown_name
from optimize.manifest import Manifest
from optimize.publishing.checksums import ADVICE, CHECKSUMS, parse_checksums, read_checksums, write_checksums
from optimize.publishing.publication import CARD_FILE, OURS, RESULTS, assemble
from optimize.report.card import eval_results
from optimize.report.graph_names import graph_name
from optimize.report.usage import usage
from optimize.report.variants import render_shared_card

FOLDER = "variants"
NAMED = re.compile(r"(?P<publication>.+)#(?P<name>(?:openvino_)?model[a-z0-9_]*)")
"""One of the models of a publication, as `hf://user/name#model_fp16`."""

Judged = tuple[Path, Manifest, Artifact]
"""A run folder, its manifest with the verdict that follows from it, and its model."""


def assemble_variants(runs: Sequence[Judged], folder: Path) -> None:
    """Fill the empty `folder` with the publication of several runs.

    Raises RequestError where they are not of one checkpoint, or two would have one name.
    """
    records: dict[str, Manifest] = {}
    for run, record, final in runs:
        graph = graph_name(record)
        if graph.stem in records:
            raise RequestError(
                f"{run}: is '{graph.stem}', as another of the runs is; publish one of them to a place of its own"
            )
        first = next(iter(records.values()), record)
        if (record.source.digest, record.request.head) != (first.source.digest, first.request.head):
            raise RequestError(f"{run}: is of another checkpoint than {runs[0][0]}; publish each to a place of its own")
        records[graph.stem] = record
        own = folder / FOLDER / graph.stem
        own.mkdir(parents=True)
        assemble(run, record, final, own, use=usage(record, graph))
        _share(own, graph, folder, run)
    (folder / CARD_FILE).write_text(render_shared_card(records), encoding="utf-8")
    (folder / RESULTS).mkdir()
    for name, record in records.items():
        for file, content in eval_results(record, of=name).items():
            with (folder / RESULTS / file).open("a", encoding="utf-8") as results:
                results.write(content)
    if not any((folder / RESULTS).iterdir()):
        (folder / RESULTS).rmdir()
    write_checksums(folder)


def _share(own: Path, graph: PurePosixPath, folder: Path, run: Path) -> None:
    """Move the files of a run's model to the top, its graph under a name of its own."""
    for path in list(sealed_files(own)):
        inside = path.relative_to(own)
        if inside.parts[0] in OURS:
            continue
        renamed = graph.with_suffix(inside.suffix) if inside.stem in ("model", "openvino_model") else inside
        place = folder / renamed
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
        elif file_digest(place) == file_digest(path):
            path.unlink()
        else:
            raise RequestError(
                f"{run}: its {inside} is not the one of the runs before it, and readers know one for all; "
                "publish it to a place of its own"
            )


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


def strays(folder: Path) -> Iterator[str]:
    """Files of a publication of several that belong to none of its models."""
    known = set[str]()
    for name in variant_names(folder):
        known |= set(parse_checksums(stated(folder, name), f"{folder / FOLDER / name}").values())
    for file, digest in read_checksums(folder).items():
        of_all = file == CARD_FILE or file.startswith(f"{RESULTS}/") or PurePosixPath(file).name == CHECKSUMS
        if digest not in known and not of_all:
            yield file
