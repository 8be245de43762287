"""A sweep's YAML file, checked, and the points that it asks for. Pure: nothing is looked at but the file's content."""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from optimize.config import SECTIONS, Pipeline, closed, load_pipeline
from optimize.errors import OrderError, RequestError, brief, first_line, unknown_name
from optimize.files.small import read_yaml
from optimize.heads import HEADS
from optimize.interfaces import Params
from optimize.machine.environment import DISTRIBUTION, version
from optimize.planning import with_settings
from optimize.request import DEMO, Options, Setting, declared
from optimize.stages import STAGES
from optimize.swept import Preference
from optimize.targets import DEFAULT_TARGET, TARGETS

OWN = frozenset({"target", "pipeline", "settings", "runtime", "out", "cache", "build_only", "junit"})
"""Options that a sweep's own keys stand for, or its command's."""
ALL_HEADS = "all"
STEPS = 1e-9
"""By how much a range's end may be missed and still belong to it."""


class Range(Params):
    """Numbers from one end to the other: all of them for a search, or those that are `step` apart."""

    low: float = Field(description="The smallest.")
    high: float = Field(description="The largest.")
    step: float | None = Field(default=None, gt=0, description="How far apart; without it, only a search can choose.")

    @model_validator(mode="after")
    def _rise(self) -> Range:
        if self.low >= self.high:
            raise ValueError("low is not below high")
        return self

    @property
    def values(self) -> list[float]:
        """Those that are `step` apart, both ends among them where they fit."""
        if self.step is None:
            return []
        count = int((self.high - self.low) / self.step + 1 + STEPS)
        return [round(self.low + place * self.step, 9) for place in range(count)]


class Study(Params):
    """A search of Optuna's through what the matrix spans, in place of all of it."""

    sampler: Literal["tpe", "nsga2"] = Field(
        default="tpe",
        description="Which points come next: `tpe` models what good ones have in common, `nsga2` crosses them. Both "
        "lower drop, latency and size together.",
    )
    trials: int = Field(default=40, ge=1, description="Points to try for each model and target.")
    batch: int = Field(default=4, ge=1, description="Points that are asked for at a time, built and timed together.")


