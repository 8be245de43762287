"""Typer's options, made of the declarations in `optimize.request`, and options of a request made of their values."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from optimize.cli.verbosity import be_quiet, be_verbose
from optimize.request import Declared, Options, declared, read_cache

if typing.TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

WORDS = {int: "NUMBER", float: "NUMBER"}
"""What stands for a value of a type in help; for any other it is the option's name."""


class PanelCommand(TyperCommand):
    """A command whose help groups options by panel. Typer does so through rich alone, which takes 0.15 s to import."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write a section for each panel, in the order in which the options come."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                usual = "Arguments" if param.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(param, "rich_help_panel", None) or usual, []).append(record)
        for title, records in panels.items():
            with formatter.section(title):
                formatter.write_dl(records)


def names_for(option: str) -> Callable[[str], list[str]] | None:
    """What the shell completes an option's value to, where there is a table of names."""

    def names(incomplete: str) -> list[str]:
        # Inside, as tables of stages and targets take longer to import than help may take.
        from optimize.cli.names import KNOWN

        return [name for name in KNOWN[option]() if name.startswith(incomplete)]

    return names if option in ("target", "head", "pipeline", "show") else None


def option_of(each: Declared) -> Any:
    """The declaration as Typer's option."""
    option = each.option
    names = [each.flag] if option.short is None else [each.flag, option.short]
    return typer.Option(
        *names,
        help=option.meaning + (f"  [default: {option.otherwise}]" if option.otherwise else ""),
        metavar=option.metavar or WORDS.get(_plain(each.type), each.name.split("_")[-1].upper()),
        rich_help_panel=option.panel,
        autocompletion=names_for(each.name),
    )


def _plain(type_: Any) -> Any:
    """The type itself of one that may be None."""
    return next((each for each in typing.get_args(type_) if each is not type(None)), type_)


def parameter_of(each: Declared, default: Any) -> inspect.Parameter:
    """The declaration as a parameter of a command; what is read from text is text, or a list of texts."""
    option = each.option
    # Typer wants the type of None spelled out, and knows no mappings: words are read once all of them are there.
    type_: Any = Optional[_plain(each.type)] if each.default is None else each.type
    if option.read is not None:
        type_ = list[str] if option.repeated else Optional[str]
        default = [] if option.repeated else (option.write(default) if default else None)
    return inspect.Parameter(each.name, KEYWORD, default=default, annotation=Annotated[type_, option_of(each)])


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.", rich_help_panel="Output")]
# Both are eager: what is wrong with an option before them on the line is shown as they say, too.
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Show libraries' logs, and errors with their traceback.", rich_help_panel="Output",
        callback=be_verbose, is_eager=True,
    ),
]  # fmt: skip
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Show errors and the verdict alone.", rich_help_panel="Output",
        callback=be_quiet, is_eager=True,
    ),
]  # fmt: skip
CacheOption = Annotated[Optional[str], option_of(declared()["cache"])]
JunitOption = Annotated[Optional[Path], option_of(declared()["junit"])]
TrackOption = Annotated[Optional[str], option_of(declared()["track"])]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
SWITCHES = {"as_json": (JsonOption, False), "verbose": (VerboseOption, False), "quiet": (QuietOption, False)}
KEYWORD = inspect.Parameter.KEYWORD_ONLY


def request_command(
    act: Callable[..., None],
    names: Sequence[str] | None = None,
    defaults: Mapping[str, object] | None = None,
    **others: tuple[Any, object],
) -> Callable[..., None]:
    """A command that makes options of its words and hands them to `act(options, as_json=…)`.

    It has all options, or those that are named, with the declared defaults or others. `others` are options of the
    command's own, as Typer takes them, with their defaults; `act` takes them too.
    """

    def command(**values: Any) -> None:
        own = {name: values[name] for name in ("as_json", *others)}
        act(options_from(values), **own)

    parameters = []
    for name, each in declared().items():
        if names is None or name in names:
            parameters.append(parameter_of(each, (defaults or {}).get(name, each.default)))
    for name, (option, default) in {**others, **SWITCHES}.items():
        parameters.append(inspect.Parameter(name, KEYWORD, default=default, annotation=option))
    command.__name__, command.__doc__ = act.__name__, act.__doc__
    # Typer reads a command's options off its signature, and `inspect` takes this one for that.
    vars(command)["__signature__"] = inspect.Signature(parameters)
    return command


def cache_from(word: str | None) -> Path | str | None:
    """What CacheOption names: a folder, an address, or nothing."""
    return None if word is None else read_cache(word, declared()["cache"].flag)


def options_from(values: Mapping[str, Any]) -> Options:
    """Options from a command's words."""
    found: dict[str, Any] = {}
    for name, each in declared().items():
        value = values.get(name)
        # Not given: the declared default holds, and commands that lack the option need not know of it.
        if value is None or value == []:
            continue
        found[name] = value if each.option.read is None else each.option.read(value, each.flag)
    return Options(**found)
