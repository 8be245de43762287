"""How often a limit is failed by chance, or met by chance, under each rule: `python docs/error_rates.py RUN_FOLDER…`.

Each folder is a run's, whose `scores.npz` holds what FP32 and the result scored on each example. These are drawn with
replacement into data of other sizes. In each draw the two models are swapped at random example by example, which makes
them equally good and leaves how often they differ; then as many of the result's right answers are lost as make up the
true drop (of a correlation, noise takes it). Where a manifest is given in place of a folder, drops are normal around
the true one, with the standard error that it states and what an answer that is lost adds to that. The table is in
docs/guide/limits-that-decide.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from optimize.finished import result_name
from optimize.heads import _metrics
from optimize.interfaces import Array
from optimize.manifest import Manifest, read
from optimize.report.tables import REFERENCE, Rows, markdown_table
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


@dataclass(frozen=True)
class Known:
    """What a manifest states of a model: `spread` is the standard error of its drop on one example."""

    name: str
    score: float
    spread: float
    agreement: float
    min_agreement: float


def read_known(path: Path, model: str) -> Known:
    """What a manifest states of one of its models."""
    manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    found = next((each for each in manifest.measurements if each.name == model), None)
    if found is None or found.metric is None or found.drift is None:
        raise SystemExit(f"{path}: has no answers of '{model}'; name another with --model")
    metric, agreement = found.metric, found.drift.agreement
    return Known(
        f"{manifest.request.head} ({metric.examples:,}; {agreement:.3f}) *",
        metric.reference,
        metric.standard_error * metric.examples**0.5,
        agreement,
        float(manifest.request.gates.get("min_agreement", 0.0)),
    )


def read_pair(folder: Path) -> Pair:
    """What a run folder has of its reference and its result."""
    manifest = read(folder)
    head, last = manifest.request.head, manifest.measurements[-1]
    if last.metric is None or last.drift is None:
        raise SystemExit(f"{folder}: nothing was measured; name the folder of a run that judged its result")
    with np.load(folder / "scores.npz") as scores:
        theirs, ours = (scores[f"{name}/statistics"] for name in (REFERENCE, result_name(manifest)))
    return Pair(
        f"{head} ({len(ours):,}; {last.drift.agreement:.3f})",
        theirs,
        ours,
        AGGREGATES[head, last.metric.name],
        last.metric.name == "accuracy" and theirs.shape[1] == 1,
        last.drift.agreement,
        float(manifest.request.gates.get("min_agreement", 0.0)),
    )


def drops_of(pair: Pair | Known, size: int, drop: float, trials: int, rng: np.random.Generator) -> Estimate:
    """The estimates of that many draws of a size, with their ends; the result is worse by a drop in truth."""
    if isinstance(pair, Known):
        error = ((pair.spread**2 + drop) / size) ** 0.5
        return around(rng.normal(drop, error, trials), error, confidence=CONFIDENCE)
    share = drop / ((pair.score + pair.aggregate(pair.ours)) / 2)
    if pair.right_or_wrong:
        lost, gained = counted(pair, size, share, trials, rng)
        return Estimate((lost - gained) / size, *paired_ends(lost, gained, size, confidence=CONFIDENCE))
    drawn = correlated if pair.aggregate is _metrics.spearman else summed
    values = drawn(pair, size, share, trials, rng)
    # What draws of a size differ by is the bootstrap's standard error of one of them.
    return around(values, values.std(ddof=1), confidence=CONFIDENCE)


def counts(pair: Pair, size: int, trials: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """How often each example is drawn as it is, and with its models swapped [trials, N]."""
    examples = len(pair.ours)
    drawn = rng.multinomial(size, np.full(examples, 1.0 / examples), size=trials)
    swapped = rng.binomial(drawn, 0.5)
    return drawn - swapped, swapped


def counted(pair: Pair, size: int, share: float, trials: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Examples that the reference alone and the result alone has right [trials]; a share of the result's is lost."""
    theirs, ours = pair.theirs[:, 0], pair.ours[:, 0]
    worse, better, both = theirs * (1 - ours), ours * (1 - theirs), ours * theirs
    plain, swapped = counts(pair, size, trials, rng)
    gone, gone_swapped = rng.binomial(plain, share), rng.binomial(swapped, share)
    lost = plain @ worse + swapped @ better + (gone + gone_swapped) @ both
    return lost, (plain - gone) @ better + (swapped - gone_swapped) @ worse