class Matrix(Params):
    """What a sweep's file may say."""

    models: tuple[Mapping[str, Any], ...] = Field(
        min_length=1,
        description="Checkpoints with their data: each a mapping of `run`'s options, such as `model`, `head` and "
        "`data`, and a `name` where those are alike. `head` may be a list, or `all` for the demo.",
    )
    targets: tuple[str, ...] = Field(
        default=(), description="Where models are to run; of `pipelines`, those for other targets are left out."
    )
    pipelines: tuple[str, ...] = Field(
        default=(), description="Recipes by name or path; if not given, those that each target's own chooses from."
    )
    settings: Mapping[str, Any] = Field(
        default_factory=dict,
        description="Parameters as for `--set`, each a value, a list of values to try, or a range: "
        "{low: 0.3, high: 0.6, step: 0.1}. A pipeline takes those that it has.",
    )
    gates: Mapping[str, Any] = Field(
        default_factory=dict, description="Limits that replace those of all pipelines; their others hold."
    )
    options: Mapping[str, Any] = Field(
        default_factory=dict, description="`run`'s options for all models, such as `tuning_examples` or `shapes`."
    )
    prefer: Preference = Field(default="latency", description="By what one point of each model and target is chosen.")
    search: Study | None = Field(default=None, description="Let Optuna choose points instead of trying all.")
    minutes: float | None = Field(
        default=None, gt=0, description="When nothing new is begun any more; what is left waits for `--resume`."
    )

    @field_validator("settings")
    @classmethod
    def _not_of_the_sweep(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in settings:
            owner, _, parameter = str(name).partition(".")
            if not parameter:
                raise ValueError(f"{brief(name)} is not stage.parameter")
            if owner in ("gates", "search"):
                raise ValueError(f"{brief(name)}: give limits under `gates`, and name pipelines without a search")
        return settings


@dataclass(frozen=True)
class Entry:
    """A model with its data: `run`'s options without target, pipeline and settings.

    `places` says when what they name was last changed, so that a change makes other points.
    """

    name: str
    options: Options
    says_shapes: bool
    places: Sequence[object] = field(repr=False)


@dataclass(frozen=True)
class Point:
    """One model by one pipeline with its settings, which is `form`; `options` are those of the run that it would be.

    `refused` says why the settings do not go together, and `form` is the pipeline without them then.
    """

    id: str
    model: str
    label: str
    pipeline: str
    settings: Mapping[str, object]
    options: Options = field(repr=False)
    form: Pipeline = field(repr=False)
    refused: str = ""


def read_matrix(path: Path) -> Matrix:
    """The content of a sweep's file; raises RequestError."""
    content = read_yaml(path, advice="check its name")
    if not isinstance(content, Mapping):
        raise RequestError(f"{path}: a sweep is a mapping; give it models, and pipelines or targets")
    return closed(Matrix, content, str(path))


def entries_of(matrix: Matrix, where: str) -> list[Entry]:
    """The models; refuses two of one name."""
    found: dict[str, Entry] = {}
    for entry in matrix.models:
        for values in _each_head({**matrix.options, **entry}, f"{where}: models"):
            name = str(values.pop("name", "") or _name_of(values))
            if len(_heads_of(entry)) > 1:
                name = f"{name}-{values['head']}"
            if name in found:
                raise RequestError(f"{where}: models: two are called '{brief(name)}'; give each a `name`")
            options = options_of(values, f"{where}: models: {brief(name)}")
            found[name] = Entry(name, options, "shapes" in values, _places(options))
    return list(found.values())


def _heads_of(entry: Mapping[str, Any]) -> Sequence[str | None]:
    head = entry.get("head")
    if head == ALL_HEADS and entry.get("model", DEMO) == DEMO:
        return list(HEADS)
    return head if isinstance(head, list) else [head]


def _each_head(values: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    if values.get("head") == ALL_HEADS and values.get("model", DEMO) != DEMO:
        raise RequestError(f"{where}: head: 'all' is for the demo; a checkpoint has one head")
    for head in _heads_of(values):
        yield {**values, "head": head}


def _name_of(values: Mapping[str, Any]) -> str:
    return Path(str(values.get("model", DEMO))).name


def options_of(values: Mapping[str, Any], where: str) -> Options:
    """`run`'s options from a mapping; text is read as on the command line. Raises RequestError."""
    known = {name: each for name, each in declared().items() if name not in OWN and not each.option.sets}
    found = {}
    for key, value in values.items():
        name = str(key)
        if name not in known:
            raise unknown_name(where, name, known)
        read = known[name].option.read
        found[name] = read(value, f"{where}: {name}") if read and isinstance(value, str) else value
    try:
        kinds = typing.get_type_hints(Options)
        return Options(**{name: TypeAdapter(kinds[name]).validate_python(each) for name, each in found.items()})
    except ValidationError as error:
        raise RequestError(f"{where}: {first_line(ValueError(error.errors()[0]['msg']))}; mend the file") from error


def pipelines_of(matrix: Matrix, where: str) -> list[tuple[str, Pipeline]]:
    """The pipelines by their names, of all targets; refuses a name that cannot be built as it is."""
    for target in matrix.targets:
        if target not in TARGETS:
            raise unknown_name(f"{where}: targets", target, TARGETS)
    names = list(matrix.pipelines)
    if not names:
        for target in matrix.targets or (DEFAULT_TARGET,):
            names += load_pipeline(target).candidates
    found = []
    for name in dict.fromkeys(names):
        pipeline = load_pipeline(name)
        if not pipeline.stages:
            raise RequestError(f"{where}: pipelines: {name} chooses by itself; name those that it chooses from")
        if not matrix.targets or pipeline.target in matrix.targets:
            found.append((name, pipeline))
    for target in matrix.targets:
        if target not in {pipeline.target for _, pipeline in found}:
            raise RequestError(f"{where}: targets: none of the pipelines is for {target}; leave it out or name one")
    return found


def values_of(name: str, value: object, where: str, *, searched: bool) -> list[object] | Range:
    """What a setting is to be: the values to try, or a range that a search chooses from."""
    if isinstance(value, Mapping):
        found = closed(Range, value, f"{where}: settings: {name}")
        if found.values or searched:
            return list(found.values) if found.step else found
        raise RequestError(f"{where}: settings: {name}: a range without a step takes a search; give it a step")
    if isinstance(value, list):
        if not value:
            raise RequestError(f"{where}: settings: {name}: has no value; give one, or leave it out")
        return list(value)
    return [value]


def spans_of(matrix: Matrix, where: str) -> dict[str, list[object] | Range]:
    """What each setting is to be, by its name; refuses one that no pipeline takes."""
    pipelines = [pipeline for _, pipeline in pipelines_of(matrix, where)]
    for name in matrix.settings:
        owner = name.partition(".")[0]
        if owner not in STAGES and owner not in SECTIONS:
            raise unknown_name(f"{where}: settings", owner, (*STAGES, *SECTIONS))
        if not any(pipeline.takes(owner) for pipeline in pipelines):
            raise RequestError(f"{where}: settings: {name}: no pipeline has '{owner}'; name one that does")
    searched = matrix.search is not None
    return {name: values_of(name, value, where, searched=searched) for name, value in matrix.settings.items()}


def points_of(matrix: Matrix, where: str) -> list[Point]:
    """All points of a matrix, each once: a setting that a pipeline does not take makes no point of its own."""
    spans = spans_of(matrix, where)
    found: dict[str, Point] = {}
    for entry in entries_of(matrix, where):
        for words, pipeline in pipelines_of(matrix, where):
            own = {key: values for key, values in spans.items() if pipeline.takes(key.partition(".")[0])}
            for values in product(*(each for each in own.values() if isinstance(each, list))):
                point = point_of(matrix, entry, (words, pipeline), dict(zip(own, values, strict=True)))
                found.setdefault(point.id, point)
    return list(found.values())


def point_of(matrix: Matrix, entry: Entry, pipeline: tuple[str, Pipeline], settings: Mapping[str, object]) -> Point:
    """The point of a model and a pipeline with these settings."""
    words, loaded = pipeline
    limits = {f"gates.{name}": value for name, value in matrix.gates.items()}
    asked = replace(entry.options, pipeline=words, settings={**settings, **limits})
    try:
        form, refused = with_settings(loaded, [*_settings(settings, "settings"), *_settings(limits, "gates")]), ""
    except OrderError as error:  # of a matrix, some combinations make no sense: they are kept, as all that fails
        form, refused = loaded, str(error)
    if not entry.says_shapes:
        asked = replace(asked, shapes=(form.gates.speedup_shape,))
    varying = {name: value for name, value in settings.items() if not _is_one(matrix.settings[name])}
    said = ", ".join(f"{name}={value}" for name, value in varying.items())
    label = f"{Path(words).stem} {said}".strip()
    material = {
        "version": version(DISTRIBUTION),
        "options": asdict(asked),
        "pipeline": _content(loaded),
        "places": entry.places,
    }
    text = json.dumps(material, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Point(digest, entry.name, label, words, settings, asked, form, refused)


def _settings(values: Mapping[str, object], where: str) -> list[Setting]:
    split = ((name.partition("."), value) for name, value in values.items())
    return [Setting(owner, parameter, value, where) for (owner, _, parameter), value in split]


def _is_one(value: object) -> bool:
    """Whether a setting has one value alone, which no label needs to name."""
    return not isinstance(value, Mapping) and not (isinstance(value, list) and len(value) > 1)


def _content(pipeline: Pipeline) -> object:
    """What a pipeline's file says."""
    steps = [step.as_yaml() for step in pipeline.stages]
    return [pipeline.target, steps, pipeline.gates.model_dump(mode="json"), pipeline.runtime.model_dump(mode="json")]


def _places(options: Options) -> list[object]:
    """When files of a model's and of data's folders were last changed, and their sizes, by which a change is seen."""
    found: list[object] = []
    for word in (options.model, options.data):
        place = Path(word).expanduser() if word else None
        if place is not None and place.exists():
            files = sorted(place.rglob("*")) if place.is_dir() else [place]
            facts = [(path, path.stat()) for path in files]
            found.append([(str(path), each.st_size, each.st_mtime_ns) for path, each in facts])
    return found
