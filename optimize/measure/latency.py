"""Latency, load time and peak memory of engines that take turns, each in a process of its own.

The median is what counts, and ratios of medians are what is compared: absolute times do not
carry over to another machine. A percentile is given only where there are runs enough to show it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optimize.errors import StageError
from optimize.evaluate.statistics import percentiles_ms, ratio_interval
from optimize.interfaces import Array, Progress
from optimize.manifest import Latency
from optimize.measure.rounds import Rounds, Settings, Timing, Turn
from optimize.measure.shapes import ON_DEVICE
from optimize.measure.workers import PYTORCH, PYTORCH_FP32, Engine, Worker, ask, end, open_workers, run_settled
from optimize.measure.workload import Workload, feeds_for, why_not

__all__ = ["DeviceMemory", "Engine", "EngineTimes", "Settings", "Workload", "measure_latency", "summarise"]


MOST_LOAD_SECONDS = 3.0
"""An engine that takes longer to open, as one that compiles its kernels does, is opened once."""
PROCESSES_DIFFER = 1.01
"""An engine's processes are copies of one, with the same addresses, by which the next one differs from it.

Of 40 pairs of one INT8 model (0.5 ms a run, two threads on two cores of an AMD EPYC), rounds alone held the ratio 1 in
35, and missed it by 1.1 % at most.
"""
MOST_SPREAD = 1.5
"""Of an interval's upper end over its lower: a wider one says nothing that anybody could rely on."""


@dataclass(frozen=True)
class EngineTimes:
    """What was measured of one engine; what was not is in `not_measured`, with the reason."""

    latency: list[Latency] = field(default_factory=list)
    load_seconds: float | None = None
    peak_memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    not_measured: dict[str, str] = field(default_factory=dict)
    runs: dict[str, Array] = field(default_factory=dict)
    """Seconds of every run, by the shape's label."""


@dataclass(frozen=True)
class DeviceMemory:
    """A device with memory of its own; `in_use` says how many bytes of it all processes have, if that can be told."""

    in_use: Callable[[], int | None]


def measure_latency(
    engines: Sequence[Engine],
    shapes: Sequence[str],
    *,
    references: Sequence[str],
    workload: Workload,
    settings: Settings,
    progress: Progress,
    device: DeviceMemory | None = None,
) -> dict[str, EngineTimes]:
    """Time all engines at all shapes; engines that fail or die raise a StageError.

    On a `device` each shape is timed twice: from this machine's memory and back, and, as "1x128@device", with feeds and
    outputs in the device's.
    """
    import numpy as np

    if len({engine.name for engine in engines}) != len(engines):
        raise StageError("latency: two engines have the same name; name each one differently")
    left_out: dict[str, str] = {}
    measured: list[str] = []
    for shape in shapes:
        if reason := why_not(shape, workload):
            left_out[f"latency {shape}"] = reason
        else:
            measured.append(shape)
    with open_workers(engines, settings.threads) as workers:
        load_seconds = {name: float(ask(worker, "open")) for name, worker in workers.items()}
        timings: dict[str, Timing] = {}
        for shape in measured:
            for place in (False, True) if device else (False,):
                label = f"{shape}{ON_DEVICE}" if place else shape
                timings[label] = _timing(shape, workers, workload=workload, settings=settings, place=place)
        peaks = _take_turns(timings, workers, load_seconds, progress)
        # All peaks first: what one worker's end sets free must not be used by another before it is asked.
        held = {name: _end_and_see(worker, device) for name, worker in workers.items()}
    found: dict[str, list[Latency]] = {engine.name: [] for engine in engines}
    runs: dict[str, dict[str, Array]] = {engine.name: {} for engine in engines}
    for label, timing in timings.items():
        rounds = timing.result()
        if rounds.unreliable:
            progress.say(f"latency at {label} is not reliable: {rounds.unreliable}")
        for engine in engines:
            found[engine.name].append(summarise(label, engine, rounds, references=references))
            runs[engine.name][label] = np.concatenate(rounds.times[engine.name])
    measured_of: dict[str, EngineTimes] = {}
    for name, latency in found.items():
        measured_of[name] = EngineTimes(
            latency, load_seconds[name], peaks[name], held[name], dict(left_out), runs[name]
        )
    return measured_of


