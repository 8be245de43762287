"""Built-in text and checkpoints, so that every pipeline runs without a network.

For each head, `generate_rows` writes English rows in the Hub's column conventions and
`train_checkpoint` fits a small DistilBERT to them within a minute on a CPU. Both depend on nothing
but their arguments. The tasks can be learnt but not solved completely, so a compressed model has
something to lose. `RECIPES` has one recipe for each head; importing them imports neither torch nor
transformers.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from random import Random

from optimize.demo import (
    feature_extraction,
    fill_mask,
    multiple_choice,
    question_answering,
    text_classification,
    token_classification,
)
from optimize.demo.recipe import Recipe
from optimize.interfaces import Row

RECIPES: dict[str, Recipe] = {
    "feature-extraction": feature_extraction.RECIPE,
    "fill-mask": fill_mask.RECIPE,
    "text-classification": text_classification.RECIPE,
    "multiple-choice": multiple_choice.RECIPE,
    "token-classification": token_classification.RECIPE,
    "question-answering": question_answering.RECIPE,
}
HELD_OUT_ROWS = 1000
SPLITS = ("train", "validation", "test")
MOST_DRAWS_PER_ROW = 50
"""Templates have an end: more rows than they give would be drawn for ever."""


def generate_rows(head: str, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, list[Row]]:
    """The splits of a head's demo data; no two rows read the same, within or across splits.

    `sizes` overrides the number of rows of the splits it names. The held-out splits are drawn
    first, so they stay the same whatever the size of the training split.
    """
    recipe = _recipe(head)
    wanted = _sizes(recipe, sizes or {})
    seen: set[tuple[str, ...]] = set()
    drawn = {
        split: _draw_split(recipe, Random(f"{head}/{seed}/{split}"), wanted[split], seen)
        for split in ("test", "validation", "train")
    }
    return {split: drawn[split] for split in SPLITS}


def train_checkpoint(
    head: str,
    out: Path,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    steps: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train the head's small DistilBERT and write the checkpoint (FP32) and tokenizer to `out`.

    `progress(done, total)` is called after every step. The test fixtures use smaller `sizes` and
    fewer `steps`; both default to what the head needs to score between 0.80 and 0.99.
    """
    from optimize.demo.training import train_recipe

    recipe = _recipe(head)
    rows = generate_rows(head, seed, sizes)["train"]
    total = recipe.steps if steps is None else steps
    train_recipe(recipe, rows, out, seed=seed, steps=total, progress=progress)


def _recipe(head: str) -> Recipe:
    if head in RECIPES:
        return RECIPES[head]
    near = get_close_matches(head, RECIPES, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(RECIPES)}."
    raise ValueError(f"demo: there is no head {head!r}; {advice}")


def _sizes(recipe: Recipe, overrides: Mapping[str, int]) -> dict[str, int]:
    unknown = set(overrides) - set(SPLITS)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ValueError(f"demo sizes: no split {names}; use {', '.join(SPLITS)}.")
    defaults = {"train": recipe.train_rows, "validation": HELD_OUT_ROWS, "test": HELD_OUT_ROWS}
    return {**defaults, **overrides}


def _draw_split(recipe: Recipe, rng: Random, size: int, seen: set[tuple[str, ...]]) -> list[Row]:
    """Draw rows until `size` new ones are found; add them to `seen`."""
    rows: list[Row] = []
    for _ in range(MOST_DRAWS_PER_ROW * size):
        if len(rows) == size:
            break
        row = recipe.draw(rng)
        # A text in two splits would be scored by what was learnt by heart.
        identity = tuple(recipe.texts(row))
        if identity not in seen:
            seen.add(identity)
            rows.append(row)
    if len(rows) < size:
        raise ValueError(f"demo sizes: only {len(rows)} of {size} different rows; ask for fewer.")
    return rows
