"""Whole layers dropped: the right ones, stood for by others, noted by the original's numbers, usable ever after."""

import dataclasses
import json
import shutil
from functools import cache

import pytest
import torch
from pydantic import ValidationError

from optimize.artifact import seal
from optimize.checkpoint import encoder_layers, layers_stood_for, load_model
from optimize.errors import StageError
from optimize.pruning.layers import Shortening, drop_layers, shorten
from optimize.pruning.refit import places_stood_for
from optimize.stages import STAGES
from optimize.stages.prune import STAGE, Params
from optimize.training.batches import answer, make_batch
from optimize.training.distillation import cosine_loss

HEADS = ("text-classification", "token-classification")
DEEP = {"n_layers": 4, "initializer_range": 0.15}
SMALL = {"neuron_multiple": 8, "batch_tokens": 48}


def hush(layer):
    """Let a layer give what it is given, nearly: its sums are normalized as they already were."""
    layer.attention.out_lin.weight *= 1e-3
    layer.ffn.lin2.weight *= 1e-3


@pytest.fixture(scope="module")
def deep(random_context, context, edited):
    """A head's model of four layers with random weights, of which one says next to nothing."""

    @cache
    def make(head, quiet=2):
        here = context(head)
        known = json.loads((here.reference.path / "config.json").read_text())
        same = {name: known[name] for name in ("vocab_size", "id2label", "label2id")}
        made = edited(random_context(head, **same, **DEEP), lambda model: hush(encoder_layers(model)[quiet]))
        return dataclasses.replace(here, reference=made.reference, training=here.calibration)

    return make


def shortening(here, how="weights"):
    model = load_model(here.reference.path, here.head.auto_class)
    batches = [make_batch([feature], pad_id=0) for feature in here.calibration.features]
    return Shortening(model, batches, "classes", here, how, 0.03)


def states(model, batches, head, layer):
    with torch.no_grad():
        return torch.cat([answer(model, batch, head).hidden[layer][batch.real] for batch in batches])


def config_of(built):
    return json.loads((built.artifact.path / "config.json").read_text())


@pytest.mark.parametrize("head", HEADS)
def test_the_layer_that_says_least_is_dropped_and_the_facts_tell(head, deep, apply):
    here = deep(head)
    built = apply(here, "prune", budget=1.0, drop_layers=1, **SMALL)
    model = load_model(built.artifact.path, here.head.auto_class)
    left = [row["layer"] for row in built.facts["layers"] if row["heads"]]
    assert left == [0, 1, 3]
    assert built.facts["layers"][2] == {"layer": 2, "heads": 0, "heads_before": 2, "neurons": 0, "neurons_before": 128}
    assert built.facts["flops_kept"] == pytest.approx(3 / 4)
    assert built.facts["parameters"] == sum(each.numel() for each in model.parameters())
    assert layers_stood_for(model.config) == [0, 2, 3]
    assert built.facts["tuning_divergence"] < 1e-5


def test_a_layer_in_front_is_dropped_without_any_that_stands_for_it(deep, apply):
    built = apply(deep("text-classification", quiet=0), "prune", budget=1.0, drop_layers=1, **SMALL)
    assert [row["stands_for"] for row in config_of(built)["pruned_layers"]] == [1, 2, 3]


def test_the_rest_of_the_budget_is_taken_from_the_layers_that_are_left(deep, apply):
    here = deep("token-classification")
    built = apply(here, "prune", budget=0.5, drop_layers=1, **SMALL)
    assert 0.4 < built.facts["flops_kept"] <= 0.5
    assert all(row["heads"] and row["neurons"] for row in built.facts["layers"] if row["layer"] != 2)
    met = apply(here, "prune", budget=0.75, drop_layers=1, **SMALL)
    assert {(row["heads"], row["neurons"]) for row in met.facts["layers"]} == {(2, 128), (0, 0)}


