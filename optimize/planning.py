"""From a request to a plan: every refusal that can be made early is made here.

Nothing is downloaded (a Hub id's config and file list aside), exported or trained: names, kinds,
parameters, checkpoint, data columns, hardware and extras are checked, and defaults filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from optimize import tuned
from optimize.cache import open_place
from optimize.config import SECTIONS, Pipeline, load_pipeline
from optimize.data.splits import inspect_data
from optimize.data.wanted import Wanted, name_data
from optimize.errors import RequestError, UnavailableError, unknown_name
from optimize.heads import find_head
from optimize.interfaces import Head, Progress, Target
from optimize.machine.allowance import usable_cores
from optimize.refusals import (
    check_encoding,
    check_libraries,
    check_memory,
    check_numbers,
    check_places,
    check_runs,
    check_shared,
    check_stages,
    check_steps,
    check_target,
    check_threads,
    check_words,
    trains,
)
from optimize.request import DEMO, Options, Request, Setting, kept, settings_of, user_path
from optimize.source.finding import Found, inspect_checkpoint
from optimize.stages import STAGES
from optimize.targets import ANY_TARGET, DEFAULT_TARGET, TARGETS

AUTO = "auto"  # chosen from the candidates of the target's own pipeline; see optimize.choosing
ENGINES = "engines"
"""The pipeline whose candidates are of several targets."""


@dataclass(frozen=True)
class Plan:
    """A request that can be carried out, as far as can be told without doing it.

    Where there is something to choose from, `pipeline` holds the limits and no stages, `candidates` what is to
    be tried, all within those limits, and `left_out` what cannot be built or run here, with the reason. Candidates may
    be of several targets; `target` is the first one's until one is chosen.
    `added_shape` is measured because a limit needs it, though nobody asked for it.
    `cache` is the folder of finished stages, be it a shared cache's copy on this machine.
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
    added_shape: str | None = None
    junit: Path | None = None
    track: str | None = None

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """What is carried out: the candidates, or else the one pipeline."""
        return self.candidates or (self.pipeline,)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that something is built for."""
        return tuple(dict.fromkeys(pipeline.target for pipeline in self.pipelines))

    def of(self, candidate: Pipeline) -> Plan:
        """The plan of one candidate alone."""
        return replace(self, pipeline=candidate, target=TARGETS[candidate.target], candidates=())


def make_plan(
    options: Options,
    pipeline: Pipeline | None = None,
    *,
    built: bool = False,
    like: Plan | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Check a request and fill in its defaults; `pipeline` stands in for the one that options name and set.

    Of one that is `built` already, nothing has to be there that its stages read. `like` is a plan for the same
    checkpoint, data and places, of which nothing is asked again. `progress` hears of it where the Hub lets wait.
    """
    candidates: tuple[Pipeline, ...] = ()
    left_out: dict[str, str] = {}
    check_encoding(options)
    check_words(options)
    pipeline = pipeline or with_options(choose_pipeline(options.target, options.pipeline), options)
    if options.head is not None:
        find_head(options.head)
    check_numbers(options)
    _check_here(options, pipeline, built=built, again=like is not None, progress=progress)
    if not pipeline.stages:
        candidates, left_out = find_candidates(pipeline, options)
    if pipeline.target == ANY_TARGET:
        pipeline = replace(pipeline, target=candidates[0].target, runtime=candidates[0].runtime)
    longest = longest_text(options, (pipeline, *candidates))
    found, head = (like.found, like.head) if like else inspected(options, progress)
    for each in () if built else (pipeline, *candidates):
        check_steps(each, head)
    # Where a device has memory of its own, that is what counts; the demo's sizes are known once it is trained.
    if found.config and not options.build_only and TARGETS[pipeline.target].place is None:
        check_memory(options.shapes, found, head)
    learns = pipeline.search is not None or any(map(trains, (pipeline, *candidates)))
    wanted = wanted_data(options, head, trained=learns)
    revision = like.wanted.revision if like else inspect_data(wanted, head, progress=progress)
    wanted = replace(wanted, revision=revision)
    pipeline = pipeline.for_head(head.name)
    if candidates:
        check_choice(options, pipeline)
    threads = options.threads or (like.request.threads if like else usable_cores())
    added = added_shape(options.shapes, pipeline)
    if added:
        options = replace(options, shapes=(*options.shapes, added))
    return Plan(
        request=make_request(options, pipeline, head, found, wanted, threads=threads),
        pipeline=pipeline,
        target=TARGETS[pipeline.target],
        head=head,
        found=found,
        wanted=wanted,
        out=options.out,
        cache=open_place(options.cache),
        build_only=options.build_only,
        longest=longest,
        candidates=tuple(replace(each, gates=pipeline.gates, head_gates={}) for each in candidates),
        left_out=left_out,
        added_shape=added,
        junit=options.junit,
        track=options.track,
    )


