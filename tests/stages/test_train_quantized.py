"""Quantization-aware training: INT8's rounding to the letter, answers that come nearer, a plain checkpoint after."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import transformers
from doubles import Heard
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from optimize.artifact import seal
from optimize.errors import StageError
from optimize.evaluate.drift import divergence
from optimize.evaluate.predict import run_split
from optimize.heads import HEADS
from optimize.interfaces import Encoded
from optimize.quantization.fake import fake_quantized, find_sites, round_rows, round_tensor
from optimize.quantization.observers import make_observer
from optimize.stages import train_quantized
from optimize.stages.train_quantized import STAGE, Params
from optimize.training import loop
from optimize.training.batches import answer, answers_of, make_batch, score_of
from optimize.training.distillation import row_losses
from optimize.training.loop import rate_scale

NAMES = sorted(HEADS)
QUICK = {"steps": 4, "evaluate_every": 2, "ranges": "minmax"}
TABLE = "distilbert.embeddings.word_embeddings.weight"


@pytest.fixture
def train(known, tmp_path_factory):
    """Run the stage on a head's small checkpoint; the folder, the facts and the context."""

    def run(head, changes=None, **params):
        here = known(head)
        here = dataclasses.replace(here, **{"training": here.calibration, **(changes or {})})
        out = tmp_path_factory.mktemp("trained")
        return out, STAGE.run(here.reference, out, Params(**{**QUICK, **params}), here), here

    return run


@pytest.fixture
def coarse(monkeypatch):
    """Weights of 3 bits in place of 8."""
    monkeypatch.setattr(
        train_quantized, "fake_quantized", lambda model, **how: fake_quantized(model, **{**how, "limit": 3})
    )


def model_of(here):
    return getattr(transformers, here.head.auto_class).from_pretrained(here.reference.path).eval()


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def grid(low, high):
    """Scale and zero point of u8 as the ONNX operators define them."""
    scale = (high - low) / 255
    return scale, np.rint(-low / scale)


def watched(model, here, features, method="minmax"):
    """Ranges of one batch of features."""
    batch = make_batch(features, pad_id=0)
    with fake_quantized(model, reads=here.head.reads, limit=127, method=method) as ranges, torch.no_grad():
        with ranges.watch():
            ranges.real = batch.real
            answer(model, batch, here.head)
        return ranges.bounds


@pytest.mark.parametrize("head", NAMES)
def test_every_head_is_trained_and_what_is_written_is_the_same_checkpoint_in_fp32(head, train):
    out, facts, here = train(head)
    before, after = weights_of(here.reference.path), weights_of(out)
    assert {name: (array.shape, array.dtype) for name, array in after.items()} == {
        name: (array.shape, np.dtype("float32")) for name, array in before.items()
    }
    assert (facts["steps"], facts["ended"]) == (4, "all steps done")
    assert json.loads((out / "config.json").read_text())["architectures"] == [here.head.architecture]
    changed = [name for name in after if not np.array_equal(before[name], after[name])]
    assert bool(changed) == bool(facts["kept_step"])
    assert not any("embeddings.weight" in name for name in changed)


@pytest.mark.parametrize("head", NAMES)
def test_what_coarse_rounding_takes_away_is_won_back(head, train, coarse):
    out, facts, here = train(head, steps=40, evaluate_every=10, learning_rate=5e-4)
    assert facts["loss_after"] < 0.8 * facts["loss_before"] > 1e-3
    assert facts["kept_step"] > 0
    assert not np.array_equal(
        *(np.concatenate([array.ravel() for array in weights_of(path).values()]) for path in (out, here.reference.path))
    )


@pytest.mark.parametrize("limit", [63, 127])
def test_rows_are_rounded_as_int8_with_a_scale_each(limit):
    weight = np.random.default_rng(0).normal(0, 0.05, (20, 33)).astype(np.float32)
    weight[3] = 0
    scales = np.maximum(np.abs(weight).max(axis=1, keepdims=True) / np.float32(limit), np.float32(2.0**-126))
    expected = np.clip(np.rint(weight / scales), -limit, limit) * scales
    assert np.allclose(round_rows(torch.from_numpy(weight), limit).numpy(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 2.0), (-2.0, 0.0), (-1e-3, 40.0)])
