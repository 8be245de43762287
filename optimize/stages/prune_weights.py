"""Sparsity: single weights of the encoder's linear maps become zero, without any training; the others make up for them.

Matrices keep their sizes, so a runtime multiplies by the zeros as by any other number: on CPUs and with OpenVINO the
model gets smaller once it is compressed, and no faster. TensorRT alone has kernels for one pattern, two of every four
consecutive inputs of an output (`2:4`). For speed elsewhere there is `prune`, which takes whole heads and neurons.

The method is SparseGPT (Frantar and Alistarh, 2023, arXiv 2301.00774; `pruning.sparsegpt`). Maps come in the order in
which a text passes them, and each goes by what it reads once those before it have their zeros. Before their own turn,
the two maps of a layer that write to the residual stream are fitted to the dense model, as `prune` does it: they make
up for the maps before. In the last layer only tokens that answers depend on count. Embeddings, LayerNorm and the head
keep all their weights.

Symmetric INT8 keeps the zeros; training would fill them, and so would fitting maps anew.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from optimize.artifact import Artifact, gzip_bytes, model_files
from optimize.checkpoint import encoder_layers, load_model, pass_layer, save_model
from optimize.errors import StageError
from optimize.evaluate.judge import make_judge
from optimize.interfaces import Context, FactRow, Facts, Head, Stage, Traits
from optimize.interfaces import Params as StageParams
from optimize.pruning.activations import input_of, tokens_that_count
from optimize.pruning.refit import LayerInputs, add_to, changed_projection, collect, pass_dense, start
from optimize.pruning.sites import Site, find_sites
from optimize.pruning.sparsegpt import Pattern, Scheme, fits, remove_weights
from optimize.training.batches import BATCH_SIZE, Batch, calibration_sample, make_batches, reproducible, session_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear, Module
    from transformers import PreTrainedModel

HALF = 0.5
FIT_RIDGE = 0.03
"""That of `prune`: this fit is its refit, before any weight goes."""


class Params(StageParams):
    """Which weights become zero."""

    pattern: Pattern = Field(
        default="unstructured",
        description="`unstructured` zeroes weights wherever they are. `2:4` zeroes two of every four consecutive "
        "inputs of an output, which TensorRT has kernels for; a map whose inputs are not a multiple of "
        "four stays dense.",
    )
    sparsity: float = Field(
        default=HALF,
        gt=0,
        lt=1,
        description="Share of the weights to zero in each linear map of the encoder. `2:4` fixes it at 0.5.",
    )
    ridge: float = Field(
        default=0.01,
        gt=0,
        description="How strongly the weights that are left are held back when they take over, relative to the mean "
        "square of what a map reads.",
    )
    sample_tokens: int = Field(
        default=32_768,
        ge=1,
        description="Tokens of calibration data, at most, by which weights are chosen and adjusted, without labels.",
    )
    batch_tokens: int = Field(default=2048, ge=1, description="Padded tokens in a batch, at most. It bounds memory.")
    tuning_tokens: int = Field(
        default=32_768, ge=1, description="Tokens of tuning data, at most, on which the reported loss is measured."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.pattern == "2:4" and self.sparsity != HALF:
            raise ValueError(
                f"pattern '2:4' zeroes half of the weights, not {self.sparsity:g}; leave 'sparsity' out, or choose "
                "'pattern: unstructured'"
            )
        return self


@dataclass(frozen=True)
class Group:
    """Maps that read the same tensor; of it only the tokens that `last` layers' answers depend on may count.

    `site` is the place of a map whose output goes to the residual stream.
    """

    maps: tuple[Linear, ...]
    last: bool
    site: Site | None = None


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the checkpoint with zeros; facts say how many, what they cost on tuning data, and what gzip makes of it."""
    sample = calibration_sample(context, params.sample_tokens, stage="prune_weights")
    with reproducible(context.seed, context.threads):
        model = load_model(source.path, context.head.auto_class)
        batches = make_batches(sample.features, model, size=BATCH_SIZE, tokens=params.batch_tokens)
        errors = zero_weights(model, batches, params, context)
        save_model(model, out)
        judge = make_judge(context, context.open("torch", context.reference.path), tokens=params.tuning_tokens)
        losses = judge.assess(session_of(model, context.head)).facts("tuning")
        zeros = describe(load_model(out, context.head.auto_class), params.pattern, errors)
    return {
        "pattern": params.pattern,
        **zeros,
        "examples": len(sample.gold),
        "compressed_bytes_before": gzip_bytes(source.model_files()),
        "compressed_bytes": gzip_bytes(model_files(out, "torch")),
        "compression": "gzip",
        "tuning_examples": len(judge.encoded.gold),
        **losses,
    }


def maps_of(layer: Module) -> tuple[Linear, ...]:
    """A layer's linear maps, in the order in which a text passes them."""
    attention, ffn = layer.attention, layer.ffn
    return attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin, ffn.lin1, ffn.lin2


