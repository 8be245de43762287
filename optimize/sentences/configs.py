"""The JSON files of a sentence encoder, each read and checked: what is not known in them is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimize.errors import SourceError, brief, shown
from optimize.files.small import read_json

TRANSFORMER_FILES = ("sentence_bert_config.json", "sentence_distilbert_config.json")
"""The settings of the transformer, by their name and by an old one."""
ENCODER_FILE = "config_sentence_transformers.json"
MODULE_FILE = "config.json"
TOKENIZER_FILE = "tokenizer_config.json"
OUTPUT = "sentence_embedding"
TOKENS = "last_hidden_state"
SCOPE = "sentence"
"""What names of operators in a graph begin with that the modules are made of. No stage quantizes them: they compute one
vector a text, and sentence-transformers computes them in float.
"""
PLAIN = "or remove modules.json, to take the mean of all tokens"
"""What else can be done where the modules are not read."""

POOLINGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The kinds of pooling by their flags, in the order in which flags are put one after the other."""
ACTIVATIONS = ("ELU", "GELU", "Identity", "LeakyReLU", "ReLU", "SiLU", "Sigmoid", "Tanh")
"""Classes of torch.nn that a Dense may have; the library makes them without arguments."""
MODULE_KEYS: Mapping[str, frozenset[str]] = {
    "Pooling": frozenset(
        {*POOLINGS, "pooling_mode", "include_prompt", "embedding_dimension", "word_embedding_dimension"}
    ),
    "Dense": frozenset({"in_features", "out_features", "bias", "activation_function", "use_residual"}),
    "LayerNorm": frozenset({"dimension"}),
    "Normalize": frozenset(),
    "Dropout": frozenset({"dropout"}),
}
WEIGHTED = ("Dense", "LayerNorm")
"""Modules with weights of their own."""
FEATURES = ("module_input_name", "module_output_name")
DEFAULTS = ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim")
TRANSFORMER_DEFAULTS: Mapping[str, object] = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": TOKENS}},
    "module_output_name": "token_embeddings",
}
TRANSFORMER_KEYS = ("max_seq_length", "do_lower_case", "unpad_inputs")
MOST_NUMBERS = 2**20


def read_module(folder: Path, kind: str, *, where: str) -> Mapping[str, Any]:
    """The config of a module of this kind in its folder."""
    config, place = read_object(folder / MODULE_FILE), f"its module {folder.name}"
    for name in FEATURES:
        if config.get(name, OUTPUT) != OUTPUT:
            raise refusal(where, f"{place} works on {brief(config[name])}", f"use one that works on {OUTPUT}, {PLAIN}")
    for name in sorted(set(config) - MODULE_KEYS[kind] - {*FEATURES}):
        raise refusal(where, f"{place} has {brief(name)}, which is not known here", f"save it without, {PLAIN}")
    if config.get("use_residual"):
        raise refusal(where, f"{place} has a residual, which is not known here", f"train it without, {PLAIN}")
    if not isinstance(config.get("bias", True), bool):
        raise refusal(where, f"bias of {place} is {shown(config['bias'])}", "save it again")
    if not config.get("include_prompt", True):
        raise refusal(where, f"{place} leaves the prompt's tokens out", f"train it with include_prompt, {PLAIN}")
    if kind == "Dense":
        activation_of(config, where=where)
    return config


def pooling_of(config: Mapping[str, Any], *, where: str) -> tuple[str, ...]:
    """The kinds of pooling, as words or as flags; as in the library, it is the mean where nothing is said."""
    said = config.get("pooling_mode")
    if said is None:
        return tuple(kind for flag, kind in POOLINGS.items() if config.get(flag)) or ("mean",)
    kinds = [said] if isinstance(said, str) else said
    if not isinstance(kinds, list) or not kinds or not all(kind in POOLINGS.values() for kind in kinds):
        known = ", ".join(POOLINGS.values())
        raise refusal(where, f"its pooling_mode is {shown(said)}", f"use {known}, {PLAIN}")
    return tuple(kinds)


def read_settings(folder: Path, *, where: str) -> Mapping[str, Any]:
    """What is said of the transformer; refuse what would make other hidden states of it."""
    name = next((each for each in TRANSFORMER_FILES if (folder / each).exists()), TRANSFORMER_FILES[0])
    settings = read_object(folder / name)
    for name, value in settings.items():
        if name in TRANSFORMER_KEYS or not value or value == TRANSFORMER_DEFAULTS.get(name):
            continue
        raise refusal(
            where,
            f"{brief(name)} of its Transformer is {shown(value)}, which is not known here",
            f"save it without, {PLAIN}",
        )
    return settings


def max_tokens_of(folder: Path, settings: Mapping[str, Any], *, where: str) -> int | None:
    """The longest text: since 6.0 the tokenizer says it, before that the settings of the transformer."""
    if settings.get("max_seq_length") is not None:
        return whole(settings, "max_seq_length", f"{where}: of its Transformer")
    longest = read_object(folder / TOKENIZER_FILE).get("model_max_length")
    # transformers writes 1e30 where there is no limit.
    return longest if type(longest) is int and 1 <= longest <= MOST_NUMBERS else None


def read_defaults(path: Path, *, where: str) -> Mapping[str, Any]:
    """Prompts, similarity and length of embeddings; the rest of the file says who wrote it."""
    content = read_object(path)
    found = {name: content[name] for name in DEFAULTS if content.get(name) is not None}
    prompts, name = found.setdefault("prompts", {}), found.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(each, str | None) for each in prompts.values()):
        raise refusal(where, "prompts is no mapping of names to texts", "save it again")
    if name is not None and not (isinstance(name, str) and isinstance(prompts.get(name), str)):
        raise refusal(where, f"default_prompt_name is {shown(name)}, which is none of its prompts", "save it again")
    whole(found, "truncate_dim", where)
    return found


def whole(config: Mapping[str, Any], name: str, where: str) -> int | None:
    """A whole number of a config, or None."""
    value = config.get(name)
    if value is not None and (type(value) is not int or not 1 <= value <= MOST_NUMBERS):
        raise SourceError(f"{where}: {name} is {shown(value)}, not a whole number from 1; save it again")
    return value


def read_object(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty where there is no file."""
    if not path.exists():
        return {}
    content = read_json(path, where=str(path), refusal=SourceError, advice="save the encoder again")
    if not isinstance(content, dict):
        raise SourceError(f"{path}: holds no JSON object; save the encoder again")
    return content


def activation_of(config: Mapping[str, Any], *, where: str) -> str:
    """The class of torch.nn behind a Dense with this config; raises SourceError for any that is not listed."""
    named = str(config.get("activation_function", "torch.nn.Tanh"))
    name = named.rpartition(".")[2]
    if not named.startswith("torch.nn.") or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise refusal(where, f"its activation function is {shown(named)}", f"use one of {known} in torch.nn, {PLAIN}")
    return name


def refusal(where: str, what: str, todo: str) -> SourceError:
    """Build the refusal of an encoder."""
    return SourceError(f"{where}: {what}; {todo}")
