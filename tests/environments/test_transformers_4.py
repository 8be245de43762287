"""transformers 4.57 in an environment of its own: the same graphs and metrics; optimum-onnx reads ours.

optimum-onnx demands transformers below 4.58, and the environment of the tests has 5.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from environments.made import run_there, transformers_4
from tiers import ALL_HEADS

from optimize.heads import HEADS

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]

EXPORT = """
import sys
from pathlib import Path
import transformers
from optimize.checkpoint import load_model
from optimize.graphs.forwards import answering, write_out
from optimize.graphs.onnx import save
from optimize.graphs.tracing import trace
from optimize.heads import HEADS

assert transformers.__version__.startswith("4.57."), transformers.__version__
head, folder, out, exporter = sys.argv[1:]
model = load_model(folder, HEADS[head].auto_class)
write_out(model, sliced=HEADS[head].reads == "first token")
outputs = HEADS[head].outputs
save(trace(answering(model, outputs), HEADS[head], outputs, exporter=exporter, opset=17), Path(out))
"""

READ = """
import json, sys
import numpy, torch
import optimum.onnxruntime

model = getattr(optimum.onnxruntime, sys.argv[1]).from_pretrained(sys.argv[2])
with numpy.load(sys.argv[3]) as feed:
    outputs = model(**{name: torch.from_numpy(feed[name]) for name in feed})
numpy.savez(sys.argv[4], **{name: numpy.asarray(outputs[name]) for name in json.loads(sys.argv[5])})
"""

ASK = """
import json, sys
import optimum.onnxruntime
from transformers import AutoTokenizer, pipeline

model = getattr(optimum.onnxruntime, sys.argv[1]).from_pretrained(sys.argv[2])
ask = pipeline(sys.argv[3], model=model, tokenizer=AutoTokenizer.from_pretrained(sys.argv[2]))
asked = json.loads(sys.argv[4])
print(json.dumps(ask(**asked) if isinstance(asked, dict) else ask(asked), default=float))
"""

RUN = """
from functools import partial
from optimize import running
from optimize.cli import commands

# No more runs than a median needs: it is the scores that are compared.
running.Settings = partial(running.Settings, min_runs=4, min_seconds=0.0, rounds=2)
commands.main()
"""

VERDICTS = (0, 1, 4)
"""Exit codes of a run that came to its end, whatever it found."""
ASKED = {
    "feature-extraction": "The train is late.",
    "fill-mask": "The train is [MASK].",
    "text-classification": "The train is late.",
    "token-classification": "Ada lives in Lisbon.",
    "question-answering": {"question": "Who is late?", "context": "The train is late today."},
}


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with transformers 4.57 and optimum-onnx."""
    return transformers_4()


def class_of(head: str) -> str:
    name = HEADS[head].auto_class.removeprefix("AutoModel")
    return f"ORTModel{name or 'ForFeatureExtraction'}"


@pytest.fixture(scope="module")
def exported(context, apply):
    def make(head: str) -> Path:
        return apply(context(head), "export").artifact.path

    return make


@pytest.mark.parametrize("exporter", ["torchscript", "optimum"])
@pytest.mark.parametrize("head", ALL_HEADS)
def test_the_graph_of_4_57_computes_what_that_of_5_computes(
    head, exporter, context, exported, make_feed, python, tmp_path
):
    here = exported(head) / "model.onnx"
    there = tmp_path / "model.onnx"

    run_there(python, "-c", EXPORT, head, context(head).reference.path, there, exporter)

    feed = make_feed(context(head), "right-padded")
    ours, theirs = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(list(HEADS[head].outputs), feed)
        for path in (here, there)
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    if exporter == "torchscript":
        assert [(node.name, node.op_type) for node in onnx_ir.load(here).graph] == [
            (node.name, node.op_type) for node in onnx_ir.load(there).graph
        ]


@pytest.mark.parametrize("head", ALL_HEADS)
def test_optimum_reads_what_is_exported_and_computes_the_same(head, context, exported, make_feed, python, tmp_path):
    folder, feed = exported(head), make_feed(context(head), "left-padded")
    np.savez(tmp_path / "feed.npz", **feed)
    outputs = list(HEADS[head].outputs)

    run_there(
        python, "-c", READ, class_of(head), folder, tmp_path / "feed.npz", tmp_path / "out.npz", json.dumps(outputs)
    )

    expected = context(head).open("onnx", folder)(feed)
    with np.load(tmp_path / "out.npz") as found:
        for name in outputs:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("head", sorted(ASKED))
def test_a_pipeline_of_transformers_answers_with_it(head, exported, python):
    said = run_there(python, "-c", ASK, class_of(head), exported(head), head, json.dumps(ASKED[head]))

    answer = json.loads(said.splitlines()[-1])
    if head == "feature-extraction":
        assert np.array(answer).ndim == 3
    elif head == "question-answering":
        assert answer["answer"] in ASKED[head]["context"]
    elif head == "token-classification":
        assert all(0 <= entity["score"] <= 1 for entity in answer)
    else:
        assert all(0 <= guess["score"] <= 1 for guess in answer)


def test_a_run_there_scores_what_a_run_here_scores(checkpoint, data_folder, python, optimize, few_runs, tmp_path):
    head = "token-classification"  # its small checkpoint knows something
    words = ["--model", checkpoint(head), "--data", data_folder(head), "--pipeline", "cpu-static", "--shapes", "1x16"]
    words += ["--examples", 60, "--calibration-examples", 16, "--tuning-examples", 16, "--cache", tmp_path / "cache"]

    optimize("run", *map(str, [*words, "--out", tmp_path / "here"]))
    run_there(python, "-c", RUN, "run", *words, "--out", tmp_path / "there", accepted=VERDICTS)

    here, there = (
        json.loads(next((tmp_path / name).glob("*/manifest.json")).read_text()) for name in ("here", "there")
    )
    assert there["environment"]["versions"]["transformers"].startswith("4.57.")
    for one, other in zip(here["measurements"], there["measurements"], strict=True):
        assert (one["name"], one["metric"]) == (other["name"], other["metric"])
