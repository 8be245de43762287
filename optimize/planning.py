"""From a request to a plan: every refusal that can be made early is made here.

Nothing is downloaded (a Hub id's config and file list aside), exported or trained: names, kinds,
parameters, checkpoint, data columns, hardware and extras are checked, and defaults filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from optimize.config import Pipeline, load_pipeline
from optimize.data.splits import Wanted, inspect_data
from optimize.environment import cache_root, usable_cores
from optimize.errors import RequestError, UnavailableError, unknown_name
from optimize.heads import HEADS
from optimize.interfaces import Head, Target
from optimize.manifest import Request
from optimize.measure.shapes import DEFAULT_SHAPES, parse_shape
from optimize.source.acquire import Found, inspect_checkpoint
from optimize.stages import STAGES
from optimize.targets import DEFAULT_TARGET, TARGETS

DEMO = "demo"
AUTO = "auto"  # chosen from the candidates of the target's own pipeline; see optimize.choosing
LEAST = {
    "examples": 1,
    "calibration_examples": 1,
    "tuning_examples": 0,
    "training_examples": 1,
    "max_tokens": 8,
    "threads": 1,
    "seed": 0,
}
"""Fewer tokens than eight leave no text between the special tokens of a pair; NumPy takes no seed below zero."""


@dataclass(frozen=True)
class Options:
    """What a user may ask for; None means: choose sensibly."""

    target: str | None = None
    head: str | None = None
    model: str = DEMO
    revision: str | None = None
    data: str | None = None
    data_config: str | None = None
    data_revision: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    certify_on: str | None = None
    examples: int = 4000
    calibration_examples: int = 256
    tuning_examples: int = 512
    training_examples: int = 4000
    max_tokens: int | None = None
    shapes: tuple[str, ...] = DEFAULT_SHAPES
    threads: int | None = None
    pipeline: str | None = None
    runtime: Mapping[str, object] = field(default_factory=dict)
    device: str | None = None
    budget: float | None = None
    fastest_within: float | None = None
    vocabulary: str | None = None
    seed: int = 0
    out: Path = Path("reports/runs")
    cache: Path | None = None
    build_only: bool = False


@dataclass(frozen=True)
class Plan:
    """A request that can be carried out, as far as can be told without doing it.

    Where there is something to choose from, `pipeline` holds the limits and no stages, `candidates` what is to
    be tried, all within those limits, and `left_out` what cannot be built or run here, with the reason.
    `longest` is the most tokens that what is built takes, where it takes fewer than the checkpoint.
    """

    request: Request
    pipeline: Pipeline
    target: Target
    head: Head
    found: Found
    wanted: Wanted
    out: Path
    cache: Path
    build_only: bool
    longest: int | None = None
    candidates: tuple[Pipeline, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def make_plan(options: Options, pipeline: Pipeline | None = None, *, built: bool = False) -> Plan:
    """Check a request and fill in its defaults; `pipeline` stands in for the one that options name.

    Of one that is `built` already, nothing has to be there that its stages read.
    """
    candidates: tuple[Pipeline, ...] = ()
    left_out: dict[str, str] = {}
    pipeline = with_options(pipeline or choose_pipeline(options.target, options.pipeline), options)
    if options.head is not None and options.head not in HEADS:
        raise unknown_name("head", options.head, HEADS)
    check_numbers(options)
    check_stages(pipeline)
    check_libraries(pipeline)
    if not options.build_only or measures(pipeline):
        check_runs(pipeline)
    if not pipeline.stages:
        candidates, left_out = find_candidates(pipeline, options)
    longest = longest_text(options, (pipeline, *candidates))
    found, head = inspect_checkpoint(options.model, options.revision, options.head)
    for each in () if built else (pipeline, *candidates):
        check_steps(each, head)
    wanted = Wanted(
        data=choose_data(options, head),
        config=options.data_config,
        columns=dict(options.columns),
        certify_on=options.certify_on,
        examples=options.examples,
        calibration_examples=options.calibration_examples,
        tuning_examples=options.tuning_examples,
        seed=options.seed,
        revision=options.data_revision,
        training_examples=options.training_examples if any(map(trains, (pipeline, *candidates))) else 0,
    )
    wanted = replace(wanted, revision=inspect_data(wanted, head))
    pipeline = pipeline.for_head(head.name)
    if candidates:
        check_choice(options, pipeline)
    return Plan(
        request=make_request(options, pipeline, head, found, wanted),
        pipeline=pipeline,
        target=TARGETS[pipeline.target],
        head=head,
        found=found,
        wanted=wanted,
        out=options.out,
        cache=options.cache or cache_root(),
        build_only=options.build_only,
        longest=longest,
        candidates=tuple(replace(each, gates=pipeline.gates, head_gates={}) for each in candidates),
        left_out=left_out,
    )


def choose_pipeline(target: str | None, pipeline: str | None) -> Pipeline:
    """The named pipeline, or the target's own; refuse one that was made for another target.

    Without stages, it is to be chosen from its candidates, as `auto` always is.
    """
    if target is not None and target not in TARGETS:
        raise unknown_name("target", target, TARGETS)
    if pipeline == AUTO:
        return replace(load_pipeline(target or DEFAULT_TARGET), name=AUTO, stages=())
    loaded = load_pipeline(pipeline or target or DEFAULT_TARGET)
    if target is not None and loaded.target != target:
        raise RequestError(
            f"pipeline {loaded.name}: is for target '{loaded.target}', not '{target}'; leave out --target"
        )
    return loaded


def with_options(pipeline: Pipeline, options: Options) -> Pipeline:
    """The pipeline with the runtime's settings, the vocabulary, and what is to be kept of the encoder, as asked for."""
    asked = {**options.runtime, **({} if options.device is None else {"device": options.device})}
    where = "--runtime" if options.device is None else "--device"
    if asked:
        pipeline = pipeline.with_runtime(asked, where=where)
    if options.budget is not None and options.fastest_within is not None:
        raise RequestError("--budget: --fastest-within looks for the budget; give one of the two")
    for name in ("budget", "fastest_within"):
        if (value := getattr(options, name)) is not None:
            pipeline = pipeline.with_param(name, value, where=f"--{name.replace('_', '-')}")
    if options.vocabulary is not None:
        pipeline = pipeline.with_vocabulary(options.vocabulary, where="--vocabulary")
    return pipeline


