"""Quantization-aware training: INT8's rounding to the letter, answers that come nearer, a plain checkpoint after."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers
from doubles import Heard
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from tiers import EACH_HEAD, slow_but

from optimize.artifact import seal
from optimize.errors import StageError
from optimize.evaluate.predict import run_split
from optimize.interfaces import Encoded
from optimize.quantization.fake import fake_quantized
from optimize.stages import train_quantized
from optimize.stages.train_quantized import STAGE, Params
from optimize.training import loop

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


def weights_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("head", EACH_HEAD)
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


@pytest.mark.parametrize("head", slow_but("fill-mask", "question-answering"))
def test_what_coarse_rounding_takes_away_is_won_back(head, train, coarse):
    out, facts, here = train(head, steps=40, evaluate_every=10, learning_rate=5e-4)
    assert facts["loss_after"] < 0.8 * facts["loss_before"] > 1e-3
    assert facts["kept_step"] > 0
    assert not np.array_equal(
        *(np.concatenate([array.ravel() for array in weights_of(path).values()]) for path in (out, here.reference.path))
    )


@pytest.mark.parametrize("train_embedding", [False, True])
def test_a_tied_projection_stays_tied_and_moves_only_if_asked(train_embedding, train, coarse):
    out, facts, here = train("fill-mask", train_embedding=train_embedding, steps=20, learning_rate=5e-4)
    model = transformers.AutoModelForMaskedLM.from_pretrained(out)
    assert model.vocab_projector.weight is model.distilbert.embeddings.word_embeddings.weight
    assert "vocab_projector.weight" not in weights_of(out)
    moved = not np.array_equal(weights_of(out)[TABLE], weights_of(here.reference.path)[TABLE])
    assert (facts["kept_step"] > 0, moved) == (True, train_embedding)


@pytest.mark.parametrize("head", EACH_HEAD)
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


@pytest.mark.parametrize("params", [{"steps": 0}, {"learning_rate": 0}, {"freeze_ranges_after": 1.5}, {"epochs": 2}])
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)
