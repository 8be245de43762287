"""What stages state about their work: single values in words, and their tables as rows of strings.

A fact is a number, a word, or a list of flat rows. Any such list becomes a table of its own under a
heading made from its name; a few names have a better heading here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimize.manifest import StageRecord
from optimize.report.tables import MISSING, Rows

FactRow = Mapping[str, int | float | str]

HEADINGS = {
    "sensitivity": (
        "Sensitivity",
        "What each group of operators costs on tuning data when it alone is quantized, in what the stage was given.",
    ),
    "reverted": ("Left in float", "Groups that the limits on accuracy could not afford in INT8."),
    "migrations": ("Scale migration", "Where scales moved from activations to weights."),
    "settings": ("Settings tried", "What each setting scored on tuning data."),
    "tried": ("Tried", "What each configuration scored on tuning data."),
    "layers": ("Layers", "What pruning left of each layer's heads and neurons."),
    "layer_times": ("Layer times", "What a layer of so many heads and neurons takes on the target, in FP32."),
    "budgets": ("Budgets tried", "What each budget lost on tuning data."),
    "zeroed": (
        "Zeroed weights",
        "Zeros in each layer's linear maps; the error is squared, relative to what the maps give, their mean.",
    ),
    "unseen_words": (
        "Unseen words",
        "What tuning texts lose in FP32 that need dropped pieces, and that do not, as if the corpus had none of them.",
    ),
}
COUNTED = {
    "sensitivity": "{} measured alone",
    "reverted": "{} left in float",
    "migrations": "{} with migrated scales",
    "settings": "{} tried",
    "tried": "{} tried",
    "layers": "{} pruned",
    "layer_times": "{} timed",
    "budgets": "{} tried",
    "zeroed": "{} with zeros",
    "unseen_words": "{} of texts compared",
}
NOUNS = {
    "settings": "setting",
    "tried": "configuration",
    "layers": "layer",
    "layer_times": "size",
    "budgets": "budget",
    "zeroed": "layer",
    "unseen_words": "kind",
}
UNITS = {"db": "dB", "us": "µs", "ms": "ms", "bytes": "bytes"}
ACRONYMS = {"sqnr": "SQNR", "kl": "KL", "int8": "INT8"}


@dataclass(frozen=True)
class FactTable:
    """One table of a stage: its fact's name, a heading, a sentence that may be empty, and rows, header first."""

    name: str
    heading: str
    about: str
    rows: Rows


def fact_rows(record: StageRecord, name: str) -> Sequence[FactRow]:
    """The rows of a fact that is a table; none where there is no such table."""
    value = record.facts.get(name)
    return value if isinstance(value, list) else []


def fact_tables(record: StageRecord) -> list[FactTable]:
    """The stage's tables that have rows, in the order in which it states them."""
    tables = []
    for name in record.facts:
        if rows := fact_rows(record, name):
            heading, about = HEADINGS.get(name, (name.replace("_", " ").capitalize(), ""))
            tables.append(FactTable(name, f"{heading} ({record.stage})", about, _as_rows(rows)))
    return tables


def _as_rows(rows: Sequence[FactRow]) -> Rows:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    header = tuple(column_title(column) for column in columns)
    return [header, *(tuple(cell(column, row.get(column, MISSING)) for column in columns) for row in rows)]


def column_title(name: str) -> str:
    """`saved_us` as `saved (µs)`."""
    *words, last = name.split("_")
    if words and last in UNITS:
        return f"{column_title('_'.join(words))} ({UNITS[last]})"
    return " ".join(ACRONYMS.get(word, word) for word in [*words, last])


def cell(column: str, value: float | str) -> str:
    """A value in four significant digits; counts with separators, shares in percent."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return MISSING
    if column == "share" or column.endswith("_share"):
        return f"{value:.1%}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:#.4g}".rstrip(".")


def fact_words(record: StageRecord) -> str:
    """Names and single values in words; tables stand elsewhere."""
    return _words({name: value for name, value in record.facts.items() if not isinstance(value, list)})


def param_words(record: StageRecord) -> str:
    """Names and values of parameters in words; lists of records, which only the manifest spells out, are counted."""
    return _words(record.params)


def _words(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {_word(value)}" for name, value in values.items())


def _word(value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        return f"{len(value)} given"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2g}"


def in_short(record: StageRecord) -> str:
    """What the stage's tables hold, counted: `26 groups measured alone, 2 groups left in float`."""
    return ", ".join(_counted(table.name, len(table.rows) - 1) for table in fact_tables(record))


def _counted(name: str, count: int) -> str:
    noun = NOUNS.get(name, "group") if name in COUNTED else "row"
    subject = f"{count:,} {noun}{'' if count == 1 else 's'}"
    return COUNTED.get(name, f"{{}} of {name.replace('_', ' ')}").format(subject)
