"""The search of what to keep: no exchange betters it, and no other number of heads."""

import dataclasses

import torch

from optimize.pruning.costs import count_operations
from optimize.pruning.masks import rearrange, search_masks


def test_exchanges_lower_the_loss_within_a_layer_as_far_as_single_ones_can(dense):
    *_, sites, evidence = dense("text-classification")
    for site, found in zip(sites, evidence, strict=True):
        information = found.masks.double().T @ found.masks.double()
        mask = torch.arange(site.count) < site.count // 2

        def loss(mask, information=information):
            dropped = (~mask).double()
            return float(dropped @ information @ dropped)

        after = rearrange(mask, found)
        assert int(after.sum()) == int(mask.sum())
        assert loss(after) < loss(mask)
        for leaves in after.nonzero().flatten()[:6]:
            for enters in (~after).nonzero().flatten()[:6]:
                other = after.clone()
                other[leaves], other[enters] = False, True
                assert loss(other) >= loss(after) * (1 - 1e-9)


def test_the_search_keeps_what_no_other_number_of_heads_betters(dense):
    here, model, _, sites, evidence = dense("text-classification")
    costs = count_operations(model, here.calibration.features)
    limits = {"budget": 0.5 * costs.total(sites), "multiple": 1}
    masks = search_masks(sites, evidence, costs, **limits)
    values = [found.masks.double().square().sum(dim=0) for found in evidence]
    kept = sum(float(value[mask].sum()) for value, mask in zip(values, masks, strict=True))
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        order = [value * (0.5 + torch.rand(len(value), generator=generator)) for value in values]
        other = search_masks(
            sites,
            [dataclasses.replace(found, masks=each.sqrt()[None]) for found, each in zip(evidence, order, strict=True)],
            costs,
            **limits,
        )
        assert sum(float(value[mask].sum()) for value, mask in zip(values, other, strict=True)) <= kept * (1 + 1e-9)