@pytest.mark.parametrize("head", HEADS)
def test_a_layer_is_fitted_to_the_output_of_the_one_it_stands_for(head, deep):
    here = shortening(deep(head, quiet=3))
    kept = (0, 1, 3)
    given = states(here.dense, here.batches, here.context.head, 2)
    errors = []
    for how in ("none", "weights"):
        short = dataclasses.replace(here, how=how).make(kept).model
        errors.append(float((states(short, here.batches, here.context.head, 2) - given).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_only_a_layer_that_is_fitted_takes_over_a_layer_norm(deep):
    dense = shortening(deep("token-classification")).dense
    encoder_layers(dense)[2].output_layer_norm.weight.data.fill_(0.5)
    norms = [
        encoder_layers(shorten(dense, (0, 1, 3), takes_over=over).model)[1].output_layer_norm.weight
        for over in (True, False)
    ]
    assert [float(norm[0].detach()) for norm in norms] == [0.5, 1.0]


def test_without_any_to_drop_the_model_itself_is_pruned(deep):
    here = shortening(deep("token-classification"))
    short = drop_layers(here, 0)
    assert short.model is here.dense
    assert short.kept == (0, 1, 2, 3)


@pytest.mark.parametrize(("kept", "stood_for"), [((0, 1, 2), [0, 1, 2]), ((0, 2), [1, 2]), ((1,), [2]), ((0,), [2])])
def test_a_layer_stands_for_the_last_of_those_dropped_behind_it(kept, stood_for):
    assert places_stood_for(kept, 3) == stood_for


def test_what_was_dropped_twice_refers_to_the_first_model(deep, apply):
    here = deep("text-classification")
    once = apply(here, "prune", budget=1.0, drop_layers=1, **SMALL)
    twice = apply(here, "prune", once, budget=1.0, drop_layers=1, **SMALL)
    thinner = apply(here, "prune", twice, budget=0.7, **SMALL)
    stood_for = [layers_stood_for(load_model(each.artifact.path).config) for each in (once, twice, thinner)]
    assert stood_for[0] == [0, 2, 3]
    assert len(stood_for[1]) == config_of(twice)["n_layers"] == 2
    assert set(stood_for[1]) < {0, 2, 3}
    assert stood_for[1][-1] == 3
    assert stood_for[2] == stood_for[1]


@pytest.mark.parametrize("head", HEADS)
def test_a_shorter_model_is_exported_fused_and_quantized(head, deep, apply, make_feed, difference):
    here = deep(head)
    built = apply(here, "prune", budget=0.5, drop_layers=1, **SMALL)
    exported = apply(here, "export", built)
    fused = apply(here, "fuse", exported)
    dynamic = apply(here, "quantize_dynamic", exported)
    assert fused.facts["Attention"] == (2 if head == "text-classification" else 3)
    assert fused.facts["SkipLayerNormalization"] == 6
    assert difference(here, here.open("torch", built.artifact.path), fused.open(here), make_feed(here, "holed")) < 1e-3
    assert dynamic.facts["float_matmuls"] == 0


def test_a_shorter_model_goes_to_openvino(deep, apply):
    here = deep("token-classification")
    exported = apply(here, "export", apply(here, "prune", budget=0.5, drop_layers=1, **SMALL))
    assert apply(here, "convert_openvino", exported).facts["max_difference"] < 1e-3


def test_a_shorter_student_learns_from_the_layers_that_its_own_stand_for(deep, apply, tmp_path):
    here = deep("token-classification")
    built = apply(here, "prune", budget=0.3, drop_layers=1, **SMALL)
    quick = {"epochs": 6, "batch_size": 4, "learning_rate": 1e-3, "evaluate_every": 4}
    params = STAGES["distill"].params(soft_weight=0, label_weight=0, **quick)
    facts = STAGES["distill"].run(built.artifact, tmp_path, params, here)
    assert facts["loss_after"] < facts["loss_before"]
    assert layers_stood_for(load_model(tmp_path).config) == [0, 2, 3]


def test_hidden_states_are_matched_by_the_layer_they_stand_for(deep):
    here = shortening(deep("token-classification"))
    batch = here.batches[0]
    with torch.no_grad():
        wanted = answer(here.dense, batch, here.context.head)
        given = answer(shorten(here.dense, (0, 1, 3), takes_over=False).model, batch, here.context.head)
    assert list(given.hidden) == [0, 2, 3]
    matched = dataclasses.replace(given, hidden={layer: wanted.hidden[layer] for layer in given.hidden})
    shifted = dataclasses.replace(given, hidden={layer: wanted.hidden[max(0, layer - 1)] for layer in given.hidden})
    assert cosine_loss(matched, wanted, batch, here.context.head) == pytest.approx(0, abs=1e-6)
    assert cosine_loss(shifted, wanted, batch, here.context.head) > 1e-3


def test_a_teacher_without_a_layer_that_the_student_stands_for_is_refused(deep, apply, tmp_path):
    here = deep("token-classification")
    built = apply(here, "prune", budget=1.0, drop_layers=1, **SMALL)
    config = config_of(built)
    config["pruned_layers"][1]["stands_for"] = 1
    shutil.copy(built.artifact.path / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    taught = dataclasses.replace(here, reference=built.artifact)
    with pytest.raises(
        StageError, match=r"3 layers of width 64 .+ 3 of 64: they cannot be matched; set .+hidden_weight"
    ):
        STAGES["distill"].run(seal(tmp_path, "torch"), tmp_path / "out", STAGES["distill"].params(), taught)


def test_bad_numbers_of_layers_are_refused_in_one_line(deep, tmp_path):
    here = deep("token-classification")
    with pytest.raises(ValidationError):
        Params(drop_layers=-1)
    for count in (4, 9):
        with pytest.raises(
            StageError, match=r"^prune: 'drop_layers' is . and the model has 4 layers, .+; set it to 3 a"
        ):
            STAGE.run(here.reference, tmp_path, Params(drop_layers=count), here)
    with pytest.raises(StageError, match=r"; raise 'budget' or 'drop_layers'$"):
        STAGE.run(here.reference, tmp_path, Params(budget=0.01), here)
