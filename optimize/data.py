"""Data sets, cut into splits that share no content.

A data set is a Hub id, a folder of `train/validation/test` files, or the embedded demo; reading is
left to `datasets`. Three splits come out: calibration and tuning, which stages may look at, and
certification, which judges. They are disjoint by content, labels aside: a text that occurs in
certification is not used before, wherever else it stands in the data set.
"""

from __future__ import annotations

import csv
import errno
import functools
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize import demo
from optimize.errors import DataError, UnavailableError, first_line
from optimize.interfaces import Head, Layout, Row
from optimize.labels import match_labels
from optimize.manifest import Split

SUFFIXES = "jsonl, json, csv, tsv, parquet"
READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
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


@dataclass(frozen=True)
class Splits:
    """Rows with roles as keys and labels as class ids, and a record of each split."""

    calibration: tuple[Row, ...]
    tuning: tuple[Row, ...]
    certification: tuple[Row, ...]
    records: dict[str, Split]


def inspect(wanted: Wanted, head: Head) -> str | None:
    """Refuse, without reading it all, a data set that is absent or lacks a column; the commit of a Hub id."""
    if wanted.data != "demo" and not _is_folder(wanted.data):
        return _inspect_hub(wanted)
    for name, value in (("config", wanted.config), ("revision", wanted.revision)):
        if value is not None:
            raise DataError(f"--data-{name}: '{wanted.data}' has no '{value}', only a Hub id may; leave it out")
    if wanted.data == "demo":
        _certification_split(wanted, list(SPLITS))
        return None
    files = find_files(Path(wanted.data).expanduser())
    for split in dict.fromkeys(choose_splits(wanted, list(files))):
        match_layout(head, peek_columns(files[split]), wanted.columns, where=str(files[split]))
    return None


def load(wanted: Wanted, head: Head, config: Mapping[str, Any], *, cache: Path) -> Splits:
    """Read, rename columns to roles, match labels to the checkpoint's `config`, and cut.

    Raises DataError where something does not fit; its message names the split and the row.
    """
    read: Callable[[str], Any]
    if wanted.data == "demo":
        tables: Mapping[str, Any] = demo.generate(head.name, wanted.seed)
        read = tables.__getitem__
    elif _is_folder(wanted.data):
        tables = find_files(Path(wanted.data).expanduser())
        read = functools.partial(_read_file, tables, cache)
    else:
        tables = _read_hub(wanted, cache)
        read = tables.__getitem__
    certify, calibrate = choose_splits(wanted, list(tables))
    rows = {
        name: _Rows(read(name), head, config, wanted.columns, where=f"{wanted.data}/{name}")
        for name in dict.fromkeys((certify, calibrate))
    }
    certification, rest = _cut_certification(rows, certify, calibrate, wanted)
    return _assemble(head, certification, rest, wanted, origins=(certify, calibrate))


def _cut_certification(
    rows: Mapping[str, _Rows], certify: str, calibrate: str, wanted: Wanted
) -> tuple[list[Row], Iterator[Row]]:
    """The certification rows, and the others in random order; one split alone is cut in half."""
    order = list(range(len(rows[certify])))
    if certify == calibrate:
        random.Random(wanted.seed).shuffle(order)
        half = len(order) // 2
        return [rows[certify][i] for i in sorted(order[:half][: wanted.examples])], (
            rows[certify][i] for i in order[half:]
        )
    chosen = sorted(random.Random(wanted.seed).sample(order, min(wanted.examples, len(order))))
    others = list(range(len(rows[calibrate])))
    random.Random(wanted.seed).shuffle(others)
    return [rows[certify][i] for i in chosen], (rows[calibrate][i] for i in others)


def _assemble(
    head: Head, certification: list[Row], rest: Iterator[Row], wanted: Wanted, *, origins: tuple[str, str]
) -> Splits:
    """Draw calibration and tuning from `rest`, leaving out whatever was seen before."""
    _require_gold(head, certification, where=f"{wanted.data}: split '{origins[0]}'")
    seen = {content_digest(row, head) for row in certification}
    drawn: list[Row] = []
    for row in rest:
        if len(drawn) == wanted.calibration_examples + wanted.tuning_examples:
            break
        if (digest := content_digest(row, head)) not in seen:
            seen.add(digest)
            drawn.append(row)
    if not drawn:
        raise DataError(
            f"{wanted.data}: split '{origins[1]}' has nothing that certification has not; add training examples"
        )
    share = wanted.calibration_examples / max(1, wanted.calibration_examples + wanted.tuning_examples)
    cut = min(wanted.calibration_examples, max(1, round(len(drawn) * share)))
    parts = {"calibration": drawn[:cut], "tuning": drawn[cut:], "certification": certification}
    origin = {"calibration": origins[1], "tuning": origins[1], "certification": origins[0]}
    records = {
        name: Split(count=len(part), digest=rows_digest(part), origin=origin[name]) for name, part in parts.items()
    }
    return Splits(**{name: tuple(part) for name, part in parts.items()}, records=records)


