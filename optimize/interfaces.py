"""The four words of this package: Stage, Target, Head, Context. Read this first.

A stage is a function from one sealed folder to another. A target opens a folder as a session. A
head turns rows of data into feeds and outputs into a score. A context is what a stage may look at
besides its input. All are frozen dataclasses that hold plain functions; nothing is subclassed.

Shapes used throughout: T tokens of one feature, C classes, V vocabulary, D hidden width, N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict

from optimize.artifact import Artifact, Kind
from optimize.gates import Gates
from optimize.request import HeadCode, Reads

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

Array: TypeAlias = "np.ndarray[Any, Any]"
"""Its docstring says what an array holds, where its name does not."""
Feed = dict[str, "Array"]
Session = Callable[[Feed], Feed]
FactRow = dict[str, bool | int | float | str]
Fact = bool | int | float | str | list[FactRow]
Facts = dict[str, Fact]
"""What a stage states about its work: single values, and tables as lists of flat rows."""
Row = dict[str, Any]
Dependence = Literal["cpu_features", "limits", "optimum", "training", "target"]
Stack = Sequence[tuple[int, int]]
"""An encoder's layers by what each has: attention heads and FFN neurons."""
Trait = Literal[
    "sparse",
    "lean",
    "fused",
    "fused with its embedding",
    "quantized",
    "in FP16",
    "of fixed shape",
    "joined to its tokenizer",
]
"""What a stage can make of a model that matters to the stages after it, in words that follow "is"."""


class Params(BaseModel):
    """Parameters of a stage or of a target's runtime, as the pipeline's YAML gives them; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Progress(Protocol):
    """Where long work reports to; the command line draws it, tests ignore it."""

    def step(self, name: str, done: int, total: int) -> None:
        """Say that `done` of `total` units of the work called `name` are done."""

    def say(self, line: str) -> None:
        """Say one line that stays."""


class Silence:
    """Progress that nobody hears of."""

    def step(self, name: str, done: int, total: int) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Feature:
    """One unpadded model input: `inputs` maps names to int64 arrays whose last axis is T."""

    inputs: Feed
    example: int
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """T, the number of tokens."""
        return int(self.inputs["input_ids"].shape[-1])

    @property
    def all_tokens(self) -> int:
        """How many tokens a batch of this feature alone has: those of all its choices together."""
        return int(self.inputs["input_ids"].size)


@dataclass(frozen=True)
class Encoded:
    """Rows made ready for the model; `gold[i]` is what the right answer of example i is.

    `thresholds` are what the head's `fit` found on tuning data; the same for all splits, and for all models. `classes`
    are the names of the classes by id, where answers are such. `rows[i]` is the row that example i was made of;
    without rows, answers are not said in words.
    """

    features: tuple[Feature, ...]
    gold: tuple[Any, ...]
    truncated: int
    thresholds: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()

    def first(self, *, examples: int | None = None, tokens: int | None = None) -> Encoded:
        """The first examples, whole: at most so many, and those that have up to `tokens` tokens together, one at least.

        None is no limit. Where nothing is left out, it is the same object.
        """
        count = len(self.gold) if examples is None else min(examples, len(self.gold))
        total = 0
        for feature in self.features:
            total += feature.all_tokens
            # A text that is too long by itself still has to be looked at: no stage can go by nothing.
            if tokens is not None and total > tokens and feature.example > 0:
                count = min(count, feature.example)
                break
        if count == len(self.gold):
            return self
        features = tuple(feature for feature in self.features if feature.example < count)
        return replace(self, features=features, gold=self.gold[:count], rows=self.rows[:count])


@dataclass(frozen=True)
class Text:
    """How a head turns text into tokens: the checkpoint's tokenizer and config, the limit, and what is put before."""

    tokenizer: Any
    config: Mapping[str, Any]
    max_tokens: int
    prompt: str = ""


@dataclass(frozen=True)
class ClassCounts:
    """What F1 is made of, for each of C classes: `counts` [N, C, 3] are true positives, predicted and gold."""

    names: tuple[str, ...]
    counts: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Score:
    """What a model scored on a split, with enough kept per example to compare two models in pairs.

    `statistics` is [N, k]; `aggregate` turns any selection of its rows into the metric, which is
    what a paired bootstrap needs for metrics that are no mean (F1, Spearman). `right` says per
    example whether the answer was right, where that can be said. `decisions` are compared one by
    one with another model's; where `ordinal`, it is their order that counts, not their values.
    `classes` tells the classes apart, where answers are such.
    """

    metric: str
    statistics: np.ndarray[Any, Any]
    aggregate: Callable[[np.ndarray[Any, Any]], float]
    decisions: np.ndarray[Any, Any]
    right: np.ndarray[Any, Any] | None = None
    ordinal: bool = False
    others: Mapping[str, float] = field(default_factory=dict)
    classes: ClassCounts | None = None

    @property
    def value(self) -> float:
        """The metric on all examples."""
        return self.aggregate(self.statistics)


