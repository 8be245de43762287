"""Draw the splits of a run from one or two tables: certification first, and nothing of it in any of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, islice
from typing import NamedTuple

from optimize.data.drawing import HALVES, Draw, content_digest, draw_usable, rows_digest, two_sources, unseen
from optimize.data.layout import Drawn, Rows
from optimize.data.wanted import Splits, Wanted
from optimize.errors import DataError
from optimize.interfaces import Head
from optimize.manifest import Split


class Origin(NamedTuple):
    """Where rows come from: a split of the data set, its table, and what is to be said of how it was read."""

    split: str
    table: Rows
    notes: tuple[str, ...] = ()


def assemble(head: Head, certified: Origin, others: Origin, wanted: Wanted) -> Splits:
    """Draw certification, then calibration and tuning, then training, leaving out whatever was seen before."""
    certifying, rest = two_sources(certified.table, others.table, head, examples=wanted.examples, seed=wanted.seed)
    first = list(islice(certifying, wanted.examples))
    _require_gold(head, first, where=f"{wanted.name}: split '{certified.split}'")
    certification = draw_usable(certified.table, chain(first, certifying), wanted.examples, most=wanted.max_unusable)
    certification.rows.sort(key=lambda each: each[0])
    fresh = unseen(rest, {content_digest(row, head) for _, row in certification.rows}, head)
    before = wanted.calibration_examples + wanted.tuning_examples
    drawn = draw_usable(others.table, fresh, before + wanted.training_examples, most=wanted.max_unusable)
    parts = _share_out(drawn.rows, wanted, where=f"{wanted.name}: split '{others.split}'")
    halves = HALVES if others.table is certified.table else ("", "")
    records = {name: _record(part, others, drawn, halves[1]) for name, part in parts.items()}
    records["certification"] = _record(certification.rows, certified, certification, halves[0])
    rows = {name: tuple(row for _, row in part) for name, part in parts.items()}
    return Splits(
        calibration=rows["calibration"],
        tuning=rows["tuning"],
        certification=tuple(row for _, row in certification.rows),
        records=records,
        training=rows.get("training", ()),
        notes=tuple(dict.fromkeys((*records["certification"].notes, *records["calibration"].notes))),
    )


def _share_out(drawn: Sequence[Drawn], wanted: Wanted, *, where: str) -> dict[str, Sequence[Drawn]]:
    """Rows for calibration, then for tuning, then for training; refuses to leave one of the first and last without."""
    if not drawn:
        raise DataError(f"{where} has nothing that certification has not; add training examples")
    most = len(drawn) - math.ceil(wanted.training_share * len(drawn))
    before = drawn[: min(wanted.calibration_examples + wanted.tuning_examples, most)]
    # Too few for both are shared out in the proportion asked for; calibration has at least one, which stages need.
    share = wanted.calibration_examples / max(1, wanted.calibration_examples + wanted.tuning_examples)
    cut = min(wanted.calibration_examples, max(1, round(len(before) * share)))
    parts = {"calibration": before[:cut], "tuning": before[cut:]}
    if wanted.training_examples:
        parts["training"] = drawn[len(before) :]
        if not parts["training"]:
            raise DataError(f"{where} leaves nothing to train on; give it more examples")
    return parts


def _record(part: Sequence[Drawn], origin: Origin, draw: Draw, half: str) -> Split:
    """What a manifest says of a split."""
    notes = [*origin.notes, *([f"{origin.split}: {half}"] if half else []), *draw.note(origin.table)]
    return Split(count=len(part), digest=rows_digest(row for _, row in part), origin=origin.split, notes=notes)


def _require_gold(head: Head, drawn: Sequence[Drawn], *, where: str) -> None:
    """Refuse a split that cannot judge: an empty one, or one whose every score is -1, GLUE's word for hidden."""
    if not drawn:
        raise DataError(f"{where} is empty or has one example; give it more, or name another with --certify-on")
    if len(drawn) > 1 and all(row.get(head.labels or "score") == -1 for _, row in drawn):
        raise DataError(f"{where} has -1 for every label; name a labelled split with --certify-on")
