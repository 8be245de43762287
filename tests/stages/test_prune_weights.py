"""Sparsity: zeros where they cost least, made up for by the other weights, and kept by what comes after."""

import dataclasses
import gzip

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from optimize.checkpoint import encoder_layers, load_model
from optimize.config import parse_pipeline
from optimize.errors import RequestError, StageError
from optimize.evaluate.predict import run_split
from optimize.heads import HEADS
from optimize.interfaces import Encoded
from optimize.pruning.sites import find_sites
from optimize.stages.prune_weights import STAGE, Params, groups_of, maps_of

NAMES = sorted(HEADS)
PATTERNS = ["unstructured", "2:4"]
ENCODER_WEIGHTS = 2 * (4 * 128 * 128 + 2 * 128 * 512)
"""Weights of the small checkpoints' linear maps."""


def maps_in(folder, here):
    return [each for layer in encoder_layers(load_model(folder, here.head.auto_class)) for each in maps_of(layer)]


def share_of(arrays):
    return sum(int((each == 0).sum()) for each in arrays) / sum(each.size for each in arrays)


def two_of_four(weight):
    """Whether each four consecutive inputs [out, in] have two zeros or more."""
    return bool(((weight.reshape(len(weight), -1, 4) == 0).sum(axis=2) >= 2).all())


@pytest.mark.parametrize(("head", "pattern"), [*((name, "unstructured") for name in NAMES), ("fill-mask", "2:4")])
def test_every_head_gets_its_zeros_and_the_facts_are_true(head, pattern, context, apply):
    here = context(head)
    built = apply(here, "prune_weights", pattern=pattern)
    weights = [each.weight.detach().numpy() for each in maps_in(built.artifact.path, here)]
    assert built.facts["sparsity"] == share_of(weights)
    assert 0.5 <= built.facts["sparsity"] <= 0.501
    assert [row["zeros"] for row in built.facts["zeroed"]] == [
        sum(int((each == 0).sum()) for each in weights[index : index + 6]) for index in (0, 6)
    ]
    assert all(0 < row["error"] < 0.5 for row in built.facts["zeroed"])
    assert all(map(two_of_four, weights)) == (pattern == "2:4")
    outputs = run_split(here.open("torch", built.artifact.path), here.head, here.tuning, pad_id=0)
    if head != "feature-extraction":
        assert built.facts["tuning_metric"] == here.head.score(here.tuning, outputs.answers).value


def test_what_is_no_linear_map_of_the_encoder_stays(context, apply):
    here = context("fill-mask")
    before = load_model(here.reference.path).state_dict()
    after = load_model(apply(here, "prune_weights").artifact.path).state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    parts = {name.rsplit(".", 1)[0].rsplit(".", 1)[-1] for name in moved}
    assert parts == {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}
    assert len(moved) == 2 * 2 * 6


def test_gzip_makes_of_the_weights_what_the_facts_say(context, apply):
    here = context("text-classification")
    built = apply(here, "prune_weights")
    for name, artifact in (("compressed_bytes_before", here.reference), ("compressed_bytes", built.artifact)):
        packed = gzip.compress((artifact.path / "model.safetensors").read_bytes(), compresslevel=6)
        assert abs(built.facts[name] - len(packed)) < 0.001 * len(packed)
    assert built.facts["compressed_bytes"] < 0.8 * built.facts["compressed_bytes_before"]


@pytest.mark.parametrize("sparsity", [0.3, 0.7])
def test_any_share_can_be_asked_for_and_more_zeros_cost_more(sparsity, context, apply):
    here = context("token-classification")
    facts, half = apply(here, "prune_weights", sparsity=sparsity).facts, apply(here, "prune_weights").facts
    assert abs(facts["sparsity"] - sparsity) < 1e-4
    assert (facts["tuning_divergence"] > half["tuning_divergence"]) == (sparsity > 0.5)


def test_zeros_are_chosen_better_than_by_magnitude(context, apply, edited):
    here = context("text-classification")

    def by_magnitude(model):
        for layer in encoder_layers(model):
            for each in maps_of(layer):
                each.weight[each.weight.abs() <= each.weight.abs().flatten().median()] = 0

    other = here.open("torch", edited(here, by_magnitude).reference.path)
    ours = here.open("torch", apply(here, "prune_weights").artifact.path)
    wanted, plain, fitted = (
        np.concatenate([rows.ravel() for rows in run_split(session, here.head, here.tuning, pad_id=0).rows])
        for session in (here.open("torch", here.reference.path), other, ours)
    )
    assert np.abs(fitted - wanted).mean() < 0.7 * np.abs(plain - wanted).mean()


