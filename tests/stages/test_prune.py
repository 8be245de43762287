"""Structured pruning: layers that are really smaller, within the budget, and tuned to the dense model."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from dense import copy_of
from doubles import Heard
from pydantic import ValidationError
from tiers import EACH_HEAD

from optimize.artifact import seal
from optimize.checkpoint import encoder_layers, load_model
from optimize.errors import SourceError, StageError
from optimize.evaluate.predict import run_split
from optimize.gates import Gates
from optimize.interfaces import Encoded
from optimize.pruning.costs import count_operations
from optimize.pruning.sites import find_sites
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint
from optimize.stages import STAGES
from optimize.stages.prune import STAGE, Params

QUICK = {"budget": 0.6, "neuron_multiple": 8}


@pytest.fixture
def prune(context, tmp_path_factory):
    """Run the stage on a head's small checkpoint; the folder, the facts and the context."""

    def run(head, changes=None, **params):
        here = dataclasses.replace(context(head), **(changes or {}))
        out = tmp_path_factory.mktemp("pruned")
        return out, STAGE.run(here.reference, out, Params(**{**QUICK, **params}), here), here

    return run


@pytest.mark.parametrize("head", EACH_HEAD)
def test_every_head_is_pruned_within_the_budget_and_the_facts_are_true(head, prune):
    out, facts, here = prune(head)
    model, before = load_model(out, here.head.auto_class), copy_of(here)
    costs = count_operations(before, here.calibration.features)
    step = costs.of(find_sites(before)[1], 8) / costs.total(find_sites(before))
    assert 0.6 - step <= facts["flops_kept"] <= 0.6
    assert facts["flops_kept"] == costs.total(find_sites(model)) / costs.total(find_sites(before))
    assert facts["parameters"] == sum(each.numel() for each in model.parameters()) < facts["parameters_before"]
    assert facts["parameters_before"] == sum(each.numel() for each in before.parameters())
    sizes = [(layer.attention.n_heads, layer.ffn.lin2.in_features) for layer in encoder_layers(model)]
    assert sizes == [(row["heads"], row["neurons"]) for row in facts["layers"]]
    assert all(heads >= 1 and neurons % 8 == 0 and neurons for heads, neurons in sizes)
    assert (facts["examples"], facts["tuning_examples"]) == (len(here.calibration.gold), len(here.tuning.gold))
    assert facts["tuning_divergence"] < facts["untuned_divergence"]
    outputs = run_split(here.open("torch", out), here.head, here.tuning, pad_id=0)
    if here.head.name != "feature-extraction":
        assert facts["tuning_metric"] == here.head.score(here.tuning, outputs.answers).value


@pytest.mark.parametrize("search", ["compensated", "rearranged", "fisher"])
def test_heads_and_neurons_that_say_nothing_go_first(search, context, edited, tmp_path):
    def silence(model):
        for index, layer in enumerate(encoder_layers(model)):
            layer.attention.out_lin.weight[:, 32 * index : 32 * (index + 1)] = 0
            layer.ffn.lin2.weight[:, 16:144] = 0

    here = edited(context("text-classification"), silence)
    before = load_model(here.reference.path)
    sites, costs = find_sites(before), count_operations(before, here.calibration.features)
    useless = len(sites) // 2 * (costs.of(sites[0]) + costs.of(sites[1], 128)) / costs.total(sites)
    params = Params(budget=1 - useless, neuron_multiple=8, search=search, tune="none")
    facts = STAGE.run(here.reference, tmp_path, params, here)
    assert all(row["heads_before"] - row["heads"] == 1 for row in facts["layers"])
    assert all(row["neurons_before"] - row["neurons"] == 128 for row in facts["layers"])
    assert facts["tuning_divergence"] < 1e-9


def test_a_budget_of_one_keeps_everything_and_changes_nothing(prune):
    _, facts, _ = prune("token-classification", budget=1.0)
    assert (facts["flops_kept"], facts["parameters"]) == (1.0, facts["parameters_before"])
    assert facts["tuning_divergence"] < 1e-9