@dataclass(frozen=True)
class Said:
    """What a model said of one example beside the right answer, in words that users know: labels, spans, tags.

    `confidence` is from 0 to 1, None where an answer has none. `decisions` are, of each class that was chosen for the
    example or for its words, how sure the model was and whether it is the right one.
    """

    answer: str
    gold: str
    confidence: float | None = None
    decisions: tuple[tuple[float, bool], ...] = ()


@dataclass(frozen=True)
class Fit:
    """What a head has to fix on tuning data before it decides anything, such as from which score on an answer counts.

    `needed(encoded)` says whether such data need it. `thresholds(encoded, answers)` finds it, by names, from the
    FP32 reference's answers; `score` reads it from `Encoded.thresholds`.
    """

    needed: Callable[[Encoded], bool]
    thresholds: Callable[[Encoded, Sequence[Any]], dict[str, float]]


Layout = Mapping[str, tuple[str, ...]]
"""One convention of naming columns: for each role the column names that may hold it."""


@dataclass(frozen=True)
class Head:
    """What a model is for.

    `faults(rows, config)` says by index what is wrong with rows, beside the checkpoint's config, and what to do
    about it; `encode(rows, text)` tokenizes, and refuses rows that have faults. `read(feature, outputs)` picks from
    one feature's unpadded outputs the rows that decide, [decisions, width]. `decide(feature, rows)` boils them down
    to what `score(encoded, answers)` needs, so that a whole split never holds all logits in memory.
    `constants(encoded)` gives the answers that score best of those that are the same whatever the text says.
    `aggregates` has by name of metric what `Score.aggregate` is, for scores that are read from a finished run.
    `say(encoded, answers, sure)` puts answers into words, one for each example, and gives none where answers are no
    words; `sure[i]` holds the softmax of the likeliest class in each row of feature i, where rows are logits.
    `fit` is for heads whose decisions need thresholds that the model does not bring along; None for the others.
    `dataset` lists column layouts in the order in which they are tried; a role that ends in "?"
    may be absent. `labels` names the role that holds labels; `scoring(rows, config)` says how answers are scored where
    that depends on these, and is empty where it does not.

    `axes` are those of the model's inputs, of which "choices" is one where an example is several texts at a time.
    With `takes_pairs` every text has a second one beside it. With `answers_in_words` classes are the vocabulary's
    entries, so it has to stay whole. `max_tokens` is what the task's texts are cut to by custom, where tokenizer and
    model take more. `activations` counts those of the head itself, beside one a layer. `example` are texts that a
    tokenizer is called with to show the model: one, or two that belong together, or a text and its choices.

    `auto_class` is a name such as "AutoModelForMaskedLM", or a class that transformers has not. `code` says of a head
    of the user's own where that is.
    """

    name: str
    auto_class: str | type[PreTrainedModel]
    outputs: tuple[str, ...]
    reads: Reads
    rows_are: Literal["logits", "values", "vectors"]
    dataset: tuple[Layout, ...]
    metric: str
    weights: tuple[str, ...]
    faults: Callable[[Sequence[Row], Mapping[str, Any]], Mapping[int, str]]
    encode: Callable[[Sequence[Row], Text], Encoded]
    read: Callable[[Feature, Feed], np.ndarray[Any, Any]]
    decide: Callable[[Feature, np.ndarray[Any, Any]], Any]
    score: Callable[[Encoded, Sequence[Any]], Score]
    constants: Callable[[Encoded], Iterable[Sequence[Any]]]
    aggregates: Mapping[str, Callable[[np.ndarray[Any, Any]], float]] = field(default_factory=dict)
    say: Callable[[Encoded, Sequence[Any], Sequence[np.ndarray[Any, Any]]], list[Said]] = lambda *_: []
    fit: Fit | None = None
    labels: str | None = None
    scoring: Callable[[Sequence[Row], Mapping[str, Any]], str] = lambda *_: ""
    max_tokens: int | None = None
    axes: tuple[str, ...] = ("batch", "sequence")
    takes_pairs: bool = False
    answers_in_words: bool = False
    activations: int = 0
    example: tuple[str, ...] = ("A sentence.",)
    code: HeadCode | None = None

    @property
    def has_choices(self) -> bool:
        """Whether an example is several texts at a time, one for each choice."""
        return "choices" in self.axes

    @property
    def architecture(self) -> str:
        """The class name that a DistilBERT checkpoint with this head has in its config."""
        if isinstance(self.auto_class, type):
            return self.auto_class.__name__
        return "DistilBert" + (self.auto_class.removeprefix("AutoModel") or "Model")

    @property
    def key(self) -> str:
        """What results depend on: the name, and the code of a head of the user's own."""
        return self.name if self.code is None else f"{self.name} {self.code.digest}"