def test_in_the_last_layer_keys_and_values_of_all_tokens_count_and_maps_that_join_know_their_site(context):
    model = load_model(context("text-classification").reference.path)
    layer, sites = encoder_layers(model)[0], find_sites(model)[:2]
    names = {id(part): name.split(".")[-1] for name, part in layer.named_modules()}
    groups = list(groups_of(layer, sites, last=True))
    told = {tuple(names[id(each)] for each in group.maps): group.last for group in groups}
    assert told == {("k_lin", "v_lin"): False, ("q_lin",): True, ("out_lin",): True, ("lin1",): True, ("lin2",): True}
    assert [group.site for group in groups] == [None, None, sites[0], None, sites[1]]
    assert [len(group.maps) for group in groups_of(layer, sites, last=False)] == [3, 1, 1, 1]


def test_a_model_without_whole_heads_and_neurons_gets_zeros_too_and_what_2_4_does_not_fit_stays_dense(context, apply):
    here = context("question-answering")
    pruned = apply(here, "prune", budget=0.6, neuron_multiple=1, search="fisher")
    built = apply(here, "prune_weights", pruned, pattern="2:4")
    after = maps_in(built.artifact.path, here)
    unfit = [index for index, each in enumerate(after) if each.in_features % 4]
    assert built.facts["dense_maps"] == len(unfit) > 0
    assert all(after[index].weight.all() for index in unfit)
    assert all(two_of_four(each.weight) for index, each in enumerate(after) if index not in unfit)


@pytest.mark.parametrize(("stage", "pattern"), [("quantize_static", "2:4"), ("quantize_dynamic", "unstructured")])
def test_int8_keeps_the_zeros(stage, pattern, context, apply):
    here = context("text-classification")
    lean = apply(here, "export", apply(here, "prune_weights", pattern=pattern), lean=True)
    params = {"max_float_share": 1.0} if stage == "quantize_static" else {}
    weights = apply(here, stage, lean, **params).weights()
    maps = [each for each in weights.values() if each.dtype == np.int8 and each.ndim == 2 and share_of([each]) > 0.4]
    assert sum(each.size for each in maps) == ENCODER_WEIGHTS
    assert share_of(maps) >= 0.5
    assert all(two_of_four(each.T) for each in maps) == (pattern == "2:4")


@pytest.mark.parametrize(
    "params", [{"sparsity": 0}, {"sparsity": 1}, {"ridge": 0}, {"pattern": "4:8"}, {"budget": 1}], ids=str
)
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)


def parse(*stages):
    return parse_pipeline({"target": "cpu", "stages": [*stages, "export"]}, name="mine", where="mine.yaml")


def test_another_share_than_half_is_refused_for_2_4():
    with pytest.raises(
        RequestError, match=r"^mine.yaml: prune_weights: pattern '2:4' zeroes half .*; leave 'sparsity' out"
    ):
        parse({"prune_weights": {"pattern": "2:4", "sparsity": 0.6}})


@pytest.mark.parametrize("later", ["distill", "train_quantized", "prune", "prune_weights"])
def test_what_would_fill_the_zeros_is_refused_after_them_and_taken_before(later):
    maker = "another 'prune_weights'" if later == "prune_weights" else "'prune_weights'"
    with pytest.raises(
        RequestError, match=rf"^mine.yaml: '{later}' cannot come after {maker}, whose result is sparse; "
    ):
        parse("prune_weights", later)
    if later != "prune_weights":
        assert parse(later, "prune_weights").traits == {"sparse"}


def test_without_calibration_texts_or_with_values_that_are_not_finite_it_refuses(context, edited, tmp_path):
    here = context("text-classification")
    with pytest.raises(StageError, match="no calibration texts; give some"):
        STAGE.run(here.reference, tmp_path, Params(), dataclasses.replace(here, calibration=Encoded((), (), 0)))

    def spoil(model):
        model.distilbert.embeddings.LayerNorm.bias[0] = float("inf")

    spoilt = edited(here, spoil)
    with pytest.raises(StageError, match="not finite; give a checkpoint"):
        STAGE.run(spoilt.reference, tmp_path, Params(), spoilt)