@pytest.mark.parametrize("search", ["compensated", "rearranged", "fisher"])
def test_a_model_pruned_twice_is_a_model_pruned(search, context, apply):
    here = context("text-classification")
    once = apply(here, "prune", budget=0.7, neuron_multiple=8, search=search)
    twice = apply(here, "prune", once, budget=0.7, neuron_multiple=8, search=search)
    rows = zip(once.facts["layers"], twice.facts["layers"], strict=True)
    assert all(second["heads_before"] == first["heads"] for first, second in rows)
    assert 0.6 <= twice.facts["flops_kept"] <= 0.7
    assert twice.facts["parameters"] < once.facts["parameters"] == twice.facts["parameters_before"]
    config = json.loads((twice.artifact.path / "config.json").read_text())
    assert [row["heads"] for row in config["pruned_layers"]] == [row["heads"] for row in twice.facts["layers"]]


def test_the_tied_embedding_stays_tied_and_untouched(prune):
    out, _, here = prune("fill-mask")
    model, before = load_model(out), copy_of(here)
    table = model.distilbert.embeddings.word_embeddings.weight
    assert model.vocab_projector.weight is table
    assert torch.equal(table, before.distilbert.embeddings.word_embeddings.weight)


def test_the_least_budget_keeps_a_head_and_a_group_in_each_layer(prune, context):
    model = copy_of(context("text-classification"))
    sites, costs = find_sites(model), count_operations(model, context("text-classification").calibration.features)
    least = sum(costs.of(site, 1 if site.kind == "heads" else 8) for site in sites) / costs.total(sites)
    for search in ("compensated", "rearranged", "fisher"):
        _, facts, _ = prune("text-classification", budget=least, search=search)
        assert {(row["heads"], row["neurons"]) for row in facts["layers"]} == {(1, 8)}
    with pytest.raises(StageError, match=r"cannot keep a head and 8 neurons in each of 2 layers.*; raise 'budget'"):
        prune("text-classification", budget=least * 0.999)


def test_the_same_seed_gives_the_same_model_and_another_tokens_limit_fewer_texts(prune):
    first, second = (prune("multiple-choice")[0] for _ in range(2))
    assert seal(first, "torch").digest == seal(second, "torch").digest
    _, facts, here = prune("text-classification", sample_tokens=30)
    assert 0 < facts["examples"] < len(here.calibration.gold)


def test_without_calibration_texts_or_with_answers_that_are_not_finite_it_refuses(prune, context, edited, tmp_path):
    with pytest.raises(StageError, match="no calibration texts; give some"):
        prune("text-classification", {"calibration": Encoded((), (), 0)})

    def spoil(model):
        model.classifier.bias[0] = float("nan")

    here = edited(context("text-classification"), spoil)
    with pytest.raises(StageError, match="not finite; give a checkpoint"):
        STAGE.run(here.reference, tmp_path, Params(), here)
    deaf = edited(context("text-classification"), lambda model: model.classifier.weight.zero_())
    with pytest.raises(StageError, match="no answer depends on any head or neuron; give other"):
        STAGE.run(deaf.reference, tmp_path, Params(), deaf)


@pytest.mark.parametrize(
    "params", [{"budget": 0}, {"budget": 1.1}, {"neuron_multiple": 0}, {"search": "random"}, {"heads": 3}], ids=str
)
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)


@pytest.mark.parametrize("search", ["compensated", "rearranged", "fisher"])
def test_where_the_last_layer_is_sliced_its_neurons_are_cheap_and_stay(search, prune):
    _, whole, _ = prune("text-classification", search=search)
    _, sliced, here = prune("text-classification", search=search, readout_slice=True)
    assert sliced["layers"][-1]["neurons"] > whole["layers"][-1]["neurons"]
    assert sliced["flops_kept"] <= 0.6
    model = copy_of(here)
    costs = count_operations(model, here.calibration.features, sliced=True)
    rows = sliced["layers"]
    sites = find_sites(model)
    kept = sum(costs.of(site, rows[site.layer][site.kind]) for site in sites)
    assert np.isclose(sliced["flops_kept"], kept / costs.total(sites))
    _, all_tokens, _ = prune("token-classification", search=search, readout_slice=True)
    assert all_tokens["layers"] == prune("token-classification", search=search)[1]["layers"]


@pytest.mark.parametrize("head", EACH_HEAD)
def test_a_pruned_model_is_exported_and_quantized(head, context, apply):
    here = context(head)
    pruned = apply(here, "prune", budget=0.5, neuron_multiple=8)
    lean = apply(here, "export", pruned, lean=True)
    dynamic = apply(here, "quantize_dynamic", lean)
    assert lean.facts["max_difference"] < 1e-4
    assert dynamic.facts["float_matmuls"] == 0
    assert dynamic.artifact.model_bytes() < 0.5 * lean.artifact.model_bytes()


