"""Structured pruning: whole attention heads and FFN neurons go, without any training; what is left makes up for them.

Layers come out really smaller, so the model is faster on every runtime and needs no kernel of its own; block or
single-weight sparsity would. Three steps, minutes on two cores:

- one backward pass over texts tells what heads and neurons mean for the answers, labels or not
  (`_pruning_evidence`);
- a search keeps those that matter most within a budget of the encoder's operations. `search: compensated` counts on
  what the rest can make up for (`_pruning_compensation`); `rearranged` and `fisher` are the searches of Kwon et al.
  (2022, arXiv 2204.09656), with and without their rearrangement (`_pruning_masks`);
- the maps that join what is left are fitted to the dense model's layers by least squares (`_pruning_refit`).

What is written is an ordinary FP32 checkpoint but for `pruned_layers` in its config; `optimize.load_model` loads it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from optimize.artifact import Artifact
from optimize.checkpoint import load_model
from optimize.errors import StageError
from optimize.interfaces import Context, Encoded, Facts, Stage
from optimize.interfaces import Params as StageParams
from optimize.quantization.judge import Judge, Loss, make_judge
from optimize.stages._distillation import Batch, answers_of
from optimize.stages._pruning_compensation import keep_within, take_apart
from optimize.stages._pruning_costs import Costs, Measure, Wanted, count_bytes, count_operations
from optimize.stages._pruning_evidence import Evidence, gather
from optimize.stages._pruning_loss import Row, lost
from optimize.stages._pruning_masks import rearrange, search_masks
from optimize.stages._pruning_refit import refit
from optimize.stages._pruning_sites import Site, find_sites, remove
from optimize.stages._pruning_times import Table, measure_times
from optimize.stages._training import first_examples, make_batches, reproducible, session_of


class Params(StageParams):
    """`budget` is the share to keep of what the encoder takes: its operations, its latency at 1 x `tokens` as measured
    on the target (which takes minutes), or its size, as `measure` says. `fastest_within` looks for the smallest budget
    that costs no more than so much of the metric, relative to the reference's, on tuning data; `budget` is then not
    looked at. `readout_slice` counts the last layer as `export` with that parameter leaves it, where the head reads
    one token.

    Neurons are kept in multiples of `neuron_multiple` in each layer, which kernels like. `tune: masks` rescales what
    is left, `weights` fits whole maps; `ridge` holds them back, relative to the mean square of what they read. At
    most `sample_tokens` tokens of calibration data are used, without labels, and `tuning_tokens` of tuning data for
    what facts say of the loss. More texts than quantization needs pay: some 2,000 of a sentence each.
    """

    budget: float = Field(default=0.6, gt=0, le=1)
    measure: Measure = "flops"
    tokens: int = Field(default=128, ge=1)
    fastest_within: float | None = Field(default=None, ge=0, lt=1)
    readout_slice: bool = False
    neuron_multiple: int = Field(default=16, ge=1)
    search: Literal["compensated", "rearranged", "fisher"] = Field(default="compensated", validate_default=True)
    tune: Literal["weights", "masks", "none"] = "weights"
    ridge: float = Field(default=0.03, gt=0)
    sample_tokens: int = Field(default=32_768, ge=1)
    batch_tokens: int = Field(default=2048, ge=1)
    tuning_tokens: int = Field(default=32_768, ge=1)

    @field_validator("search")
    @classmethod
    def _knows_what_costs_differ(cls, search: str, info: ValidationInfo) -> str:
        if search != "compensated" and info.data.get("measure") == "latency":
            raise ValueError("takes all heads, and all neurons, to cost the same; for latency, set 'compensated'")
        return search


BATCH_SIZE = 32
ROUNDING = 1e-12
STEP = 0.025
"""Budgets that `fastest_within` tells apart."""


@dataclass(frozen=True)
class Course:
    """A model to prune, the texts to go by, what its parts cost, and who tells what was lost.

    `masks` says what each site keeps within a budget, as boolean tensors.
    """

    model: Any
    batches: list[Batch]
    sites: list[Site]
    costs: Costs
    operations: Costs
    judge: Judge
    params: Params
    context: Context
    masks: Callable[[float], list[Any]]


@dataclass(frozen=True)
class Pruned:
    """What a budget left of a model, and what that lost on tuning data, before least squares and after."""

    budget: float
    model: Any
    untuned: Loss | None
    loss: Loss


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the pruned checkpoint; facts say what is left, layer by layer, and what that cost on tuning data."""
    sample = first_examples(context.calibration, params.sample_tokens)
    if not sample.features:
        raise StageError("prune: there are no calibration texts; give some with --calibration-examples")
    with reproducible(context):
        course, facts = prepare(load_model(source.path, context.head.auto_class), sample, params, context)
        if params.fastest_within is None:
            pruned = prune_to(course, params.budget)
        else:
            pruned, tried = find_fastest(course, params.fastest_within)
            facts |= {"budgets": tried}
        pruned.model.save_pretrained(out)
    return {
        **describe(course, pruned.model),
        "examples": len(sample.gold),
        "budget": pruned.budget,
        **(lost(pruned.untuned, prefix="untuned") if pruned.untuned else {}),
        "tuning_examples": len(course.judge.encoded.gold),
        **lost(pruned.loss, prefix="tuning"),
        **facts,
    }