def test_activations_are_rounded_as_u8_with_an_exact_zero_and_clipped_to_their_range(low, high):
    x = np.append(np.random.default_rng(0).normal(0, 2, 1000), 0.0).astype(np.float32)
    scale, zero = grid(low, high)
    expected = (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale
    found = round_tensor(torch.from_numpy(x), low, high).numpy()
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert found[-1] == 0.0


def test_gradients_go_straight_through_the_rounding_and_not_through_the_clipping():
    weight, x = torch.randn(4, 8, requires_grad=True), torch.tensor([-5.0, 0.3, 0.7, 5.0], requires_grad=True)
    round_rows(weight, 127).sum().backward()
    round_tensor(x, -1.0, 1.0).sum().backward()
    assert torch.equal(weight.grad, torch.ones(4, 8))
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_layer_of_the_student_computes_what_int8_arithmetic_gives(context):
    here = context("token-classification")
    model, x = model_of(here), torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(0))
    layer, name = model.distilbert.transformer.layer[1].ffn.lin1, "distilbert.transformer.layer.1.ffn.lin1"
    with fake_quantized(model, reads=here.head.reads, limit=127, method="minmax") as ranges, torch.no_grad():
        ranges.bounds = {name: (-2.5, 3.5)}
        found = layer(x).numpy()
    scale, zero = grid(-2.5, 3.5)
    weight = layer.weight.detach().numpy()
    scales = np.abs(weight).max(axis=1) / 127
    integers = (np.clip(np.rint(x.numpy() / scale) + zero, 0, 255) - zero) @ np.rint(weight / scales[:, None]).T
    assert np.allclose(found, integers * scale * scales + layer.bias.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("head", NAMES)
def test_queries_keys_and_values_share_a_range_where_they_read_the_same(head, context):
    here = context(head)
    sites = find_sites(model_of(here), reads=here.head.reads)
    own = here.head.reads == "first token"
    groups = [site.group for site in sites if "attention" in site.group and "layer.1" in site.group]
    assert len(set(groups)) == (3 if own else 2)
    assert [site.module.out_features for site in sites if site.module.out_features < 32] == []
    assert sum(site.leads for site in sites) == len({site.group for site in sites})
    assert sum(site.first_token for site in sites) == (4 if own else 0)


@pytest.mark.parametrize("head", NAMES)
def test_padding_never_enters_a_range(head, context):
    here = context(head)
    model = model_of(here)
    features = sorted(here.calibration.features, key=lambda feature: feature.tokens)
    short, long = features[0], features[-1]
    assert short.tokens < long.tokens
    apart, together = [watched(model, here, [one]) for one in (short, long)], watched(model, here, [short, long])
    for group, (low, high) in together.items():
        assert low == pytest.approx(min(bounds[group][0] for bounds in apart), abs=1e-4)
        assert high == pytest.approx(max(bounds[group][1] for bounds in apart), abs=1e-4)


def test_ranges_are_those_that_the_observers_of_static_quantization_find(context):
    here = context("token-classification")
    model, seen = model_of(here), make_observer("mse", percentile=99.99, symmetric=False)
    layer, features = model.distilbert.transformer.layer[1].ffn.lin2, here.calibration.features
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.update(inputs[0].numpy()))
    with torch.no_grad():
        for feature in features:
            answer(model, make_batch([feature], pad_id=0), here.head)
    hook.remove()
    low, high = watched(model, here, features, method="mse")["distilbert.transformer.layer.1.ffn.lin2"]
    assert (low, high) == pytest.approx((seen.range().low, seen.range().high), rel=0.01)
    assert high < seen.high


