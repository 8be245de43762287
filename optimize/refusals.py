"""Refusals of a request that need no plan: names, numbers, places, memory, libraries and targets.

Each raises before anything is downloaded, exported or trained.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from optimize.cache import address_in, address_of, place_of, require_reachable, shown
from optimize.config import Pipeline
from optimize.data.urls import is_url, redacted
from optimize.errors import OptimizeError, RequestError, UnavailableError, brief
from optimize.files.stores import asking
from optimize.hub.patience import answer
from optimize.interfaces import Head, Progress, Silence
from optimize.machine.allowance import host_cores, usable_cores, usable_memory
from optimize.machine.environment import cache_root
from optimize.measure.shapes import parse_shape
from optimize.request import Options, declared, user_path
from optimize.source.finding import Found
from optimize.source.geometry import values_at_once
from optimize.stages import STAGES
from optimize.targets import TARGETS
from optimize.tracking import find_tracker

MOST_THREADS_PER_CORE = 4
"""More than any processor runs at a time on one core; above, threads only wait for one another."""
MOST_OF_ANYTHING = 2**31 - 1
"""NumPy's seeds and Python's slices end somewhat later."""
BYTES_A_FLOAT = 4
MOST_TOKENS = 2**20
"""In one batch: 2,048 texts of 512 tokens, whose activations alone take tens of GB."""


def check_encoding(options: Options) -> None:
    """Refuse names that are not UTF-8: neither manifests nor the libraries that open models can say them."""
    named = {each.flag: getattr(options, name) for name, each in declared().items()}
    for flag, value in {**named, "--cache": options.cache or cache_root()}.items():
        text = redacted(json.dumps(value, ensure_ascii=False, default=str))  # as it is, where Python would escape it
        try:
            text.encode()
        except UnicodeEncodeError as error:
            said = text.encode(errors="backslashreplace").decode()
            raise RequestError(f"{flag}: {said} is not UTF-8; rename it, or name a link to it") from error


def check_numbers(options: Options) -> None:
    """Refuse counts that make no sense."""
    for name, each in declared().items():
        value, least = getattr(options, name), each.option.least
        if value is None or least is None:
            continue
        if type(value) is not int:
            raise RequestError(f"{each.flag}: '{brief(value)}' is not a whole number; give {least} or more")
        if value < least:
            raise RequestError(f"{each.flag}: {value} is too few; give {least} or more")
        if value > MOST_OF_ANYTHING and name != "threads":  # of which each machine has its own limit
            raise RequestError(f"{each.flag}: {value:.3g} is too many; give {MOST_OF_ANYTHING} or fewer")
    check_share(options.max_unusable, "--max-unusable")
    if not options.shapes:
        raise RequestError("--shapes: names no shape; write for instance 1x128,data")
    for place, shape in enumerate(options.shapes):
        batch, tokens = parse_shape(shape, where="--shapes")
        if shape in options.shapes[:place]:
            raise RequestError(f"--shapes: {shape} is there twice; leave one out")
        if batch * (tokens or 1) > MOST_TOKENS:
            raise RequestError(f"--shapes: {shape} has more than {MOST_TOKENS:,} tokens; name a smaller one")


def check_share(value: object, flag: str) -> None:
    """Refuse what is no share of something, or all of it."""
    if not (isinstance(value, int | float) and 0 <= value < 1):
        raise RequestError(f"{flag}: '{brief(value)}' is no share; give one from 0 up to less than 1, such as 1%")


def check_memory(shapes: Sequence[str], found: Found, head: Head) -> None:
    """Refuse shapes of which what has to be there at one time does not fit into this machine's memory."""
    most = usable_memory()
    for shape in shapes:
        batch, tokens = parse_shape(shape, where="--shapes")
        needed = (
            batch
            * BYTES_A_FLOAT
            * values_at_once(found.config, tokens or 1, words=head.answers_in_words, where=found.id)
        )
        if needed > most:
            raise RequestError(
                f"--shapes: {shape} needs at least {needed / 1e9:.3g} GB, and this machine has {most / 1e9:.3g} GB "
                "of memory; name a smaller one"
            )


def check_words(options: Options) -> None:
    """Refuse a checkpoint or data without a name, or in the home of nobody, and other options without a value."""
    for flag, word in (("--model", options.model), ("--data", options.data)):
        if word is not None and not word.strip():
            raise RequestError(f"{flag}: is empty; name a folder or Hub id, or leave it out")
        if word is not None and not is_url(word):
            user_path(word, flag)
    for name, each in declared().items():
        if getattr(options, name) == "":
            raise RequestError(f"{each.flag}: is empty; give a value, or leave it out")


