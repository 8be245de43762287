"""`optimize tune`: fine-tuning with a search over hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from optimize.cli import verbosity
from optimize.cli.output import print_json

if TYPE_CHECKING:
    from optimize.request import Options
    from optimize.tuned import Tuned

OPTIONS = (
    *("model", "revision", "head", "data", "data_config", "data_revision", "columns", "certify_on", "examples"),
    *("calibration_examples", "tuning_examples", "training_examples", "max_unusable", "max_tokens", "settings"),
    *("minutes", "seed", "threads", "out", "cache"),
)
DEFAULTS = {"tuning_examples": 2000, "training_examples": 100_000, "out": Path("reports/tuned")}
"""More than stages need: trials learn from training data alone, and are told apart on tuning data."""
TrialsOption = Annotated[
    Optional[int],
    typer.Option(
        "--trials",
        metavar="NUMBER",
        help="Trials at most. Short for `--set tune.trials=…`.",
        rich_help_panel="Pipeline",
    ),
]
OnOption = Annotated[
    Optional[str],
    typer.Option(
        "--on",
        metavar="ray[:ADDRESS]",
        help="Train on Ray: `ray` on this machine alone, ray:auto or ray:HOST:PORT on the cluster that it is one of.  "
        "[default: here, one trial after the other]",
        rich_help_panel="Pipeline",
    ),
]


def tune(options: Options, *, as_json: bool, trials: int | None, on: str | None) -> None:
    """Fine-tune a checkpoint for a head, searching hyperparameters.

    The best trial's checkpoint goes into `optimize run --model`. Asked for again, a search goes on where it was.
    """
    from optimize.cli.progress import progress
    from optimize.tuned import dump
    from optimize.tuning.plan import plan_tuning
    from optimize.tuning.tune import tune as carry_out

    with progress() as shown:
        plan = plan_tuning(options, trials=trials, on=on, progress=shown)
        folder, record = carry_out(plan, progress=shown)
    if as_json:
        print_json([dump(record)])
    elif not verbosity.is_quiet():
        show(folder, record)


def show(folder: Path, record: Tuned) -> None:
    """Print what was chosen, how far to believe its number, and what judges it."""
    from optimize.report.tuning import FLATTERING, headline, run_command

    print(headline(record))
    print(FLATTERING)
    print(f"checkpoint: {folder}")
    print(f"judge it:   {run_command(record, str(folder))}")
