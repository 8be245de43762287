"""A staged optimization and quantization pipeline for DistilBERT: its Python API.

    import optimize

    options = optimize.Options(model="my-checkpoint", data="my-data", pipeline="cpu-static")
    done = optimize.run(options)
    print(done.manifest.verdict.outcome, done.folder)

    model = optimize.load(done.folder)
    print(model("A text."))

All that is heavy is imported by the functions that need it, so that importing this package takes milliseconds. Errors
are those of `optimize.errors`; each has the exit code that the command line would end with.

Import it before onnxruntime, datasets and their like: it turns off what they report of their use, as
`optimize.machine.privacy` says, and what some log though nothing is wrong, as `optimize.machine.noise` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from optimize.errors import OptimizeError
from optimize.machine.noise import hush
from optimize.machine.privacy import report_nothing
from optimize.request import Options

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from optimize.compared import Comparison, Regression
    from optimize.comparing.regressions import Tolerances
    from optimize.interfaces import Progress
    from optimize.manifest import Manifest
    from optimize.planning import Plan
    from optimize.publishing.publish import Published
    from optimize.publishing.verifying import Finding
    from optimize.sweep.front import Wanted
    from optimize.swept import Swept
    from optimize.tuned import Tuned
    from optimize.using.model import Model

__all__ = [
    "OptimizeError",
    "Options",
    "Run",
    "TunedCheckpoint",
    "accept",
    "certify",
    "compare",
    "load",
    "load_model",
    "pick",
    "plan",
    "publish",
    "regress",
    "run",
    "sweep",
    "track",
    "tune",
    "verify",
]
__version__ = "0.1.0"

report_nothing()
hush()


class Run(NamedTuple):
    """A finished run: its folder (model, report, scores, `manifest.json`), and the manifest, as it was read."""

    folder: Path
    manifest: Manifest


def plan(options: Options, *, progress: Progress | None = None) -> Plan:
    """Check a request and fill in its defaults, without doing anything.

    `plan(options).request` is what a run's manifest would say was asked for. `progress` hears of it where the Hub lets
    wait. Raises RequestError where the request
    cannot be met as it is, and UnavailableError where this machine lacks something.
    """
    from optimize.planning import make_plan

    return make_plan(options, progress=progress)


def run(request: Options | Plan, *, progress: Progress | None = None) -> Run:
    """Build, measure and judge a model; the run's folder lies in `Options.out`.

    A model that misses a limit raises nothing: look at `manifest.verdict.outcome`, one of "passed", "failed" and
    "unverified". `progress` hears of steps, in units that are done and in total; without it, nothing is shown. Raises
    what `plan` does, and StageError where a stage cannot do its work.
    """
    from optimize.delivering import deliver
    from optimize.interfaces import Silence
    from optimize.running import run as carry_out

    made = plan(request, progress=progress) if isinstance(request, Options) else request
    done = Run(*carry_out(made, progress=progress or Silence()))
    deliver([done], junit=made.junit, track=made.track)
    return done


def sweep(
    file: str | Path,
    *,
    on: str | None = None,
    jobs: int = 1,
    resume: bool = False,
    out: str | Path = "reports/sweeps",
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> Swept:
    """Try many models by many pipelines, as a YAML file says, and certify the best of each model and target.

    The sweep's folder, of the file's name, lies in `out`; what it gives is what `sweep.json` there says. It works in so
    many processes, `jobs`, or `on` "ray", "ray:auto", "ray:HOST:PORT" or "ray://HOST:PORT". With `resume`, a sweep that
    is there goes on. Points that fail raise nothing: look at `trials`. Raises RequestError where the file is not
    understood. Processes are started, so a script has to call this below `if __name__ == "__main__"`.
    """
    from optimize.interfaces import Silence
    from optimize.sweep.pools import opener
    from optimize.sweep.sweeping import plan_sweep
    from optimize.sweep.sweeping import sweep as carry_out

    shown = progress or Silence()
    planned = plan_sweep(Path(file), out=Path(out), cache=cache, resume=resume, progress=shown)
    opened, packed = opener(on, jobs=jobs, threads=planned.matrix.options.get("threads"), progress=shown)
    return carry_out(planned, opened, watch=lambda _: None, packed=packed)


def pick(
    folder: str | Path,
    wanted: Wanted | None = None,
    *,
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> Run:
    """The run to publish of a sweep: of its best point that is as `wanted`, certified now if it is not yet.

    `wanted` is of `optimize.sweep.front`: model, target, limits, and what is preferred. Raises RequestError where no
    point is as wanted.
    """
    from optimize import manifest
    from optimize.interfaces import Silence
    from optimize.sweep.front import Wanted as Anything
    from optimize.sweep.picking import pick as choose

    _, place = choose(Path(folder), wanted or Anything(), cache=cache, progress=progress or Silence())
    return Run(place, manifest.read(place))


class TunedCheckpoint(NamedTuple):
    """What a search over fine-tunings chose: the folder of its checkpoint, and its record, `tuning.json`, as read."""

    folder: Path
    record: Tuned


def tune(
    options: Options, *, trials: int | None = None, on: str | None = None, progress: Progress | None = None
) -> TunedCheckpoint:
    """Fine-tune a checkpoint for `Options.head` with a search over hyperparameters; the best lies in `Options.out`.

    `settings` may hold `tune.…`. Give `training_examples` and `tuning_examples`, whose defaults are what stages need.
    `on` is "ray" or "ray:ADDRESS". A search that was killed goes on where it was. Raises RequestError where the request
    cannot be met as it is, UnavailableError where a library or a cluster is missing, and StageError where no trial can
    be chosen.
    """
    from optimize.interfaces import Silence
    from optimize.tuning.plan import plan_tuning
    from optimize.tuning.tune import tune as carry_out

    plan = plan_tuning(options, trials=trials, on=on, progress=progress)
    return TunedCheckpoint(*carry_out(plan, progress=progress or Silence()))


def certify(
    folder: str | Path,
    *,
    model: str | None = None,
    data: str | None = None,
    head: str | None = None,
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Measure and judge a finished run's model again on this machine, without building it; its manifest is replaced.

    `model` and `data` say where the checkpoint and the data lie here, if not where they were. `head` is the FILE:NAME
    of a head of your own that it was judged with; its code is run. `cache` is as in `Options`. Raises RequestError
    where model, checkpoint, data or head are not those of the run.
    """
    from optimize.certifying import certify as measure_again
    from optimize.interfaces import Silence

    places = {"model": model, "data": data, "head": head}
    return Run(*measure_again(Path(folder), **places, cache=cache, progress=progress or Silence()))


