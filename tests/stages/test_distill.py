"""Recovery by distillation: pruned models come nearer to the reference, and a kill costs nothing."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import Heard
from models import UNTAUGHT
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from tiers import EACH_HEAD

import optimize
from optimize.artifact import seal
from optimize.checkpoint import encoder_layers, load_model, pruned_sizes, size_of
from optimize.config import parse_step
from optimize.errors import RequestError, StageError
from optimize.evaluate.judge import make_judge
from optimize.interfaces import Encoded
from optimize.manifest import read
from optimize.planning import Options, make_plan
from optimize.running import run as run_plan
from optimize.stages.distill import STAGE, Params, plan_of
from optimize.training import loop, state
from optimize.training.batches import Answer, answer, make_batch
from optimize.training.distillation import Weights, batch_loss, cosine_loss
from optimize.training.loop import Plan, expected_steps
from optimize.training.state import TrainingState

HARSH = {"budget": 0.3, "neuron_multiple": 8, "search": "fisher", "tune": "none"}
QUICK = {"epochs": 8, "batch_size": 4, "learning_rate": 1e-3, "evaluate_every": 4}

LEARN = {head: {"label_weight": 0, "learning_rate": 2e-4, "epochs": 16} for head in UNTAUGHT}


@pytest.fixture(scope="session")
def pruned(known, apply):
    """A head's small checkpoint with most of it gone, and nothing made up for it."""
    return lambda head: apply(known(head), "prune", **HARSH).artifact


@pytest.fixture
def distill(known, pruned, tmp_path_factory):
    """Run the stage on a head's pruned checkpoint; the folder, the facts and the context."""

    def run(head, changes=None, source=None, **params):
        here = known(head)
        here = dataclasses.replace(here, **{"training": here.calibration, **(changes or {})})
        out = tmp_path_factory.mktemp("distilled")
        return out, STAGE.run(source or pruned(head), out, Params(**{**QUICK, **params}), here), here

    return run


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def same_weights(one, other):
    first, second = weights_of(one), weights_of(other)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def lost(folder, here):
    judge = make_judge(here, here.open("torch", here.reference.path), tokens=32_768)
    return judge.assess(here.open("torch", folder))


@pytest.mark.parametrize("head", EACH_HEAD)
def test_every_pruned_head_comes_nearer_to_the_reference_and_the_facts_are_true(head, distill, pruned):
    out, facts, here = distill(head, **LEARN.get(head, {}))
    before, after = lost(pruned(head).path, here), lost(out, here)
    assert after.divergence < 0.8 * before.divergence
    assert facts["loss_before"] == pytest.approx(before.divergence, rel=1e-4)
    assert facts["loss_after"] == pytest.approx(after.divergence, rel=1e-4)
    assert facts["tuning_divergence"] == facts["loss_after"] == min(row["loss"] for row in facts["losses"])
    assert (facts["metric_before"], facts["tuning_metric"]) == pytest.approx((before.metric, after.metric))
    assert {row["step"]: row["loss"] for row in facts["losses"]}[facts["kept_step"]] == facts["loss_after"]
    labels = {"feature-extraction": "none: soft targets and hidden states alone", "multiple-choice": "not used"}
    labels["text-classification"] = labels["multiple-choice"]
    assert facts["labels"] == labels.get(head, "used")
    assert (facts["training_examples"], facts["tuning_examples"]) == (len(here.training.gold), len(here.tuning.gold))
    assert (facts["epochs"], facts["ended"], facts["device"]) == (
        LEARN.get(head, QUICK)["epochs"],
        "all steps done",
        "cpu",
    )
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize("head", ["fill-mask", "token-classification"])
def test_what_was_pruned_keeps_its_sizes_and_its_tables_and_loads(head, distill, pruned):
    out, _, here = distill(head)
    sizes = pruned_sizes(json.loads((pruned(head).path / "config.json").read_text()), where="here")
    model = load_model(out, here.head.auto_class)
    assert [size_of(layer) for layer in encoder_layers(model)] == sizes
    before, after = weights_of(pruned(head).path), weights_of(out)
    assert {name: (array.shape, array.dtype) for name, array in before.items()} == {
        name: (array.shape, array.dtype) for name, array in after.items()
    }
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert not any("embeddings.weight" in name for name in changed)


