"""Data sets, cut into splits that share no content.

A data set is a Hub id, a folder of `train/validation/test` files, or the embedded demo; reading is left to `datasets`.
The splits are calibration and tuning, which stages may look at, training, where a stage trains, and certification,
which the result is judged by. They are disjoint by content, labels aside: a text that occurs in certification is in
none of the others, however often the data set repeats it.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.classes import Config
from optimize.data.layout import CLASSES, Drawn, Rows, first_present, match_layout, read_labels
from optimize.data.places import note_on_lines
from optimize.data.read import SPLITS, find_files, inspect_hub, peek_columns, read_file, read_hub
from optimize.demo.generate import generate_rows
from optimize.errors import DataError
from optimize.files.leftovers import owned_partial, sweep
from optimize.interfaces import Head, Progress, Row, Silence
from optimize.manifest import Split
from optimize.request import user_path

if TYPE_CHECKING:
    from optimize.data.read import Table

# Test splits come late: those of many public data sets have no labels.
CERTIFY_ON = ("validation", "validation_matched", "valid", "val", "dev", "test", "train")
CALIBRATE_ON = ("train", "validation", "validation_matched", "valid", "val", "dev", "test")


@dataclass(frozen=True)
class Wanted:
    """What to read and how much of it; `columns` maps roles to column names, `revision` is a Hub id's."""

    data: str
    config: str | None
    columns: Mapping[str, str]
    certify_on: str | None
    examples: int
    calibration_examples: int
    tuning_examples: int
    seed: int
    revision: str | None = None
    training_examples: int = 0


@dataclass(frozen=True)
class Splits:
    """Rows with roles as keys and labels as class ids, a record of each split, and what should be said of the files.

    `labels` says how labels were read.
    """

    calibration: tuple[Row, ...]
    tuning: tuple[Row, ...]
    certification: tuple[Row, ...]
    records: dict[str, Split]
    training: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    labels: str = ""


def inspect_data(wanted: Wanted, head: Head, *, progress: Progress | None = None) -> str | None:
    """Refuse, without reading it all, a data set that is absent or lacks a column; the commit of a Hub id."""
    if wanted.data != "demo" and not _is_folder(wanted.data):
        return inspect_hub(wanted.data, wanted.revision, progress or Silence())
    for name, value in (("config", wanted.config), ("revision", wanted.revision)):
        if value is not None:
            raise DataError(f"--data-{name}: '{wanted.data}' has no '{value}', only a Hub id may; leave it out")
    if wanted.data == "demo":
        _certification_split(wanted, list(SPLITS))
        return None
    files = find_files(user_path(wanted.data, "--data"))
    for split in dict.fromkeys(choose_splits(wanted, list(files))):
        match_layout(head, peek_columns(files[split]), wanted.columns, where=str(files[split]))
    return None


def load_splits(wanted: Wanted, head: Head, config: Config) -> Splits:
    """Read, rename columns to roles, match labels to the checkpoint's `config`, and cut.

    Raises DataError where something does not fit; its message names the file and the lines of rows.
    """
    with _new_place() as place:
        present, read, files = _tables(wanted, head, place)
        certify, calibrate = choose_splits(wanted, present)

        def rows_of(split: str) -> Rows:
            file = files.get(split)
            where = str(file) if file else f"{wanted.data}: split '{split}'"
            return Rows(read(split), head, config, wanted.columns, where=where, file=file)

        certified = rows_of(certify)
        others = certified if calibrate == certify else rows_of(calibrate)
        reading = read_labels([certified] if others is certified else [certified, others], head, config)
        splits = _assemble(head, certified, others, wanted, origins=(certify, calibrate))
        used = (files[split] for split in dict.fromkeys((certify, calibrate)) if split in files)
        notes = tuple(note for file in used if (note := note_on_lines(file)))
        scoring = head.scoring(splits.certification, config)
        return replace(splits, notes=notes, labels="; ".join(filter(None, (reading, scoring))))


@contextmanager
def _new_place() -> Iterator[Path]:
    """Where tables lie while rows are drawn from them: among temporary files, since a cache may be read alone."""
    root = Path(tempfile.gettempdir())
    sweep(root)
    with owned_partial(root, "data") as place:
        yield place


def _tables(wanted: Wanted, head: Head, place: Path) -> tuple[list[str], Callable[[str], Table], Mapping[str, Path]]:
    """The names of the data set's splits, what reads one of them, and their files where there are such."""
    if wanted.data == "demo":
        generated = generate_rows(head.name, wanted.seed)
        return list(generated), generated.__getitem__, {}
    if _is_folder(wanted.data):
        files = find_files(user_path(wanted.data, "--data"))
        return list(files), functools.partial(read_file, files, place), files
    tables = read_hub(wanted.data, wanted.config, wanted.revision, place)
    return list(tables), tables.__getitem__, {}