def prepare(model: Any, sample: Encoded, params: Params, context: Context) -> tuple[Course, Facts]:
    """All that does not depend on the budget; facts hold the table of what was timed."""
    batches = make_batches(sample.features, model, size=BATCH_SIZE, tokens=params.batch_tokens)
    sites = find_sites(model)
    sliced = params.readout_slice and context.head.reads == "first token"
    operations = count_operations(model, sample.features, sliced=sliced)
    costs, facts = operations, Facts()
    if params.measure == "size":
        costs = count_bytes(model)
    elif params.measure == "latency":
        costs, table = measure_times(sites, operations, context, tokens=params.tokens, multiple=params.neuron_multiple)
        facts = {"layer_times": table}
    if params.fastest_within is None:
        require_room(sites, costs, params)
    evidence = gather(model, sites, batches, answers_of(context.head, sample), context)
    judge = make_judge(context, context.open("torch", context.reference.path), tokens=params.tuning_tokens)
    masks = choose(sites, evidence, costs, params, context)
    return Course(model, batches, sites, costs, operations, judge, params, context, masks), facts


def require_room(sites: Sequence[Site], costs: Costs, params: Params) -> None:
    """Refuse a budget that does not pay for one head and one group of neurons in each layer."""
    share = least_share(sites, costs, params)
    if params.budget < share:
        raise StageError(
            f"prune: a budget of {params.budget:g} cannot keep a head and {params.neuron_multiple} neurons in each of "
            f"{len(sites) // 2} layers, which take {share:.3f} of the encoder; raise 'budget'"
        )


def least_share(sites: Sequence[Site], costs: Costs, params: Params) -> float:
    """The share of the encoder that one head and one group of neurons in each layer take."""
    least = [costs.of(site, 1 if site.kind == "heads" else min(params.neuron_multiple, site.count)) for site in sites]
    return (costs.fixed + sum(least)) / costs.total(sites)


def choose(
    sites: Sequence[Site], evidence: Sequence[Evidence], costs: Costs, params: Params, context: Context
) -> Callable[[float], list[Any]]:
    """What each site keeps within a budget."""
    total, multiple = (1 + ROUNDING) * costs.total(sites), params.neuron_multiple
    if params.search == "compensated":
        steps = take_apart(sites, evidence, costs, multiple=multiple, progress=context.progress)
        return lambda budget: keep_within(sites, steps, costs, budget * total)

    def search(budget: float) -> list[Any]:
        masks = search_masks(sites, evidence, costs, Wanted(budget * total, multiple))
        if params.search == "fisher":
            return masks
        return [rearrange(mask, found) for mask, found in zip(masks, evidence, strict=True)]

    return search


def prune_to(course: Course, budget: float) -> Pruned:
    """The model with what the budget keeps, tuned."""
    pruned, params, judge = copy.deepcopy(course.model), course.params, course.judge
    remove(pruned, course.masks(budget))
    session = session_of(pruned, course.context.head)
    if params.tune == "none":
        return Pruned(budget, pruned, None, judge.assess(session))
    untuned = judge.assess(session)
    refit(pruned, course.model, course.batches, how=params.tune, ridge=params.ridge, context=course.context)
    return Pruned(budget, pruned, untuned, judge.assess(session))


def find_fastest(course: Course, within: float) -> tuple[Pruned, Table]:
    """The smallest budget whose loss on tuning data stays within a share of the metric, by bisection.

    Where none does, the model stays whole.
    """
    best: Pruned | None = None
    rows: Table = []
    least, most = math.ceil(least_share(course.sites, course.costs, course.params) / STEP), round(1 / STEP)
    while least < most:
        pruned = prune_to(course, STEP * ((least + most) // 2))
        inside = pruned.loss.relative_drop <= within
        rows.append(
            {"budget": pruned.budget, **lost(pruned.loss, prefix="tuning"), "within": "yes" if inside else "no"}
        )
        course.context.progress.say(
            f"prune: budget {pruned.budget:.3f}: {pruned.loss.relative_drop:+.2%} on tuning data, "
            f"{'within' if inside else 'beyond'} {within:.2%}"
        )
        if inside:
            best, most = pruned, (least + most) // 2
        else:
            least = (least + most) // 2 + 1
    return best or prune_to(course, 1.0), rows


def describe(course: Course, pruned: Any) -> Facts:
    """What is left of a model, in all and in each layer."""
    before, after, costs = course.sites, find_sites(pruned), course.costs
    rows: Table = []
    for index in range(0, len(before), 2):
        pairs = zip(before[index : index + 2], after[index : index + 2], strict=True)
        row: Row = {"layer": before[index].layer}
        for old, new in pairs:
            row |= {new.kind: new.count, f"{new.kind}_before": old.count}
        rows.append(row)
    shares = {"flops": course.operations, course.params.measure: costs}
    return {
        **{f"{name}_kept": each.total(after) / each.total(before) for name, each in shares.items()},
        "parameters": sum(each.numel() for each in pruned.parameters()),
        "parameters_before": sum(each.numel() for each in course.model.parameters()),
        "layers": rows,
    }


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="torch",
    needs=("torch", "transformers"),
    summary="Take whole heads and neurons away, without training; least squares make up for them",
    depends=lambda params: frozenset({"target"} if params.measure == "latency" else ()),
    undoes=frozenset({"zeros"}),
)
