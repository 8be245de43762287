"""Pipelines and gates: read them from YAML, and say what is wrong with them.

A pipeline is the target, a list of stages and the limits that the result must meet; in place of
stages, or beside them for `--pipeline auto`, it may name candidates to choose from, and a search that
prunes before them. YAML is checked
against the tables of stages and their closed parameter models, so a misspelt word is refused with the
nearest right one instead of being ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator

from optimize.errors import RequestError, brief, unknown_name
from optimize.files.small import read_yaml
from optimize.gates import Gates
from optimize.heads import HEADS
from optimize.interfaces import Params, Trait, Traits
from optimize.request import user_path
from optimize.stages import STAGES
from optimize.targets import ANY_TARGET, TARGETS

KEYS = ("target", "stages", "candidates", "search", "runtime", "gates", "head_gates")
SECTIONS = ("runtime", "gates", "search")
"""What has parameters in a pipeline besides its stages."""
M = TypeVar("M", bound=BaseModel)
Preference = Literal["latency", "size"]
"""What is to be as small as possible among models that meet all limits."""


@dataclass(frozen=True)
class Step:
    """One stage of a pipeline with its parameters, checked."""

    stage: str
    params: Params

    @property
    def traits(self) -> Traits:
        """What the stage makes of a model with these parameters, and what it refuses."""
        return STAGES[self.stage].traits(self.params)

    def as_yaml(self) -> dict[str, dict[str, Any]]:
        """The step as the YAML would say it, defaults included."""
        return {self.stage: self.params.model_dump(mode="json")}


class Search(Params):
    """How far a model is pruned before its candidates, and how long that may take."""

    prefer: Preference = Field(default="latency", description="What is to be as small as possible within the limits.")
    minutes: float = Field(
        default=45.0,
        gt=0,
        description="How long building may take: pruning, learning and quantizing. Measuring what was found comes on "
        "top, some minutes. `--minutes` sets it.",
    )
    probe_minutes: float = Field(
        default=2.0, gt=0, description="How long a model learns at each budget until it is known which one to stay at."
    )
    budgets: tuple[float, ...] = Field(
        default=(0.6, 0.45, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1),
        description="Shares of the encoder's operations that are tried, falling. Each begins with what the one before "
        "has learnt.",
    )
    vocabulary: bool = Field(
        default=True,
        description="Whether word pieces go that training texts never use, for heads that do not answer in words.",
    )

    @field_validator("budgets")
    @classmethod
    def _fall(cls, budgets: tuple[float, ...]) -> tuple[float, ...]:
        if not budgets or any(not 0 < each < 1 for each in budgets) or list(budgets) != sorted(set(budgets))[::-1]:
            raise ValueError("are shares between 0 and 1, each smaller than the one before, such as [0.5, 0.3]")
        return budgets


@dataclass(frozen=True)
class Pipeline:
    """What to do with a model, and what the result must meet.

    `runtime` are the target's settings that the result runs with. `candidates` are pipelines, by name or
    path, of which the fastest within the limits is taken; of equals the first. Where `target` is ANY_TARGET, they
    may be of several targets. With a `search` they are what is made of each pruned model.
    """

    name: str
    target: str
    stages: tuple[Step, ...]
    gates: Gates
    head_gates: Mapping[str, Gates] = field(default_factory=dict)
    runtime: Params = field(default_factory=Params)
    candidates: tuple[str, ...] = ()
    search: Search | None = None

    def for_head(self, head: str) -> Pipeline:
        """This pipeline with the limits that it sets for a head."""
        return replace(self, gates=self.head_gates.get(head, self.gates))

    def with_runtime(self, values: Mapping[str, object], *, where: str) -> Pipeline:
        """This pipeline with some of the runtime's settings replaced; `where` begins each refusal."""
        return replace(self, runtime=parse_runtime({**self.runtime.model_dump(), **values}, self.target, where=where))

    def takes(self, owner: str) -> bool:
        """Whether there is something to set of `owner`: a stage, the target's `runtime`, or `gates`.

        A stage that may only come first can always be put there.
        """
        if owner == "search":
            return self.search is not None
        if owner in SECTIONS:
            return True
        return bool(self.stages) and (STAGES[owner].first or owner in {step.stage for step in self.stages})

    def with_params(self, owner: str, values: Mapping[str, object], *, where: str) -> Pipeline:
        """This pipeline with parameters replaced of what it `takes`; `where` begins each refusal."""
        if owner == "runtime":
            return self.with_runtime(values, where=where)
        if owner == "search":
            known = self.search.model_dump() if self.search else {}
            return replace(self, search=closed(Search, {**known, **values}, f"{where}: search"))
        if owner == "gates":
            return self._with_gates(values, where=f"{where}: gates")
        steps = list(self.stages)
        if owner not in {step.stage for step in steps}:
            # Parameters without a default come with `values`; nothing is checked before they are there.
            steps.insert(0, Step(owner, STAGES[owner].params.model_construct()))
        for place, step in enumerate(steps):
            if step.stage == owner:
                steps[place] = parse_step({owner: {**step.params.model_dump(), **values}}, where=where)
        stages = tuple(steps)
        check_kinds(stages, TARGETS[self.target].runs, where=where)
        check_traits(stages, where=where)
        return replace(self, stages=stages)

    def _with_gates(self, values: Mapping[str, object], *, where: str) -> Pipeline:
        """This pipeline with some of its limits replaced, for all heads."""

        # Only what was set: a default that is written out would look like a limit that somebody asked for.
        def change(gates: Gates) -> Gates:
            return parse_gates({**gates.model_dump(exclude_unset=True), **values}, self.target, where=where)

        heads = {head: change(gates) for head, gates in self.head_gates.items()}
        return replace(self, gates=change(self.gates), head_gates=heads)

    @property
    def prefers(self) -> Preference:
        """By what one of the candidates is taken."""
        return self.search.prefer if self.search else "latency"

    @property
    def traits(self) -> frozenset[Trait]:
        """What the stages make of the model."""
        return frozenset(trait for step in self.stages for trait in step.traits.makes)

    @property
    def max_tokens(self) -> int | None:
        """The longest text that the result takes, where a stage sets a limit."""
        limits = [STAGES[step.stage].max_tokens(step.params) for step in self.stages]
        return min((limit for limit in limits if limit is not None), default=None)