def summed(pair: Pair, size: int, share: float, trials: int, rng: np.random.Generator) -> Array:
    """Drops [trials] of a metric that is a ratio of sums, or a mean; a share of what is right in the result is lost."""
    plain, swapped = counts(pair, size, trials, rng)
    theirs, ours = plain @ pair.theirs + swapped @ pair.ours, plain @ pair.ours + swapped @ pair.theirs
    if (pair.ours[:, 0] == np.round(pair.ours[:, 0])).all():
        ours[:, 0] = rng.binomial(ours[:, 0].astype(np.int64), 1.0 - share)
    else:
        ours[:, 0] -= rng.binomial(plain, share) @ pair.ours[:, 0] + rng.binomial(swapped, share) @ pair.theirs[:, 0]
    rows = zip(theirs[:, None] / size, ours[:, None] / size, strict=True)
    return np.array([pair.aggregate(one) - pair.aggregate(other) for one, other in rows])


def correlated(pair: Pair, size: int, share: float, trials: int, rng: np.random.Generator) -> Array:
    """Drops [trials] of a rank correlation; noise takes a share of the result's."""
    drops = np.empty(trials)
    for turn in range(trials):
        rows, swapped = rng.integers(0, len(pair.ours), size), rng.random((size, 1)) < 0.5
        theirs = np.where(swapped, pair.ours[rows], pair.theirs[rows])
        ours = np.where(swapped, pair.theirs[rows], pair.ours[rows])
        ours[:, 0] += rng.normal(0.0, ours[:, 0].std() * np.sqrt((1.0 - share) ** -2 - 1.0), size)
        drops[turn] = pair.aggregate(theirs) - pair.aggregate(ours)
    return drops


def failures(pair: Pair | Known, size: int, limit: float, trials: int, rng: np.random.Generator) -> list[list[float]]:
    """For each true drop the shares of draws that fail, rule by rule; last, without one, with agreement judged too."""
    found = [drops_of(pair, size, points / 100, trials, rng) for points in POINTS]
    flips = rng.binomial(size, 1.0 - pair.agreement, trials)
    agreed = [agreement(1.0 - count / size, size, confidence=CONFIDENCE) for count in flips]
    shares: list[list[float]] = [[] for _ in range(len(POINTS) + 1)]
    for rule in RULES:
        failed = [held(rule, LIMIT, each) > limit * pair.score for each in found]
        apart = np.array([held(rule, "min_agreement", each) < pair.min_agreement for each in agreed])
        for cell, each in zip(shares, [*failed, failed[0] | apart], strict=True):
            cell.append(float(each.mean()))
    return shares


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or manifests")
    parser.add_argument("--model", default="cpu-static", help="of manifests, which of their models")
    parser.add_argument("--limit", type=float, default=0.01, help=f"{LIMIT}, a share of the score")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    header = ("head (examples; agreement)", "limit", "drawn", *(f"{each:g}" for each in POINTS), "0, with agreement")
    rows: Rows = [header]
    for path in asked.runs:
        pair = read_pair(path) if path.is_dir() else read_known(path, asked.model)
        rng = np.random.default_rng(asked.seed)
        for size in SIZES:
            shares = failures(pair, size, asked.limit, asked.trials, rng)
            cells = [" / ".join(f"{100 * share:.1f}" for share in cell) for cell in shares]
            rows.append((pair.name, f"{100 * asked.limit * pair.score:.2f}", f"{size:,}", *cells))
    sys.stdout.write(markdown_table(rows) + "\n")


if __name__ == "__main__":
    main()
