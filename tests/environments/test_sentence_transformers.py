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
from environments.made import optimum_intel, transformers_4
from finished import measured_run

from optimize import manifest
from optimize.publishing.publish import publish

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

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]


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


@pytest.fixture(scope="module")
def encoder(checkpoint, tmp_path_factory) -> Path:
    """An encoder that sentence-transformers wrote."""
    folder = tmp_path_factory.mktemp("made") / "encoder"
    # What transformers 5 writes of a tokenizer, 4.57 cannot read.
    call("onnx", MAKE, checkpoint("feature-extraction"), folder)
    return folder


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


@pytest.fixture(scope="module")
def runs(encoder, data_folder, tmp_path_factory) -> dict[str, Path]:
    """A run folder that passed, by the kind of its model."""
    place = tmp_path_factory.mktemp("runs")
    data = same_or_others(data_folder("feature-extraction"), place / "data")
    made = {}
    for kind, stages in PIPELINES.items():
        yaml = f"{stages}gates: {{max_size_ratio: 0.9}}\n"
        made[kind] = measured_run(place, kind, yaml, model=encoder, data=data, examples=60)
        record = manifest.read(made[kind])
        assert record.verdict.outcome == "passed", record.verdict.checks
        assert record.source.sentence.modules.startswith("cls → Dense 128 to 64")
    return made


def assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Of this encoder, 128 wide and hardly trained; one of 384 on STS-B came to 0.997 with either backend."""
    assert ours.shape == theirs.shape == (3, 64)
    assert np.sum(ours * theirs, axis=1).min() >= 0.98


@pytest.mark.parametrize("kind", sorted(PYTHONS))
def test_the_published_encoder_is_loaded_as_its_card_says_and_gives_the_same_vectors(kind, encoder, runs, tmp_path):
    publish(runs[kind], str(tmp_path / "published"))

    card = (tmp_path / "published" / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"= SentenceTransformer\((.*)\)\n", card)
    ours = encode(kind, words.replace("PATH", str(tmp_path / "published")), tmp_path / "ours.npy")
    assert_alike(ours, encode(kind, f'"{encoder}"', tmp_path / "theirs.npy"))


@pytest.mark.parametrize("kind", sorted(PYTHONS))
def test_of_several_it_is_loaded_by_the_file_that_the_card_names(kind, encoder, runs, tmp_path):
    publish(list(runs.values()), str(tmp_path / "published"))

    card = (tmp_path / "published" / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(rf"sentence-transformers `(backend=\"{kind}\", .*)`\. Its", card)
    ours = encode(kind, f'"{tmp_path / "published"}", {words}', tmp_path / "ours.npy")
    assert_alike(ours, encode(kind, f'"{encoder}"', tmp_path / "theirs.npy"))
