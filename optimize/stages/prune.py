"""Structured pruning: whole attention heads and FFN neurons go, without any training; what is left makes up for them.

Layers come out really smaller, so the model is faster on every runtime and needs no kernel of its own; block or
single-weight sparsity would. Four steps, minutes on two cores:

- where asked for, whole layers are dropped first, and others stand in for them (`pruning.layers`);
- one backward pass over texts measures how much the answers depend on heads and neurons, labels or not
  (`pruning.evidence`);
- a search keeps those that matter most within a budget of the encoder's operations. `search: compensated` counts on
  what the rest can make up for (`pruning.compensation`); `rearranged` and `fisher` are the searches of Kwon et al.
  (2022, arXiv 2204.09656), with and without their rearrangement (`pruning.masks`);
- the output projections of what is left are fitted to the dense model's layers by least squares (`pruning.refit`).

What is written is an ordinary FP32 checkpoint but for `pruned_layers` in its config; `optimize.load_model` loads it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from optimize.artifact import Artifact
from optimize.checkpoint import load_model, save_model
from optimize.evaluate.judge import Judge, make_judge
from optimize.interfaces import Context, Dependence, Encoded, Facts, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.pruning.budget import Pruned, SearchSpace, find_fastest
from optimize.pruning.compensation import keep_within, plan_removals
from optimize.pruning.costs import Costs, Measure, count_bytes, count_operations
from optimize.pruning.evidence import gather
from optimize.pruning.layers import Shortened, Shortening, drop_layers
from optimize.pruning.masks import rearrange, search_masks
from optimize.pruning.refit import refit
from optimize.pruning.sites import find_sites, keep_all, remove
from optimize.pruning.times import Table, measure_times
from optimize.training.batches import (
    BATCH_SIZE,
    Batch,
    answers_of,
    calibration_sample,
    make_batches,
    reproducible,
    session_of,
)
from optimize.training.labels import Answers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Keep = Callable[[float], "list[Tensor]"]
"""For a budget, a mask of what each site keeps."""
ROUNDING = 1e-12
"""A budget of 1 has to keep all, although costs are sums in another order than their total."""


class Params(StageParams):
    """How much goes, by what, and how the rest makes up for it."""

    budget: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="Share to keep of what the encoder takes, in the unit of `measure`. Smaller is faster and loses "
        "more. `--budget` sets it.",
    )
    measure: Measure = Field(
        default="flops",
        description="What the budget counts: operations, the latency of one text of `tokens` tokens as measured on "
        "the target (which takes a minute or two), or the size of the weights.",
    )
    tokens: int = Field(
        default=128, ge=1, description="Length of text, in tokens, at which `measure: latency` times layers."
    )
    fastest_within: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Look for the smallest budget that loses at most this share of the reference's score on tuning "
        "data, by the limits' `rule`; `budget` is then not used. `--fastest-within` sets it. Left out, `budget` "
        "decides.",
    )
    drop_layers: int = Field(
        default=0,
        ge=0,
        description="Whole layers that go first, those without which the answers change least. Where that meets the "
        "budget, nothing more goes.",
    )
    readout_slice: bool = Field(
        default=False,
        description="Count the last layer as `export: {readout_slice: true}` leaves it, one token of it, where the "
        "head reads one token.",
    )
    neuron_multiple: int = Field(
        default=16, ge=1, description="Neurons are kept in multiples of this in each layer, which kernels like."
    )
    search: Literal["compensated", "rearranged", "fisher"] = Field(
        default="compensated",
        validate_default=True,
        description="How heads and neurons are chosen. `compensated` counts on what the rest can make up for. "
        "`rearranged` and `fisher` are the searches of Kwon et al. (2022), with and without their "
        "rearrangement, for comparison; neither goes with `measure: latency`.",
    )
    tune: Literal["weights", "masks", "none"] = Field(
        default="weights",
        description="How what is left is fitted to the dense model: whole maps (`weights`), one factor a head and "
        "neuron (`masks`), or nothing (`none`).",
    )
    ridge: float = Field(
        default=0.03,
        gt=0,
        description="How strongly the fit is held to the weights as they were, relative to the mean square of what "
        "they read. Higher suits few texts.",
    )
    sample_tokens: int = Field(
        default=131_072,
        ge=1,
        description="Tokens of calibration data, at most, by which the stage chooses and fits, without labels. Some "
        "2,000 sentences pay.",
    )
    batch_tokens: int = Field(default=2048, ge=1, description="Padded tokens in a batch, at most. It bounds memory.")
    tuning_tokens: int = Field(
        default=32_768, ge=1, description="Tokens of tuning data, at most, on which the reported loss is measured."
    )

    @field_validator("search")
    @classmethod
    def _knows_what_costs_differ(cls, search: str, info: ValidationInfo) -> str:
        if search != "compensated" and info.data.get("measure") == "latency":
            raise ValueError("takes all heads, and all neurons, to cost the same; for latency, set 'compensated'")
        return search


@dataclass(frozen=True)
class Pruning:
    """A dense model, what is left of its layers, and the texts to go by.

    `operations` and `costs` are the dense model's; `space` is what can be pruned of the shortened one.
    """

    dense: PreTrainedModel
    short: Shortened
    batches: Sequence[Batch]
    answers: Answers
    operations: Costs
    costs: Costs
    space: SearchSpace
    judge: Judge
    params: Params
    context: Context


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the pruned checkpoint; facts say what is left, layer by layer, and what that cost on tuning data."""
    sample = calibration_sample(context, params.sample_tokens, stage="prune")
    with reproducible(context.seed, context.threads):
        pruning, times = prepare(load_model(source.path, context.head.auto_class), sample, params, context)
        pruned, tried = _prune(pruning)
        save_model(pruned.model, out)
    facts = {
        **describe(pruning, pruned.model),
        "examples": len(sample.gold),
        "budget": pruned.budget,
        **(pruned.untuned.facts("untuned") if pruned.untuned else {}),
        "tuning_examples": len(pruning.judge.encoded.gold),
        **pruned.loss.facts("tuning"),
    }
    if times:
        facts["layer_times"] = times
    if tried:
        facts["budgets"] = tried
    return facts


