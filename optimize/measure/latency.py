"""Latency, load time and peak memory of engines that take turns, each in a process of its own.

The median is what counts, and ratios of medians are what is compared: absolute times do not
carry over to another machine. A percentile is given only where there are runs enough to show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from optimize.errors import StageError
from optimize.evaluate.statistics import percentiles_ms, ratio_interval
from optimize.interfaces import Progress
from optimize.manifest import Latency
from optimize.measure.rounds import Settings, time_rounds
from optimize.measure.workers import Engine, Worker, ask, open_workers, run_settled
from optimize.measure.workload import Workload, feeds_for, why_not

if TYPE_CHECKING:
    import numpy as np

    Rounds = Mapping[str, Sequence[np.ndarray[Any, Any]]]

__all__ = ["Engine", "EngineTimes", "Settings", "Workload", "measure_latency", "summarise"]


@dataclass(frozen=True)
class EngineTimes:
    """What was measured of one engine; what was not is in `not_measured`, with the reason."""

    latency: list[Latency]
    load_seconds: float
    peak_memory_bytes: int | None
    not_measured: dict[str, str] = field(default_factory=dict)


def measure_latency(
    engines: Sequence[Engine],
    shapes: Sequence[str],
    *,
    workload: Workload,
    settings: Settings,
    progress: Progress,
) -> dict[str, EngineTimes]:
    """Time all engines at all shapes; engines that fail or die raise a StageError."""
    if len({engine.name for engine in engines}) != len(engines):
        raise StageError("latency: two engines have the same name; name each one differently")
    left_out = {f"latency {shape}": reason for shape in shapes if (reason := why_not(shape, workload))}
    measured = [shape for shape in shapes if f"latency {shape}" not in left_out]
    found: dict[str, list[Latency]] = {engine.name: [] for engine in engines}
    with open_workers(engines, settings.threads) as workers:
        load_seconds = {name: float(ask(worker, "open")) for name, worker in workers.items()}
        for done, shape in enumerate(measured):
            progress.step("latency", done, len(measured))
            times = _time_shape(shape, workers, workload=workload, settings=settings)
            for engine in engines:
                found[engine.name].append(summarise(shape, engine, times, seed=workload.seed))
        progress.step("latency", len(measured), len(measured))
        peaks = {name: ask(worker, "memory") for name, worker in workers.items()}
    return {
        name: EngineTimes(
            latency=latency,
            load_seconds=load_seconds[name],
            peak_memory_bytes=peaks[name],
            not_measured=dict(left_out),
        )
        for name, latency in found.items()
    }


def _time_shape(
    shape: str, workers: Mapping[str, Worker], *, workload: Workload, settings: Settings
) -> dict[str, list[np.ndarray[Any, Any]]]:
    feeds = feeds_for(shape, workload)
    for worker in workers.values():
        ask(worker, "feeds", feeds)
    runs = {name: partial(run_settled, worker) for name, worker in workers.items()}
    return time_rounds(
        list(workers),
        len(feeds),
        run=lambda name, chosen, passes: runs[name](chosen, passes),
        settings=settings,
        seed=workload.seed,
    )


def summarise(shape: str, engine: Engine, times: Rounds, *, seed: int) -> Latency:
    """Percentiles of an engine's runs, and its speed-up over the FP32 references among `times`."""
    import numpy as np

    own = np.concatenate(times[engine.name])
    references = [name for name in ("pytorch-fp32", f"{engine.target}-fp32") if name in times]
    p50, p90, p99 = percentiles_ms(own)
    return Latency(
        shape=shape,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        runs=len(own),
        speedup={name: float(np.median(np.concatenate(times[name])) / np.median(own)) for name in references},
        speedup_interval={name: ratio_interval(times[name], times[engine.name], seed=seed) for name in references},
    )