def pipelines_folder() -> Path:
    """The folder of shipped pipelines: inside the wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent / "pipelines"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "pipelines"


def shipped_pipelines() -> dict[str, Path]:
    """Names of the shipped pipelines and their files."""
    return {path.stem: path for path in sorted(pipelines_folder().glob("*.yaml"))}


def load_pipeline(name: str) -> Pipeline:
    """Load a shipped pipeline by name, or one of the user's by the path of its YAML file."""
    shipped = shipped_pipelines()
    path = user_path(name, "--pipeline") if name.endswith((".yaml", ".yml")) else shipped.get(name)
    if path is None:
        raise unknown_name("pipeline", name, shipped)
    content = read_yaml(path, advice="check --pipeline")
    return parse_pipeline(content, name=path.stem, where=str(path))


def parse_pipeline(content: object, *, name: str, where: str) -> Pipeline:
    """Check a pipeline's content; `where` begins each refusal."""
    if not isinstance(content, dict):
        raise RequestError(f"{where}: a pipeline is a mapping; give it target, stages and gates")
    for key in content:
        if key not in KEYS:
            raise unknown_name(where, str(key), KEYS)
    target = content.get("target")
    if not isinstance(target, str) or target not in (*TARGETS, ANY_TARGET):
        raise unknown_name(f"{where}: target", str(target), (*TARGETS, ANY_TARGET))
    candidates = parse_candidates(content.get("candidates"), where=where)
    steps = parse_stages(content.get("stages"), where=where) if "stages" in content or not candidates else ()
    if steps and target == ANY_TARGET:
        raise RequestError(f"{where}: stages are for one target, not '{target}'; name it, or give candidates alone")
    if steps:
        check_kinds(steps, TARGETS[target].runs, where=where)
        check_traits(steps, where=where)
    search = closed(Search, content["search"], f"{where}: search") if "search" in content else None
    if search and (steps or not candidates):
        raise RequestError(f"{where}: search: prunes what candidates are made of; give candidates, and no stages")
    gates = parse_gates(content.get("gates"), target, where=f"{where}: gates")
    return Pipeline(
        name=name,
        target=target,
        stages=steps,
        gates=gates,
        head_gates=parse_head_gates(content.get("head_gates"), gates, target, where=f"{where}: head_gates"),
        runtime=parse_runtime(content.get("runtime"), target, where=f"{where}: runtime"),
        candidates=candidates,
        search=search,
    )


def parse_stages(content: object, *, where: str) -> tuple[Step, ...]:
    """Check a list of stages."""
    if not isinstance(content, list) or not content:
        raise RequestError(f"{where}: stages is not a list of stages; give at least 'export'")
    return tuple(parse_step(entry, where=where) for entry in content)


def parse_candidates(content: object, *, where: str) -> tuple[str, ...]:
    """Check a list of pipelines' names."""
    names = [] if content is None else content
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError(f"{where}: candidates is not a list of names; write 'candidates: [cpu-static, mine.yaml]'")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise RequestError(f"{where}: candidates: '{brief(name)}' is there twice; leave one out")
    return tuple(names)


def parse_runtime(content: object, target: str, *, where: str) -> Params:
    """Check the settings that a target runs a model with."""
    settings = Params if target == ANY_TARGET else TARGETS[target].runtime
    if content and not settings.model_fields:
        raise RequestError(f"{where}: target {target} has no settings; leave it out")
    return closed(settings, content, where)


def parse_gates(content: object, target: str, *, where: str) -> Gates:
    """Check a mapping of limits."""
    gates = closed(Gates, content, where)
    check_gates(gates, target, where=where)
    return gates


