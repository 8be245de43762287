"""Data sets of the Hub, or, offline, of its cache. What is read and how is left to `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from optimize.data.read import peek_columns, read_file, renamed, silence_datasets
from optimize.data.sampling import Source, sample_lines, sample_parquet
from optimize.errors import DataError, UnavailableError, first_line
from optimize.files.putting import raise_if_full
from optimize.hub import client
from optimize.hub.refusals import Repository, asking_hub
from optimize.hub.repository import cached_folder, inspect_repository, is_offline
from optimize.interfaces import Progress

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder, Features
    from huggingface_hub import HfFileSystem

MOST_BYTES = 2**28
"""A data set whose files have more together is sampled, if they are Parquet or JSON lines."""
SAMPLED = {"parquet": ".parquet", "json": ".jsonl"}
"""What `datasets` reads with which files, and how these end."""
Choose = Callable[[list[str]], Sequence[str]]
"""Which of a table's columns are needed."""


def inspect_hub(name: str, revision: str | None, progress: Progress) -> str:
    """The commit of a Hub data set; refuses one that is not there."""
    commit, _ = inspect_repository(_repository(name, revision), progress)
    return commit


def _repository(name: str, revision: str | None) -> Repository:
    return Repository("dataset", name, revision, "--data", DataError)


@dataclass(frozen=True)
class HubData:
    """A data set of the Hub at a commit: its splits, what reads one, and, once it was read, what to say of how."""

    splits: list[str]
    read: Callable[[str], Dataset]
    notes: dict[str, str] = field(default_factory=dict)


def open_hub(
    name: str, config: str | None, revision: str | None, place: Path, *, rows: int, seed: int, choose: Choose
) -> HubData:
    """A Hub data set at a commit; offline, what is in the Hub's cache.

    A small one is read whole, by `datasets`: its files stay in the Hub's cache, as a model's do, and its tables lie in
    `place`, which has to be new, as for files: where the Hub fails, `datasets` takes what it finds there, at whatever
    commit that was and whoever wrote to it since. Of a large one at least so many `rows` are read of a split that is
    read, and of their columns those that `choose` chooses; of that, nothing is kept.
    """
    import datasets

    silence_datasets()
    asked = _repository(name, revision)
    with asking_hub(asked), _loading(name):
        found, commit = (str(cached_folder(asked)), None) if is_offline() else (name, revision)
        builder = datasets.load_dataset_builder(found, config, revision=commit, cache_dir=str(place))
        files = _sources(builder)
        if not files or sum(source.size for sources in files.values() for source in sources) <= MOST_BYTES:
            tables = datasets.load_dataset(found, config, revision=commit, cache_dir=str(place))
            return HubData(list(tables), tables.__getitem__)
    notes: dict[str, str] = {}

    def read(split: str) -> Dataset:
        target = place / f"{split}-sample{SAMPLED[builder.name]}"
        with asking_hub(asked), _loading(name), renamed(str(target), f"{name}: sample of split '{split}'"):
            if builder.name == "parquet":
                taken = sample_parquet(files[split], target, rows=rows, seed=seed, choose=choose)
            else:
                taken = sample_lines(files[split], target, rows=rows, seed=seed)
            notes[split] = f"{split}: a sample, drawn with seed {seed} from {taken}"
            features = _features_of(builder, peek_columns((target,)))
            return read_file({split: (target,)}, place, split, features=features)

    return HubData(list(files), read, notes)


def _features_of(builder: DatasetBuilder, columns: Iterable[str]) -> Features | None:
    """What the data set's card says of some columns; None where it does not say it of all."""
    import datasets

    known = builder.info.features or {}
    if not known or not set(columns) <= set(known):
        return None
    return datasets.Features({name: known[name] for name in columns})


def _sources(builder: DatasetBuilder) -> dict[str, list[Source]]:
    """The files of each split where any part of them can be read alone; none where they are of another kind."""
    from huggingface_hub import HfFileSystem

    files = builder.config.data_files or {}
    special = [getattr(builder.config, name, None) for name in ("field", "columns", "filters")]
    suffixes = {PurePosixPath(file).suffix for listed in files.values() for file in listed}
    if builder.name not in SAMPLED or suffixes != {SAMPLED[builder.name]} or any(special):
        return {}
    system = HfFileSystem(skip_instance_cache=True)  # one that is kept knows what was there before
    return {str(split): [_source(system, str(file)) for file in listed] for split, listed in files.items()}


def _source(system: HfFileSystem, file: str) -> Source:
    """A file of the Hub, or, offline, of its cache."""
    if not file.startswith("hf://"):
        return Source(Path(file).stat().st_size, lambda: Path(file).open("rb"))
    # Nothing is read ahead: what is read is known by its place, and next to it lies what is not wanted.
    return Source(system.info(file)["size"], lambda: system.open(file, "rb", cache_type="none"))


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Say in our words what `datasets` refuses; what the Hub refuses passes through."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except client.errors():
        raise  # kinds of OSError, which the last clause would take for a fault of the data
    except datasets.exceptions.DatasetNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise error.__cause__ from None
        raise DataError(f"{name}: no such folder, and not on the Hub; check --data") from error
    except (OSError, ValueError, RuntimeError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise_if_full(error)
        if isinstance(error, FileNotFoundError) and is_offline():
            where = "has no data in the Hub's cache, where one that is sampled leaves none"
            raise UnavailableError(f"{name}: {where}; unset HF_HUB_OFFLINE, or download all of it first") from error
        raise DataError(f"{name}: cannot be loaded ({first_line(error)}); check --data and --data-config") from error
