"""What stages state about their work: single values in words, and their tables as rows of strings.

A fact is a number, a word, yes or no, or a list of flat rows. Any such list becomes a table of its own under a
heading made from its name; a few names have a better heading here. Manifests of schema 1 hold "yes" and "no" where
later ones hold booleans; both read the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from optimize.manifest import StageRecord
from optimize.report.markdown import Markdown, code, plain
from optimize.report.tables import MISSING, Rows, in_order

FactRow = Mapping[str, bool | int | float | str]


class Wording(NamedTuple):
    """How a table is spoken of: its heading, what it shows, and its rows counted, as in "26 groups measured alone"."""

    heading: str
    about: str
    noun: str
    counted: str


WORDINGS = {
    "sensitivity": Wording(
        "Sensitivity",
        "Each group of operators quantized alone, in the model that the stage was given: how close the outputs stay "
        "to the reference's (SQNR is their ratio of signal to noise), and what that costs on tuning data. `saved` is "
        "the time that the group's INT8 form saves, and `form` the one that was chosen.",
        "group",
        "{} measured alone",
    ),
    "reverted": Wording(
        "Left in float",
        "Groups that stay in float, because a limit on accuracy would not be met with them in INT8.",
        "group",
        "{} left in float",
    ),
    "migrations": Wording(
        "Scale migration",
        "Where part of the activations' range was moved into the weights (SmoothQuant, Xiao et al. 2023), by the "
        "exponent alpha.",
        "group",
        "{} with migrated scales",
    ),
    "settings": Wording("Settings tried", "What each setting scores on tuning data.", "setting", "{} tried"),
    "tried": Wording("Tried", "What each configuration scores on tuning data.", "configuration", "{} tried"),
    "layers": Wording(
        "Layers", "The attention heads and FFN neurons that each layer keeps after pruning.", "layer", "{} pruned"
    ),
    "layer_times": Wording(
        "Layer times",
        "The time that a layer of so many heads and neurons takes on the target, in FP32.",
        "size",
        "{} timed",
    ),
    "budgets": Wording("Budgets tried", "What each pruning budget costs on tuning data.", "budget", "{} tried"),
    "zeroed": Wording(
        "Zeroed weights",
        "Zeros in each layer's linear maps, and the squared error that they cause, relative to the maps' outputs and "
        "averaged over the maps.",
        "layer",
        "{} with zeros",
    ),
    "unseen_words": Wording(
        "Unseen words",
        "What a smaller vocabulary costs in FP32 on tuning texts that need dropped word pieces, and on those that do "
        "not, estimated as if the corpus had none of these texts.",
        "kind",
        "{} of texts compared",
    ),
    "losses": Wording("Loss", "The training loss on tuning data, by step.", "step", "{} evaluated"),
}
LABELS = {"tuning_budget": "limits on tuning data", "within_budget": "within the limits"}
"""Facts whose names say something else today than when manifests began to hold them."""
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
            wording = _wording(name)
            tables.append(FactTable(name, f"{wording.heading} ({record.stage})", wording.about, _as_rows(rows)))
    return tables


def _wording(name: str) -> Wording:
    words = name.replace("_", " ")
    return WORDINGS.get(name) or Wording(words.capitalize(), "", "row", f"{{}} of {words}")


def _as_rows(rows: Sequence[FactRow]) -> Rows:
    columns = in_order(rows)
    table: Rows = [tuple(map(column_title, columns))]
    for row in rows:
        table.append(tuple(cell(column, row.get(column, MISSING)) for column in columns))
    return table


def column_title(name: str) -> str:
    """`saved_us` as `saved (µs)`."""
    if name in LABELS:
        return LABELS[name]
    *words, last = name.split("_")
    if words and last in UNITS:
        return f"{column_title('_'.join(words))} ({UNITS[last]})"
    return " ".join(ACRONYMS.get(word, word) for word in [*words, last])


def cell(column: str, value: bool | float | str) -> str:
    """A value in four significant digits; counts with separators, shares in percent, booleans as yes or no."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):  # before int, which bool is a kind of
        return _yes_or_no(value)
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


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def fact_words(record: StageRecord) -> Markdown:
    """Names and single values in words; tables stand elsewhere."""
    return _words({name: value for name, value in record.facts.items() if not isinstance(value, list)})


def param_words(record: StageRecord) -> Markdown:
    """Names and values of parameters in words; lists of records, which only the manifest spells out, are counted."""
    return _words(record.params)


def _words(values: Mapping[str, object]) -> Markdown:
    return Markdown(", ".join(f"{plain(_name(name))}: {_word(value)}" for name, value in values.items()))


def _name(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def _word(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():  # before int, which bool is a kind of
            return _yes_or_no(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2g}"
        case []:
            return "none"
        case [Mapping(), *_]:
            return f"{len(value)} given"
        case list():
            # As code: a pattern such as * would turn the text after it into italics.
            return " ".join(code(str(item)) for item in value)
        case _:
            return plain(str(value))


def in_short(record: StageRecord) -> str:
    """What the stage's tables hold, counted: `26 groups measured alone, 2 groups left in float`."""
    return ", ".join(_counted(table.name, len(table.rows) - 1) for table in fact_tables(record))


def _counted(name: str, count: int) -> str:
    wording = _wording(name)
    return wording.counted.format(f"{count:,} {wording.noun}{'' if count == 1 else 's'}")