def _require_gold(head: Head, rows: Sequence[Row], *, where: str) -> None:
    """Refuse a split that cannot judge: an empty one, or one whose every score is -1, GLUE's word for hidden."""
    if not rows:
        raise DataError(f"{where} is empty or has one example; give it more, or name another with --certify-on")
    if len(rows) > 1 and all(row.get(head.labels or "score") == -1 for row in rows):
        raise DataError(f"{where} has -1 for every label; name a labelled split with --certify-on")


def content_digest(row: Row, head: Head) -> str:
    """Digest of what the model sees of a row: labels, answers and identifiers left out."""
    told = {"label", "score", "answers", "id", "title", head.labels}
    text = json.dumps({role: value for role, value in row.items() if role not in told}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def rows_digest(rows: Iterable[Row]) -> str:
    """Digest of rows in their order, labels included."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return total.hexdigest()


class _Rows(Sequence[Row]):
    """A table seen through a head's roles: rows are renamed and labelled when they are asked for."""

    def __init__(
        self, table: Any, head: Head, config: Mapping[str, Any], columns: Mapping[str, str], *, where: str
    ) -> None:
        present = table.column_names if hasattr(table, "column_names") else list(table[0]) if table else []
        self._table = table
        self._roles = match_layout(head, present, columns, where=where) if present else {}
        self._head = head
        self._where = where
        column = self._roles.get(head.labels or "")
        self._label = match_labels(table, column, config, where=where) if column else None

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        source = self._table[index]
        row = {role: source[column] for role, column in self._roles.items()}
        if self._label is not None and self._head.labels is not None:
            row[self._head.labels] = self._label(row[self._head.labels], f"{self._where}, row {index}")
        return row


def match_layout(head: Head, present: Sequence[str], columns: Mapping[str, str], *, where: str) -> dict[str, str]:
    """Which column holds each role: the first of the head's layouts that the columns can fill.

    `columns` names columns outright and is refused where it names an unknown role or column.
    """
    known = {role.removesuffix("?") for layout in head.dataset for role in layout}
    for role, column in columns.items():
        if role not in known:
            raise DataError(
                f"--columns: head '{head.name}' has no role '{role}'; its roles are {', '.join(sorted(known))}"
            )
        if column not in present:
            raise DataError(f"{where}: no column '{column}' for role '{role}'; there are {', '.join(present)}")
    for layout in head.dataset:
        if (found := _fill(layout, present, columns)) is not None:
            return found
    first = head.dataset[-1]
    needed = " and ".join("|".join(names) for role, names in first.items() if not role.endswith("?"))
    raise DataError(
        f"{where}: no columns for head '{head.name}', which needs for instance {needed}; "
        f"there are {', '.join(present)}; name them with --columns role=column"
    )


def _fill(layout: Layout, present: Sequence[str], columns: Mapping[str, str]) -> dict[str, str] | None:
    roles: dict[str, str] = {}
    if not set(columns) <= {role.removesuffix("?") for role in layout}:
        return None
    for role, names in layout.items():
        name = role.removesuffix("?")
        column = columns.get(name) or next((column for column in names if column in present), None)
        if column is not None:
            roles[name] = column
        elif not role.endswith("?"):
            return None
    return roles


def find_files(folder: Path) -> dict[str, Path]:
    """The file of each split in a folder, by the splits' usual names."""
    files: dict[str, Path] = {}
    for split, names in SPLITS.items():
        for path in sorted(folder.iterdir()):
            if path.stem not in names or path.suffix not in READERS:
                continue
            if split in files:
                raise DataError(f"{folder}: {files[split].name} and {path.name} are both '{split}'; keep one of them")
            files[split] = path
    if not files:
        raise DataError(f"{folder}: no train, validation or test file ({SUFFIXES}); check --data")
    return files


def peek_columns(path: Path) -> list[str]:
    """Column names of a file, from its first row or its header; refuses a file without rows."""
    try:
        columns = _first_row(path)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)}); check the file") from error
    if not columns:
        raise DataError(f"{path}: is empty; give it examples, or name another split with --certify-on")
    if not isinstance(columns, dict | tuple):
        raise DataError(f"{path}: its first row is no JSON object; write one object a line")
    return list(columns)


