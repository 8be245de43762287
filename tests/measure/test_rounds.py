from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optimize.measure.rounds import WARM_UP_PASSES, Rounds, Run, Settings, Timing, Turn, feeds_of_round


class Machine:
    """Runs engines in no time, on a clock of its own; every call is written down.

    `lost` are the shares that others take of the runs, one call after the other; none of those after.
    """

    def __init__(self, lost: Sequence[float] = (), **seconds: float) -> None:
        self.seconds, self.calls = seconds, list[tuple[str, list[int], int]]()
        self.lost = [0.0] * len(seconds) + list(lost)  # nothing disturbs warming up

    def run(self, name: str, feeds: Sequence[int], passes: int) -> Turn:
        self.calls.append((name, list(feeds), passes))
        lost = self.lost.pop(0) if self.lost else 0.0
        return Turn([self.seconds[name] / (1.0 - lost)] * (len(feeds) * passes), lost)


def time_rounds(names: list[str], feeds: int, *, run: Run, settings: Settings, seed: int) -> Rounds:
    """As many rounds as one shape needs."""
    timing = Timing(names, feeds, run=run, settings=settings, seed=seed)
    while not timing.done:
        timing.turn()
    return timing.result()


def test_every_engine_is_warmed_up_before_the_first_round() -> None:
    machine = Machine(a=0.1, b=0.1)
    time_rounds(["a", "b"], 1, run=machine.run, settings=Settings(threads=1), seed=0)
    assert machine.calls[:2] == [("a", [0], WARM_UP_PASSES), ("b", [0], WARM_UP_PASSES)]


def test_every_engine_runs_once_a_round_and_the_order_changes() -> None:
    machine = Machine(a=0.1, b=0.1, c=0.1)
    time_rounds(list("abc"), 1, run=machine.run, settings=Settings(threads=1), seed=0)
    names = "".join(name for name, _, _ in machine.calls[3:])
    rounds = [names[start : start + 3] for start in range(0, len(names), 3)]
    assert [sorted(order) for order in rounds] == [list("abc")] * 10
    assert len(set(rounds)) > 2


def test_the_order_of_engines_repeats_with_its_seed() -> None:
    first, again, other = Machine(a=0.1, b=0.1), Machine(a=0.1, b=0.1), Machine(a=0.1, b=0.1)
    for machine, seed in ((first, 5), (again, 5), (other, 6)):
        time_rounds(["a", "b"], 1, run=machine.run, settings=Settings(threads=1), seed=seed)
    assert first.calls == again.calls
    assert first.calls != other.calls


def test_a_slow_engine_gets_its_runs_and_a_fast_one_its_seconds() -> None:
    machine = Machine(slow=2.0, fast=0.001)
    times = time_rounds(["slow", "fast"], 1, run=machine.run, settings=Settings(threads=1), seed=0).times
    assert [len(each) for each in times["slow"]] == [2] * 10
    assert np.concatenate(times["fast"]).sum() >= 1.0
    assert len(times["fast"]) == 10


def test_rounds_are_added_for_all_engines_when_one_turns_out_faster_than_its_warm_up() -> None:
    machine = Machine(a=0.1, b=1.0)

    def warmed(name: str, feeds: Sequence[int], passes: int) -> Turn:
        turn = machine.run(name, feeds, passes)
        return turn if len(machine.calls) <= 2 else Turn([each * 0.5 for each in turn.seconds])

    settings = Settings(threads=1, min_runs=1, min_seconds=2.0, rounds=10)
    times = time_rounds(["a", "b"], 1, run=warmed, settings=settings, seed=0).times
    assert len(times["a"]) == len(times["b"]) == 20
    assert np.concatenate(times["a"]).sum() >= 2.0


def test_a_clock_that_stands_still_does_not_hang() -> None:
    settings = Settings(threads=1, min_seconds=1e-3)
    times = time_rounds(["a"], 1, run=lambda *_: Turn([0.0] * 3), settings=settings, seed=0).times
    assert len(times["a"]) == 110


def test_in_one_round_all_engines_run_the_same_feeds_and_over_all_rounds_every_feed() -> None:
    machine = Machine(a=0.001, b=0.5)
    time_rounds(["a", "b"], 32, run=machine.run, settings=Settings(threads=1), seed=0)
    chosen = [tuple(feeds) for _, feeds, _ in machine.calls[2:]]
    assert chosen[0::2] == chosen[1::2]
    assert sorted(feed for feeds in chosen[0::2] for feed in feeds) == list(range(32))


def test_a_round_of_few_feeds_takes_one_of_them_in_turn() -> None:
    assert [feeds_of_round(turn, 3, 10) for turn in range(4)] == [[0], [1], [2], [0]]
    assert feeds_of_round(12, 32, 10) == [2, 12, 22]


def test_a_round_that_others_disturbed_is_repeated_with_the_same_feeds_and_left_out() -> None:
    machine = Machine(lost=[0.0, 0.0, 0.0, 0.5], a=0.001, b=0.001)  # the second round's second engine

    rounds = time_rounds(["a", "b"], 32, run=machine.run, settings=Settings(threads=1), seed=0)

    assert rounds.unreliable is None
    assert {name: len(times) for name, times in rounds.times.items()} == {"a": 10, "b": 10}
    assert {second for times in rounds.times.values() for second in np.concatenate(times)} == {0.001}
    chosen = [feeds for _, feeds, _ in machine.calls[2::2]]
    assert chosen[1] == chosen[2] == list(range(1, 32, 10))
    assert sorted(feed for feeds in [chosen[0], *chosen[2:]] for feed in feeds) == list(range(32))


def test_a_machine_that_stays_busy_is_given_up_and_said_to_be() -> None:
    machine = Machine(lost=[0.0, 0.4] * 1000, a=0.1, b=0.1)

    rounds = time_rounds(["a", "b"], 1, run=machine.run, settings=Settings(threads=1), seed=0)

    assert len(rounds.times["a"]) == 21
    assert rounds.unreliable == "the machine was busy: in 21 of 21 rounds other processes took 40% of the time"


def test_what_little_others_always_take_disturbs_nothing() -> None:
    machine = Machine(lost=[0.04] * 1000, a=0.1)

    rounds = time_rounds(["a"], 1, run=machine.run, settings=Settings(threads=1), seed=0)

    assert (len(rounds.times["a"]), rounds.unreliable) == (10, None)
