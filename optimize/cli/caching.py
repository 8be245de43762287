"""`optimize cache`: what the cache of finished stages holds, what of it goes, and whether it is sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from optimize.cli import verbosity
from optimize.cli.options import CacheOption, JsonOption, PanelCommand, QuietOption, VerboseOption
from optimize.cli.output import print_json

if TYPE_CHECKING:
    from optimize.cli.keeping import Kept

DAMAGED = 3  # the machine's fault, like a stage that fails; never the request's
app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="List, clear and verify the cache of finished stages.",
)


@app.callback()
def show_help(context: typer.Context) -> None:
    """Show help where no command is given."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("ls", cls=PanelCommand)
def list_entries(cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """List entries with stage, head, size and last use."""
    from optimize.cli.keeping import list_entries
    from optimize.cli.tables import show_entries

    root = _root(cache)
    entries = list_entries(root)
    if as_json:
        print_json([{"cache": str(root), "entries": [_document(each) for each in entries]}])
    else:
        show_entries(root, entries)


@app.command("gc", cls=PanelCommand)
def collect(
    keep: Annotated[
        Optional[str],
        typer.Option(metavar="SIZE", help="Keep what was used last, up to this size: 2GB. The rest goes."),
    ] = None,
    older_than: Annotated[
        Optional[float], typer.Option(metavar="DAYS", help="Remove what was not used for so many days.", min=0)
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove entries to make room.

    What killed processes left behind always goes, what a living one is writing never does. Not to be called while a run
    uses the cache: entries that it works from may go.
    """
    from optimize.cli import keeping

    root = _root(cache)
    keep_bytes = None if keep is None else keeping.read_size(keep, "--keep")
    old = keeping.choose_old(keeping.list_entries(root), keep_bytes=keep_bytes, older_than_days=older_than)
    keeping.collect(root, old)
    _tell("removed", old, as_json)


@app.command("verify", cls=PanelCommand)
def verify(
    cache: CacheOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare every entry with its digest.

    A damaged one is removed, and the exit code is 3.
    """
    from optimize.cli import keeping
    from optimize.cli.progress import progress

    with progress() as shown:
        damaged = keeping.verify(keeping.list_entries(_root(cache)), shown)
    _tell("damaged", damaged, as_json)
    if damaged:
        raise typer.Exit(DAMAGED)


def _root(cache: Path | None) -> Path:
    from optimize.machine.environment import cache_root

    return cache or cache_root()


def _tell(what: str, entries: Sequence[Kept], as_json: bool) -> None:
    if as_json:
        print_json([{what: [_document(each) for each in entries]}])
    elif not verbosity.is_quiet():
        for each in entries:
            print(f"{what}: {each.key[:12]} {each.stage} {each.head}")
        print(f"{what}: {len(entries)} entries, {sum(each.size_bytes for each in entries) / 1e6:,.1f} MB")


def _document(each: Kept) -> dict[str, object]:
    facts = {"key": each.key, "stage": each.stage, "head": each.head}
    return {**facts, "size_bytes": each.size_bytes, "age_seconds": round(each.age_seconds)}
