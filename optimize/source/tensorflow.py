"""tf_model.h5: the weights of a TensorFlow DistilBERT, read without TensorFlow.

Keras 2 keeps one HDF5 data set a weight, in groups that spell its name. HDF5 can do much more, and all of it is refused
that leads out of the file or to something else than plain numbers: links, data sets in other files, compression.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optimize.artifact import StoredTensor
from optimize.errors import SourceError, brief, first_line

if TYPE_CHECKING:
    import h5py

TYPES = {2: "F16", 4: "F32", 8: "F64"}
"""What safetensors calls floating-point numbers of so many bytes."""


def headers(path: Path) -> dict[str, StoredTensor]:
    """Names as they are in the file, types and shapes; no weight is read. Raises SourceError."""
    with _opened(path) as datasets:
        return {name: _header(path, name, dataset) for name, dataset in datasets.items()}


def arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Names as they are in the file, and values in this machine's byte order. Raises SourceError."""
    with _opened(path) as datasets:
        found = {}
        for name, dataset in datasets.items():
            _header(path, name, dataset)
            found[name] = np.asarray(dataset[()], dtype=dataset.dtype.newbyteorder("="))
        return found


@contextmanager
def _opened(path: Path) -> Iterator[dict[str, h5py.Dataset]]:
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            yield _datasets(path, file)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise SourceError(f"{path.name}: cannot be read ({brief(first_line(error))}); copy it again") from error


def _datasets(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    """All data sets by their names within the file; what is no part of the file is never opened."""
    import h5py

    found: dict[str, h5py.Dataset] = {}
    groups: list[tuple[str, h5py.Group]] = [("", file)]
    addresses = {h5py.h5o.get_info(file.id).addr}
    while groups:
        prefix, group = groups.pop()
        for key in group:
            name = f"{prefix}{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise SourceError(f"{path.name}: {brief(name)} is a link; save the weights themselves")
            entry = group[key]
            address = h5py.h5o.get_info(entry.id).addr
            if address in addresses:  # a group may hold itself
                raise SourceError(f"{path.name}: {brief(name)} has another name too; save the model again")
            addresses.add(address)
            if isinstance(entry, h5py.Group):
                groups.append((f"{name}/", entry))
            else:
                found[name] = entry
    return found


def _header(path: Path, name: str, dataset: h5py.Dataset) -> StoredTensor:
    import h5py

    def refusal(what: str) -> SourceError:
        return SourceError(f"{path.name}: {brief(name)} {what}; save the model again")

    if not isinstance(dataset, h5py.Dataset):
        raise refusal("holds no numbers")
    if dataset.is_virtual or dataset.external:
        raise refusal("lies in another file")
    if dataset.shape is None or dataset.dtype.kind != "f" or dataset.dtype.itemsize not in TYPES:
        raise refusal(f"holds {brief(dataset.dtype)}, not floating-point numbers")
    if dataset.id.get_create_plist().get_nfilters():
        raise refusal("is compressed")
    if min(dataset.id.get_storage_size(), path.stat().st_size) < dataset.nbytes:
        raise refusal(f"has not the {dataset.nbytes:,} bytes of its shape {list(dataset.shape)}")
    return StoredTensor(TYPES[dataset.dtype.itemsize], dataset.shape)