def test_tables_move_where_it_is_asked_for(distill, pruned):
    table = "distilbert.embeddings.word_embeddings.weight"
    out, _, _ = distill("token-classification", train_embedding=True)
    assert not np.array_equal(weights_of(out)[table], weights_of(pruned("token-classification").path)[table])


def test_without_labels_it_learns_from_the_teacher_alone_and_says_so(distill, context):
    plain = context("token-classification").calibration
    unlabelled = Encoded(plain.features, (None,) * len(plain.gold), 0)
    out, facts, _ = distill("token-classification", {"training": unlabelled})
    assert facts["labels"] == "none: soft targets and hidden states alone"
    assert facts["loss_after"] < 0.8 * facts["loss_before"]
    other, facts, _ = distill("token-classification", label_weight=0)
    assert facts["labels"] == "not used"
    assert same_weights(out, other)


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_each_of_the_three_losses_teaches_by_itself(weights, distill):
    names = ("soft_weight", "label_weight", "hidden_weight")
    _, facts, _ = distill("token-classification", **dict(zip(names, weights, strict=True)))
    assert facts["loss_after"] < facts["loss_before"]


class StoppedError(Exception):
    """What a kill is inside a test."""


def test_a_run_that_was_stopped_goes_on_to_the_same_end(distill, tmp_path, monkeypatch):
    whole, facts, _ = distill("token-classification", save_every=3)
    heard, real = Heard(), loop._train_step

    def stopped(learner, batch, optimizer):
        if len(heard.all) == 8:
            raise StoppedError
        return real(learner, batch, optimizer)

    changes = {"scratch": tmp_path / "scratch", "progress": heard}
    monkeypatch.setattr(loop, "_train_step", stopped)
    with pytest.raises(StoppedError):
        distill("token-classification", changes, save_every=3)
    monkeypatch.setattr(loop, "_train_step", real)
    out, resumed, _ = distill("token-classification", changes, save_every=3)
    assert heard.all[8:10] == ["distill: goes on after step 6", ("distill", 7, 16)]
    assert same_weights(out, whole)
    assert resumed == facts
    (left,) = changes["scratch"].iterdir()
    assert left.match(state.FILES)