def _cut_certification(certified: Rows, others: Rows, wanted: Wanted) -> tuple[list[Drawn], Iterator[Drawn]]:
    """The certification rows, and the others in random order; one split alone is cut in half."""
    order = list(range(len(certified)))
    if others is certified:
        random.Random(wanted.seed).shuffle(order)
        half = len(order) // 2
        chosen, left = order[:half][: wanted.examples], order[half:]
    else:
        chosen = random.Random(wanted.seed).sample(order, min(wanted.examples, len(order)))
        left = list(range(len(others)))
        random.Random(wanted.seed).shuffle(left)
    # The others are read one by one as they are drawn, because a split may have millions of them.
    return list(certified.draw(sorted(chosen))), others.draw(left)


def _assemble(head: Head, certified: Rows, others: Rows, wanted: Wanted, *, origins: tuple[str, str]) -> Splits:
    """Draw certification, then calibration and tuning, then training, leaving out whatever was seen before."""
    certification, rest = _cut_certification(certified, others, wanted)
    _require_gold(head, certification, where=f"{wanted.data}: split '{origins[0]}'")
    certified.require_fit(certification)
    seen = {content_digest(row, head) for _, row in certification}
    fresh = _unseen(rest, seen, head)
    drawn = list(itertools.islice(fresh, wanted.calibration_examples + wanted.tuning_examples))
    if not drawn:
        raise DataError(
            f"{wanted.data}: split '{origins[1]}' has nothing that certification has not; add training examples"
        )
    # Too few for both are shared out in the proportion asked for; calibration has at least one, which stages need.
    share = wanted.calibration_examples / max(1, wanted.calibration_examples + wanted.tuning_examples)
    cut = min(wanted.calibration_examples, max(1, round(len(drawn) * share)))
    parts = {"calibration": drawn[:cut], "tuning": drawn[cut:], "certification": certification}
    if wanted.training_examples:
        parts["training"] = _require_training(list(itertools.islice(fresh, wanted.training_examples)), wanted, origins)
    others.require_fit([*drawn, *parts.get("training", ())])
    rows = {name: tuple(row for _, row in part) for name, part in parts.items()}
    records = {}
    for name, part in rows.items():
        origin = origins[0] if name == "certification" else origins[1]
        records[name] = Split(count=len(part), digest=rows_digest(part), origin=origin)
    return Splits(
        calibration=rows["calibration"],
        tuning=rows["tuning"],
        certification=rows["certification"],
        records=records,
        training=rows.get("training", ()),
    )


def _unseen(drawn: Iterator[Drawn], seen: set[str], head: Head) -> Iterator[Drawn]:
    """Rows whose content is not in `seen`, which grows by theirs."""
    for index, row in drawn:
        if (digest := content_digest(row, head)) not in seen:
            seen.add(digest)
            yield index, row


def _require_training(rows: list[Drawn], wanted: Wanted, origins: tuple[str, str]) -> list[Drawn]:
    if not rows:
        raise DataError(f"{wanted.data}: split '{origins[1]}' leaves nothing to train on; give it more examples")
    return rows


def _require_gold(head: Head, drawn: Sequence[Drawn], *, where: str) -> None:
    """Refuse a split that cannot judge: an empty one, or one whose every score is -1, GLUE's word for hidden."""
    if not drawn:
        raise DataError(f"{where} is empty or has one example; give it more, or name another with --certify-on")
    if len(drawn) > 1 and all(row.get(head.labels or "score") == -1 for _, row in drawn):
        raise DataError(f"{where} has -1 for every label; name a labelled split with --certify-on")


def content_digest(row: Row, head: Head) -> str:
    """Digest of what the model sees of a row: labels, answers and identifiers left out."""
    unseen = {"label", "score", "answers", "id", "title", head.labels, CLASSES}
    content = {role: value for role, value in row.items() if role not in unseen}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def rows_digest(rows: Iterable[Row]) -> str:
    """Digest of rows in their order, labels included."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return total.hexdigest()


def choose_splits(wanted: Wanted, present: Sequence[str]) -> tuple[str, str]:
    """The split that certifies and the one to calibrate on; the same where there is only one."""
    certify = _certification_split(wanted, present)
    others = list(present)
    others.remove(certify)
    return certify, first_present((*CALIBRATE_ON, *others), others) or certify


def _certification_split(wanted: Wanted, present: Sequence[str]) -> str:
    asked = wanted.certify_on
    if asked is not None:
        usual = asked
        for split, names in SPLITS.items():
            if asked in names:
                usual = split  # "dev" finds the file dev.jsonl, which is split "validation"
        found = first_present((asked, usual), present)
        if found is None:
            raise DataError(f"{wanted.data}: no split '{asked}'; there are {', '.join(present)}; check --certify-on")
        return found
    return first_present(CERTIFY_ON, present) or present[0]


def _is_folder(data: str) -> bool:
    path = user_path(data, "--data")
    if path.is_dir():
        return True
    if path.is_file():
        raise DataError(f"{data}: is a file; name the folder of its train, validation and test files")
    return False
