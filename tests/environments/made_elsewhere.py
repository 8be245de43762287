"""The six DistilBERTs of TensorFlow and of Flax with random weights, saved, and what each answers.

Runs by itself in an environment with transformers 4, TensorFlow and Flax, which has nothing of ours:
`python made_elsewhere.py FOLDER CONFIG`, where CONFIG is JSON. Each class gets a folder with `answers.npz` in it.
"""

import json
import os
import sys
from pathlib import Path

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "USE_TORCH": "0"}

import jax
import numpy as np
import transformers

CLASSES = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
SHARDED = {"max_shard_size": "60KB"}
SAFETENSORS = {"safe_serialization": True}
rng = np.random.default_rng(0)


def weight(shape):
    """Norms and biases are random too: what is swapped has to show."""
    return rng.normal(0, 0.3, shape).astype(np.float32)


def feed_of(name, vocab_size):
    ids, mask = rng.integers(5, vocab_size, (3, 12)), np.ones((3, 12), dtype=np.int64)
    mask[1, 7:] = 0
    if name == "ForMultipleChoice":
        ids, mask = np.stack([ids, ids[:, ::-1]], axis=1), np.stack([mask, mask], axis=1)
    return {"input_ids": ids, "attention_mask": mask}


def tensorflow_model(name, config, feed):
    model = getattr(transformers, f"TFDistilBert{name}")(config)
    model(feed)  # builds it
    model.set_weights([weight(each.shape) for each in model.get_weights()])
    return model


def flax_model(name, config, feed):
    model = getattr(transformers, f"FlaxDistilBert{name}")(config, input_shape=feed["input_ids"].shape)
    model.params = jax.tree_util.tree_map(lambda each: weight(each.shape), model.params)
    return model


def make(folder, config, name, library, **how):
    feed = feed_of(name, config.vocab_size)
    model = (tensorflow_model if library == "TensorFlow" else flax_model)(name, config, feed)
    model.save_pretrained(folder, **how)
    answers = model(**feed) if library == "Flax" else model(feed)
    outputs = {f"output {key}": np.asarray(value) for key, value in answers.items()}
    np.savez(folder / "answers.npz", **feed, **outputs)


def main(out, settings):
    for name in CLASSES:
        labels = 2 if name == "ForQuestionAnswering" else 3
        config = transformers.DistilBertConfig(**settings, num_labels=labels)
        for library in ("TensorFlow", "Flax"):
            make(out / f"{library}-{name}", config, name, library)
    config = transformers.DistilBertConfig(**settings)
    for library in ("TensorFlow", "Flax"):
        make(out / f"{library}-shards", config, "ForMaskedLM", library, **SHARDED)
        make(out / f"{library}-safetensors", config, "ForMaskedLM", library, **SAFETENSORS)
    config = transformers.DistilBertConfig(**settings, sinusoidal_pos_embds=True)
    make(out / "Flax-sines", config, "Model", "Flax")


main(Path(sys.argv[1]), json.loads(sys.argv[2]))