def test_a_saved_state_that_is_damaged_is_not_gone_on_from(distill, tmp_path):
    heard = Heard()
    whole, _, _ = distill("token-classification", {"scratch": tmp_path}, epochs=2, save_every=3)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    other = io.BytesIO()
    torch.save({"of": "somebody else's training"}, other)
    cut, zeroed = content[: len(content) // 2], b"\0" * 9999 + content[9999:]
    for damaged in (b"half of what was to be", cut, zeroed, other.getvalue()):
        path.write_bytes(damaged)
        out, _, _ = distill("token-classification", {"scratch": tmp_path, "progress": heard}, epochs=2)
        assert same_weights(out, whole)
    said = "training begins anew: what an earlier run saved is damaged (it is not what was written)"
    assert heard.all.count(said) == 4


def pipeline(folder):
    path = folder / "recover.yaml"
    prune, distill = json.dumps(HARSH), json.dumps({**QUICK, "epochs": 15, "patience": 99, "save_every": 5})
    path.write_text(f"target: cpu\nstages:\n  - prune: {prune}\n  - distill: {distill}\n  - export\n")
    return path


def options_of(checkpoint, data_folder, folder, cache):
    head = "token-classification"
    few = {"examples": 20, "calibration_examples": 8, "tuning_examples": 8, "training_examples": 40}
    return Options(
        model=str(checkpoint(head)),
        data=str(data_folder(head)),
        pipeline=str(pipeline(folder)),
        threads=1,
        build_only=True,
        out=folder / "runs",
        cache=folder / cache,
        **few,
    )


def start(options):
    """A real `python -m optimize run ...`."""
    words = ["--model", options.model, "--data", options.data, "--pipeline", options.pipeline, "--threads", "1"]
    for name in ("examples", "calibration_examples", "tuning_examples", "training_examples", "out", "cache"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    line = [sys.executable, "-m", "optimize", "run", "--target", "cpu", "--build-only", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, **pipes, process_group=0, cwd=Path(optimize.__file__).parents[1])


def wait_for_a_saved_state(process, cache):
    deadline = time.monotonic() + 120
    while not list(cache.glob(f".scratch-*/{state.FILES}")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_a_killed_process_is_gone_on_from_and_gives_what_it_would_have_given(checkpoint, data_folder, tmp_path, silent):
    killed = options_of(checkpoint, data_folder, tmp_path, "killed")
    process = start(killed)
    wait_for_a_saved_state(process, killed.cache)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    heard = Heard()
    folder, resumed = run_plan(make_plan(killed), progress=heard)
    _, whole = run_plan(make_plan(options_of(checkpoint, data_folder, tmp_path, "whole")), progress=silent)
    assert process.returncode == -signal.SIGKILL
    assert any(line.startswith("distill: goes on after step ") for line in heard.lines)
    assert [record.artifact for record in resumed.stages] == [record.artifact for record in whole.stages]
    assert [record.facts for record in resumed.stages] == [record.facts for record in whole.stages]
    assert read(folder).stages[1].stage == "distill"
    assert not [path for path in killed.cache.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_two_processes_learn_together_and_hold_the_same_weights(pruned, context, tmp_path):
    here = context("token-classification")
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    folders = [str(each) for each in (here.reference.path, pruned("token-classification").path, tmp_path)]
    found = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*words, *folders], check=True, capture_output=True, timeout=120, env=found)
    facts = [json.loads((tmp_path / f"facts-{rank}.json").read_text()) for rank in (0, 1)]
    assert facts[0] == facts[1]
    assert (facts[0]["processes"], facts[0]["steps"]) == (2, 4)
    assert facts[0]["loss_after"] < facts[0]["loss_before"]
    assert same_weights(tmp_path / "out-0", tmp_path / "out-1")


TOGETHER = """
import functools, json, os, sys
from pathlib import Path
import transformers
from doubles import Silent
from optimize.artifact import seal
from optimize.building import open_folder
from optimize.data.splits import Wanted, load_splits
from optimize.data.tokenized import encode
from optimize.heads import HEADS
from optimize.gates import Gates
from optimize.interfaces import Context, Text
from optimize.stages.distill import STAGE, Params

reference, source, folder = map(Path, sys.argv[1:])
head = HEADS["token-classification"]
config = json.loads((reference / "config.json").read_text())
rank = int(os.environ["RANK"])
splits = load_splits(Wanted("demo", None, {}, None, 8, 8, 8, 0), head, config)
text = Text(transformers.AutoTokenizer.from_pretrained(reference), config, 64)
shown, asked = (encode(head, rows, text) for rows in (splits.calibration, splits.tuning))
context = Context(head, seal(reference, "torch"), shown, asked, shown, Gates(), 0, 1, (), Silent(),
                  functools.partial(open_folder, head=head, threads=1), time_stacks=None, scratch=folder / "scratch")
out = folder / f"out-{rank}"
params = Params(epochs=4, batch_size=4, learning_rate=1e-3, evaluate_every=2, save_every=2)
facts = STAGE.run(seal(source, "torch"), out, params, context)
(folder / f"facts-{rank}.json").write_text(json.dumps(facts))
"""


def test_a_rate_that_is_far_too_high_ends_training_and_the_best_is_kept(distill, pruned):
    out, facts, here = distill("text-classification", learning_rate=1.0, warmup=0, evaluate_every=1, epochs=40)
    assert facts["ended"].startswith("diverged at step ")
    assert facts["loss_after"] == min(row["loss"] for row in facts["losses"])
    assert lost(out, here).divergence == pytest.approx(facts["loss_after"], rel=1e-4)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training_and_the_best_is_kept(broken, distill, pruned, monkeypatch):
    seen = []

    def loss(pair, batch, weights):
        seen.append(batch)
        return batch_loss(pair, batch, weights) * (broken if len(seen) == 14 else 1.0)

    monkeypatch.setattr("optimize.stages.distill.batch_loss", loss)
    out, facts, _ = distill("token-classification")
    assert (facts["ended"], facts["steps"]) == ("diverged at step 14", 13)
    assert facts["kept_step"] > 0
    assert np.isfinite(np.concatenate([array.ravel() for array in weights_of(out).values()])).all()


def test_where_nothing_is_better_than_the_start_the_start_is_kept_and_said(distill, context):
    here = context("token-classification")
    out, facts, _ = distill("token-classification", source=here.reference, learning_rate=1e-2, patience=2)
    assert (facts["kept"], facts["kept_step"]) == ("the starting weights", 0)
    assert same_weights(out, here.reference.path)
    assert facts["loss_after"] == facts["loss_before"]


def test_training_ends_when_nothing_gets_better(distill, context):
    here = context("token-classification")
    changes = {"source": here.reference, "learning_rate": 1e-6, "evaluate_every": 1, "patience": 3}
    _, facts, _ = distill("token-classification", **changes, epochs=50)
    assert facts["ended"] == "no better for 3 evaluations"
    assert facts["steps"] == facts["kept_step"] + 3


def test_training_ends_when_its_time_is_up(distill, monkeypatch):
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    _, facts, _ = distill("token-classification", max_minutes=0.5, epochs=50)
    assert (facts["ended"], facts["steps"]) == ("0.5 minutes were up", 5)
    assert facts["losses"][-1]["step"] == 5


def test_steps_are_expected_from_the_pace_where_time_is_short():
    plan = Plan(1000, 1e-4, 0.1, 0.0, 10, max_minutes=1.0)
    expected = [expected_steps(TrainingState(steps=steps, seconds=seconds), plan) for steps, seconds in EXPECTED]
    assert expected == [1000, 120, 1000, 61]


EXPECTED = [(0, 0.0), (20, 10.0), (20, 0.5), (60, 60.0)]


def test_the_seed_decides_and_nothing_else_does(distill):
    runs = [distill("token-classification", {"seed": seed}, epochs=2)[0] for seed in (1, 1, 2)]
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])


