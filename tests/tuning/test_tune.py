"""A whole search: what it writes, that it goes on where it was, and how trials end before their time."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
import transformers
from doubles import Heard
from tuning.cases import HEAD, carry_out, facts, scores, short_options

from optimize import tuned
from optimize.building import load_data
from optimize.checkpoint import load_model
from optimize.data.drawing import content_digest
from optimize.errors import RequestError, StageError
from optimize.heads import HEADS
from optimize.planning import make_plan
from optimize.request import Options
from optimize.source.acquire import acquire_checkpoint
from optimize.tuning import trial
from optimize.tuning.plan import plan_tuning
from optimize.tuning.study import STUDY
from optimize.tuning.trial import score_of
from optimize.tuning.tune import alone, work_of
from optimize.tuning.work import load

__all__ = ["scores"]


@pytest.fixture
def options(tmp_path, checkpoint, data_folder) -> Callable[..., Options]:
    return lambda head=HEAD, **others: short_options(tmp_path, checkpoint(head), data_folder(head), head, **others)


@pytest.fixture(scope="module")
def done(tmp_path_factory, checkpoint, data_folder):
    """A search that ended: its options, its folder and its record."""
    place = tmp_path_factory.mktemp("search")
    asked = short_options(place, checkpoint(HEAD), data_folder(HEAD))
    return asked, *carry_out(asked)


class Killed(Heard):
    """Progress that ends the process, as Ctrl-C does, once so many lines with these words were said."""

    def __init__(self, words: str, count: int) -> None:
        super().__init__()
        self.words, self.count = words, count

    def say(self, line: str) -> None:
        super().say(line)
        self.count -= self.words in line
        if not self.count:
            raise KeyboardInterrupt


def test_the_checkpoint_is_one_that_scores_as_the_record_says(done):
    asked, folder, record = done
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    loaded = load(plan_tuning(asked), Heard())

    assert record == tuned.read(folder)
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert model.config.problem_type == "single_label_classification"
    assert model.config.dropout == record.winner.parameters["dropout"]
    assert score_of(load_model(folder).eval(), HEADS[HEAD], loaded.tuning).value == record.value
    assert transformers.AutoTokenizer.from_pretrained(folder)("fine")["input_ids"]


def test_training_moved_the_weights_and_gave_the_head_new_ones(done, checkpoint):
    _, folder, record = done
    before, after = (load_model(each).state_dict() for each in (checkpoint(HEAD), folder))
    encoder = "distilbert.transformer.layer.0.ffn.lin1.weight"

    assert record.base.head == "new"
    assert 0 < (before[encoder] - after[encoder]).abs().max() < 0.01
    assert not torch.allclose(before["classifier.weight"], after["classifier.weight"], atol=0.01)


def test_the_record_says_what_was_tried_and_what_came_of_it(done):
    asked, folder, record = done

    assert [each.number for each in record.trials] == [0, 1]
    assert record.trials[0].parameters["learning_rate"] == 5e-5
    assert record.winner.outcome in tuned.CHOSEN_FROM
    assert record.value == max(point.value for point in record.winner.curve)
    assert record.metric == "accuracy"
    assert record.data["training"].count == 200
    assert record.space["max_steps"] == 4
    assert (record.asked.model, record.asked.head, record.asked.on) == (asked.model, HEAD, "here")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    names = [each["event"] for each in events]
    assert names[0] == "search"
    assert [names.count(each) for each in ("begun", "ended")] == [2, 2]
    assert names.count("measured") == sum(len(each.curve) for each in record.trials)
    assert (folder / "tuning.png").read_bytes().startswith(b"\x89PNG")
    assert f"Trial {record.chosen} of 2: accuracy" in (folder / "tuning.md").read_text(encoding="utf-8")


def test_the_weights_of_no_other_trial_are_kept(done):
    _, folder, _ = done
    assert [path.name for path in folder.parent.rglob("*.safetensors")] == ["model.safetensors"]
    assert not [path for path in folder.parent.rglob("*") if path.name.startswith(".partial")]


def test_a_run_takes_the_result_and_judges_by_what_the_search_left_out(done):
    asked, folder, record = done
    plan = make_plan(
        Options(model=str(folder), data=asked.data, pipeline="cpu-dynamic", examples=60, cache=asked.cache)
    )
    origin = acquire_checkpoint(plan.found, plan.head, root=plan.cache, seed=0, progress=Heard())
    judged = load_data(plan, origin, Heard()).splits

    assert plan.head.name == HEAD
    assert judged.records["certification"].digest == record.data["certification"].digest


def test_nothing_of_certification_is_learnt_from_or_chosen_by(done, data_folder):
    asked, _, _ = done
    loaded, head = load(plan_tuning(asked), Heard()), HEADS[HEAD]
    seen = work_of(loaded, asked.out)

    def digests(rows):
        return {content_digest(row, head) for row in rows}

    certified = digests(loaded.splits.certification)
    assert len(certified) == 60
    assert digests(seen.training.rows) | digests(seen.tuning.rows) == digests(
        (*loaded.splits.training, *loaded.splits.tuning)
    )
    assert not certified & digests(seen.training.rows)
    assert not certified & digests(seen.tuning.rows)
    assert not digests(seen.training.rows) & digests(seen.tuning.rows)
    lines = (data_folder(HEAD) / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    assert certified <= digests({"text": json.loads(line)["text"]} for line in lines)


def test_what_is_asked_for_again_is_there_and_more_trials_are_added(options):
    first, again = carry_out(options()), Heard()
    assert carry_out(options(), again) == first
    assert again.lines[-1] == "nothing to redo: all trials are there"

    more = Heard()
    folder, record = carry_out(options(settings={"tune.trials": 3}), more)
    assert folder == first[0]
    assert facts(record)[:2] == facts(first[1])
    assert [each.number for each in record.trials] == [0, 1, 2]
    assert not [line for line in more.lines if line.startswith(("trial 0:", "trial 1:"))]
    assert tuned.read(folder) == record
    assert load_model(folder).config.dropout == record.winner.parameters["dropout"]


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [
        ("trial 0: accuracy", True),
        ("trial 1: accuracy", True),
        ("trial 1: learning", True),
        ("trial 0: finished", False),
    ],
)
def test_a_search_that_was_killed_comes_to_the_end_that_it_would_have(words, goes_on, options, done):
    with pytest.raises(KeyboardInterrupt):
        carry_out(options(), Killed(words, 1))

    heard = Heard()
    _, record = carry_out(options(), heard)

    assert facts(record) == facts(done[2])
    assert any("goes on" in line for line in heard.lines) == goes_on


def test_what_a_kill_left_half_written_is_mended(options, done):
    with pytest.raises(KeyboardInterrupt):
        carry_out(options(), Killed("trial 0: accuracy", 2))
    (folder,) = options().out.glob("*.tuning")
    with (folder / STUDY).open("ab") as stream:
        stream.write(b'{"op_code": 5, "wor')
    (folder / f"{STUDY}.lock").symlink_to(STUDY)
    torn = folder / "trials" / "0" / "trainer" / "checkpoint-99"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"log_hist', encoding="utf-8")

    _, record = carry_out(options())

    assert facts(record) == facts(done[2])


def test_a_trial_far_behind_is_stopped_and_never_chosen(options, scores):
    scores(0.5, 0.6, 0.9, 0.1, 0.2)
    _, record = carry_out(options(settings={"tune.trials": 3, "tune.measurements": 2}))

    assert [each.outcome for each in record.trials] == ["finished", "finished", "stopped"]
    assert record.trials[2].reason == "behind others at this measurement"
    assert len(record.trials[2].curve) == 1
    assert record.chosen == 1


def test_the_weights_of_a_trials_best_measurement_are_taken(options, scores):
    scores(0.9, 0.3)
    folder, record = carry_out(options(settings={"tune.trials": 1}))
    assert (record.value, record.winner.best.step) == (0.9, 2)

    scores(0.3, 0.9)
    other, _ = carry_out(options(settings={"tune.trials": 1, "tune.grace": 2}))
    first, last = (load_model(each).classifier.weight for each in (folder, other))
    assert not torch.equal(first, last)


def test_a_trial_that_fails_says_why_and_ends_no_search(options, monkeypatch):
    loads = iter(range(9))
    usual = trial.load_with_info

    def sometimes(*words, **named):
        if next(loads) == 0:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return usual(*words, **named)

    monkeypatch.setattr(trial, "load_with_info", sometimes)
    _, record = carry_out(options())

    assert [each.outcome for each in record.trials] == ["failed", "finished"]
    assert record.trials[0].reason == "OutOfMemoryError: CUDA out of memory."
    assert (record.trials[0].curve, record.chosen) == ([], 1)


def test_weights_that_are_no_numbers_fail_their_trial(options):
    with pytest.raises(StageError, match=r"^tune: no trial can be chosen: FloatingPointError: weights are no numbers"):
        carry_out(options(settings={"tune.learning_rate": 1.0, "tune.weight_decay": 1e38, "tune.trials": 1}))


def test_where_all_trials_fail_it_says_why_and_exits_with_3(options, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(trial, "load_with_info", fails)
    with pytest.raises(StageError, match=r"^tune: no trial can be chosen: RuntimeError: no memory$") as stopped:
        carry_out(options())
    assert stopped.value.exit_code == 3
    assert not [path for path in options().out.iterdir() if not path.name.endswith(".tuning")]


def test_time_that_is_up_ends_a_trial_which_is_measured_and_may_be_chosen(options):
    _, record = carry_out(options(minutes=1e-6))

    (only,) = record.trials
    assert (only.outcome, only.curve[-1].step, record.chosen) == ("out of time", 1, 0)


def test_one_process_at_a_time_leads_a_search(tmp_path):
    with alone(tmp_path), pytest.raises(RequestError, match="another process leads this search"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_a_head_that_is_there_goes_on_and_its_texts_are_masked_as_the_head_does(options):
    _, record = carry_out(options("fill-mask", settings={"tune.trials": 1}))
    assert (record.base.head, record.metric, record.classes) == ("its own", "top1_accuracy", [])


def test_a_checkpoint_without_the_head_is_a_base_for_it(tmp_path, checkpoint, data_folder):
    tags = "token-classification"
    asked = short_options(tmp_path, checkpoint("fill-mask"), data_folder(tags), tags)
    folder, record = carry_out(asked)

    model = transformers.AutoModelForTokenClassification.from_pretrained(folder)
    assert record.base.head == "new"
    assert list(model.config.id2label.values()) == record.classes
    assert make_plan(Options(model=str(folder), data=asked.data)).head.name == tags


def test_what_was_tuned_on_the_demo_may_be_judged_by_it(done, tmp_path):
    _, folder, record = done
    with pytest.raises(RequestError, match="the demo's text does not fit another model"):
        make_plan(Options(model=str(folder), data="demo"))

    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    asked = record.asked.model_copy(update={"data": "demo"})
    tuned.write(record.model_copy(update={"asked": asked}), tmp_path)
    assert make_plan(Options(model=str(tmp_path), data="demo")).wanted.data == "demo"


def test_the_command_prints_what_was_chosen_and_what_judges_it(done, optimize, capsys):
    asked, folder, record = done
    words = ["--model", asked.model, "--data", asked.data, "--head", HEAD, "--out", str(asked.out), "--threads", "1"]
    words += [
        "--cache",
        str(asked.cache),
        "--examples",
        "60",
        "--calibration-examples",
        "16",
        "--tuning-examples",
        "60",
    ]
    words += ["--training-examples", "200", "--trials", "2"]
    for name, value in asked.settings.items():
        words += ["--set", f"{name}={value}"] if name != "tune.trials" else []

    assert optimize("tune", *words) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "nothing to redo: all trials are there"
    first = f"Trial {record.chosen} of 2: accuracy {record.value:.4f} on tuning data, with learning rate "
    assert out.startswith(first)
    assert "so it flatters" in out
    assert f"checkpoint: {folder}" in out
    assert f"optimize run --model {folder} --data {asked.data} --examples 60 --calibration-examples 16" in out

    assert optimize("tune", *words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["chosen"] == record.chosen
