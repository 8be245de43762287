"""The publication of several models of one checkpoint, whose graphs lie where the Hub's readers look for variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from optimize.artifact import Artifact, file_digest, model_files, sealed_files
from optimize.errors import RequestError
from optimize.manifest import Manifest
from optimize.publishing.checksums import write_checksums
from optimize.publishing.names import CARD_FILE, OURS, RESULTS
from optimize.publishing.publication import assemble
from optimize.publishing.variants import FOLDER
from optimize.report.card import eval_results
from optimize.report.graph_names import graph_name
from optimize.report.usage import usage
from optimize.report.variants import render_shared_card


@dataclass(frozen=True)
class Variant:
    """One of several models, from `where`; `fill` puts into an empty folder what would be published of it alone."""

    where: str
    record: Manifest
    fill: Callable[[Path], None]


def variant_of(run: Path, record: Manifest, final: Artifact) -> Variant:
    """The model of a run that was judged, whose card says how it is used beside others."""
    use = usage(record, graph_name(record))
    return Variant(str(run), record, lambda folder: assemble(run, record, final, folder, use=use))


def assemble_variants(variants: Sequence[Variant], folder: Path) -> None:
    """Fill the empty `folder` with the publication of several models, which is the same in whatever order they come.

    Raises RequestError where they are not of one checkpoint, or two would have one name.
    """
    named: dict[str, Manifest] = {}
    for each in variants:
        record, graph = each.record, graph_name(each.record)
        if graph.stem in named:
            raise RequestError(
                f"{each.where}: is '{graph.stem}', as another of the models is; publish one to a place of its own"
            )
        first = variants[0]
        if (record.source.digest, record.request.head) != (first.record.source.digest, first.record.request.head):
            raise RequestError(
                f"{each.where}: is of another checkpoint than {first.where}; publish each to a place of its own"
            )
        named[graph.stem] = record
        own = folder / FOLDER / graph.stem
        own.mkdir(parents=True)
        each.fill(own)
        _share(own, set(model_files(own, record.stages[-1].artifact.kind)), graph, folder, each.where)
    records = dict(sorted(named.items()))
    (folder / CARD_FILE).write_text(render_shared_card(records), encoding="utf-8")
    (folder / RESULTS).mkdir()
    for name, record in records.items():
        for file, content in eval_results(record, of=name).items():
            with (folder / RESULTS / file).open("a", encoding="utf-8") as results:
                results.write(content)
    if not any((folder / RESULTS).iterdir()):
        (folder / RESULTS).rmdir()
    write_checksums(folder)


def _share(own: Path, graphs: Set[Path], graph: PurePosixPath, folder: Path, where: str) -> None:
    """Move the files of a model to the top, its graph under a name of its own."""
    for path in list(sealed_files(own)):
        inside = path.relative_to(own)
        if inside.parts[0] in OURS:
            continue
        renamed = graph.with_suffix(inside.suffix) if path in graphs else inside
        place = folder / renamed
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
        elif file_digest(place) == file_digest(path):
            path.unlink()
        else:
            raise RequestError(
                f"{where}: its {inside} is not the one of the models before it, and readers know one for all; "
                "publish it to a place of its own"
            )
