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
from optimize.pruning.sites import Kind, Site

PARTS = 4
Table = list[FactRow]
Size = tuple[int, int]
"""The heads and the neurons of a layer."""


def measure_times(
    sites: Sequence[Site], operations: Costs, context: Context, *, tokens: int, multiple: int
) -> tuple[Costs, Table]:
    """Time layers of fewer heads, and of fewer neurons, in steps of a quarter.

    A last layer that computes one token takes that share of the others' time which its operations are of theirs.
    """
    whole = _largest(sites, "heads"), _largest(sites, "neurons")
    head_counts, neuron_counts = quarters(whole[0], 1), quarters(whole[1], multiple)
    sizes: list[Size] = [(count, whole[1]) for count in head_counts[:-1]]
    sizes += [(whole[0], count) for count in neuron_counts[:-1]]
    layer, saved = _time_layers(whole, sizes, context, tokens=tokens)
    heads = _curve(head_counts, saved[: len(head_counts) - 1])
    neurons = _curve(neuron_counts, saved[len(head_counts) - 1 :])
    variable = heads[-1][1] + neurons[-1][1]
    # Noise may let what can be saved exceed the layer itself.
    layer = max(layer, variable)
    if layer <= 0:
        raise StageError("prune: layers took no measurable time; measure on a quieter machine, or at more 'tokens'")
    table: Table = []
    for size, gain in zip([whole, *sizes], [0.0, *saved], strict=True):
        table.append({"heads": size[0], "neurons": size[1], "layer_ms": 1e3 * (layer - gain)})
    layers = len(sites) // 2
    costs = Costs((heads,) * layers, (neurons,) * layers, (layer - variable) * layers)
    return _sliced(costs, sites, operations), table


def _largest(sites: Sequence[Site], kind: Kind) -> int:
    return max(site.count for site in sites if site.kind == kind)


def _time_layers(whole: Size, sizes: Sequence[Size], context: Context, *, tokens: int) -> tuple[float, list[float]]:
    """The seconds of a whole layer, and what a layer of each of the sizes saves of them."""
    # One layer against two: what remains of their difference is a layer, without embeddings, head and overhead.
    stacks = [[whole], [whole, whole]]
    stacks += [[size, size] for size in sizes]
    single, double, *others = context.time_stacks(stacks, tokens)
    return double - single, [max((double - other) / 2, 0.0) for other in others]


def quarters(count: int, multiple: int) -> list[int]:
    """A quarter of it, half of it and so on up to all, in multiples; the least first is one such multiple."""
    found = {count}
    for part in range(PARTS):
        multiples = max(1, round(part * count / PARTS / multiple))
        found.add(min(multiple * multiples, count))
    return sorted(found)


def _curve(counts: Sequence[int], saved: Sequence[float]) -> Curve:
    """What more than the least count costs, never falling; `saved` is what each but the last saves over the last."""
    points = [(0, 0.0)]
    least = saved[0] if saved else 0.0
    cost = 0.0
    for count, gain in zip(counts, [*saved, 0.0], strict=True):
        # The search takes away what is cheap: a curve that fell by noise would make fewer look dearer.
        cost = max(cost, least - gain)
        points.append((count, cost))
    return tuple(points)


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
