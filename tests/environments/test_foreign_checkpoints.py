"""Checkpoints that TensorFlow's and Flax's DistilBERTs saved: they answer as these libraries do.

No environment has these beside ours, so the test makes one, outside of this tree, and finds it again the next time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import foreign
import h5py
import msgpack
import numpy as np
import pytest
from doubles import Silent
from environments.made import foreign_frameworks
from safetensors.numpy import load_file

from optimize.checkpoint import load_model
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint

SETTINGS = {"max_position_embeddings": 64, "dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 2}
CLASSES = {
    "Model": "feature-extraction",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}
CASES = [f"{library}-{name}" for library in ("TensorFlow", "Flax") for name in (*CLASSES, "shards", "safetensors")]
SCRIPT = Path(__file__).with_name("made_elsewhere.py")
NEAR = 1e-5

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command without what leads Python to this tree or to packages that are not its environment's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=540, env=clean)


@pytest.fixture(scope="session")
def python() -> Path:
    return foreign_frameworks()


@pytest.fixture(scope="session")
def made(python: Path, checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class, with the small checkpoint's tokenizer."""
    out, tokenizer = tmp_path_factory.mktemp("elsewhere"), checkpoint("text-classification")
    vocab_size = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    settings = json.dumps({**SETTINGS, "vocab_size": vocab_size})
    done = run(python, SCRIPT, out, settings)
    assert done.returncode == 0, done.stderr[-3000:]
    for folder in out.iterdir():
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, folder)
    return out


@pytest.fixture
def acquired(made: Path, tmp_path: Path):
    def act(name: str):
        found, head = inspect_checkpoint(str(made / name))
        return head, acquire_checkpoint(found, head, root=tmp_path / "cache", seed=0, progress=Silent())

    return act


@pytest.mark.parametrize("name", [*CASES, "Flax-sines"])
def test_a_checkpoint_answers_as_the_library_that_saved_it(made, acquired, name: str) -> None:
    import torch

    head, entry = acquired(name)

    library, _, suffix = name.partition("-")
    assert entry.facts["stored_as"] == f"float32, {library}"
    assert head.name == CLASSES.get(suffix, head.name)
    with np.load(made / name / "answers.npz") as answers:
        feed = {each: torch.tensor(answers[each]) for each in ("input_ids", "attention_mask")}
        with torch.no_grad():
            outputs = load_model(entry.artifact.path)(**feed)
        wanted = {each.removeprefix("output "): answers[each] for each in answers.files if each.startswith("output ")}
    assert wanted
    for each, values in wanted.items():
        np.testing.assert_allclose(outputs[each].numpy(), values, rtol=0, atol=NEAR)


def paths_of(group: h5py.Group) -> set[str]:
    found: set[str] = set()
    group.visititems(lambda name, entry: found.add(name) if isinstance(entry, h5py.Dataset) else None)
    return found


def flat(tree: dict[str, object], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, leaf in tree.items():
        found |= flat(leaf, f"{prefix}{name}/") if isinstance(leaf, dict) else {prefix + name}
    return found


def test_the_layouts_of_the_default_tests_are_the_libraries_own(made, acquired, tmp_path: Path, monkeypatch) -> None:
    weights = load_file(acquired("TensorFlow-ForMaskedLM")[1].artifact.path / "model.safetensors")
    monkeypatch.setattr(foreign, "KERAS_CLASS", "tf_distil_bert_for_masked_lm")

    foreign.save_tensorflow(weights, tmp_path)
    foreign.save_flax(weights, tmp_path)

    with h5py.File(tmp_path / "tf_model.h5") as ours, h5py.File(made / "TensorFlow-ForMaskedLM/tf_model.h5") as theirs:
        assert paths_of(ours) == paths_of(theirs)
    packs = [tmp_path / "flax_model.msgpack", made / "Flax-ForMaskedLM" / "flax_model.msgpack"]
    ours, theirs = (flat(msgpack.unpackb(path.read_bytes())) for path in packs)
    assert ours == theirs
