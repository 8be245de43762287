"""What a publication consists of: model, tokenizer, model card, pictures, manifest, checksums.

What is published is what was judged: the run must pass by its measurements, these must be of its model, and its model's
digest must be the manifest's. The card and its pictures are made from measurements alone. Where the model's files lie
is the layout's to say.
"""

from __future__ import annotations

from pathlib import Path

from optimize import manifest
from optimize.artifact import Artifact, copy_sealed, file_digest
from optimize.errors import RequestError
from optimize.finished import as_stated, judge_again, judged_model, read_run, require_passed
from optimize.heads import head_of
from optimize.manifest import Manifest
from optimize.measure.kinds import KINDS
from optimize.publishing.checksums import file_names, write_checksums
from optimize.publishing.layouts import DEFAULT, LAYOUTS
from optimize.publishing.layouts.layout import Layout
from optimize.publishing.names import CARD_FILE, JUDGED, OURS, RESULTS
from optimize.publishing.provenance import BOM, STATEMENT, bom, dump, statement
from optimize.report.card import eval_results, render_card
from optimize.report.paths import without_paths
from optimize.report.write import write_pictures


def judged(run: Path, *, unverified: bool = False) -> tuple[Manifest, Artifact]:
    """The manifest of a run folder with the verdict that follows from its measurements, and the model that they are of.

    Refuses a run that has not passed by its own measurements, and a model that is not the manifest's. One that is
    `unverified` may be published, where that is said.
    """
    record = read_run(run)
    final = judged_model(run, record)
    if not (unverified and record.verdict.outcome == "unverified"):
        require_passed(run, record, "published (or an unverified one, with --unverified)")
    return record.model_copy(update={"verdict": judge_again(run, record, final)}), final


def assemble(
    run: Path, record: Manifest, final: Artifact, folder: Path, layout: Layout = LAYOUTS[DEFAULT], use: str = ""
) -> None:
    """Fill the empty `folder` with the publication; checksums of all other files come last.

    `use` is the Markdown that says how the model is used, where neither the layout nor the card knows.
    """
    copy_sealed(final, folder)
    for path in folder.iterdir():
        if path.name in OURS:
            raise RequestError(f"{final.path / path.name}: has a name that publications need; run it again")
    arranged = layout.arrange(folder, record)
    if layout.moves:
        write_checksums(final.path, folder / JUDGED)
    checkpoint = manifest.kept_checkpoint(run, record)
    if checkpoint:
        head = head_of(record.request.head, checkpoint.path, record.request.head_code)
        KINDS[checkpoint.kind].require_whole(checkpoint, head)
        copy_sealed(checkpoint, folder / manifest.CHECKPOINT)
    describe(folder, record, use=arranged or use, where=run)


def describe(folder: Path, record: Manifest, *, use: str, where: Path) -> None:
    """Write into a folder that holds a model, and maybe its checkpoint, what a publication has beside them.

    `where` is the place that the manifest was read from.
    """
    with as_stated(where):
        record = without_paths(record)
        manifest.write(record, folder)
        pictures = write_pictures(record, folder)
        card = render_card(record, pictures, checkpoint=(folder / manifest.CHECKPOINT).exists(), use=use)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    for name, content in eval_results(record).items():
        (folder / RESULTS).mkdir(exist_ok=True)
        (folder / RESULTS / name).write_text(content, encoding="utf-8")
    digests = {name: file_digest(folder / name) for name in file_names(folder)}
    (folder / STATEMENT).write_text(dump(statement(record, digests)), encoding="utf-8")
    (folder / BOM).write_text(dump(bom(record, digests)), encoding="utf-8")
    write_checksums(folder)
