"""A sentence encoder that sentence-transformers made, and that it loads again once it is optimized and published.

Its versions 5 and 6 in environments of their own: ONNX Runtime's classes of optimum hold users to 5, and those of
OpenVINO go with 6.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from doubles import FEW, Silent
from environments.made import optimum_intel, transformers_4

from optimize import running
from optimize.planning import make_plan
from optimize.publishing.publish import publish
from optimize.request import Options

PYTHONS = {"onnx": transformers_4, "openvino": optimum_intel}
PIPELINES = {
    "onnx": "target: cpu\nstages: [export: {lean: true}, quantize_static]\n",
    "openvino": "target: openvino\nstages: [export, convert_openvino, quantize_openvino: {accuracy_control: false}]\n",
}
MAKE = """
import sys
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Pooling, Transformer

torch.manual_seed(0)
dense = Dense(128, 64, activation_function=torch.nn.Tanh())
transformer = Transformer(sys.argv[1], max_seq_length=32)
SentenceTransformer(modules=[transformer, Pooling(128, pooling_mode="cls"), dense]).save(sys.argv[2])
"""
ENCODE = """
import json, sys
import numpy
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({loaded})
numpy.save(sys.argv[2], model.encode(json.loads(sys.argv[1])))
"""
TEXTS = ["The train is late.", "A cat sits on the old bridge and waits for the rain to stop.", "late " * 60]

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800), pytest.mark.usefixtures("few_runs")]


def call(kind: str, code: str, *words: object) -> None:
    python = PYTHONS[kind]()
    done = subprocess.run(
        [python, "-c", code, *map(str, words)], capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr


def encode(kind: str, loaded: str, place: Path) -> np.ndarray:
    """Unit vectors of the texts, by a model loaded with these words of Python."""
    call(kind, ENCODE.replace("{loaded}", loaded), json.dumps(TEXTS), place)
    vectors = np.load(place)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=sorted(PYTHONS))
def encoder(request, checkpoint, tmp_path_factory) -> tuple[str, Path]:
    """A kind of model, and an encoder that sentence-transformers wrote."""
    folder = tmp_path_factory.mktemp("made") / "encoder"
    # What transformers 5 writes of a tokenizer, 4.57 cannot read.
    call("onnx", MAKE, checkpoint("feature-extraction"), folder)
    return request.param, folder


def same_or_others(source: Path, folder: Path) -> Path:
    """Texts paired with themselves and with others, which any encoder tells apart, trained or not."""
    folder.mkdir()
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (source / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        texts = list(dict.fromkeys(row["sentence1"] for row in rows))
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as stream:
            for place, text in enumerate(texts):
                alike = place % 2
                pair = {"sentence1": text, "sentence2": text if alike else texts[place - 1], "score": 5.0 * alike}
                stream.write(json.dumps(pair) + "\n")
    return folder


def test_the_published_encoder_is_loaded_as_its_card_says_and_gives_the_same_vectors(encoder, data_folder, tmp_path):
    kind, folder = encoder
    (tmp_path / "small.yaml").write_text(PIPELINES[kind] + "gates: {max_size_ratio: 0.9}\n", encoding="utf-8")
    options = Options(
        model=str(folder),
        data=str(same_or_others(data_folder("feature-extraction"), tmp_path / "data")),
        pipeline=str(tmp_path / "small.yaml"),
        examples=60,
        shapes=("1x16",),
        threads=1,
        out=tmp_path / "runs",
        cache=tmp_path / "cache",
        **FEW,
    )
    run, manifest = running.run(make_plan(options), progress=Silent())
    assert manifest.verdict.outcome == "passed", manifest.verdict.checks
    assert manifest.source.sentence.modules.startswith("cls → Dense 128 to 64")
    publish(run, str(tmp_path / "published"))

    card = (tmp_path / "published" / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"= SentenceTransformer\((.*)\)\n", card)
    ours = encode(kind, words.replace("PATH", str(tmp_path / "published")), tmp_path / "ours.npy")
    theirs = encode(kind, f'"{folder}"', tmp_path / "theirs.npy")

    assert ours.shape == theirs.shape == (3, 64)
    # Of this encoder, 128 wide and hardly trained; one of 384 on STS-B came to 0.997 with either backend.
    assert np.sum(ours * theirs, axis=1).min() >= 0.98
