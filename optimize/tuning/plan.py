"""From a request to a plan of a search over fine-tunings: every refusal that can be made early is made here.

Nothing is downloaded (a Hub id's config and file list aside) or trained.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from optimize.cache import open_place
from optimize.config import closed
from optimize.data.splits import inspect_data
from optimize.data.wanted import Wanted
from optimize.errors import RequestError, UnavailableError, unknown_name
from optimize.heads import DEFAULT_HEAD, HEADS
from optimize.heads.feature_extraction import NAME as FEATURES
from optimize.interfaces import Head, Progress
from optimize.machine.allowance import usable_cores
from optimize.machine.clusters import read_place
from optimize.planning import wanted_data
from optimize.refusals import check_encoding, check_numbers, check_places, check_threads, check_words
from optimize.request import DEMO, Options, settings_of
from optimize.source.finding import Found, inspect_base
from optimize.tuning.space import OWNER, Tuning

RAY = "ray"
"""Ray's words for a cluster of this machine alone, which ends with the search, and for the one it is a machine of."""
TRAINING_SHARE = 0.7
"""Of few rows, those that trials learn from at least; the others are measured on."""
NEEDS = {"optuna": "tune", "ray": "ray"}
"""Libraries that the search needs, and the extra that has each."""


@dataclass(frozen=True)
class TuningPlan:
    """A search that can be carried out, as far as can be told without doing it.

    `taken` is the head as which the checkpoint is read: `head` itself, or features where its own head is of no use.
    `ray` is the address of a cluster; None where trials run here.
    """

    options: Options
    head: Head
    found: Found
    taken: Head
    wanted: Wanted
    tuning: Tuning
    threads: int
    out: Path
    cache: Path
    ray: str | None

    @property
    def on(self) -> str:
        """Where trials run, in words."""
        return "here" if self.ray is None else f"{RAY}:{self.ray}"


def plan_tuning(
    options: Options, *, trials: int | None = None, on: str | None = None, progress: Progress | None = None
) -> TuningPlan:
    """Check a request and fill in its defaults.

    Raises RequestError, and UnavailableError where a library is missing.
    """
    check_encoding(options)
    check_words(options)
    check_numbers(options)
    check_threads(options.threads)
    check_places(options)
    if not options.tuning_examples:
        raise RequestError("--tuning-examples: 0 leave nothing to measure trials on; give 1 or more")
    tuning = read_tuning(options, trials)
    address = None if on is None else read_place(on, client=False)
    check_libraries(["optuna"] if address is None else list(NEEDS))
    head = find_trained(options)
    found, taken = inspect_base(options.model, options.revision, head, progress=progress)
    wanted = replace(wanted_data(options, head, trained=True), training_share=TRAINING_SHARE)
    wanted = replace(wanted, revision=inspect_data(wanted, head, progress=progress))
    return TuningPlan(
        options=options,
        head=head,
        found=found,
        taken=taken,
        wanted=wanted,
        tuning=tuning,
        threads=options.threads or usable_cores(),
        out=options.out,
        cache=open_place(options.cache),
        ray=address,
    )


def read_tuning(options: Options, trials: int | None) -> Tuning:
    """What is set of the search, by whatever option."""
    values: dict[str, object] = {}
    given: dict[str, str] = {}
    short: Mapping[str, object] = {"trials": trials, "minutes": options.minutes}
    for name, value in short.items():
        if value is not None:
            values[name], given[name] = value, f"--{name}"
    for each in settings_of(replace(options, minutes=None)):
        if each.owner != OWNER:
            raise unknown_name(each.where, each.owner, [OWNER])
        if each.parameter in given:
            raise RequestError(f"{each.where}: sets {each.name}, as {given[each.parameter]} does; give one of the two")
        values[each.parameter] = each.value
    return closed(Tuning, values, f"--set: {OWNER}")


def check_libraries(needed: list[str]) -> None:
    """Refuse where a library is not installed."""
    for name in needed:
        if importlib.util.find_spec(name) is None:
            extra = f"distilbert-optimize[{NEEDS[name]}]"
            raise UnavailableError(f"tune: {name} is not installed; pip install '{extra}'")


def find_trained(options: Options) -> Head:
    """The head that is asked for; refuse those that nothing here trains."""
    name = options.head or (DEFAULT_HEAD if options.model == DEMO else None)
    if name is None:
        raise RequestError("--head: missing; say what to train the checkpoint for, such as text-classification")
    known = [each for each in HEADS if each != FEATURES]
    if name == FEATURES:
        raise RequestError(
            f"--head: '{name}' has no labels to learn from, which sentence-transformers trains with losses of its own; "
            f"choose one of: {', '.join(known)}"
        )
    if name not in HEADS:
        raise unknown_name("--head", name, known)
    return HEADS[name]
