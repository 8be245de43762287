"""The page of a search over fine-tunings, `tuning.md`, with its picture: a function of the record alone."""

from __future__ import annotations

import shlex
from pathlib import Path

from optimize.files.putting import put_file
from optimize.report.markdown import code_block, plain
from optimize.report.pictures.draw import Picture
from optimize.report.pictures.trials import draw_trials
from optimize.report.tables import MISSING, Rows, markdown_table
from optimize.request import Asked, declared, in_words
from optimize.tuned import Trial, Tuned

PAGE, PICTURE = "tuning.md", "tuning.png"
FLATTERING = (
    "The chosen trial was chosen by this number, so it flatters: what the checkpoint scores on data that nothing here "
    "has read is for `optimize run` to say."
)
SAME = ("data_config", "data_revision", "columns", "certify_on", "examples", "calibration_examples", "seed")
"""Options that a run is to be given as the search was, so that it judges by what was left out here."""


def write_page(record: Tuned, folder: Path) -> None:
    """Write `tuning.md` and its picture."""
    words = f"{record.metric} on tuning data over steps, by trial; the table has the numbers."
    picture = Picture(PICTURE, words, draw_trials(record))
    put_file(folder / PICTURE, picture.content)
    put_file(folder / PAGE, render(record, folder, picture).encode())


def render(record: Tuned, folder: Path, picture: Picture) -> str:
    """The page."""
    asked = record.asked
    parts = [
        f"# {plain(f'{record.base.id}: {asked.head}')}",
        plain(headline(record)),
        FLATTERING,
        code_block(run_command(record, folder.name)),
        picture.markdown,
        "## Trials",
        markdown_table(trial_rows(record)),
        "## Data",
        markdown_table(_data_rows(record)),
        plain(_about_data(record)),
    ]
    return "\n\n".join(parts) + "\n"


def headline(record: Tuned) -> str:
    """What was chosen, and what it scored."""
    best = record.winner
    return (
        f"Trial {best.number} of {len(record.trials)}: {record.metric} {record.value:.4f} on tuning data, with "
        f"{parameters_in_words(best)}."
    )


def parameters_in_words(trial: Trial) -> str:
    """What a trial was trained with."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in trial.parameters.items())


def trial_rows(record: Tuned) -> Rows:
    """One row for each trial, the best first."""
    names = list(record.winner.parameters)
    header = [name.replace("_", " ") for name in names]
    rows: Rows = [("trial", record.metric, "at step", "steps", "minutes", "outcome", *header, "why")]

    def value_of(trial: Trial) -> float:
        return trial.best.value if trial.best else float("-inf")

    for trial in sorted(record.trials, key=lambda each: (each.number != record.chosen, -value_of(each), each.number)):
        best = trial.best
        rows.append(
            (
                str(trial.number),
                f"{best.value:.4f}" if best else MISSING,
                str(best.step) if best else MISSING,
                str(trial.curve[-1].step) if trial.curve else MISSING,
                f"{trial.seconds / 60:.1f}",
                "chosen" if trial.number == record.chosen else trial.outcome,
                *(f"{trial.parameters[name]:.3g}" for name in names),
                trial.reason,
            )
        )
    return rows


def _data_rows(record: Tuned) -> Rows:
    rows: Rows = [("split", "examples", "from", "used for")]
    uses = {
        "training": "learning",
        "tuning": "measuring, stopping and choosing trials",
        "calibration": "nothing; a run calibrates on it",
        "certification": "nothing; a run judges by it",
    }
    for name, use in uses.items():
        split = record.data[name]
        rows.append((name, f"{split.count:,}", split.origin, use))
    return rows


def _about_data(record: Tuned) -> str:
    notes = [note for split in record.data.values() for note in split.notes]
    classes = f"Classes: {', '.join(record.classes)}." if record.classes else ""
    labels = f"Labels: {record.labels}." if record.labels else ""
    return " ".join(filter(None, (classes, labels, *(f"{note}." for note in dict.fromkeys(notes)))))


def run_command(record: Tuned, folder: str) -> str:
    """The command that judges the checkpoint, by the data that the search has left out."""
    words = ["optimize run", f"--model {shlex.quote(folder)}", f"--data {shlex.quote(record.asked.data)}"]
    for name in SAME:
        each, value = declared(Asked)[name], getattr(record.asked, name)
        if value != each.default and (text := in_words(each, value)):
            words.append(text)
    return " ".join(words)