def groups_of(layer: Module, sites: Sequence[Site], *, last: bool) -> Iterator[Group]:
    """A layer's maps by what they read. Keys and values of all tokens matter, in the last layer too; queries do not."""
    query, key, value, *others = maps_of(layer)
    sites_by_map = {id(site.projection): site for site in sites}
    if last:
        yield Group((key, value), last=False)
        yield Group((query,), last=True)
    else:
        yield Group((query, key, value), last=False)
    for each in others:
        yield Group((each,), last, sites_by_map.get(id(each)))


def zero_weights(model: PreTrainedModel, batches: Sequence[Batch], params: Params, context: Context) -> list[float]:
    """Zero weights in place; for each layer the mean of its maps' squared errors, relative to their outputs."""
    import torch

    errors: list[float] = []
    scheme = Scheme(params.pattern, params.sparsity, params.ridge)
    dense = copy.deepcopy(model)
    layers, dense_layers = encoder_layers(model), encoder_layers(dense)
    sites = find_sites(model)
    with torch.no_grad():
        inputs = [start(dense, batch, context.head) for batch in batches]
        for index, layer in enumerate(layers):
            targets = [pass_dense(dense_layers, each, index, index) for each in inputs]
            found: list[float] = []
            for group in groups_of(layer, sites[2 * index : 2 * index + 2], last=index == len(layers) - 1):
                moment = _prepare(layer, group, inputs, targets, context.head)
                found += [_zero(each, moment, scheme) for each in group.maps]
            errors.append(sum(found) / len(found))
            # The next layer goes by what this one gives with its zeros.
            for each in inputs:
                each.pruned = pass_layer(layer, each.pruned, each.mask)
            context.progress.step("prune weights", index + 1, len(layers))
    return errors


def _prepare(
    layer: Module,
    group: Group,
    inputs: Sequence[LayerInputs],
    targets: Sequence[tuple[Tensor, Tensor]],
    head: Head,
) -> Tensor:
    """The second moment [K + 1, K + 1] of what a group's maps read, a one appended, over all tokens that count.

    A map that writes to the residual stream is fitted to the dense model's sum there, so that it makes up for the maps
    before it; that is where its own zeros are to leave it.
    """
    if group.site is None:
        return _finite(_second_moment(layer, group, inputs, head))
    place = 0 if group.site.kind == "heads" else 1
    wanted = [pair[place] for pair in targets]
    moments = collect(group.site, layer, inputs, wanted, head=head, last=group.last)
    moment = _finite(moments.XX)
    add_to(group.site, changed_projection(moments, FIT_RIDGE))
    return moment


def _finite(moment: Tensor) -> Tensor:
    if not moment.isfinite().all():
        raise StageError("prune_weights: what the maps read is not finite; give a checkpoint whose answers are finite")
    return moment


def _second_moment(layer: Module, group: Group, inputs: Sequence[LayerInputs], head: Head) -> Tensor:
    import torch

    K = group.maps[0].in_features
    H = torch.zeros(K + 1, K + 1, dtype=torch.float64)
    for each in inputs:
        x = input_of(group.maps[0], functools.partial(layer, each.pruned, each.mask))
        x = x[tokens_that_count(each.batch, head, last=group.last)]
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        H += x.T @ x
    return H


def _zero(linear: Linear, H: Tensor, scheme: Scheme) -> float:
    """Zero weights of a map in place; the squared error of its output, relative to the output itself."""
    import torch

    if not fits(linear.in_features, scheme.pattern):
        return 0.0
    before = torch.cat([linear.weight, linear.bias[:, None]], dim=1).double()
    after = remove_weights(before, H, scheme)
    linear.weight.copy_(after[:, :-1])
    linear.bias.copy_(after[:, -1])
    # Over all tokens, |W x|² sums up to tr(W H Wᵀ): neither outputs nor texts are needed again.
    change = after - before
    error = ((change @ H) * change).sum()
    output = ((before @ H) * before).sum()
    return float(error / output.clamp_min(1e-300))


def describe(model: PreTrainedModel, pattern: Pattern, errors: Sequence[float]) -> Facts:
    """The zeros of a model's linear maps, in all and in each layer."""
    rows: list[FactRow] = []
    weights_in_all = zeros_in_all = dense_maps = 0
    for index, (layer, error) in enumerate(zip(encoder_layers(model), errors, strict=True)):
        weights = zeros = 0
        for linear in maps_of(layer):
            weights += linear.weight.numel()
            zeros += int((linear.weight == 0).sum())
            dense_maps += not fits(linear.in_features, pattern)
        rows.append({"layer": index, "weights": weights, "zeros": zeros, "zero_share": zeros / weights, "error": error})
        weights_in_all += weights
        zeros_in_all += zeros
    return {"sparsity": zeros_in_all / weights_in_all, "dense_maps": dense_maps, "zeroed": rows}


def traits(_: Params) -> Traits:
    """What moves weights afterwards fills the zeros."""
    return Traits(makes=frozenset({"sparse"}), refuses={"sparse": "leave one of them out"})


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="torch",
    needs=("torch", "transformers"),
    summary="Zero single weights, for size once compressed and for TensorRT's 2:4 kernels",
    traits=traits,
)
