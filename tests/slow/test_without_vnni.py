"""ONNX Runtime's own kernels on a CPU without VNNI, emulated: do sums overflow, and are ours spared?

QEMU's user mode runs this Python with the instructions of an Intel Haswell (AVX2, no VNNI); onnxruntime
then picks the kernels that add in 16 bits. Skipped where `qemu-x86_64` is not installed.
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

QEMU = shutil.which("qemu-x86_64")
RUN = """
import sys, numpy, onnxruntime
model, feed, out = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
with numpy.load(feed) as inputs:
    numpy.save(out, session.run(None, {node.name: inputs[node.name] for node in session.get_inputs()})[0])
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed (Debian: qemu-user)"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates one x86-64 CPU on another"),
]


def run_without_vnni(model: Path, feed: dict[str, np.ndarray], folder: Path) -> np.ndarray:
    """The first output of a model on an emulated Haswell."""
    np.savez(folder / "feed.npz", **feed)
    words = [sys.executable, "-c", RUN, str(model), str(folder / "feed.npz"), str(folder / "out.npy")]
    subprocess.run([str(QEMU), "-cpu", "Haswell", *words], check=True, capture_output=True, timeout=500)
    return np.load(folder / "out.npy")


def product(weights: list[int], folder: Path) -> tuple[Path, np.ndarray]:
    """A product of 64 activations of 255 with weights that repeat, and its exact result."""
    column = np.resize(np.array(weights, dtype=np.int8), 64)
    constants = {
        "w": np.repeat(column[:, None], 16, axis=1),
        "s": np.float32(1),
        "z": np.uint8(0),
        "t": np.ones(16, dtype=np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("MatMulIntegerToFloat", ["q", "w", "s", "t", "z"], ["y"], domain="com.microsoft"),
    ]
    sides = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", sides[:1], sides[1:], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "product.onnx")
    return folder / "product.onnx", np.full((8, 16), 255.0 * column.astype(np.int64).sum())


@pytest.mark.parametrize(
    ("weights", "exact"),
    [
        ([127], False),
        ([65], False),
        ([64], True),
        ([127, 1], True),
        ([127, 2], False),
        ([-127, -1], True),
    ],
)
def test_sums_overflow_where_two_neighbours_exceed_128_and_nowhere_else(weights, exact, tmp_path):
    model, expected = product(weights, tmp_path)
    got = run_without_vnni(model, {"x": np.full((8, 64), 255, dtype=np.float32)}, tmp_path)
    assert np.array_equal(got, expected) == exact


@pytest.mark.parametrize("head", ["text-classification", "fill-mask"])
def test_static_int8_computes_the_same_without_vnni(head, context, apply, make_feed, tmp_path):
    here = dataclasses.replace(context(head), cpu_features=())
    built = apply(here, "quantize_static", apply(here, "export"), sensitivity=False, fallback=False)
    feed = make_feed(here, "right-padded")
    expected = built.open(here)(feed)[here.head.outputs[0]]
    got = run_without_vnni(built.artifact.path / "model.onnx", feed, tmp_path)
    kept = feed["attention_mask"] == 1 if here.head.reads == "all tokens" else ...
    assert np.abs(got - expected)[kept].max() < 0.02 * np.abs(expected[kept]).max()
