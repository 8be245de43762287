"""How fast this machine multiplies matrices of a DistilBERT's shapes, in each type of number: the limit of any engine.

Activations [M, K] are multiplied with weights [K, N] that are known beforehand, by ONNX Runtime in FP32 and INT8
(MatMulInteger: 8 bits, summed in 32), and by PyTorch in BF16, on CPUs that compute in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from optimize.interfaces import Progress
from optimize.machine.environment import why_no_bf16

SIZES = ((128, 768, 768), (128, 768, 3072), (128, 3072, 768), (1024, 768, 3072), (1024, 3072, 768))
"""M, K and N: 1 and 8 texts of 128 tokens through the linear layers of distilbert-base."""
SECONDS = 0.5
"""Spent on each product."""
Multiply = Callable[[], object]


@dataclass(frozen=True)
class Peak:
    """The fastest product in one type of number: its M, K and N, and operations a second, multiply-adds as two."""

    kind: str
    size: tuple[int, int, int]
    operations_per_second: float

    def milliseconds(self, operations: float) -> float:
        """How long so many operations take at this speed."""
        return 1e3 * operations / self.operations_per_second


def find_peaks(threads: int, *, progress: Progress) -> list[Peak]:
    """The fastest product of each type that this CPU has."""
    kinds: dict[str, Callable[[int, int, int, int], Multiply]] = {"FP32": _float, "INT8": _integer}
    if why_no_bf16() is None:
        kinds["BF16"] = _bfloat16
    found = []
    for done, (kind, prepare) in enumerate(kinds.items()):
        progress.step("products", done, len(kinds))
        speeds = {size: 2.0 * size[0] * size[1] * size[2] / _seconds(prepare(*size, threads)) for size in SIZES}
        best = max(speeds, key=lambda size: speeds[size])
        found.append(Peak(kind, best, speeds[best]))
    progress.step("products", len(kinds), len(kinds))
    return found


def _seconds(multiply: Multiply) -> float:
    """The median time of a product that has been done before."""
    multiply()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - start)
    return median(times)


def _float(rows: int, inner: int, columns: int, threads: int) -> Multiply:
    return _in_onnx_runtime("MatMul", "float32", "float32", (rows, inner, columns), threads)


def _integer(rows: int, inner: int, columns: int, threads: int) -> Multiply:
    return _in_onnx_runtime("MatMulInteger", "uint8", "int8", (rows, inner, columns), threads)


def _in_onnx_runtime(operator: str, left: str, right: str, size: tuple[int, int, int], threads: int) -> Multiply:
    """A session of one product, with ones; values do not change how long it takes."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from optimize.runtimes.onnx_runtime import cpu_session, session_options

    rows, inner, columns = size
    weights = onnx.numpy_helper.from_array(np.ones((inner, columns), right), "weights")
    out = TensorProto.FLOAT if operator == "MatMul" else TensorProto.INT32
    x = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(left)), [rows, inner])
    y = helper.make_tensor_value_info("y", out, [rows, columns])
    graph = helper.make_graph([helper.make_node(operator, ["x", "weights"], ["y"])], "product", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = cpu_session(model.SerializeToString(), session_options(threads))
    feed = {"x": np.ones((rows, inner), left)}
    return lambda: session.run(None, feed)


def _bfloat16(rows: int, inner: int, columns: int, threads: int) -> Multiply:
    import torch

    torch.set_num_threads(threads)
    x = torch.ones(rows, inner, dtype=torch.bfloat16)
    linear = torch.nn.Linear(inner, columns, bias=False, dtype=torch.bfloat16)

    def multiply() -> object:
        with torch.inference_mode():
            return linear(x)

    return multiply
