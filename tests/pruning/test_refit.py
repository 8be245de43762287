"""Taking out what is masked, and tuning the rest to make up for it."""

import pytest
import torch
from dense import copy_of, masked, rows_of, some_masks

from optimize.checkpoint import encoder_layers
from optimize.heads import HEADS
from optimize.pruning.refit import refit
from optimize.pruning.sites import find_sites, remove
from optimize.training.batches import answer, make_batch

NAMES = sorted(HEADS)


@pytest.mark.parametrize("head", NAMES)
def test_a_pruned_model_says_what_the_masked_one_does(head, dense):
    here, model, batches, sites, _ = dense(head)
    kept = some_masks(sites)
    pruned = copy_of(here)
    remove(pruned, kept)
    masked(model, kept)
    assert torch.allclose(rows_of(pruned, batches, here), rows_of(model, batches, here), atol=1e-4)
    assert pruned.config.pruned_layers == [
        {"heads": int(heads.sum()), "neurons": int(neurons.sum())}
        for heads, neurons in zip(kept[0::2], kept[1::2], strict=True)
    ]


@pytest.mark.parametrize("head", NAMES)
def test_tuning_brings_the_layers_nearer_to_the_dense_model(head, dense):
    here, model, batches, sites, _ = dense(head)
    errors = {}
    for how in ("none", "masks", "weights"):
        pruned = copy_of(here)
        remove(pruned, some_masks(sites))
        if how != "none":
            refit(pruned, model, batches, how=how, ridge=0.03, context=here)
        with torch.no_grad():
            pairs = [(answer(pruned, batch, here.head), answer(model, batch, here.head), batch) for batch in batches]
        errors[how] = sum(
            float((ours.hidden[0] - theirs.hidden[0])[batch.real].square().sum()) for ours, theirs, batch in pairs
        )
    assert errors["weights"] < errors["masks"] < errors["none"]


def test_what_is_left_of_twins_is_tuned_to_make_up_for_the_others(context, edited):
    def twin(model):
        for layer in encoder_layers(model):
            half = layer.ffn.lin1.out_features // 2
            layer.ffn.lin1.weight[half:] = layer.ffn.lin1.weight[:half]
            layer.ffn.lin1.bias[half:] = layer.ffn.lin1.bias[:half]

    here = edited(context("token-classification"), twin)
    model, pruned = copy_of(here), copy_of(here)
    batches = [make_batch([feature], pad_id=0) for feature in here.calibration.features]
    before = rows_of(model, batches, here)
    kept = [torch.arange(site.count) < site.count / (1 if site.kind == "heads" else 2) for site in find_sites(model)]
    remove(pruned, kept)
    untuned = rows_of(pruned, batches, here)
    refit(pruned, model, batches, how="weights", ridge=1e-6, context=here)
    tuned = rows_of(pruned, batches, here)
    assert (tuned - before).abs().max() < 0.01 * (untuned - before).abs().max()
