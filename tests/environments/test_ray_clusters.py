"""A sweep on a Ray cluster of two machines, which are two raylets here: what a local one finds, one killed or not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from doubles import FEW, Silent

from optimize import swept
from optimize.errors import UnavailableError
from optimize.sweep.pools import opener
from optimize.sweep.sweeping import State, plan_sweep, sweep

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402  (a part of ray, which may be missing)

pytestmark = [
    pytest.mark.environments,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
HEADS = ("text-classification", "token-classification")


@pytest.fixture
def cluster():
    """Two machines of one core each; the head has none, so that it may live when they die."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made, nodes
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def asked(checkpoint, data_folder, tmp_path) -> Callable[[str], Path]:
    """A file that asks for four recipes of two checkpoints, in a place of its own."""

    def write(name: str) -> Path:
        models = [{"model": str(checkpoint(head)), "data": str(data_folder(head)), "name": head} for head in HEADS]
        content = {
            "models": models,
            "pipelines": ["cpu-dynamic", "cpu-fused"],
            "settings": {"quantize_dynamic.embedding": [False, True]},
            "options": {**FEW, "examples": 60, "threads": 1, "shapes": "1x16"},
            "gates": {"max_relative_metric_drop": 0.5, "min_agreement": 0.3, "min_speedup": 0.1, "max_size_ratio": 1.0},
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "many.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / name / "many.yaml"

    return write


def run(file: Path, on: str | None, watch: Callable[[State], None] = lambda _: None) -> swept.Swept:
    planned = plan_sweep(file, out=file.parent, cache=file.parent / "cache")
    opened, packed = opener(on, jobs=2, threads=1, progress=Silent())
    return sweep(planned, opened, watch=watch, packed=packed)


def digests(found: swept.Swept) -> dict[str, str]:
    return {trial.id: trial.stages[-1].artifact.digest for trial in found.trials if trial.outcome == "measured"}


def executed(file: Path) -> list[str]:
    lines = (file.parent / "many" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [each["key"] for each in events if each["event"] == "stage" and not each["cached"]]


def test_a_cluster_finds_what_this_machine_finds(cluster, asked):
    here, there = asked("here"), asked("there")
    local, far = run(here, None), run(there, f"ray:{cluster[0].address}")
    assert [trial.outcome for trial in far.trials] == [trial.outcome for trial in local.trials]
    assert digests(far) == digests(local)
    assert len(executed(there)) == len(set(executed(there))) == len(executed(here))
    for trial in far.trials:
        assert trial.tuning is None or trial.environment in far.environments
        if trial.run is not None:
            assert (there.parent / "many" / swept.RUNS / trial.run / "model").is_dir()


def test_a_machine_that_dies_loses_nothing(cluster, asked):
    made, (first, _) = cluster
    file, dead = asked("there"), threading.Event()

    def kill(state: State) -> None:
        if state.ended >= 3 and not dead.is_set():
            dead.set()
            made.remove_node(first, allow_graceful=False)

    found = run(file, f"ray:{made.address}", kill)
    assert dead.is_set()
    assert found.finished
    assert {trial.outcome for trial in found.trials} == {"measured"}
    assert sum(trial.run is not None for trial in found.trials) == len(HEADS)


def test_a_cluster_without_machines_is_told(asked, monkeypatch):
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    monkeypatch.setattr("optimize.sweep.on_ray.EMPTY_SECONDS", 1.0)
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="has no machine"):
        run(asked("there"), f"ray:{made.address}")
    assert time.monotonic() - begun < 120
    made.shutdown()