def _end_and_see(worker: Worker, device: DeviceMemory | None) -> int | None:
    """End a worker; the bytes of the device's memory that this set free. Runtimes give back nothing before they end."""
    if device is None:
        return None
    before = device.in_use()
    end(worker)
    after = device.in_use()
    # Below 0 where another process has taken memory meanwhile.
    return None if before is None or after is None else max(before - after, 0)


def _take_turns(
    timings: Mapping[str, Timing], workers: Mapping[str, Worker], load_seconds: Mapping[str, float], progress: Progress
) -> dict[str, int | None]:
    """Round after round over all shapes, until each has enough; peak memory of each worker after the first one.

    Engines are opened anew before each round, in new processes: an interval over rounds of the same ones would know
    nothing of the tenth by which one process differs from the next.
    """
    quick = [name for name, seconds in load_seconds.items() if seconds <= MOST_LOAD_SECONDS]
    rounds, peaks = 0, dict[str, int | None]()
    while pending := [timing for timing in timings.values() if not timing.done]:
        for name in quick if rounds else ():
            ask(workers[name], "renew")
            ask(workers[name], "open")
        for timing in pending:
            timing.turn()
        rounds += 1
        progress.step("latency", len(timings) - len(pending), len(timings))
        # Of the processes that have loaded the models and run all shapes, as a service does.
        peaks = peaks or {name: ask(worker, "memory") for name, worker in workers.items()}
    progress.step("latency", len(timings), len(timings))
    return peaks or {name: ask(worker, "memory") for name, worker in workers.items()}


def _timing(
    shape: str, workers: Mapping[str, Worker], *, workload: Workload, settings: Settings, place: bool
) -> Timing:
    """The rounds of all engines at a shape; with `place`, on feeds that lie on the device."""
    feeds = feeds_for(shape, workload)

    def run(name: str, chosen: Sequence[int], passes: int) -> Turn:
        ask(workers[name], "place" if place else "feeds", [feeds[index] for index in chosen])
        return run_settled(workers[name], passes)

    return Timing(list(workers), len(feeds), run=run, settings=settings, seed=workload.seed)


def summarise(shape: str, engine: Engine, rounds: Rounds, *, references: Sequence[str]) -> Latency:
    """Percentiles of an engine's runs, and its speed-up over `references`; of PyTorch's engines over PyTorch's FP32."""
    import numpy as np

    times = rounds.times
    own = np.concatenate(times[engine.name])
    speedup: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name in references:
        if engine.target == PYTORCH and name != PYTORCH_FP32:
            continue
        speedup[name] = float(np.median(np.concatenate(times[name])) / np.median(own))
        intervals[name] = (1.0, 1.0)
        if name != engine.name:
            intervals[name] = _around(speedup[name], ratio_interval(times[name], times[engine.name]))
    p50, p90, p99 = percentiles_ms(own)
    return Latency(
        shape=shape,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        runs=len(own),
        speedup=speedup,
        speedup_interval=intervals,
        unreliable=rounds.unreliable or _spread(intervals),
    )


def _around(ratio: float, interval: tuple[float, float]) -> tuple[float, float]:
    """An interval that holds the ratio of all runs, the rounds' middle one or not; no finer than `PROCESSES_DIFFER`."""
    low, high = interval
    return min(low / PROCESSES_DIFFER, ratio), max(high * PROCESSES_DIFFER, ratio)


def _spread(intervals: Mapping[str, tuple[float, float]]) -> str | None:
    """What rounds that contradict each other leave to say of a speed-up, whatever disturbed them."""
    for name, (low, high) in intervals.items():
        if high > MOST_SPREAD * low:
            return f"rounds contradict each other: over {name} the speed-up was from {low:.2f}x to {high:.2f}x"
    return None