def check_places(options: Options) -> None:
    """Refuse an output or a cache where no folders can be made."""
    check_place(options.out, "--out")
    check_delivery(options.junit, options.track)
    place = place_of(options.cache)
    if options.cache is None or address_in(options.cache):
        # Where the user's own cache cannot be, the request is not to blame.
        check_place(place, "cache", UnavailableError)
    else:
        check_place(place, "--cache")


def check_shared(cache: Path | str | None, progress: Progress | None = None) -> None:
    """Refuse a shared cache that does not answer, or not as one that this machine may use."""
    if (address := address_in(cache) or address_of(place_of(cache))) is not None:
        about = shown(address)
        with asking(about, refusal=RequestError, what="--cache"):
            answer(lambda: require_reachable(address), about=about, progress=progress or Silence(), whom="the store")


def check_delivery(junit: Path | None, track: str | None) -> None:
    """Refuse a file for JUnit's XML that cannot be written, and a tracker that is not there or does not answer."""
    if junit is not None:
        check_place(junit.parent, "--junit")
        if junit.is_dir():
            raise RequestError(f"--junit: {junit} is a folder; name a file, such as {junit / 'optimize.xml'}")
    if track is not None:
        find_tracker(track)


def check_place(place: Path, flag: str, refusal: type[OptimizeError] = RequestError) -> None:
    """Refuse a place for folders where none can be made; nothing stays behind."""
    user_path(str(place), flag)
    nearest = next(folder for folder in (place, *place.absolute().parents) if os.path.lexists(folder))
    try:
        with tempfile.TemporaryDirectory(prefix=".place-", dir=nearest):
            pass
    except OSError as error:
        raise refusal(f"{flag}: {nearest}: {error.strerror}; name a folder that can be written to") from error


def check_threads(threads: int | None) -> None:
    """Refuse more threads than this machine could ever run well."""
    most = MOST_THREADS_PER_CORE * host_cores()
    if threads is not None and threads > most:
        raise RequestError(
            f"--threads: {threads} is more than {most}, {MOST_THREADS_PER_CORE} for each core of this machine; "
            f"give {usable_cores()}, or leave it out"
        )


def check_target(pipeline: Pipeline, *, build_only: bool) -> None:
    """Refuse what cannot be built for the pipeline's target here, or not be measured."""
    check_stages(pipeline)
    check_libraries(pipeline)
    # A model can be built for a target that this machine lacks, unless a stage asks the target how fast it is.
    if not build_only or measures(pipeline):
        check_runs(pipeline)


def check_runs(pipeline: Pipeline) -> None:
    """Refuse where this machine lacks what the target needs, for the pipeline's settings of it."""
    reason = TARGETS[pipeline.target].unavailable(pipeline.runtime)
    if reason is not None:
        raise UnavailableError(f"target {pipeline.target}: {reason}")


def check_stages(pipeline: Pipeline) -> None:
    """Refuse stages that make nothing that runs well on the target."""
    steps = [(step.stage, step.params) for step in pipeline.stages]
    if reason := TARGETS[pipeline.target].refuses(steps, pipeline.runtime):
        raise RequestError(f"pipeline {pipeline.name}: {reason}")


def check_steps(pipeline: Pipeline, head: Head) -> None:
    """Refuse a stage whose parameters do not go with the head, or name files that it cannot read."""
    if reason := why_not_for(pipeline, head):
        raise RequestError(reason)


def why_not_for(pipeline: Pipeline, head: Head) -> str | None:
    """The stage of a pipeline that does not go with a head, with the reason; None where all do."""
    for step in pipeline.stages:
        if reason := STAGES[step.stage].refuses(step.params, head):
            return f"stage {step.stage}: {reason}"
    return None


def check_libraries(pipeline: Pipeline) -> None:
    """Refuse where a stage's libraries are not installed."""
    from optimize.machine.environment import version

    for step in pipeline.stages:
        for needed in STAGES[step.stage].needs:
            if version(needed) == "absent":
                extra = f"distilbert-optimize[{TARGETS[pipeline.target].extra}]"
                raise UnavailableError(f"stage {step.stage}: {needed} is not installed; install {extra}")


def trains(pipeline: Pipeline) -> bool:
    """Whether any of the stages needs training data."""
    return any("training" in STAGES[step.stage].depends(step.params) for step in pipeline.stages)


def measures(pipeline: Pipeline) -> bool:
    """Whether any of the stages measures on the target, so that nothing can be built without it."""
    return any("target" in STAGES[step.stage].depends(step.params) for step in pipeline.stages)