def parse_head_gates(content: object, gates: Gates, target: str, *, where: str) -> dict[str, Gates]:
    """Check limits that replace some of `gates` for single heads."""
    heads = {} if content is None else content
    if not isinstance(heads, Mapping):
        raise RequestError(f"{where}: is not a mapping from heads to limits; write 'fill-mask: {{min_agreement: 0.8}}'")
    found = {}
    for head, limits in heads.items():
        if head not in HEADS:
            raise unknown_name(where, str(head), HEADS)
        if not isinstance(limits, Mapping):
            raise RequestError(f"{where}: {head}: limits are a mapping, not '{brief(limits)}'; write 'limit: value'")
        everything = {**gates.model_dump(exclude_unset=True), **limits}
        found[head] = parse_gates(everything, target, where=f"{where}: {head}")
    return found


def parse_step(entry: object, *, where: str) -> Step:
    """Check one entry of `stages`: a stage's name, or a mapping from it to its parameters."""
    if isinstance(entry, dict) and len(entry) == 1:
        ((stage, params),) = entry.items()
    elif isinstance(entry, str):
        stage, params = entry, {}
    else:
        raise RequestError(f"{where}: '{brief(entry)}' is not a stage; write 'name' or 'name: {{parameter: value}}'")
    if stage not in STAGES:
        raise unknown_name(f"{where}: stages", str(stage), STAGES)
    return Step(stage=stage, params=closed(STAGES[stage].params, params, f"{where}: {stage}"))


def check_kinds(steps: tuple[Step, ...], runs: str, *, where: str) -> None:
    """Refuse stages whose kinds don't line up from a torch checkpoint to what the target runs."""
    kind = "torch"
    for place, step in enumerate(steps):
        if STAGES[step.stage].first and place:
            raise RequestError(f"{where}: '{step.stage}' has to come before all other stages; make it the first")
        if STAGES[step.stage].takes != kind:
            raise RequestError(
                f"{where}: '{step.stage}' takes {STAGES[step.stage].takes} but comes after {kind}; reorder the stages"
            )
        kind = STAGES[step.stage].gives
    if kind != runs:
        raise RequestError(f"{where}: the stages end in {kind} but the target runs {runs}; add the stage that converts")


def check_traits(steps: tuple[Step, ...], *, where: str) -> None:
    """Refuse a stage that cannot take what one before it made of the model."""
    makers: dict[Trait, str] = {}
    for step in steps:
        for trait, advice in step.traits.refuses.items():
            if trait in makers:
                maker = f"another '{step.stage}'" if makers[trait] == step.stage else f"'{makers[trait]}'"
                raise RequestError(
                    f"{where}: '{step.stage}' cannot come after {maker}, whose result is {trait}; {advice}"
                )
        makers |= dict.fromkeys(step.traits.makes, step.stage)


def check_gates(gates: Gates, target: str, *, where: str) -> None:
    """Refuse a speed-up over a reference that is never measured, or at a shape that is none."""
    from optimize.measure.shapes import parse_shape

    references = ["pytorch-fp32"]
    if target != ANY_TARGET:
        references = [*TARGETS[target].pytorch(TARGETS[target].runtime()), f"{target}-fp32"]
    if gates.speedup_over not in references:
        raise unknown_name(f"{where}: speedup_over", gates.speedup_over, references)
    parse_shape(gates.speedup_shape, where=f"{where}: speedup_shape")


def closed(model: type[M], values: object, where: str) -> M:
    """Validate `values`, of which None are the defaults; the first thing wrong becomes one line."""
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise RequestError(f"{where}: parameters are a mapping, not '{brief(values)}'; write 'parameter: value'")
    for key in values:
        if key not in model.model_fields:
            raise unknown_name(where, str(key), model.model_fields)
    try:
        checked = model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = brief(".".join(str(part) for part in first["loc"]))
        problem = brief(first["msg"].removeprefix("Value error, "), 300)
        found = f"; was '{brief(first['input'])}'" if place else ""  # what is wrong with several together has no place
        problem = f"{problem[0].lower()}{problem[1:]}"
        raise RequestError(f"{where}: {f'{place}: ' if place else ''}{problem}{found}") from error
    for name, value in values.items():
        if _became_a_number(value, getattr(checked, name)):
            was = brief(str(value).lower())
            raise RequestError(f"{where}: {name}: true and false are not numbers; write a number; was '{was}'")
    return checked


def _became_a_number(given: object, taken: object) -> bool:
    """Whether a boolean, such as YAML makes of `yes` and `no`, was taken for a number, on its own or within a value."""
    if isinstance(given, bool):
        return not isinstance(taken, bool)
    if isinstance(given, Mapping):
        fields = taken if isinstance(taken, Mapping) else dict(taken) if isinstance(taken, BaseModel) else {}
        return any(_became_a_number(value, fields[name]) for name, value in given.items() if name in fields)
    if isinstance(given, list | tuple) and isinstance(taken, list | tuple):
        return any(map(_became_a_number, given, taken))
    return False