def test_taken_off_the_fake_quantization_leaves_nothing_behind(context):
    here = context("fill-mask")
    model, batch = model_of(here), make_batch(here.calibration.features[:2], pad_id=0)
    with torch.no_grad():
        before = answer(model, batch, here.head).rows
        watched(model, here, here.calibration.features[:2])
        after = answer(model, batch, here.head).rows
    assert torch.equal(before, after)
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.modules())


def test_masked_logits_are_those_of_the_whole_text(context):
    here = context("fill-mask")
    model, features = model_of(here), here.calibration.features[:3]
    batch = make_batch(features, pad_id=0)
    with torch.no_grad():
        rows, whole = answer(model, batch, here.head).rows, model(**batch.inputs).logits
    expected = np.concatenate([whole[i, one.extra["positions"]].numpy() for i, one in enumerate(features)])
    assert np.allclose(rows.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("train_embedding", [False, True])
def test_a_tied_projection_stays_tied_and_moves_only_if_asked(train_embedding, train, coarse):
    out, facts, here = train("fill-mask", train_embedding=train_embedding, steps=20, learning_rate=5e-4)
    model = transformers.AutoModelForMaskedLM.from_pretrained(out)
    assert model.vocab_projector.weight is model.distilbert.embeddings.word_embeddings.weight
    assert "vocab_projector.weight" not in weights_of(out)
    moved = not np.array_equal(weights_of(out)[TABLE], weights_of(here.reference.path)[TABLE])
    assert (facts["kept_step"] > 0, moved) == (True, train_embedding)


@pytest.mark.parametrize("head", NAMES)
def test_facts_say_what_is_so(head, train):
    _, facts, here = train(head)
    losses = {row["step"]: row["loss"] for row in facts["losses"]}
    assert list(losses) == [0, 2, 4]
    assert (facts["loss_before"], facts["loss_after"]) == (losses[0], min(losses.values()))
    assert losses[facts["kept_step"]] == facts["loss_after"]
    outputs = run_split(here.open("torch", here.reference.path), here.head, here.tuning, pad_id=0)
    score = here.head.score(here.tuning, outputs.answers)
    assert facts["metric"] == score.metric
    if here.tuning.gold[0] is not None:
        assert facts["metric_fp32"] == pytest.approx(score.value)
    assert facts["tuning_examples"] == len(here.tuning.gold)
    json.dumps(facts, allow_nan=False)


def test_without_training_examples_it_refuses_in_one_line(train):
    with pytest.raises(StageError, match=r"^train_quantized: there are no training examples; give data with .+$"):
        train("text-classification", {"training": Encoded((), (), 0)})


def test_weights_that_got_worse_are_not_kept(train):
    out, facts, here = train("text-classification", learning_rate=0.3, temperature=1.0)
    assert (facts["kept"], facts["kept_step"]) == ("the starting weights", 0)
    assert facts["loss_after"] == facts["loss_before"]
    before, after = weights_of(here.reference.path), weights_of(out)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("head", "every", "at"), [("text-classification", 1, 1), ("fill-mask", 8, 2)])
def test_a_run_that_diverges_stops_says_so_and_keeps_the_best(head, every, at, train, monkeypatch):
    monkeypatch.setattr(loop, "rate_scale", lambda *_: 1e35)
    out, facts, here = train(head, steps=8, evaluate_every=every)
    assert (facts["ended"], facts["steps"]) == (f"diverged at step {at}", 1)
    assert facts["loss_after"] == facts["loss_before"]
    before, after = weights_of(here.reference.path), weights_of(out)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_checkpoint_that_answers_nan_is_refused(train, context, tmp_path):
    here = context("text-classification")
    weights = weights_of(here.reference.path)
    weights["distilbert.transformer.layer.0.ffn.lin1.bias"][0] = np.nan
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((here.reference.path / "config.json").read_text())
    broken = dataclasses.replace(here, training=here.calibration)
    with pytest.raises(
        StageError, match=r"^train_quantized: .+ not finite; give a checkpoint whose answers are finite$"
    ):
        STAGE.run(seal(tmp_path, "torch"), tmp_path / "out", Params(**QUICK), broken)


