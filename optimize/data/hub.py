"""Data sets of the Hub, or, offline, of its cache. What is read and how is left to `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.data.read import raise_if_full, silence_datasets
from optimize.errors import DataError, first_line
from optimize.hub.refusals import Repository, asking_hub
from optimize.hub.repository import cached_folder, inspect_repository, is_offline
from optimize.interfaces import Progress

if TYPE_CHECKING:
    from datasets import Dataset


def inspect_hub(name: str, revision: str | None, progress: Progress) -> str:
    """The commit of a Hub data set; refuses one that is not there."""
    commit, _ = inspect_repository(_repository(name, revision), progress)
    return commit


def _repository(name: str, revision: str | None) -> Repository:
    return Repository("dataset", name, revision, "--data", DataError)


def read_hub(name: str, config: str | None, revision: str | None, place: Path) -> Mapping[str, Dataset]:
    """All splits of a Hub data set, at a commit; offline, of its folder in the Hub's cache.

    Its files stay in that cache, as a model's do. Its tables lie in `place`, which has to be new, as for files: where
    the Hub fails, `datasets` takes what it finds there, at whatever commit that was and whoever wrote to it since.
    """
    import datasets

    silence_datasets()
    asked = _repository(name, revision)
    with asking_hub(asked), _loading(name):
        found, commit = (str(cached_folder(asked)), None) if is_offline() else (name, revision)
        tables: Mapping[str, Dataset] = datasets.load_dataset(found, config, revision=commit, cache_dir=str(place))
    return tables


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Say in our words what `datasets` refuses; what the Hub refuses passes through."""
    import datasets
    import requests
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (requests.RequestException, HfHubHTTPError, ConnectionError):
        raise  # kinds of OSError, which the last clause would take for a fault of the data
    except datasets.exceptions.DatasetNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise error.__cause__ from None
        raise DataError(f"{name}: no such folder, and not on the Hub; check --data") from error
    except (OSError, ValueError, RuntimeError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise_if_full(error)
        raise DataError(f"{name}: cannot be loaded ({first_line(error)}); check --data and --data-config") from error