def test_steps_are_shared_among_processes():
    assert [plan_of(Params(epochs=2.5), 40, processes).steps for processes in (1, 4, 1000)] == [100, 25, 1]
    assert plan_of(Params(order=3), 40, 1).order == 3


@pytest.mark.parametrize("head", ["text-classification", "token-classification"])
def test_only_directions_count_for_hidden_states(head, context):
    here = context(head)
    batch = make_batch(here.calibration.features[:3], pad_id=0)
    with torch.no_grad():
        found = answer(load_model(here.reference.path, here.head.auto_class), batch, here.head)
    longer = Answer(found.rows, {layer: 3 * states for layer, states in found.hidden.items()})
    opposite = Answer(found.rows, {layer: -states for layer, states in found.hidden.items()})
    assert cosine_loss(longer, found, batch, here.head) == pytest.approx(0, abs=1e-6)
    assert cosine_loss(opposite, found, batch, here.head) == pytest.approx(2)


def test_a_part_without_weight_has_no_say():
    assert Weights(soft=0).labels == Weights().hidden == Weights().cosine == 0


def test_without_training_examples_it_refuses_in_one_line(distill):
    with pytest.raises(StageError, match=r"^distill: there are no training examples; give data with .+$"):
        distill("token-classification", {"training": Encoded((), (), 0)})


def test_without_any_loss_it_is_refused_before_anything_runs():
    with pytest.raises(RequestError, match=r"all three losses count 0; give one of them a weight, .+$"):
        parse_step({"distill": {"soft_weight": 0, "label_weight": 0, "hidden_weight": 0}}, where="here")


def test_a_student_with_fewer_layers_is_refused_unless_only_answers_are_matched(random_context, tmp_path):
    here = random_context("text-classification")
    here = dataclasses.replace(here, training=here.calibration)
    smaller = random_context("text-classification", n_layers=1).reference
    with pytest.raises(StageError, match=r"^distill: .+1 layers of width 64 .+ 2 of 64: .+ \{hidden_weight: 0\}'$"):
        STAGE.run(smaller, tmp_path, Params(epochs=1), here)
    assert STAGE.run(smaller, tmp_path, Params(epochs=1, hidden_weight=0), here)["steps"] == 1


def test_a_checkpoint_that_answers_nan_is_refused(distill, context, tmp_path):
    here = context("token-classification")
    weights = weights_of(here.reference.path)
    weights["distilbert.transformer.layer.0.ffn.lin1.bias"][0] = np.nan
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((here.reference.path / "config.json").read_text())
    with pytest.raises(StageError, match=r"^distill: .+ not finite .+; give a checkpoint whose answers are finite$"):
        distill("token-classification", source=seal(tmp_path, "torch"))


@pytest.mark.parametrize("params", [{"epochs": 0}, {"patience": 0}, {"max_minutes": 0}, {"hidden": True}])
def test_parameters_out_of_range_or_unknown_are_refused(params):
    with pytest.raises(ValidationError):
        Params(**params)
