"""A sample of a table that is too large to be read whole: row groups of Parquet, or blocks of JSON lines.

Both can be read by themselves wherever they lie in a file, so that next to nothing else is read. They are spread over
files and over each file, because many data sets are sorted: a single row group may have a single label. Rows are then
drawn at random from what was read.
"""

from __future__ import annotations

import codecs
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from optimize.errors import DataError

if TYPE_CHECKING:
    from pyarrow import Table
    from pyarrow.parquet import FileMetaData, RowGroupMetaData

FILES = 8
"""Files that a sample is spread over, where there are so many; more only where these hold too few rows."""
PARTS = 32
"""Row groups or blocks that it is made of at least, unless fewer are large."""
ENOUGH_BYTES = 2**26
"""With so many bytes, no more parts are read than hold the rows that are needed."""
BLOCK_BYTES = 2**18
AHEAD_BYTES = 2**13
"""Read beyond a block at once, so that its last line seldom needs another request."""
LONGEST_LINE_BYTES = 2**26


class Source(NamedTuple):
    """A file of a table: its size, and what opens it so that any part of it can be read alone."""

    size: int
    open: Callable[[], AbstractContextManager[BinaryIO]]


class _Part(NamedTuple):
    """A part of a file that can be read alone: the file's place in the list, the part's own, its rows and bytes."""

    place: int
    number: int
    rows: int
    size: int


def sample_parquet(
    sources: Sequence[Source], target: Path, *, rows: int, seed: int, choose: Callable[[list[str]], Sequence[str]]
) -> str:
    """Write so many rows or more to a Parquet file, of the columns that `choose` chooses; says what they are."""
    import pyarrow
    import pyarrow.parquet

    rng = random.Random(seed)
    order = rng.sample(range(len(sources)), len(sources))
    metadata: dict[int, FileMetaData] = {}
    groups: list[_Part] = []
    columns: Sequence[str] = ()
    while order and (len(metadata) < FILES or sum(group.rows for group in groups) < rows):
        place = order.pop(0)
        with sources[place].open() as stream:
            table = pyarrow.parquet.ParquetFile(stream)
            columns = columns or choose(list(table.schema_arrow.names))
            metadata[place] = table.metadata
        groups += _groups(place, table.metadata, columns)
    chosen = _enough(rng.sample(groups, len(groups)), rows)
    tables: list[Table] = []
    for place in sorted({group.place for group in chosen}):
        numbers = sorted(group.number for group in chosen if group.place == place)
        with sources[place].open() as stream:
            table = pyarrow.parquet.ParquetFile(stream, metadata=metadata[place])
            tables.append(table.read_row_groups(numbers, columns=list(columns)))
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), target)
    return f"{len(chosen):,} of {len(groups):,} row groups in {len(metadata):,} of {len(sources):,} files"


def sample_lines(sources: Sequence[Source], target: Path, *, rows: int, seed: int) -> str:
    """Write so many rows or more to a file of JSON lines; says what they are."""
    rng = random.Random(seed)
    order = rng.sample(range(len(sources)), len(sources))
    blocks: list[tuple[int, int]] = []
    for places in (order[:FILES], order[FILES:]):
        of_these = [(place, start) for place in places for start in range(0, sources[place].size, BLOCK_BYTES)]
        blocks += rng.sample(of_these, len(of_these))
    have, used = 0, list[tuple[int, int]]()
    with target.open("xb") as out:
        for place, start in blocks:
            if have >= rows and len(used) >= PARTS:
                break
            with sources[place].open() as stream:
                lines = read_block(stream, start, sources[place].size)
            have += sum(1 for line in lines.splitlines() if line.strip())
            out.write(lines if lines.endswith(b"\n") else lines + b"\n")
            used.append((place, start))
    files = len({place for place, _ in used})
    return f"{len(used):,} of {len(blocks):,} blocks of lines in {files:,} of {len(sources):,} files"


def read_block(stream: BinaryIO, start: int, size: int) -> bytes:
    """The lines that begin in a block, to the end of the last one: so each line of a file is in just one block."""
    # With the byte before, it is seen whether a line begins at the start.
    before, length = min(start, 1), min(BLOCK_BYTES, size - start)
    stream.seek(start - before)
    content = stream.read(before + length + AHEAD_BYTES)
    first = content.find(b"\n") + 1 if before else 0
    if first >= before + length or (before and not first):
        return b""
    while (last := content.find(b"\n", before + length - 1)) < 0 and (more := stream.read(BLOCK_BYTES)):
        content += more
        if len(content) > LONGEST_LINE_BYTES:
            raise DataError(f"a line is longer than {LONGEST_LINE_BYTES // 2**20} MiB; name a set of JSON lines")
    lines = content[first:] if last < 0 else content[first : last + 1]
    return lines if start else lines.removeprefix(codecs.BOM_UTF8)


def _groups(place: int, metadata: FileMetaData, columns: Sequence[str]) -> Iterator[_Part]:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        yield _Part(place, number, group.num_rows, _size_of(group, columns))


def _size_of(group: RowGroupMetaData, columns: Sequence[str]) -> int:
    """Bytes of the columns that are read of a row group."""
    total = 0
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema.partition(".")[0] in columns:
            total += column.total_compressed_size
    return total


def _enough(groups: Sequence[_Part], rows: int) -> list[_Part]:
    """The first groups that hold so many rows, and are many or large."""
    chosen: list[_Part] = []
    have, size = 0, 0
    for group in groups:
        if have >= rows and (len(chosen) >= PARTS or size >= ENOUGH_BYTES):
            break
        chosen.append(group)
        have, size = have + group.rows, size + group.size
    return chosen
