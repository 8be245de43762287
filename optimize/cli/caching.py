"""`optimize cache`: what the cache of finished stages holds, what of it goes, and whether it is sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from optimize.cli import verbosity
from optimize.cli.options import CacheOption, JsonOption, PanelCommand, QuietOption, VerboseOption, cache_from
from optimize.cli.output import print_json
from optimize.errors import RequestError

if TYPE_CHECKING:
    from optimize.cache.shared import Shared
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
    """List entries with stage, head, size and last use.

    Of a shared cache, those in the store, and when they were written. The beginning of each is read for its names.
    """
    from optimize.cli import keeping, sharing
    from optimize.cli.tables import show_entries

    root, shared = _places(cache)
    if shared is None:
        title, age, entries = str(root), "last used", keeping.list_entries(root)
    else:
        title, age = shared.objects.shown, "written"
        entries = sharing.named(shared, sharing.list_entries(shared, root))
    if as_json:
        print_json([{"cache": title, "entries": [_document(each) for each in entries]}])
    else:
        show_entries(title, entries, age)


@app.command("gc", cls=PanelCommand)
def collect(
    keep: Annotated[
        Optional[str],
        typer.Option(metavar="SIZE", help="Keep the youngest, up to this size: 2GB. The rest goes."),
    ] = None,
    older_than: Annotated[
        Optional[float], typer.Option(metavar="DAYS", help="Remove what is older than so many days.", min=0)
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove entries to make room.

    Age is counted from when an entry was last used. Of a shared cache, it is counted from when an entry was written to
    the store, which knows of no use; its copy on this machine is cleared by the same limits, from last use.

    What killed processes left behind always goes, what a living one is writing never does. Not to be called while a run
    uses the cache: entries that it works from may go.
    """
    from optimize.cli import keeping, sharing

    size = None if keep is None else keeping.read_size(keep, "--keep")
    choose = partial(keeping.choose_old, keep_bytes=size, older_than_days=older_than)
    root, shared = _places(cache, changes=True)
    removed: dict[str, list[Kept]] = {}
    if shared is not None:
        old = choose(sharing.list_entries(shared, root))
        removed["removed"] = sharing.named(shared, old)
        sharing.collect(shared, old)
    old = choose(keeping.list_entries(root))
    keeping.collect(root, old)
    removed["removed_here" if removed else "removed"] = old
    _tell(removed, as_json)


@app.command("verify", cls=PanelCommand)
def verify(
    cache: CacheOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare every entry with its digest.

    A damaged one is removed, and the exit code is 3. Of a shared cache, all entries are downloaded; its copy on this
    machine is looked at, too.
    """
    from optimize.cli import keeping, sharing
    from optimize.cli.progress import progress

    root, shared = _places(cache, changes=True)
    damaged: dict[str, list[Kept]] = {}
    with progress() as shown:
        if shared is not None:
            damaged["damaged"] = sharing.verify(shared, root, shown)
        damaged["damaged_here" if damaged else "damaged"] = keeping.verify(keeping.list_entries(root), shown)
    _tell(damaged, as_json)
    if any(damaged.values()):
        raise typer.Exit(DAMAGED)


def _places(word: str | None, *, changes: bool = False) -> tuple[Path, Shared | None]:
    """The folder of a cache, or of a shared one's copy, and the shared one; refuses one that may only be read."""
    from optimize.cache import address_in, place_of
    from optimize.cache.shared import reach

    asked = cache_from(word)
    address = address_in(asked)
    shared = reach(address) if address else None
    if changes and shared is not None and not shared.writes:
        raise RequestError(f"--cache: {shared.objects.shown}: is only read; leave 'read+' out")
    return place_of(asked), shared


def _tell(found: Mapping[str, Sequence[Kept]], as_json: bool) -> None:
    if as_json:
        print_json([{what: [_document(each) for each in entries] for what, entries in found.items()}])
    elif not verbosity.is_quiet():
        for what, entries in found.items():
            words = what.replace("_", " ")
            for each in entries:
                print(f"{words}: {each.key[:12]} {each.stage} {each.head}")
            print(f"{words}: {len(entries)} entries, {sum(each.size_bytes for each in entries) / 1e6:,.1f} MB")


def _document(each: Kept) -> dict[str, object]:
    facts = {"key": each.key, "stage": each.stage, "head": each.head}
    return {**facts, "size_bytes": each.size_bytes, "age_seconds": round(each.age_seconds)}