def compare(*folders: str | Path) -> Comparison:
    """Hold the first of two or more finished runs against each of the others, by example where data are the same.

    What cannot be compared is None, with the reason beside it. Raises RequestError where a folder holds no run.
    """
    from optimize.comparing.side_by_side import compare_runs

    return compare_runs([Path(folder) for folder in folders])


def accept(folder: str | Path, baselines: str | Path, *, name: str | None = None, any_verdict: bool = False) -> Path:
    """Keep a finished run's manifest and scores in `baselines`, for later ones to be held against; gives their folder.

    `name` is the baseline's; left out, it is made of model, head, target and pipeline. Raises RequestError where the
    run did not pass, unless `any_verdict`, and where the name is taken by another question.
    """
    from optimize.comparing.baselines import accept as keep

    return keep(Path(folder), Path(baselines), name=name, any_verdict=any_verdict)


def regress(
    folder: str | Path, baselines: str | Path, *, name: str | None = None, tolerances: Tolerances | None = None
) -> Regression:
    """Say what got worse in a finished run since the accepted one of its question, and at which stage.

    Writes `regression.json` and the report into the run. `outcome` is "passed", "failed" or, where something could not
    be compared, "unverified". `tolerances` are those of `optimize.comparing.regressions`. Raises RequestError where
    there is no such baseline.
    """
    from optimize.comparing.regressions import USUAL
    from optimize.comparing.regressions import regress as hold_against

    return hold_against(Path(folder), Path(baselines), name=name, tolerances=tolerances or USUAL)


def track(*folders: str | Path, to: str) -> list[str]:
    """Record finished runs in a tracker, as `Options.track` does at once; where each is.

    `to` is "mlflow" or "mlflow:URI". Raises RequestError where a run does not come out of its measurements as it says,
    and UnavailableError where the tracker is not there.
    """
    from optimize.delivering import track_runs

    return [where for _, where in track_runs([Path(folder) for folder in folders], to)]


def load(where: str | Path, *, threads: int | None = None, allow_overflow: bool = False) -> Model:
    """A finished run's model as a callable that answers as transformers.pipeline does; needs neither it nor PyTorch.

    `where` is a run's folder, a publication, or the address of one. `threads` are the cores that this process has,
    unless it says otherwise. Raises RequestError where the folder is not what its manifest says, and UnavailableError
    where this machine lacks the runtime, or would overflow the sums of a model whose INT8 weights use all 8 bits;
    `allow_overflow` lets that pass.
    """
    from optimize.using.opening import load as open_model

    return open_model(where, threads=threads, allow_overflow=allow_overflow)


def publish(
    folder: str | Path | Sequence[str | Path],
    destination: str,
    *,
    layout: str = "optimum",
    replace: bool = False,
    unverified: bool = False,
    sign_key: Path | None = None,
    public: bool = False,
    pull_request: bool = False,
    message: str | None = None,
    progress: Progress | None = None,
) -> Published:
    """Judge a finished run again and put its publication at a path or an address; where it is, and its files' SHA-256.

    Several run folders of one checkpoint are put into one publication, as its variants. `layout` is for whom its files
    are arranged, `replace` lets other content there go, `unverified` takes a run that is so, and `sign_key` is a
    private key in PEM. `public`, `pull_request` and `message` are for a repository of the Hub. Raises RequestError
    where a run has not passed or the destination has other content, and UnavailableError where it cannot be reached.
    """
    from optimize.publishing.destinations.interface import Terms
    from optimize.publishing.publish import publish as put

    terms = Terms(replace=replace, public=public, pull_request=pull_request, message=message)
    runs = [folder] if isinstance(folder, str | Path) else folder
    return put(
        list(map(Path, runs)),
        destination,
        terms,
        layout=layout,
        unverified=unverified,
        sign_key=sign_key,
        progress=progress,
    )


def verify(where: str, *, key: Path | None = None, progress: Progress | None = None) -> list[Finding]:
    """What is proven of the publication at a path or an address, each thing "proven", "not proven" or "wrong".

    `key` is the public key of who is to have signed it. Raises RequestError where its files are not what its checksums
    say, and UnavailableError where it cannot be reached.
    """
    from optimize.publishing.verifying import verify as check

    return check(where, key=key, progress=progress)


def load_model(folder: str | Path, auto_class: str | None = None, **options: object) -> PreTrainedModel:
    """The PyTorch model of a checkpoint's folder, pruned or not, such as the `checkpoint` of a run.

    `auto_class` is a name such as "AutoModel"; without it, the class is the one that the config names. `options` go to
    transformers' `from_pretrained`. Raises SourceError where the folder's config makes no sense.
    """
    from optimize.checkpoint import load_model as load

    model: PreTrainedModel = load(folder, auto_class, **options)
    return model
