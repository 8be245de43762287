"""The modules of a sentence encoder, brought along with its checkpoint: in FP32, and with the transformer at the root.

They are written in the words of sentence-transformers 3, which all versions since then read. What 6 writes, 5 cannot
load; and ONNX Runtime's classes of optimum hold users to 5 (optimum-onnx 0.1.0 to transformers below 4.58).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.artifact import stored_tensors
from optimize.errors import SourceError
from optimize.sentences.configs import (
    ENCODER_FILE,
    MODULE_FILE,
    MODULE_KEYS,
    POOLINGS,
    TRANSFORMER_FILES,
    WEIGHTED,
)
from optimize.sentences.layout import MODULES_FILE, Module, SentenceEncoder, read_encoder
from optimize.sentences.modules import WEIGHTS_FILE, build
from optimize.source.weights import read_pickle

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

SETTINGS = "tokenizer_config.json"
AS_WRITTEN = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
"""So transformers takes a tokenizer.json as it is; by DistilBERT's own class, 5 builds it anew from the vocabulary."""
PICKLE_FILE = "pytorch_model.bin"


def module_files(encoder: SentenceEncoder) -> list[str]:
    """The files behind the transformer's own that an encoder may have, by their places in its folder."""
    names = [MODULES_FILE, ENCODER_FILE, *(_place(encoder.transformer, name) for name in TRANSFORMER_FILES)]
    for module in encoder.modules:
        names.append(_place(module.path, MODULE_FILE))
        if module.kind in WEIGHTED:
            names += [_place(module.path, WEIGHTS_FILE), _place(module.path, PICKLE_FILE)]
    return names


def _place(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def write_encoder(folder: Path, out: Path, *, where: str) -> None:
    """Write what an encoder's folder has behind its transformer; raises SourceError for weights that do not fit."""
    encoder = read_encoder(folder, where=where)
    listed = [_entry(0, "", "Transformer")]
    for number, module in enumerate(encoder.modules, start=1):
        path = f"{number}_{module.kind}"
        listed.append(_entry(number, path, module.kind))
        _write_json(out / path / MODULE_FILE, _config(module, encoder))
        if module.kind in WEIGHTED:
            _write_weights(folder / module.path, out / path / WEIGHTS_FILE, where=f"{where}/{module.path}")
    _write_json(out / MODULES_FILE, listed)
    # The tokenizer writes in lower case by itself then.
    _write_json(out / TRANSFORMER_FILES[0], {"max_seq_length": encoder.max_tokens, "do_lower_case": False})
    _write_json(out / ENCODER_FILE, encoder.defaults)
    build(read_encoder(out, where=where), out)  # which refuses weights that are not those of the configs


def _entry(number: int, path: str, kind: str) -> dict[str, object]:
    """A line of modules.json."""
    return {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}


def _config(module: Module, encoder: SentenceEncoder) -> Mapping[str, object]:
    """A module's config; flags of pooling have one order, so another one needs the newer words."""
    config = {name: value for name, value in module.config.items() if name in MODULE_KEYS[module.kind]}
    if module.kind != "Pooling":
        return config
    width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    flags = {flag: kind in encoder.pooling for flag, kind in POOLINGS.items()}
    if encoder.pooling != tuple(kind for kind in POOLINGS.values() if kind in encoder.pooling):
        return {"embedding_dimension": width, "pooling_mode": encoder.pooling}
    return {"word_embedding_dimension": width, **flags, "include_prompt": True}


def _write_weights(folder: Path, path: Path, *, where: str) -> None:
    """The weights of a module's folder in FP32, as safetensors."""
    from safetensors.torch import save_file

    weights: dict[str, Tensor] = {}
    for name, weight in _stored(folder, where=where).items():
        weights[name] = weight.float().contiguous()
        if not weights[name].isfinite().all():
            raise SourceError(f"{where}: {name} holds NaN or infinity; train the encoder again")
    save_file(weights, path, metadata={"format": "pt"})


def _stored(folder: Path, *, where: str) -> Mapping[str, Tensor]:
    """The weights as they are stored: safetensors where there are any, else a pickle, of which no code is run."""
    from safetensors.torch import load_file

    if (folder / WEIGHTS_FILE).exists():
        stored_tensors(folder / WEIGHTS_FILE)  # which refuses a damaged file
        weights: Mapping[str, Tensor] = load_file(folder / WEIGHTS_FILE)
        return weights
    if (folder / PICKLE_FILE).exists():
        return read_pickle(folder / PICKLE_FILE)
    raise SourceError(f"{where}: has neither {WEIGHTS_FILE} nor {PICKLE_FILE}; copy the whole encoder")


def save_lowering(tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Save a tokenizer that writes all texts in lower case before anything else."""
    from tokenizers.normalizers import Lowercase, Normalizer, Sequence

    backend = tokenizer.backend_tokenizer
    steps: list[Normalizer] = [Lowercase()]
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    backend.normalizer = Sequence(steps)
    tokenizer.save_pretrained(out)
    settings = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
    _write_json(out / SETTINGS, settings | AS_WRITTEN)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