def find_candidates(pipeline: Pipeline, options: Options) -> tuple[tuple[Pipeline, ...], dict[str, str]]:
    """The candidates that can be built and run here, and the reasons why others cannot; refuse if none can."""
    if not pipeline.candidates:
        raise RequestError(f"--pipeline: target {pipeline.target} has no candidates for 'auto'; name a pipeline")
    if options.build_only:
        first = pipeline.candidates[0]
        raise RequestError(f"--build-only: '{pipeline.name}' has to measure to choose; leave it out or name {first}")
    found: list[Pipeline] = []
    left_out: dict[str, str] = {}
    for name in pipeline.candidates:
        candidate = with_options(choose_pipeline(pipeline.target, name), options)
        if not candidate.stages:
            raise RequestError(f"pipeline {pipeline.name}: candidate {name} has no stages of its own; name another")
        check_stages(candidate)
        try:
            check_libraries(candidate)
            check_runs(candidate)
        except UnavailableError as error:
            left_out[candidate.name] = str(error)
        else:
            found.append(candidate)
    if not found:
        shared = set(left_out.values())
        told = shared if len(shared) == 1 else [f"{name}: {reason}" for name, reason in left_out.items()]
        reasons = " | ".join(told)
        raise UnavailableError(f"pipeline {pipeline.name}: none of its candidates can be built here: {reasons}")
    return tuple(found), left_out


def longest_text(options: Options, pipelines: Sequence[Pipeline]) -> int | None:
    """The most tokens that all of the pipelines' results take; refuse to be asked for longer texts."""
    limits = [pipeline.max_tokens for pipeline in pipelines]
    longest = min((limit for limit in limits if limit is not None), default=None)
    if longest is not None and (options.max_tokens or 0) > longest:
        raise RequestError(f"--max-tokens: {options.max_tokens} is more than the {longest} that the pipeline fixes")
    return longest


def check_choice(options: Options, pipeline: Pipeline) -> None:
    """Refuse to choose among candidates without what they are to be compared by."""
    if not options.tuning_examples:
        raise RequestError(f"--tuning-examples: '{pipeline.name}' has none to choose on; give 1 or more")
    if (shape := pipeline.gates.speedup_shape) not in options.shapes:
        raise RequestError(f"--shapes: lacks {shape}, where '{pipeline.name}' compares its candidates; add it")


def check_numbers(options: Options) -> None:
    """Refuse counts that make no sense."""
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise RequestError(f"--{name.replace('_', '-')}: {value} is too few; give {least} or more")
    if not options.shapes:
        raise RequestError("--shapes: names no shape; write for instance 1x128,data")
    for shape in options.shapes:
        parse_shape(shape, where="--shapes")


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
    for step in pipeline.stages:
        if reason := STAGES[step.stage].refuses(step.params, head):
            raise RequestError(f"stage {step.stage}: {reason}")


def check_libraries(pipeline: Pipeline) -> None:
    """Refuse where a stage's libraries are not installed."""
    from optimize.environment import version

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


def choose_data(options: Options, head: Head) -> str:
    """The data asked for; the demo's own for the demo; refused otherwise, since nothing would be proven."""
    if options.data is not None:
        if options.data == DEMO and options.model != DEMO:
            raise RequestError("--data: the demo's text does not fit another model; name a folder or a Hub id")
        return options.data
    if options.model == DEMO:
        return DEMO
    roles = " and ".join(role for role in head.dataset[-1] if not role.endswith("?"))
    raise RequestError(f"--data: missing; name a folder or Hub id with {roles} for head '{head.name}'")


def make_request(options: Options, pipeline: Pipeline, head: Head, found: Found, wanted: Wanted) -> Request:
    """The request as the manifest keeps it."""
    return Request(
        target=pipeline.target,
        head=head.name,
        model=options.model,
        revision=found.revision,
        data=wanted.data,
        data_config=wanted.config,
        columns=dict(wanted.columns),
        certify_on=wanted.certify_on,
        examples=wanted.examples,
        calibration_examples=wanted.calibration_examples,
        tuning_examples=wanted.tuning_examples,
        max_tokens=options.max_tokens,
        shapes=list(options.shapes),
        threads=options.threads or usable_cores(),
        pipeline=options.pipeline or pipeline.name,
        runtime=pipeline.runtime.model_dump(mode="json"),
        stages=[step.as_yaml() for step in pipeline.stages],
        gates=pipeline.gates.model_dump(exclude_none=True),
        seed=options.seed,
        data_revision=wanted.revision,
        training_examples=wanted.training_examples,
        budget=options.budget,
        fastest_within=options.fastest_within,
        vocabulary=options.vocabulary,
    )
