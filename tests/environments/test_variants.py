"""Several models in one publication, as Optimum reads them by its own words: a subfolder, and the name of a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from environments.made import optimum_intel, run_there, transformers_4
from finished import measured_run

import optimize
from optimize import manifest
from optimize.publishing.publish import publish
from optimize.report.graph_names import graph_name

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]

HEAD = "text-classification"
PIPELINES = {
    "onnx": "target: cpu\nstages: [export, quantize_dynamic]\ngates: {}\n",
    "openvino": "target: openvino\nstages: [export, convert_openvino]\ngates: {}\n",
}
READERS = {
    "onnx": (transformers_4, "optimum.onnxruntime", "ORTModelForSequenceClassification"),
    "openvino": (optimum_intel, "optimum.intel", "OVModelForSequenceClassification"),
}
ASK = """
import importlib, json, sys
from transformers import AutoTokenizer

module, name, place, subfolder, file, text = sys.argv[1:]
model = getattr(importlib.import_module(module), name).from_pretrained(place, subfolder=subfolder, file_name=file)
tokens = AutoTokenizer.from_pretrained(place)(text, return_tensors="pt")
print(json.dumps(model(**{each: tokens[each] for each in ("input_ids", "attention_mask")}).logits.tolist()))
"""
TEXT = "The train is late today."


@pytest.fixture(scope="module")
def runs(checkpoint, data_folder, tmp_path_factory) -> dict[str, Path]:
    """A run folder by the kind of its model."""
    place = tmp_path_factory.mktemp("runs")
    model, data = checkpoint(HEAD), data_folder(HEAD)
    return {kind: measured_run(place, kind, yaml, model=model, data=data) for kind, yaml in PIPELINES.items()}


@pytest.mark.parametrize("kind", sorted(PIPELINES))
def test_optimum_takes_a_subfolder_and_a_file(kind, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    publish(list(runs.values()), str(tmp_path / "both"), unverified=True)
    graph = graph_name(manifest.read(runs[kind]))
    python, module, name = READERS[kind]

    monkeypatch.undo()  # environments are kept in the user's own cache
    said = run_there(python(), "-c", ASK, module, name, tmp_path / "both", graph.parent, graph.name, TEXT)

    (logits,) = json.loads(said.splitlines()[-1])
    scores = np.exp(logits) / np.exp(logits).sum()
    (answer,) = optimize.load(runs[kind], threads=1, allow_overflow=True)(TEXT)
    assert answer["score"] == pytest.approx(scores.max(), abs=1e-3)
