from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator

import psutil
import pytest

from optimize.measure import quiet
from optimize.measure.quiet import Taken, share_lost, taken


def test_the_thread_that_waited_most_counts_and_a_new_one_from_its_start() -> None:
    before = Taken({"1": 5.0, "2": 1.0}, 0.0)
    assert share_lost(before, Taken({"1": 5.1, "2": 1.4}, 0.0), 2.0) == pytest.approx(0.2)
    assert share_lost(before, Taken({"1": 5.0, "2": 1.0, "3": 0.5}, 0.0), 2.0) == pytest.approx(0.25)
    assert share_lost(before, Taken({}, 0.0), 2.0) == 0.0


def test_what_the_hypervisor_took_is_lost_as_well_and_no_more_than_all() -> None:
    assert share_lost(Taken({"1": 0.0}, 3.0), Taken({"1": 0.1}, 3.3), 2.0) == pytest.approx(0.2)
    assert share_lost(Taken({"1": 0.0}, 0.0), Taken({"1": 9.0}, 0.0), 2.0) == 1.0
    assert share_lost(Taken({"1": 0.0}, 0.0), Taken({"1": 9.0}, 0.0), 0.0) == 0.0


def test_a_kernel_that_counts_nothing_takes_nothing(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(quiet, "TASKS", tmp_path)
    monkeypatch.setattr(psutil, "cpu_times", lambda: ())
    assert taken() == Taken({}, 0.0)


def work(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process and those that it starts on one core."""
    if not hasattr(os, "sched_setaffinity") or not quiet.TASKS.is_dir():
        pytest.skip("this system has no schedstat")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def test_a_core_shared_with_another_process_is_half_lost(one_core) -> None:
    other = multiprocessing.get_context("fork").Process(target=work, args=(5.0,), daemon=True)
    other.start()
    try:
        time.sleep(0.2)
        before, start = taken(), time.monotonic()
        work(1.0)
        lost = share_lost(before, taken(), time.monotonic() - start)
    finally:
        other.kill()
        other.join()
    assert 0.25 < lost <= 1.0
