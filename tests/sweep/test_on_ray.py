"""What tasks ask of a Ray cluster's machines, and by which words one is named."""

from __future__ import annotations

import pytest

from optimize.errors import RequestError
from optimize.machine.clusters import read_place
from optimize.sweep.matrix import Matrix, points_of
from optimize.sweep.on_ray import MEMORY, TRAINING_MEMORY, needs_of
from optimize.sweep.schedule import Machine
from optimize.sweep.tasks import Task
from optimize.sweep.work import Part, Work

LARGE = {"CPU": 8.0, "memory": 64.0 * 2**30}


def needs(pipeline, kind="stage", *, stages=99, slots=4, resources=LARGE):
    matrix = Matrix(models=[{"model": "demo", "head": "text-classification"}], pipelines=[pipeline])
    (point,) = points_of(matrix, "f.yaml")
    work = Work(kind, [Part(point.id, point.model, point.options, point.form)], stages)
    task = Task("t", kind, "t", (point.id,), stages, alone=kind in ("measure", "certify"))
    return needs_of(work, task, Machine("m", slots), resources)


def test_a_stage_takes_its_share_of_the_cores_and_what_is_timed_all():
    assert needs("cpu-static") == {"num_cpus": 2, "memory": MEMORY}
    assert needs("cpu-static", "measure") == {"num_cpus": 8, "memory": MEMORY}


def test_training_takes_more_memory_than_what_comes_before_it():
    assert needs("cpu-distilled")["memory"] == TRAINING_MEMORY
    assert needs("cpu-distilled", stages=1)["memory"] == MEMORY


def test_no_task_asks_for_more_memory_than_a_machine_has():
    small = {"CPU": 2.0, "memory": 3.0 * 2**30}
    assert needs("cpu-distilled", slots=1, resources=small)["memory"] == 3 * 2**30


def test_a_gpu_is_for_what_runs_on_it():
    assert "num_gpus" not in needs("cuda")
    assert needs("cuda", "measure")["num_gpus"] == 1
    assert "num_gpus" not in needs("cpu-static", "measure")


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ("ray", "local"),
        ("ray:local", "local"),
        ("ray:auto", "auto"),
        ("ray:10.0.0.1:6379", "10.0.0.1:6379"),
        ("ray://host:10001", "ray://host:10001"),
    ],
)
def test_a_cluster_is_named_as_ray_takes_it(words, address):
    assert read_place(words, client=True) == address


@pytest.mark.parametrize(
    ("words", "client", "said"),
    [
        ("moon", True, "is no place to work; write ray, ray:auto or ray:HOST:PORT, or ray://HOST:PORT"),
        ("moon", False, "is no place to work; write ray, ray:auto or ray:HOST:PORT$"),
        ("ray:moon", True, "names no address"),
        ("ray://moon", True, "names no address"),
        ("ray://host:10001", False, "is an address of Ray Client, which is not used here"),
    ],
)
def test_other_words_are_refused(words, client, said):
    with pytest.raises(RequestError, match=said):
        read_place(words, client=client)
