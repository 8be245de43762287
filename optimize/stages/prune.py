"""Structured pruning: whole attention heads and FFN neurons go, without any training; what is left makes up for them.

Layers come out really smaller, so the model is faster on every runtime and needs no kernel of its own; block or
single-weight sparsity would. Four steps, minutes on two cores:

- where asked for, whole layers are dropped first, and others stand in for them (`_pruning_layers`);
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from optimize.artifact import Artifact
from optimize.checkpoint import load_model
from optimize.errors import StageError
from optimize.interfaces import Context, Encoded, Facts, Stage
from optimize.interfaces import Params as StageParams
from optimize.quantization.judge import Judge, make_judge
from optimize.stages._distillation import Batch, answers_of
from optimize.stages._pruning_compensation import search_compensated
from optimize.stages._pruning_evidence import Evidence, gather
from optimize.stages._pruning_layers import Making, drop_layers
from optimize.stages._pruning_masks import rearrange, search_masks
from optimize.stages._pruning_refit import refit
from optimize.stages._pruning_sites import Costs, Site, Wanted, count_costs, find_sites, keep_all, remove
from optimize.stages._training import first_examples, make_batches, reproducible


class Params(StageParams):
    """`budget` is the share of the given encoder's operations to keep, as `_pruning_sites` counts them. `drop_layers`
    whole layers go first; where the budget is met by that, nothing more does.
    `readout_slice` counts the last layer as `export` with that parameter leaves it, where the head reads one token.

    Neurons are kept in multiples of `neuron_multiple` in each layer, which kernels like. `tune: masks` rescales what
    is left, `weights` fits whole maps; `ridge` holds them back, relative to the mean square of what they read. At
    most `sample_tokens` tokens of calibration data are used, without labels, and `tuning_tokens` of tuning data for
    what facts say of the loss. More texts than quantization needs pay: some 2,000 of a sentence each.
    """

    budget: float = Field(default=0.6, gt=0, le=1)
    drop_layers: int = Field(default=0, ge=0)
    readout_slice: bool = False
    neuron_multiple: int = Field(default=16, ge=1)
    search: Literal["compensated", "rearranged", "fisher"] = "compensated"
    tune: Literal["weights", "masks", "none"] = "weights"
    ridge: float = Field(default=0.03, gt=0)
    sample_tokens: int = Field(default=32_768, ge=1)
    batch_tokens: int = Field(default=2048, ge=1)
    tuning_tokens: int = Field(default=32_768, ge=1)


BATCH_SIZE = 32
ROUNDING = 1e-12


@dataclass(frozen=True)
class Course:
    """A model to prune, the operations that it may keep, and the texts to go by."""

    model: Any
    operations: float
    sample: Encoded
    batches: list[Batch]
    params: Params
    context: Context


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the pruned checkpoint; facts say what is left, layer by layer, and what that cost on tuning data."""
    sample = first_examples(context.calibration, params.sample_tokens)
    if not sample.features:
        raise StageError("prune: there are no calibration texts; give some with --calibration-examples")
    with reproducible(context):
        dense = load_model(source.path, context.head.auto_class)
        batches = make_batches(sample.features, dense, size=BATCH_SIZE, tokens=params.batch_tokens)
        sliced = params.readout_slice and context.head.reads == "first token"
        given = count_costs(dense, sample.features, sliced=sliced).total(find_sites(dense))
        answers = answers_of(context.head, sample)
        making = Making(dense, batches, answers, context, params.tune, params.ridge)
        short = drop_layers(making, params.drop_layers)
        course = Course(short.model, (1 + ROUNDING) * params.budget * given, sample, batches, params, context)
        sites, costs = find_sites(short.model), count_costs(short.model, sample.features, sliced=sliced)
        require_room(sites, costs, params, given=given)
        kept = choose(course, sites, costs)
        pruned = copy.deepcopy(short.model)
        remove(pruned, kept)
        pruned.save_pretrained(out)
        judge = make_judge(context, context.open("torch", context.reference.path), tokens=params.tuning_tokens)
        losses = _lost(judge, out, context, prefix="untuned") if params.tune != "none" else {}
        if params.tune != "none":
            refit(pruned, dense, batches, how=params.tune, ridge=params.ridge, context=context, kept=short.kept)
            pruned.save_pretrained(out)
        losses |= _lost(judge, out, context, prefix="tuning")
    left = costs.total(find_sites(pruned)) / given
    return {"flops_kept": left, **describe(dense, pruned, short.kept), "examples": len(sample.gold), **losses}


def require_room(sites: Sequence[Site], costs: Costs, params: Params, *, given: float) -> None:
    """Refuse a budget that does not pay for one head and one group of neurons in each layer."""
    least = sum(
        costs.of(site, 1 if site.kind == "heads" else min(params.neuron_multiple, site.count)) for site in sites
    )
    share = least / given
    if params.budget < share:
        raise StageError(
            f"prune: a budget of {params.budget:g} cannot keep a head and {params.neuron_multiple} neurons in each of "
            f"{len(sites) // 2} layers, which take {share:.3f} of the encoder; raise 'budget' or 'drop_layers'"
        )


def choose(course: Course, sites: Sequence[Site], costs: Costs) -> list[Any]:
    """What each site keeps, as boolean tensors."""
    params, context = course.params, course.context
    if costs.total(sites) <= course.operations:
        return keep_all(sites)
    evidence = gather(course.model, sites, course.batches, answers_of(context.head, course.sample), context)
    wanted = Wanted(course.operations, params.neuron_multiple)
    if params.search == "compensated":
        return search_compensated(sites, evidence, costs, wanted, context.progress)
    masks = search_masks(sites, evidence, costs, wanted)
    return _rearranged(masks, evidence) if params.search == "rearranged" else masks


def _rearranged(masks: Sequence[Any], evidence: Sequence[Evidence]) -> list[Any]:
    return [rearrange(mask, found) for mask, found in zip(masks, evidence, strict=True)]


def describe(dense: Any, pruned: Any, kept: Sequence[int]) -> Facts:
    """What is left of a model, in all and in each layer; of the pruned model's layers these are the places before."""
    before, after = find_sites(dense), find_sites(pruned)
    left = {(kept[site.layer], site.kind): site.count for site in after}
    rows: list[dict[str, int | float | str]] = [{"layer": layer} for layer in range(len(before) // 2)]
    for site in before:
        rows[site.layer] |= {site.kind: left.get((site.layer, site.kind), 0), f"{site.kind}_before": site.count}
    return {
        "parameters": sum(each.numel() for each in pruned.parameters()),
        "parameters_before": sum(each.numel() for each in dense.parameters()),
        "layers": rows,
    }


def _lost(judge: Judge, folder: Path, context: Context, *, prefix: str) -> Facts:
    """What a checkpoint lost on tuning data against the FP32 reference."""
    loss = judge.assess(context.open("torch", folder))
    facts: Facts = {
        f"{prefix}_metric": loss.metric,
        f"{prefix}_relative_drop": loss.relative_drop,
        f"{prefix}_agreement": loss.agreement,
        f"{prefix}_divergence": loss.divergence,
    }
    return facts if prefix == "untuned" else {"tuning_examples": len(judge.encoded.gold), **facts}


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="torch",
    needs=("torch", "transformers"),
    summary="Take whole heads and neurons away, without training; least squares make up for them",
)
