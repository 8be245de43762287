"""A small checkpoint's dense model, what is known of its heads and neurons, and masks of it; for tests of pruning."""

import pytest
import torch

from optimize.checkpoint import load_model
from optimize.pruning.evidence import gather
from optimize.pruning.sites import find_sites
from optimize.training.batches import answer, answers_of, make_batch


@pytest.fixture
def dense(context):
    """A head's small model, its sites and batches, and what the answers say of them."""

    def make(head):
        here = context(head)
        model = load_model(here.reference.path, here.head.auto_class)
        batches = [make_batch([feature], pad_id=0) for feature in here.calibration.features]
        sites = find_sites(model)
        evidence = gather(model, sites, batches, answers_of(here.head, here.calibration), here)
        return here, model, batches, sites, evidence

    return make


def copy_of(here):
    return load_model(here.reference.path, here.head.auto_class)


def masked(model, kept):
    """Let what the masks drop say nothing, in a model of the old size, in place."""
    with torch.no_grad():
        for site, mask in zip(find_sites(model), kept, strict=True):
            site.projection.weight *= mask.repeat_interleave(site.width)


def rows_of(model, batches, here):
    with torch.no_grad():
        return torch.cat([answer(model, batch, here.head).rows.flatten() for batch in batches])


def some_masks(sites, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(site.count, generator=generator) < 0.6 for site in sites]
    for mask in masks:
        mask[0] = True
    return masks