def prepare(dense: PreTrainedModel, sample: Encoded, params: Params, context: Context) -> tuple[Pruning, Table]:
    """Drop layers, and all else that the budget does not matter to; the table is of layers that were timed."""
    batches = make_batches(sample.features, dense, size=BATCH_SIZE, tokens=params.batch_tokens)
    answers = answers_of(context.head, sample)
    sites, times = find_sites(dense), Table()
    sliced = params.readout_slice and context.head.reads == "first token"
    costs = operations = count_operations(dense, sample.features, sliced=sliced)
    multiple = params.neuron_multiple
    if params.measure == "size":
        costs = count_bytes(dense)
    elif params.measure == "latency":
        costs, times = measure_times(sites, operations, context, tokens=params.tokens, multiple=multiple)
    judge = make_judge(context, context.open("torch", context.reference.path), tokens=params.tuning_tokens)
    short = drop_layers(Shortening(dense, batches, answers, context, params.tune, params.ridge), params.drop_layers)
    space = SearchSpace(find_sites(short.model), costs.of_layers(len(short.kept)), costs.total(sites), multiple)
    return Pruning(dense, short, batches, answers, operations, costs, space, judge, params, context), times


def _prune(pruning: Pruning) -> tuple[Pruned, Table]:
    """Prune to the budget, or to the smallest one within the loss allowed, and then the budgets that were tried."""
    params, space = pruning.params, pruning.space
    if params.fastest_within is None:
        # Before the search, which takes minutes.
        space.require(params.budget)
        return prune_to(pruning, params.budget, choose(pruning)), Table()
    keep = choose(pruning)
    rule, progress = pruning.context.limits.decided_by, pruning.context.progress
    return find_fastest(lambda budget: prune_to(pruning, budget, keep), space, params.fastest_within, rule, progress)


def choose(pruning: Pruning) -> Keep:
    """What each site keeps within a budget, as boolean tensors; the search itself is done once, for any budget."""
    params, context, space = pruning.params, pruning.context, pruning.space
    sites, costs, total = space.sites, space.costs, (1 + ROUNDING) * space.given
    if params.fastest_within is None and costs.total(sites) <= params.budget * total:
        return lambda _: keep_all(sites)
    evidence = gather(pruning.short.model, sites, pruning.batches, pruning.answers, context)
    multiple = params.neuron_multiple
    if params.search == "compensated":
        planned = plan_removals(sites, evidence, costs, multiple=multiple, progress=context.progress)
        return lambda budget: keep_within(sites, planned, costs, budget * total)

    def search(budget: float) -> list[Tensor]:
        masks = search_masks(sites, evidence, costs, budget=budget * total, multiple=multiple)
        if params.search == "fisher":
            return masks
        return [rearrange(mask, found) for mask, found in zip(masks, evidence, strict=True)]

    return search


def prune_to(pruning: Pruning, budget: float, keep: Keep) -> Pruned:
    """The model with what the budget keeps, tuned."""
    pruned, params, judge = copy.deepcopy(pruning.short.model), pruning.params, pruning.judge
    remove(pruned, keep(budget))
    session = session_of(pruned, pruning.context.head)
    if params.tune == "none":
        return Pruned(budget, pruned, None, judge.assess(session))
    untuned = judge.assess(session)
    how, ridge, kept = params.tune, params.ridge, pruning.short.kept
    refit(pruned, pruning.dense, pruning.batches, how=how, ridge=ridge, context=pruning.context, kept=kept)
    return Pruned(budget, pruned, untuned, judge.assess(session))


def describe(pruning: Pruning, pruned: PreTrainedModel) -> Facts:
    """What is left of a model, in all and in each layer of the dense one."""
    before, after, kept = find_sites(pruning.dense), find_sites(pruned), pruning.short.kept
    left = {(kept[site.layer], site.kind): site.count for site in after}
    rows: Table = [{"layer": layer} for layer in range(len(before) // 2)]
    for site in before:
        rows[site.layer] |= {site.kind: left.get((site.layer, site.kind), 0), f"{site.kind}_before": site.count}
    facts: Facts = {}
    for name, costs in {"flops": pruning.operations, pruning.params.measure: pruning.costs}.items():
        facts[f"{name}_kept"] = costs.of_layers(len(kept)).total(after) / costs.total(before)
    facts["parameters"] = pruned.num_parameters()
    facts["parameters_before"] = pruning.dense.num_parameters()
    facts["layers"] = rows
    return facts


def depends(params: Params) -> frozenset[Dependence]:
    """The target where it is timed, and the limits' rule where a loss is held against what it may be."""
    found: set[Dependence] = set()
    if params.measure == "latency":
        found.add("target")
    if params.fastest_within is not None:
        found.add("limits")
    return frozenset(found)


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="torch",
    needs=("torch", "transformers"),
    summary="Take whole heads and neurons away, without training; least squares make up for them",
    depends=depends,
    traits=lambda _: Traits(refuses={"sparse": "it would fill the zeros: put it before, or leave one of them out"}),
)