def _check_here(options: Options, pipeline: Pipeline, *, built: bool, again: bool, progress: Progress | None) -> None:
    """Refuse what this machine does not have: cores, places for folders, the shared cache, what the target needs."""
    if not built:  # where the machine that built had more cores, its threads are part of what is measured again
        check_threads(options.threads)
    if not (built or again):
        check_places(options)
    if not again:
        check_shared(options.cache, progress)
    if pipeline.target != ANY_TARGET:
        check_target(pipeline, build_only=options.build_only)


def inspected(options: Options, progress: Progress | None) -> tuple[Found, Head]:
    """The checkpoint that options name, looked at, and what it is for."""
    return inspect_checkpoint(options.model, options.revision, options.head, progress=progress)


def wanted_data(options: Options, head: Head, *, trained: bool) -> Wanted:
    """What is to be read of which data; training examples only where something is `trained`."""
    data, revision = name_data(choose_data(options, head), options.data_revision)
    return Wanted(
        data=data,
        config=options.data_config,
        columns=dict(options.columns),
        certify_on=options.certify_on,
        examples=options.examples,
        calibration_examples=options.calibration_examples,
        tuning_examples=options.tuning_examples,
        seed=options.seed,
        revision=revision,
        training_examples=options.training_examples if trained else 0,
        max_unusable=options.max_unusable,
    )


def choose_pipeline(target: str | None, pipeline: str | None) -> Pipeline:
    """The named pipeline, or the target's own; refuse one that was made for another target.

    Without stages, it is to be chosen from its candidates, as `auto` always is. Where these are of several targets,
    naming one leaves those of that one.
    """
    if target is not None and target not in (*TARGETS, ANY_TARGET):
        raise unknown_name("target", target, (*TARGETS, ANY_TARGET))
    own = ENGINES if target == ANY_TARGET else target or DEFAULT_TARGET
    if pipeline == AUTO:
        return replace(load_pipeline(own), name=AUTO, stages=())
    loaded = load_pipeline(pipeline or own)
    if target is not None and loaded.target == ANY_TARGET != target:
        theirs = tuple(name for name in loaded.candidates if load_pipeline(name).target == target)
        return replace(loaded, target=target, runtime=TARGETS[target].runtime(), candidates=theirs)
    if target is not None and loaded.target != target:
        raise RequestError(
            f"pipeline {loaded.name}: is for target '{loaded.target}', not '{target}'; leave out --target"
        )
    return loaded


def with_options(pipeline: Pipeline, options: Options) -> Pipeline:
    """The pipeline with all that options set of it; refuse what it does not have."""
    settings = settings_of(options)
    # Names are checked before what pipelines have: a misspelt stage deserves its suggestion, whatever is planned.
    for each in settings:
        if each.owner not in STAGES and each.owner not in SECTIONS:
            raise unknown_name(each.where, each.owner, (*STAGES, *SECTIONS))
    if pipeline.stages:
        check_settings(settings, (pipeline,))
    return with_settings(pipeline, settings)


def with_settings(pipeline: Pipeline, settings: Sequence[Setting]) -> Pipeline:
    """The pipeline with those of the settings that it takes.

    What is set of one stage is set at once: some parameters make sense together only.
    """
    grouped: dict[str, list[Setting]] = {}
    for each in settings:
        if pipeline.takes(each.owner):
            grouped.setdefault(each.owner, []).append(each)
    for owner, own in grouped.items():
        values = {each.parameter: each.value for each in own}
        pipeline = pipeline.with_params(owner, values, where=", ".join(dict.fromkeys(each.where for each in own)))
    return pipeline


def check_settings(settings: Sequence[Setting], pipelines: Sequence[Pipeline]) -> None:
    """Refuse to set something that none of the pipelines has."""
    for each in settings:
        if not any(pipeline.takes(each.owner) for pipeline in pipelines):
            names, stages = [], dict[str, None]()
            for pipeline in pipelines:
                names.append(pipeline.name)
                stages |= dict.fromkeys(step.stage for step in pipeline.stages)
            raise RequestError(
                f"{each.where}: pipeline {', '.join(names)} has no stage '{each.owner}', only {', '.join(stages)}; "
                "name one of these, or another pipeline"
            )


def _candidate(pipeline: Pipeline, name: str) -> Pipeline:
    """A pipeline that another one names; refuse one that is for another target, or is to be chosen itself."""
    where = f"pipeline {pipeline.name}: candidate {name}"
    candidate = choose_pipeline(pipeline.target, AUTO) if name == AUTO else load_pipeline(name)
    if pipeline.target not in (candidate.target, ANY_TARGET):
        raise RequestError(f"{where}: is for target '{candidate.target}', not '{pipeline.target}'; name another")
    if not candidate.stages:
        raise RequestError(f"{where}: has no stages of its own; name another")
    return candidate


