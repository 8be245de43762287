"""Searches over fine-tunings that take longer: all heads on the demo, a process that is killed outright, and Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from doubles import Heard
from tuning.cases import HEAD, carry_out, facts, short_options

from optimize import tuned
from optimize.errors import StageError, UnavailableError
from optimize.heads import HEADS
from optimize.planning import make_plan
from optimize.request import Options
from optimize.running import run
from optimize.tuning.plan import plan_tuning
from optimize.tuning.work import load

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]
TRAINED = [name for name in HEADS if name != "feature-extraction"]
COMMAND = "from optimize.cli.commands import main; main()"


@pytest.mark.parametrize("head", TRAINED)
def test_a_head_learns_the_demo_and_what_it_learnt_is_certified(head, tmp_path, few_runs):
    places = {"out": tmp_path / "tuned", "cache": tmp_path / "cache"}
    usual = {"tuning_examples": 500, "training_examples": 3000, "threads": 1}
    settings = {"tune.max_steps": 150, "tune.measurements": 3, "tune.trials": 2, "tune.learning_rate": [2e-4, 1e-3]}
    asked = Options(model="demo", head=head, settings=settings, **usual, **places)
    folder, record = carry_out(asked)

    loaded = load(plan_tuning(asked), Heard())
    blind = max(HEADS[head].score(loaded.tuning, each).value for each in HEADS[head].constants(loaded.tuning))
    assert record.value > blind + 0.1

    again = Options(model=str(folder), data="demo", pipeline="cpu-dynamic", shapes=("1x16",), examples=500, **places)
    _, manifest = run(make_plan(again), progress=Heard())
    reference = manifest.measurements[0].metric
    assert manifest.request.head == head
    assert reference.name == record.metric
    assert reference.value == pytest.approx(record.value, abs=0.1)


def words_of(options: Options) -> list[str]:
    """The options of a short search as a command has them."""
    words = ["tune", "--model", options.model, "--data", str(options.data), "--head", str(options.head), "--json"]
    for name in ("out", "cache", "threads", "examples", "calibration_examples", "tuning_examples", "training_examples"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    for name, value in options.settings.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return words


def start(options: Options, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, *words_of(options), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def count_of(folder: Path, event: str) -> int:
    """How many events of a kind are written."""
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.tuning/events.jsonl")]
    return sum(text.count(f'"event": "{event}"') for text in texts)


def wait_for(folder: Path, event: str, count: int) -> None:
    """Wait until so many events of a kind are written."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if count_of(folder, event) >= count:
            return
        time.sleep(0.05)
    pytest.fail(f"no {count} events '{event}'")


def test_a_process_that_is_killed_outright_loses_what_was_not_measured_alone(tmp_path, checkpoint, data_folder):
    settings = {"tune.max_steps": 40, "tune.measurements": 4}
    whole, killed = (
        short_options(tmp_path / name, checkpoint(HEAD), data_folder(HEAD), settings=settings)
        for name in ("whole", "killed")
    )
    _, expected = carry_out(whole)
    for event, count in (("measured", 2), ("begun", 2)):
        process = start(killed)
        wait_for(killed.out, event, count)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    process = start(killed)
    out, err = process.communicate()

    assert process.returncode == 0, err
    record = tuned.Tuned.model_validate_json(out)
    assert facts(record) == facts(expected)


ray = pytest.importorskip("ray", reason="Ray comes with the extra ray")


def test_ray_trains_the_same_trials(tmp_path, checkpoint, data_folder):
    here, there = (
        short_options(tmp_path / name, checkpoint(HEAD), data_folder(HEAD), settings={"tune.grace": 2})
        for name in ("here", "there")
    )
    _, expected = carry_out(here)
    process = start(there, "--on", "ray")
    out, err = process.communicate()

    assert process.returncode == 0, err
    record = tuned.Tuned.model_validate_json(out)
    assert "ray: 1 cpu for each trial" in err
    assert record.asked.on == "ray:local"
    assert [each.outcome for each in record.trials] == ["finished", "finished"]
    values, others = ([point.value for point in each.trials[0].curve] for each in (record, expected))
    assert np.allclose(values, others, atol=0.02)
    assert record.trials[0].parameters == expected.trials[0].parameters
    assert [path.name for path in there.out.rglob("*.safetensors")] == ["model.safetensors"]
    assert not list(there.out.glob("*.tuning/ray"))


def test_a_search_on_ray_that_was_killed_goes_on_here_or_there(tmp_path, checkpoint, data_folder):
    settings = {"tune.max_steps": 60, "tune.measurements": 6, "tune.grace": 6}
    asked = short_options(tmp_path, checkpoint(HEAD), data_folder(HEAD), settings=settings)
    for _ in range(2):
        before = count_of(asked.out, "measured")
        process = start(asked, "--on", "ray")
        wait_for(asked.out, "measured", before + 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        assert process.returncode == 130, err

    _, record = carry_out(asked)

    assert [each.outcome for each in record.trials] == ["finished", "finished"]
    assert [len(each.curve) for each in record.trials] == [6, 6]


def test_a_trial_that_fails_on_ray_says_why(tmp_path, checkpoint, data_folder):
    settings = {"tune.learning_rate": 1.0, "tune.weight_decay": 1e38, "tune.trials": 1}
    asked = short_options(tmp_path, checkpoint(HEAD), data_folder(HEAD), settings=settings)
    with pytest.raises(StageError, match=r"^tune: no trial can be chosen: FloatingPointError: weights are no numbers"):
        carry_out(asked, on="ray")


def test_a_cluster_is_searched_on_or_refused(tmp_path, checkpoint, data_folder):
    from ray.cluster_utils import Cluster

    asked = short_options(tmp_path, checkpoint(HEAD), data_folder(HEAD), settings={"tune.trials": 1})
    with pytest.raises(UnavailableError, match=r"^--on: no Ray cluster at '127\.0\.0\.1:1' "):
        carry_out(asked, on="ray:127.0.0.1:1")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        _, record = carry_out(asked, on=f"ray:{cluster.address}")
        assert record.trials[0].outcome == "finished"
        wide = short_options(tmp_path / "wide", checkpoint(HEAD), data_folder(HEAD), threads=4)
        with pytest.raises(UnavailableError, match=r"^--on: a trial takes 4 cores, and no machine of the cluster"):
            carry_out(wide, on=f"ray:{cluster.address}")
    finally:
        cluster.shutdown()
