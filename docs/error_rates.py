"""How often a limit is failed by chance, or met by chance, under each rule: `python docs/error_rates.py RUN_FOLDER…`.

Each folder is a run's, whose `scores.npz` holds what FP32 and the result scored on each example. These are drawn with
replacement into data of other sizes. In each draw the two models are swapped at random example by example, which makes
them equally good and leaves how often they differ; then as many of the result's answers are spoilt as make up the true
drop. The table is in docs/guide/deciding.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from optimize.finished import result_name
from optimize.heads import _metrics
from optimize.interfaces import Array
from optimize.manifest import read
from optimize.report.tables import REFERENCE, markdown_table
from optimize.rule import CONFIDENCE, Estimate, Rule, agreement, around, held, paired_ends

LIMIT = "max_relative_metric_drop"
RULES: tuple[Rule, ...] = get_args(Rule)
SIZES = (400, 1000, 3000, 5000)
POINTS = (0.0, 0.5, 1.0, 2.0, 3.0)
AGGREGATES: dict[tuple[str, str], Callable[[Array], float]] = {
    ("question-answering", "f1"): _metrics.mean_of_first,
    ("token-classification", "f1"): _metrics.micro_f1,
    ("token-classification", "accuracy"): _metrics.share,
    ("fill-mask", "top1_accuracy"): _metrics.share,
    ("feature-extraction", "spearman"): _metrics.spearman,
    ("text-classification", "accuracy"): _metrics.mean_of_first,
    ("multiple-choice", "accuracy"): _metrics.mean_of_first,
}
"""What turns examples' statistics into the metric, as the heads do; what is right stands in column 0."""


@dataclass(frozen=True)
class Pair:
    """Two models' statistics [N, k] of the same examples, and how decisions agreed beside the limit on that."""

    name: str
    theirs: Array
    ours: Array
    aggregate: Callable[[Array], float]
    right_or_wrong: bool
    agreement: float
    min_agreement: float

    @property
    def score(self) -> float:
        """The reference's."""
        return self.aggregate(self.theirs)


def read_pair(folder: Path) -> Pair:
    """What a run folder has of its reference and its result."""
    manifest = read(folder)
    head, last = manifest.request.head, manifest.measurements[-1]
    if last.metric is None or last.drift is None:
        raise SystemExit(f"{folder}: nothing was measured; name the folder of a run that judged its result")
    with np.load(folder / "scores.npz") as scores:
        theirs, ours = (scores[f"{name}/statistics"] for name in (REFERENCE, result_name(manifest)))
    return Pair(
        f"{head} ({len(ours):,}, {last.drift.agreement:.3f})",
        theirs,
        ours,
        AGGREGATES[head, last.metric.name],
        last.metric.name == "accuracy" and theirs.shape[1] == 1,
        last.drift.agreement,
        float(manifest.request.gates.get("min_agreement", 0.0)),
    )


def draw(pair: Pair, size: int, drop: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Statistics of both models on drawn examples, the result's worse by a drop in truth."""
    rows, swapped = rng.integers(0, len(pair.ours), size), rng.random((size, 1)) < 0.5
    theirs = np.where(swapped, pair.ours[rows], pair.theirs[rows])
    ours = np.where(swapped, pair.theirs[rows], pair.ours[rows])
    # Scores are proportional to what is left of column 0; a correlation, to what is left in its place.
    mean = (pair.score + pair.aggregate(pair.ours)) / 2
    spoilt = rng.random(size) < drop / mean
    ours[spoilt, 0] = rng.permutation(ours[:, 0])[spoilt] if pair.aggregate is _metrics.spearman else 0.0
    return theirs, ours


def drops_of(pair: Pair, size: int, drop: float, trials: int, rng: np.random.Generator) -> Estimate:
    """The estimates of that many draws, with their ends."""
    values, lost, gained = np.empty(trials), np.empty(trials), np.empty(trials)
    for turn in range(trials):
        theirs, ours = draw(pair, size, drop, rng)
        values[turn] = pair.aggregate(theirs) - pair.aggregate(ours)
        lost[turn], gained[turn] = (theirs > ours)[:, 0].sum(), (ours > theirs)[:, 0].sum()
    if pair.right_or_wrong:
        return Estimate(values, *paired_ends(lost, gained, size, confidence=CONFIDENCE))
    # What draws of a size differ by is the bootstrap's standard error of one of them.
    return around(values, values.std(ddof=1), confidence=CONFIDENCE)


def rates(pair: Pair, limit: float, trials: int, seed: int) -> Iterator[tuple[int, Rule, list[float], float]]:
    """For each size and rule the shares of draws that fail, by true drop; last, without one, with agreement beside."""
    rng = np.random.default_rng(seed)
    for size in SIZES:
        found = [drops_of(pair, size, points / 100, trials, rng) for points in POINTS]
        flips = rng.binomial(size, 1.0 - pair.agreement, trials)
        agreed = [agreement(1.0 - count / size, size, confidence=CONFIDENCE) for count in flips]
        for rule in RULES:
            failed = [held(rule, LIMIT, each) > limit * pair.score for each in found]
            apart = [held(rule, "min_agreement", each) < pair.min_agreement for each in agreed]
            yield size, rule, [float(each.mean()) for each in failed], float((failed[0] | np.array(apart)).mean())


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=float, default=0.01, help=f"{LIMIT}, a share of the score")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    header = ("head (examples, agreement)", "limit", "examples", "rule", *(f"{each:g}" for each in POINTS), "both")
    rows = [header]
    for pair in map(read_pair, asked.folders):
        limit = f"{100 * asked.limit * pair.score:.2f}"
        for size, rule, shares, both in rates(pair, asked.limit, asked.trials, asked.seed):
            cells = [f"{share:.1%}" for share in (*shares, both)]
            rows.append((pair.name, limit, f"{size:,}", rule, *cells))
    sys.stdout.write(markdown_table(rows) + "\n")


if __name__ == "__main__":
    main()
