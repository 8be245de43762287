"""What heads and neurons cost: operations and bytes, counted by hand."""

from dense import copy_of, some_masks

from optimize.pruning.costs import Costs, count_bytes, count_operations, linear
from optimize.pruning.sites import find_sites, remove


def test_costs_are_those_of_the_operations(context):
    here = context("multiple-choice")
    model = copy_of(here)
    costs = count_operations(model, here.calibration.features)
    lengths = [int(mask.sum()) for one in here.calibration.features for mask in one.inputs["attention_mask"]]
    width, head = 128, 128 // model.config.n_heads
    maps = sum(4 * 2 * tokens * width * head for tokens in lengths)
    products = sum(2 * 2 * tokens * tokens * head for tokens in lengths)
    neurons = sum(2 * 2 * tokens * width for tokens in lengths)
    assert costs == Costs((linear(maps + products),) * 2, (linear(neurons),) * 2)
    sliced = count_operations(model, here.calibration.features, sliced=True)
    ones = len(lengths)
    maps = sum(2 * 2 * tokens * width * head for tokens in lengths) + ones * 2 * 2 * width * head
    products = sum(2 * 2 * tokens * head for tokens in lengths)
    assert sliced == Costs((costs.heads[0], linear(maps + products)), (linear(neurons), linear(ones * 2 * 2 * width)))


def test_bytes_are_those_of_the_weights_that_go(context):
    model = copy_of(context("text-classification"))
    sites, costs = find_sites(model), count_bytes(model)
    kept = some_masks(sites)
    before = sum(each.numel() for each in model.parameters())
    remove(model, kept)
    gone = sum(costs.of(site, int((~mask).sum())) for site, mask in zip(sites, kept, strict=True))
    assert 4 * (before - sum(each.numel() for each in model.parameters())) == gone