@dataclass(frozen=True)
class Context:
    """What a stage may look at besides its input. The certification split is not in here.

    `open` opens a model folder of the given kind on this machine's CPU, for checks of numerics. `retokenize` gives the
    tuning data as the tokenizer of another folder splits them; where that is not said, none.
    `limits` are what the pipeline sets for accuracy; the others are not a stage's business.
    `training` is empty unless the stage says that it depends on it. `scratch` is a folder for what long work must not
    lose when it is killed; the same work finds it again, and it goes once the work is done. None: nothing is kept.

    `time_stacks` measures on the target, at so many tokens, the median seconds that models take whose layers have such
    sizes, and that are like the reference otherwise. It is for stages that depend on "target".
    """

    head: Head
    reference: Artifact
    calibration: Encoded
    tuning: Encoded
    training: Encoded
    limits: Gates
    seed: int
    threads: int
    cpu_features: tuple[str, ...]
    progress: Progress
    open: Callable[[Kind, Path], Session]
    time_stacks: Callable[[Sequence[Stack], int], list[float]]
    scratch: Path | None = None
    retokenize: Callable[[Path], Encoded] = lambda _: Encoded((), (), 0)


@dataclass(frozen=True)
class Traits:
    """What a stage makes of a model, and what the model must not be before it: each with what to do about that."""

    makes: frozenset[Trait] = frozenset()
    refuses: Mapping[Trait, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline; `needs` names the distributions whose versions shape its output.

    `depends` tells of its parameters what of the context shapes it besides the input, calibration and tuning data.
    `max_tokens` tells of them the longest text that its output takes, where it sets a limit of its own, and `traits`
    what it makes of a model and which models it refuses, by what stages before it made of them.
    `reads` are parameters that name files or folders, whose content shapes the output and whose place does not.
    `refuses` says of parameters and a head why they do not go together, or None. Where `first`, no stage may come
    before.
    """

    run: Callable[[Artifact, Path, Any, Context], Facts]
    params: type[Params]
    takes: Kind
    gives: Kind
    needs: tuple[str, ...]
    summary: str
    depends: Callable[[Any], frozenset[Dependence]] = lambda _: frozenset()
    max_tokens: Callable[[Any], int | None] = lambda _: None
    traits: Callable[[Any], Traits] = lambda _: Traits()
    reads: tuple[str, ...] = ()
    refuses: Callable[[Any, Head], str | None] = lambda *_: None
    first: bool = False


@dataclass(frozen=True)
class Target:
    """Where a model runs.

    `reference` is the pipeline, as (stage, params) pairs, that gives this target's own FP32
    reference: the plain conversion, without any optimization of ours. `runtime` are the settings
    that a model is run with there (`Params` where there are none), and `reference_runtime` those of
    them that the reference does not take from the pipeline. Of such settings, `unavailable` says why
    they cannot be had here, or None, and `describe` what they give: the device and what it can do.
    `open` takes a model folder, threads, the head and the settings. `pytorch` are the settings of PyTorch as it would
    be used there, by the names that they are measured under; "pytorch-fp32", the reference of all, is among them.

    `numerics` are settings under which any machine computes what the target would, so that a model can be judged by its
    answers where the target is absent. `refuses` says which of a pipeline's steps make nothing that runs well there,
    and why. Where a device has memory of its own, `place` puts a feed there, from which sessions run without a copy,
    and `memory` says how many bytes of it are in use.

    `library` is what the reference runs in, as tables of results name it. `calibrators` and `calibration_samples` are
    what the benchmark of calibration compares there: names of measure/calibration_memory, and numbers of texts.
    """

    name: str
    runs: Kind
    extra: str
    needs: tuple[str, ...]
    reference: tuple[tuple[str, Mapping[str, Any]], ...]
    unavailable: Callable[[Any], str | None]
    open: Callable[[Path, int, Head, Any], Session]
    pytorch: Callable[[Any], Mapping[str, Params]]
    summary: str
    library: str
    calibrators: tuple[str, ...]
    calibration_samples: tuple[int, ...]
    runtime: type[Params] = Params
    reference_runtime: Mapping[str, Any] = field(default_factory=dict)
    describe: Callable[[Any], dict[str, str]] = lambda _: {}
    numerics: Mapping[str, object] = field(default_factory=dict)
    refuses: Callable[[Sequence[tuple[str, Params]], Any], str | None] = lambda *_: None
    place: Callable[[Feed, Any], Feed] | None = None
    memory: Callable[[Any], int | None] | None = None