@pytest.mark.parametrize("head", EACH_HEAD)
def test_a_pruned_model_is_fused_with_each_layers_own_number_of_heads(head, context, apply, make_feed, difference):
    here = context(head)
    pruned = apply(here, "prune", budget=0.5, neuron_multiple=8)
    fused = apply(here, "fuse", apply(here, "export", pruned))
    nodes = [node for node in fused.model().graph.node if node.op_type == "Attention"]
    heads = [each.i for node in nodes for each in node.attribute if each.name == "num_heads"]
    assert heads == [row["heads"] for row in pruned.facts["layers"]][: len(heads)]
    for kind in ("full", "left-padded", "holed"):
        feed = make_feed(here, kind)
        assert difference(here, here.open("torch", pruned.artifact.path), fused.open(here), feed) < 1e-3


def test_fusing_refuses_a_graph_whose_heads_are_not_those_of_its_config(context, apply, tmp_path):
    here = context("token-classification")
    exported = apply(here, "export", apply(here, "prune", budget=0.5, neuron_multiple=8))
    shutil.copytree(exported.artifact.path, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["pruned_layers"][0]["heads"] = 5 - config["pruned_layers"][0]["heads"]
    (tmp_path / "other" / "config.json").chmod(0o644)
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageError, match=r"heads where the layers have .*; leave out 'fuse'"):
        STAGES["fuse"].run(seal(tmp_path / "other", "onnx"), tmp_path, STAGES["fuse"].params(), here)


@pytest.mark.parametrize("head", [pytest.param("text-classification", marks=pytest.mark.slow), "fill-mask"])
def test_a_pruned_model_goes_through_static_int8_and_openvino(head, context, apply):
    here = context(head)
    pruned = apply(here, "prune", budget=0.5, neuron_multiple=8)
    static = apply(here, "quantize_static", apply(here, "export", pruned, lean=True), max_float_share=1.0)
    converted = apply(here, "convert_openvino", apply(here, "export", pruned))
    quantized = apply(here, "quantize_openvino", converted, accuracy_control=False)
    assert converted.facts["max_difference"] < 1e-3
    for built in (static, quantized):
        assert built.artifact.model_bytes() < 0.6 * converted.artifact.model_bytes()


def test_a_pruned_model_can_be_trained_with_rounding_and_keeps_its_sizes(context, apply, tmp_path):
    here = context("text-classification")
    pruned = apply(here, "prune", budget=0.5, neuron_multiple=8)
    learning = dataclasses.replace(here, training=here.calibration)
    params = STAGES["train_quantized"].params(steps=2, evaluate_every=1, ranges="minmax")
    STAGES["train_quantized"].run(pruned.artifact, tmp_path, params, learning)
    sizes = [(layer.attention.n_heads, layer.ffn.lin2.in_features) for layer in encoder_layers(load_model(tmp_path))]
    assert sizes == [(row["heads"], row["neurons"]) for row in pruned.facts["layers"]]


def test_a_pruned_checkpoint_is_taken_as_a_source_and_checked(context, apply, tmp_path, silent):
    built = apply(context("question-answering"), "prune", budget=0.5, neuron_multiple=8)
    found, head = inspect_checkpoint(str(built.artifact.path))
    entry = acquire_checkpoint(found, head, root=tmp_path / "cache", seed=0, progress=silent)
    assert (entry.artifact.path / "model.safetensors").stat().st_size == built.artifact.model_bytes()
    shutil.copytree(built.artifact.path, tmp_path / "other")
    (tmp_path / "other" / "config.json").chmod(0o644)
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["pruned_layers"][1]["neurons"] += 8
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=r"layer\.1\.ffn.* has not the shape .* of config.json"):
        inspect_checkpoint(str(tmp_path / "other"))
    config["pruned_layers"][1]["neurons"] = 0
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="'pruned_layers' in its config must list"):
        inspect_checkpoint(str(tmp_path / "other"))


def times(head_ms, neuron_ms, fixed_ms=1.0):
    """A target on which a head and a neuron of a layer take so long."""
    asked = []

    def time_stacks(stacks, tokens):
        asked.append((stacks, tokens))
        return [0.005 + 1e-3 * sum(fixed_ms + h * head_ms + n * neuron_ms for h, n in stack) for stack in stacks]

    return asked, time_stacks


