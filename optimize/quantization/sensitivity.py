"""What each group costs in accuracy and saves in time when it alone is quantized."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from optimize.evaluate.judge import Loss
from optimize.interfaces import Array, Progress
from optimize.quantization.sites import Group
from optimize.quantization.variants import Variants
from optimize.runtimes.onnx_runtime import SLEEPING, cpu_session, session_options

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

TOKENS = 128
REPEATS = 40


@dataclass(frozen=True)
class Cost:
    """A group's error alone, and the microseconds that its INT8 form saves for one text of 128 tokens."""

    group: Group
    loss: Loss
    saved_us: float


def measure(variants: Variants, *, threads: int, progress: Progress) -> list[Cost]:
    """Quantize one group at a time and run the tuning data through it."""
    saved = time_groups(variants.model, variants.groups, threads=threads)
    costs = []
    for done, group in enumerate(variants.groups):
        loss = variants.assess(variants.build([group]))
        costs.append(Cost(group, loss, saved[group.name]))
        progress.step("sensitivity", done + 1, len(variants.groups))
    return costs


def time_groups(model: ir.Model, groups: Sequence[Group], *, threads: int) -> dict[str, float]:
    """Microseconds saved by each group's products in INT8; look-ups save none."""
    shapes = {name: tuple(weight.shape) for name, weight in model.graph.initializers.items()}

    @cache  # a model has dozens of products and a handful of shapes
    def saved(rows: int, columns: int) -> float:
        return time_product(rows, columns, threads=threads)

    totals = dict.fromkeys((group.name for group in groups), 0.0)
    for group in groups:
        for site in group.sites:
            if not site.looks_up:
                # A tied projection multiplies with the table transposed.
                rows, columns = reversed(shapes[site.weight]) if site.tied else shapes[site.weight]
                totals[group.name] += saved(rows, columns)
    return totals


def time_product(rows: int, columns: int, *, threads: int) -> float:
    """Microseconds that x [128, K] times W [K, N] takes longer in float than in INT8; medians, taken in turns."""
    # Two pools of spinning threads would take each other's cores.
    options = session_options(threads, SLEEPING)
    models = [_product(rows, columns, quantized) for quantized in (False, True)]
    sessions = [cpu_session(model.SerializeToString(), options) for model in models]
    feed = {"x": np.random.default_rng(0).normal(size=(TOKENS, rows)).astype(np.float32)}
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for session, seconds in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            seconds.append(time.perf_counter() - start)
    return float(np.median(times[0]) - np.median(times[1])) * 1e6


def _product(rows: int, columns: int, quantized: bool) -> onnx.ModelProto:
    """A model of one product with random weights."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (rows, columns)).astype(np.int8 if quantized else np.float32)
    constants: dict[str, Array | np.generic] = {"w": weight}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if quantized:
        constants |= {"s": np.float32(0.02), "z": np.uint8(128), "t": np.ones(columns, np.float32)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("MatMulIntegerToFloat", ["q", "w", "s", "t", "z"], ["y"], domain="com.microsoft"),
        ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [TOKENS, rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [TOKENS, columns])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def as_rows(costs: Sequence[Cost], left: Set[str]) -> list[dict[str, int | float | str]]:
    """The table of facts; `left` names the groups that were shipped in float."""
    return [
        {
            "group": cost.group.name,
            "sqnr_db": cost.loss.sqnr_db,
            "divergence": cost.loss.divergence,
            "metric": cost.loss.metric,
            "drop": cost.loss.drop,
            "agreement": cost.loss.agreement,
            "saved_us": cost.saved_us,
            "parameters": cost.group.parameters,
            "form": "float" if cost.group.name in left else "int8",
        }
        for cost in costs
    ]
