"""The publication of several runs of one checkpoint, whose graphs lie where the Hub's readers look for variants."""

from __future__ import annotations

from collections.abc import Sequence, Set
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
        _share(own, set(model_files(own, final.kind)), graph, folder, run)
    (folder / CARD_FILE).write_text(render_shared_card(records), encoding="utf-8")
    (folder / RESULTS).mkdir()
    for name, record in records.items():
        for file, content in eval_results(record, of=name).items():
            with (folder / RESULTS / file).open("a", encoding="utf-8") as results:
                results.write(content)
    if not any((folder / RESULTS).iterdir()):
        (folder / RESULTS).rmdir()
    write_checksums(folder)


def _share(own: Path, graphs: Set[Path], graph: PurePosixPath, folder: Path, run: Path) -> None:
    """Move the files of a run's model to the top, its graph under a name of its own."""
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
                f"{run}: its {inside} is not the one of the runs before it, and readers know one for all; "
                "publish it to a place of its own"
            )
