from __future__ import annotations

import multiprocessing

import numpy as np
import onnx
import pytest
from doubles import Heard
from onnx import TensorProto, helper, numpy_helper

from optimize.errors import StageError
from optimize.measure import calibration_memory
from optimize.measure.calibration_memory import Row, Task, compare


def write_graph(path, width=64, *, product="MatMul"):
    """Words looked up and multiplied with weights."""
    rng = np.random.default_rng(0)
    shapes = {"table": (100, width), "weight": (width, 4)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]),
        helper.make_node(product, ["looked_up", "weight"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "t"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "t", 4])]
    graph = helper.make_graph(nodes, "words", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_both_calibrators_run_on_each_number_of_samples_and_tell_what_they_took(tmp_path):
    progress = Heard()
    rows = compare(write_graph(tmp_path / "model.onnx"), samples=(8, 12), tokens=32, threads=1, progress=progress)
    assert [(row.calibrator, row.samples) for row in rows] == [
        ("streaming", 8),
        ("onnxruntime", 8),
        ("streaming", 12),
        ("onnxruntime", 12),
    ]
    assert [row.not_measured for row in rows] == [None] * 4
    assert all(row.peak_bytes is None or 10**7 < row.peak_bytes < 10**9 for row in rows)
    assert all(row.seconds > 0 for row in rows)
    assert [each[1:] for each in progress.all] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not multiprocessing.active_children()


@pytest.mark.skipif("not __import__('sys').platform.startswith('linux')")
def test_a_process_that_meets_its_limit_is_reported_as_such(tmp_path, monkeypatch):
    model = write_graph(tmp_path / "model.onnx", width=4096)
    # The process imports the table anew; patched, it only says which calibrators are run.
    monkeypatch.setattr(calibration_memory, "CALIBRATORS", {"onnxruntime": None})
    (row,) = compare(
        model,
        calibrators=("onnxruntime",),
        samples=(400,),
        tokens=128,
        threads=1,
        progress=Heard(),
        limit_bytes=600_000_000,
    )
    assert row == Row("onnxruntime", 400, None, None, "needed more than 0.6 GB")


def test_a_calibrator_that_fails_is_a_row_that_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration_memory, "CALIBRATORS", {"streaming": None})
    model = write_graph(tmp_path / "model.onnx")
    (row,) = compare(model, calibrators=("streaming",), samples=(1,), tokens=2, threads=1, progress=Heard())
    assert (row.peak_bytes, row.seconds) == (None, None)
    assert "the percentile needs at least 10000 values" in row.not_measured


def test_all_calibrators_see_the_same_texts_every_time(tmp_path):
    task = Task(tmp_path, (), 3, 16, 100, 1)
    first, second = list(task.feeds()), list(task.feeds())
    assert [feed["input_ids"].shape for feed in first] == [(1, 16)] * 3
    assert all(np.array_equal(a["input_ids"], b["input_ids"]) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0]["input_ids"], first[1]["input_ids"])


def test_the_inputs_of_products_with_weights_are_calibrated(tmp_path):
    assert calibration_memory._inspect(write_graph(tmp_path / "model.onnx")) == (("looked_up",), 100)


def test_a_graph_without_products_is_refused(tmp_path):
    with pytest.raises(StageError, match=r"^model\.onnx: no product with weights"):
        calibration_memory._inspect(write_graph(tmp_path / "model.onnx", product="Add"))