def _first_row(path: Path) -> Any:
    """The first JSON value, or the header as a tuple; nothing where no row follows."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(path)
        return tuple(table.schema_arrow.names) if table.metadata.num_rows else ()
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if READERS[path.suffix] == "csv":
            lines = csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
            header = tuple(next(lines, ()))
            return header if any(lines) else ()
        text = stream.read() if path.suffix == ".json" else next((line for line in stream if line.strip()), "")
    row = json.JSONDecoder().raw_decode(text.strip())[0] if text.strip() else {}
    return next(iter(row), {}) if path.suffix == ".json" and isinstance(row, list) else row


def choose_splits(wanted: Wanted, present: Sequence[str]) -> tuple[str, str]:
    """The split that certifies and the one to calibrate on; the same where there is but one."""
    certify = _certification_split(wanted, present)
    others = [name for name in (*CALIBRATE_ON, *present) if name in present and name != certify]
    return certify, others[0] if others else certify


def _certification_split(wanted: Wanted, present: Sequence[str]) -> str:
    asked = wanted.certify_on
    if asked is not None:
        usual = next((split for split, names in SPLITS.items() if asked in names), asked)
        if asked not in present and usual not in present:
            raise DataError(f"{wanted.data}: no split '{asked}'; there are {', '.join(present)}; check --certify-on")
        return asked if asked in present else usual
    return next(name for name in (*CERTIFY_ON, *present) if name in present)


def _is_folder(data: str) -> bool:
    path = Path(data).expanduser()
    if path.is_dir():
        return True
    if path.is_file():
        raise DataError(f"{data}: is a file; name the folder of its train, validation and test files")
    if path.exists() or data.startswith((".", "/", "~")) or data.count("/") > 1:
        raise DataError(f"{data}: no such folder; check --data")
    return False


def _read_file(files: Mapping[str, Path], cache: Path, split: str) -> Any:
    datasets = _quiet_datasets()
    path = files[split]
    peek_columns(path)
    # An empty cell is an empty text, and "NA" or "null" are words.
    options: dict[str, Any] = {"keep_default_na": False} if READERS[path.suffix] == "csv" else {}
    if path.suffix == ".tsv":
        options["delimiter"] = "\t"
    try:
        return datasets.load_dataset(
            READERS[path.suffix], data_files=str(path), split="train", cache_dir=str(cache / "datasets"), **options
        )
    except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as error:
        _raise_if_full(error)
        cause = error.__cause__ or error
        raise DataError(f"{path}: cannot be read ({first_line(cause)}); check the file") from error


def _quiet_datasets() -> Any:
    """The library without bars, and without log lines that say an error twice."""
    import logging

    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    return datasets


def _raise_if_full(error: BaseException | None) -> None:
    """Let a full disk through, which is no fault of the data."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, error.strerror)
        error = error.__cause__ or error.__context__


def _inspect_hub(wanted: Wanted) -> str | None:
    import huggingface_hub

    with _asking_hub(wanted):
        info = huggingface_hub.HfApi().dataset_info(wanted.data, revision=wanted.revision)
    return info.sha


def _read_hub(wanted: Wanted, cache: Path) -> Mapping[str, Any]:
    datasets = _quiet_datasets()
    with _asking_hub(wanted):
        tables: Mapping[str, Any] = datasets.load_dataset(
            wanted.data, wanted.config, revision=wanted.revision, cache_dir=str(cache / "datasets")
        )
    return tables


@contextmanager
def _asking_hub(wanted: Wanted) -> Iterator[None]:
    """Say in our words what the Hub or `datasets` refuses: a silent Hub is not the request's fault."""
    import logging

    import datasets
    import requests
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity(logging.ERROR)  # its warnings of another attempt are no news
    missing = (RepositoryNotFoundError, HFValidationError, datasets.exceptions.DatasetNotFoundError)
    try:
        yield
    except GatedRepoError as error:
        raise DataError(
            f"{wanted.data}: is gated; accept its terms on the Hub and log in with 'hf auth login'"
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"{wanted.data}: has no revision '{wanted.revision}'; check --data-revision") from error
    except missing as error:
        raise DataError(f"{wanted.data}: no such folder, and not on the Hub; check --data") from error
    except (requests.RequestException, ConnectionError) as error:
        raise UnavailableError(
            f"{wanted.data}: the Hub cannot be reached ({type(error).__name__}); name a folder"
        ) from error
    except (OSError, ValueError, RuntimeError, TypeError, datasets.exceptions.DatasetsError) as error:
        _raise_if_full(error)
        raise DataError(
            f"{wanted.data}: cannot be loaded ({first_line(error)}); check --data and --data-config"
        ) from error