@pytest.mark.parametrize(("head_ms", "neuron_ms", "dear"), [(10.0, 0.001, "heads"), (0.01, 1.0, "neurons")])
def test_a_budget_of_latency_takes_what_the_target_takes_long_for(head_ms, neuron_ms, dear, prune):
    asked, time_stacks = times(head_ms, neuron_ms)
    _, facts, _ = prune("text-classification", {"time_stacks": time_stacks}, measure="latency", budget=0.7, tokens=32)

    def seconds(row, suffix=""):
        return 1.0 + row[f"heads{suffix}"] * head_ms + row[f"neurons{suffix}"] * neuron_ms

    kept = sum(map(seconds, facts["layers"])) / sum(seconds(row, "_before") for row in facts["layers"])
    assert facts["latency_kept"] == pytest.approx(kept)
    assert kept <= 0.7
    assert facts["flops_kept"] != pytest.approx(kept, abs=0.01)
    assert all(row[dear] < row[f"{dear}_before"] for row in facts["layers"])
    assert [tokens for _, tokens in asked] == [32]
    assert {(row["heads"], row["neurons"]) for row in facts["layer_times"]} == {
        size for stack in asked[0][0] for size in stack
    }
    assert STAGE.depends(Params(measure="latency")) == {"target"}


def test_what_saves_no_time_by_itself_goes_with_what_does(prune):
    def time_stacks(stacks, _):
        return [sum(1e-3 * (2.0 if n > 128 else 1.0) for _, n in stack) for stack in stacks]

    _, facts, _ = prune("text-classification", {"time_stacks": time_stacks}, measure="latency", budget=0.76)
    assert {row["heads"] for row in facts["layers"]} == {facts["layers"][0]["heads_before"]}
    assert facts["latency_kept"] <= 0.76


def test_a_target_too_noisy_to_time_layers_is_told(prune):
    with pytest.raises(StageError, match="layers took no measurable time; measure on a quieter machine"):
        prune("text-classification", {"time_stacks": lambda stacks, _: [0.001] * len(stacks)}, measure="latency")


def test_the_fastest_within_a_tolerance_is_the_smallest_budget_that_keeps_to_it(prune):
    _, facts, _ = prune("text-classification", {"limits": Gates(rule="estimate")}, fastest_within=0.02)
    inside = {row["budget"]: row["within"] for row in facts["budgets"]}
    assert all((row["tuning_relative_drop"] <= 0.02) is row["within"] for row in facts["budgets"])
    assert facts["budget"] == min((budget for budget, fits in inside.items() if fits), default=1.0)
    assert all(budget < facts["budget"] for budget, fits in inside.items() if not fits)
    assert facts["flops_kept"] <= facts["budget"]


def test_where_no_budget_keeps_to_the_tolerance_the_model_stays_whole(prune, monkeypatch):
    from optimize.evaluate.judge import Judge

    assess = Judge.assess
    monkeypatch.setattr(
        Judge, "assess", lambda *given: dataclasses.replace(assess(*given), relative_drop=0.5, estimates={})
    )
    _, facts, _ = prune("text-classification", fastest_within=0.02)
    assert facts["budget"] == facts["flops_kept"] == 1.0
    assert facts["parameters"] == facts["parameters_before"]
    assert {row["within"] for row in facts["budgets"]} == {False}


@pytest.mark.parametrize(("error", "told"), [(0.03, 1), (0.01, 0)])
def test_tuning_data_too_few_to_know_the_tolerance_are_told(error, told, prune, monkeypatch):
    from optimize.evaluate.judge import Judge

    heard, assess = Heard(), Judge.assess
    changes = {"relative_drop": 0.0, "relative_error": error, "estimates": {}}
    monkeypatch.setattr(Judge, "assess", lambda *given: dataclasses.replace(assess(*given), **changes))
    prune("text-classification", {"progress": heard}, fastest_within=0.02)
    assert (
        sum("know the loss to ± 3.00% only (standard error); for 2.00% raise" in line for line in heard.lines) == told
    )


def test_masks_by_importance_alone_know_no_latency():
    with pytest.raises(ValidationError, match="for latency, set 'compensated'"):
        Params(search="fisher", measure="latency")
