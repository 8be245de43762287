"""Commands that look names and this machine up, and copy a pipeline to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli.options import JsonOption, names_for
from optimize.cli.output import print_json


def list_names(as_json: JsonOption = False) -> None:
    """List targets, heads, stages and pipelines."""
    from optimize.cli.names import list_names
    from optimize.cli.tables import show_names

    found = list_names()
    if as_json:
        print_json([found])
    else:
        show_names(found)


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A stage, pipeline (name or YAML file), target or head, or `gates`.",
            autocompletion=names_for("show"),
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show a stage, pipeline, target or head in full.

    Each parameter comes with its type, bounds, default and meaning.
    """
    from optimize.cli.names import describe
    from optimize.cli.show import show_documents

    found = describe(name)
    if as_json:
        print_json(found)
    else:
        show_documents(found)


def copy(
    pipeline: Annotated[
        str,
        typer.Argument(
            metavar="PIPELINE", help="A shipped pipeline; see `optimize list`.", autocompletion=names_for("pipeline")
        ),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it: mine.yaml.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite a file that is there.")] = False,
) -> None:
    """Copy a shipped pipeline to a file, to edit it."""
    from optimize.cli.names import copy_pipeline

    copy_pipeline(pipeline, file, force=force)
    print(f"wrote {file}; run it with: optimize run --pipeline {file}")


def doctor(as_json: JsonOption = False) -> None:
    """Show this machine, and which targets run on it.

    Exit code 3 where none does.
    """
    from optimize.cli.names import describe_machine
    from optimize.cli.tables import show_machine

    found = describe_machine()
    if as_json:
        print_json([found])
    else:
        show_machine(found)
    if not any(target["runs"] for target in found["targets"]):
        raise typer.Exit(3)