def find_candidates(pipeline: Pipeline, options: Options) -> tuple[tuple[Pipeline, ...], dict[str, str]]:
    """The candidates that can be built and run here, and the reasons why others cannot; refuse if none can."""
    if not pipeline.candidates:
        raise RequestError(f"--pipeline: target {pipeline.target} has no candidates for 'auto'; name a pipeline")
    if options.build_only:
        first = pipeline.candidates[0]
        raise RequestError(f"--build-only: '{pipeline.name}' has to measure to choose; leave it out or name {first}")
    found: list[Pipeline] = []
    left_out: dict[str, str] = {}
    settings = settings_of(options)
    candidates = [_candidate(pipeline, name) for name in pipeline.candidates]
    if len({TARGETS[each.target].pytorch for each in candidates}) > 1:
        raise RequestError(
            f"pipeline {pipeline.name}: its candidates run on unlike devices, of which each has references of its own; "
            "name those of one"
        )
    # A setting may be of a stage that one of them alone has, or of the search that prunes before them.
    check_settings(settings, [*candidates, pipeline] if pipeline.search else candidates)
    for each in candidates:
        candidate = with_settings(each, settings)
        check_stages(candidate)
        try:
            check_libraries(candidate)
            check_runs(candidate)
        except UnavailableError as error:
            left_out[candidate.name] = str(error)
        else:
            found.append(candidate)
    if not found:
        reasons = " | ".join(f"{name}: {reason}" for name, reason in left_out.items())
        if len(set(left_out.values())) == 1:  # as where the target is missing: no need to say it of each
            (reasons,) = set(left_out.values())
        raise UnavailableError(f"pipeline {pipeline.name}: none of its candidates can be built here: {reasons}")
    return tuple(found), left_out


def longest_text(options: Options, pipelines: Sequence[Pipeline]) -> int | None:
    """The most tokens that all of the pipelines' results take; refuse to be asked for longer texts."""
    limits = [pipeline.max_tokens for pipeline in pipelines]
    longest = min((limit for limit in limits if limit is not None), default=None)
    if longest is not None and (options.max_tokens or 0) > longest:
        raise RequestError(f"--max-tokens: {options.max_tokens} is more than the {longest} that the pipeline fixes")
    return longest


def added_shape(shapes: Sequence[str], pipeline: Pipeline) -> str | None:
    """The shape that is measured without being asked for: where a speed-up is judged, or candidates are compared."""
    shape = pipeline.gates.speedup_shape
    needed = pipeline.gates.min_speedup is not None or not pipeline.stages
    return shape if needed and shape not in shapes else None


def check_choice(options: Options, pipeline: Pipeline) -> None:
    """Refuse to choose among candidates without what they are to be compared by."""
    if not options.tuning_examples:
        raise RequestError(f"--tuning-examples: '{pipeline.name}' has none to choose on; give 1 or more")
    if pipeline.search and not pipeline.gates.limits_answers:
        raise RequestError(
            f"pipeline {pipeline.name}: a search prunes as far as limits on answers let it, and there are none; set "
            "'max_relative_metric_drop', 'max_metric_drop' or 'min_agreement'"
        )


def choose_data(options: Options, head: Head) -> str:
    """The data asked for; the demo's own for the demo; refused otherwise, since nothing would be proven."""
    if options.data is not None:
        if options.data == DEMO and options.model != DEMO and not _learnt_the_demo(options.model):
            raise RequestError("--data: the demo's text does not fit another model; name a folder or a Hub id")
        return options.data
    if options.model == DEMO:
        return DEMO
    roles = " and ".join(role for role in head.dataset[-1] if not role.endswith("?"))
    raise RequestError(f"--data: missing; name a folder or Hub id with {roles} for head '{head.name}'")


def _learnt_the_demo(model: str) -> bool:
    """Whether a checkpoint is one that was tuned on the demo's text."""
    folder = user_path(model, "--model")
    record = tuned.read(folder) if folder.is_dir() else None
    return record is not None and record.asked.data == DEMO


def make_request(
    options: Options, pipeline: Pipeline, head: Head, found: Found, wanted: Wanted, *, threads: int
) -> Request:
    """The request as the manifest keeps it."""
    chosen = {
        "target": pipeline.target,
        "head": head.name,
        "head_code": head.code,
        "revision": found.revision,
        "data": wanted.name,
        "data_revision": wanted.revision,
        "training_examples": wanted.training_examples,
        "threads": threads,
        "pipeline": options.pipeline or pipeline.name,
        "runtime": pipeline.runtime.model_dump(mode="json"),
        "stages": [step.as_yaml() for step in pipeline.stages],
        "gates": pipeline.gates.as_recorded(),
    }
    return Request(**{**kept(options), **chosen})
