"""Several models in one publication, as Optimum and transformers.js read them, each by its own words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from environments.made import ask_transformers_js, optimum_intel, run_there, transformers_4
from finished import measured_run

import optimize
from optimize import manifest
from optimize.publishing.publish import publish
from optimize.report.graph_names import graph_name

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]

HEAD = "text-classification"
PIPELINES = {
    "onnx": "target: cpu\nstages: [export, quantize_dynamic]\ngates: {}\n",
    "plain": "target: cpu\nstages: [export]\ngates: {}\n",
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
    """A run folder by what its model is."""
    place = tmp_path_factory.mktemp("runs")
    model, data = checkpoint(HEAD), data_folder(HEAD)
    return {kind: measured_run(place, kind, yaml, model=model, data=data) for kind, yaml in PIPELINES.items()}


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory) -> Path:
    """All of them in one place."""
    folder = tmp_path_factory.mktemp("published") / "all"
    publish(list(runs.values()), str(folder), unverified=True)
    return folder


def expected(run: Path) -> float:
    """How sure this package's own callable is of its answer."""
    (answer,) = optimize.load(run, threads=1, allow_overflow=True)(TEXT)
    return float(answer["score"])


@pytest.mark.parametrize("kind", sorted(READERS))
def test_optimum_takes_a_subfolder_and_a_file(kind, runs, published):
    graph = graph_name(manifest.read(runs[kind]))
    python, module, name = READERS[kind]

    said = run_there(python(), "-c", ASK, module, name, published, graph.parent, graph.name, TEXT)

    (logits,) = json.loads(said.splitlines()[-1])
    scores = np.exp(logits) / np.exp(logits).sum()
    assert expected(runs[kind]) == pytest.approx(scores.max(), abs=1e-3)


def test_transformers_js_takes_the_name_of_a_file_and_the_plain_one_by_itself(runs, published):
    name = graph_name(manifest.read(runs["onnx"])).stem
    options = {"plain": {"dtype": "fp32"}, "onnx": {"dtype": "fp32", "model_file_name": name}}

    said = ask_transformers_js(published.parent, [(published.name, HEAD, each, [TEXT]) for each in options.values()])

    assert f'`{{ dtype: "fp32", model_file_name: "{name}" }}`' in (published / "README.md").read_text(encoding="utf-8")
    for kind, ((answer,),) in zip(options, said, strict=True):
        assert answer["score"] == pytest.approx(expected(runs[kind]), abs=1e-3)