def test_a_student_with_fewer_layers_is_refused_unless_only_answers_are_matched(random_context, tmp_path):
    here = random_context("text-classification")
    here = dataclasses.replace(here, training=here.calibration)
    smaller = random_context("text-classification", n_layers=1).reference
    with pytest.raises(StageError, match=r"1 layers of width 64 .+ 2 of 64: .+ \{hidden_weight: 0\}'$"):
        STAGE.run(smaller, tmp_path, Params(**QUICK), here)
    assert STAGE.run(smaller, tmp_path, Params(**QUICK, hidden_weight=0), here)["steps"] == 4


def test_the_same_seed_gives_the_same_weights_and_torch_is_left_as_it_was(train, coarse):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    runs = [train("question-answering", {"seed": seed}, learning_rate=5e-4, batch_size=2) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    first, second, other = (weights_of(out) for out, _, _ in runs)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert runs[0][1] == runs[1][1] != runs[2][1]
    assert any(not np.array_equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("features", "reduced"), [(("avx512_vnni",), False), (("avx2",), True)])
def test_weights_have_7_bits_where_sums_are_16_bits_wide(features, reduced, train, monkeypatch):
    limits = []

    def seen(model, **how):
        limits.append(how["limit"])
        return fake_quantized(model, **how)

    monkeypatch.setattr(train_quantized, "fake_quantized", seen)
    _, facts, _ = train("text-classification", {"cpu_features": features}, steps=1)
    assert (facts["reduce_range"], limits) == (reduced, [63 if reduced else 127])


def test_progress_counts_the_steps(train):
    heard = Heard()
    train("question-answering", {"progress": heard}, steps=3)
    assert heard.steps == [("train", 1, 3), ("train", 2, 3), ("train", 3, 3)]


def test_the_loss_of_classes_is_the_kl_divergence_that_drift_reports():
    ours, theirs = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    found = row_losses(ours, theirs, "classes", temperature=1.0)
    expected = divergence([(ours.numpy(), theirs.numpy())])
    assert found.shape == (6,)
    assert float(found.mean()) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_sets_treats_every_class_by_itself():
    ours, theirs = torch.tensor([[0.3, -2.0]]), torch.tensor([[1.5, -2.0]])
    p, q = 1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(-0.3))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert float(row_losses(ours, theirs, "sets", temperature=1.0)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["classes", "sets", "values", "vectors"])
def test_the_same_answers_lose_nothing_and_others_do(kind):
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert row_losses(rows, rows, kind, temperature=2.0).abs().max() < 1e-6
    assert (row_losses(rows + torch.arange(6), rows, kind, temperature=2.0) > 1e-3).all()


@pytest.mark.parametrize(("gold", "kind"), [(1, "classes"), ((0, 1), "sets"), (2.5, "values")])
def test_what_the_gold_is_says_how_answers_are_compared(gold, kind):
    assert answers_of(HEADS["text-classification"], Encoded((), (gold,), 0)) == kind
    assert answers_of(HEADS["question-answering"], Encoded((), (("an answer",),), 0)) == "classes"


def test_the_rate_rises_and_then_falls_to_almost_nothing():
    scales = [rate_scale(step, 100, 0.1) for step in range(100)]
    assert scales[9] == max(scales) == 1.0
    assert scales == sorted(scales[:10]) + sorted(scales[10:], reverse=True)
    assert 0 < scales[-1] < 0.02


def test_the_score_of_a_model_is_that_of_its_session(context):
    here = context("question-answering")
    outputs = run_split(here.open("torch", here.reference.path), here.head, here.tuning, pad_id=0)
    assert score_of(model_of(here), here.tuning, here.head).value == here.head.score(here.tuning, outputs.answers).value


@pytest.mark.parametrize("params", [{"steps": 0}, {"learning_rate": 0}, {"freeze_ranges_after": 1.5}, {"epochs": 2}])
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)
