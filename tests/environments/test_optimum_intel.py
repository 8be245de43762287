"""The artifact in optimum-intel's hands, in an environment of its own: its pins exclude those of optimum-onnx.

The environment is kept in the user's cache, since it takes a minute and a gigabyte to make.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from environments.made import optimum_intel

from optimize.heads import HEADS

CLASSES = {
    "feature-extraction": "OVModelForFeatureExtraction",
    "fill-mask": "OVModelForMaskedLM",
    "text-classification": "OVModelForSequenceClassification",
    "token-classification": "OVModelForTokenClassification",
    "question-answering": "OVModelForQuestionAnswering",
}

LOAD = """
import json, sys
import numpy, torch
from optimum import intel

model = getattr(intel, sys.argv[1]).from_pretrained(sys.argv[2], ov_config={"INFERENCE_PRECISION_HINT": "f32"})
with numpy.load(sys.argv[3]) as feed:
    outputs = model(**{name: torch.from_numpy(feed[name]) for name in feed})
numpy.savez(sys.argv[4], **{name: numpy.asarray(outputs[name]) for name in json.loads(sys.argv[5])})
"""

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with optimum-intel."""
    return optimum_intel()


@pytest.mark.parametrize("head", sorted(CLASSES))
def test_optimum_intel_loads_it_and_computes_the_same(head, context, apply, make_feed, python, tmp_path):
    here = context(head)
    converted = apply(here, "convert_openvino", apply(here, "export"))
    built = apply(here, "quantize_openvino", converted, accuracy_control=False)
    feed = make_feed(here, "right-padded")
    np.savez(tmp_path / "feed.npz", **feed)
    names = json.dumps(HEADS[head].outputs)
    words = [CLASSES[head], built.artifact.path, tmp_path / "feed.npz", tmp_path / "out.npz", names]

    done = subprocess.run(
        [python, "-c", LOAD, *map(str, words)], capture_output=True, text=True, check=False, timeout=300
    )

    assert done.returncode == 0, done.stderr
    expected = built.open(here)(feed)
    kept = feed["attention_mask"] == 1 if HEADS[head].reads == "all tokens" else ...
    with np.load(tmp_path / "out.npz") as found:
        for name in HEADS[head].outputs:
            scale = max(1.0, float(np.abs(expected[name]).max()))
            assert np.abs(found[name] - expected[name])[kept].max() < 1e-4 * scale


def test_the_one_head_that_it_has_no_class_for_is_multiple_choice(python):
    code = "from optimum import intel; print([name for name in dir(intel) if name.startswith('OVModelFor')])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "OVModelForMultipleChoice" not in done.stdout
    assert set(CLASSES) | {"multiple-choice"} == set(HEADS)
