"""What layers of fewer heads and neurons cost in time, as measured on the target.

Timed are encoders of two layers that have so many heads or neurons, run as the target's own FP32 reference is. What a
layer takes besides, whatever it keeps, is part of its time. Heads and neurons are taken to add up, and between the
sizes measured time is taken to be linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optimize.errors import StageError
from optimize.interfaces import Context, FactRow
from optimize.pruning.costs import Costs, Curve
from optimize.pruning.sites import Site

PARTS = 4
Table = list[FactRow]


def measure_times(
    sites: Sequence[Site], operations: Costs, context: Context, *, tokens: int, multiple: int
) -> tuple[Costs, Table]:
    """Time layers of fewer heads, and of fewer neurons, in steps of a quarter.

    A last layer that computes one token takes that share of the others' time which its operations are of theirs.
    """
    heads, neurons = (max(site.count for site in sites if site.kind == kind) for kind in ("heads", "neurons"))
    head_counts, neuron_counts = quarters(heads, 1), quarters(neurons, multiple)
    smaller = [(count, neurons) for count in head_counts[:-1]] + [(heads, count) for count in neuron_counts[:-1]]
    stacks = [[(heads, neurons)], *([size] * 2 for size in [(heads, neurons), *smaller])]
    single, whole, *others = context.time_stacks(stacks, tokens)
    saved = [max((whole - other) / 2, 0.0) for other in others]
    curves = (
        _curve(head_counts, saved[: len(head_counts) - 1]),
        _curve(neuron_counts, saved[len(head_counts) - 1 :]),
    )
    variable = curves[0][-1][1] + curves[1][-1][1]
    layer = max(whole - single, variable)
    if layer <= 0:
        raise StageError("prune: layers took no measurable time; measure on a quieter machine, or at more 'tokens'")
    table: Table = [
        {"heads": size[0], "neurons": size[1], "layer_ms": 1e3 * (layer - gain)}
        for size, gain in zip([(heads, neurons), *smaller], [0.0, *saved], strict=True)
    ]
    layers = len(sites) // 2
    costs = Costs((curves[0],) * layers, (curves[1],) * layers, (layer - variable) * layers)
    return _sliced(costs, sites, operations), table


def quarters(count: int, multiple: int) -> list[int]:
    """A quarter of it, half of it and so on up to all, in multiples; the least first is one such multiple."""
    parts = {min(multiple * max(1, round(part * count / PARTS / multiple)), count) for part in range(PARTS)}
    return sorted({*parts, count})


def _curve(counts: Sequence[int], saved: Sequence[float]) -> Curve:
    """What more than the least count costs, never falling; `saved` is what each but the last saves over the last."""
    points: list[tuple[int, float]] = []
    least = saved[0] if saved else 0.0
    for count, gain in zip(counts, [*saved, 0.0], strict=True):
        points.append((count, max([least - gain, *(cost for _, cost in points)])))
    return ((0, 0.0), *points)


def _sliced(costs: Costs, sites: Sequence[Site], operations: Costs) -> Costs:
    """The same, with the last layer's curves scaled as its operations are."""

    def scaled(curves: tuple[Curve, ...], first: Site, last: Site) -> tuple[Curve, ...]:
        share = operations.of(last) / operations.of(first)
        return (*curves[:-1], tuple((count, cost * share) for count, cost in curves[-1]))

    return replace(
        costs,
        heads=scaled(costs.heads, sites[0], sites[-2]),
        neurons=scaled(costs.neurons, sites[1], sites[-1]),
    )
