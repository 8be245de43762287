"""What a config.json says of a DistilBERT's sizes, held against reason and against the weights' own shapes.

transformers builds whatever a config asks for before it looks at the weights: a layer too many is made up at random, a
billion of them never end. The shapes are in the weights' headers, which are read in milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from optimize.checkpoint import Config, LayerSize, pruned_sizes
from optimize.errors import SourceError, brief
from optimize.source.names import BODY

SIZES = {
    "vocab_size": (30522, 2**22),
    "max_position_embeddings": (512, 2**17),
    "dim": (768, 2**14),
    "n_heads": (12, 2**10),
    "n_layers": (6, 2**9),
    "hidden_dim": (3072, 2**17),
}
"""What transformers takes where the config says nothing, and more than any DistilBERT has."""
SHARES = ("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout")
LAYER = re.compile(r"transformer\.layer\.(\d+)\.")


def check_config(config: Config, *, where: str) -> None:
    """Refuse sizes and settings that no DistilBERT can have."""
    for name, (usual, most) in SIZES.items():
        _check_whole(name, config.get(name, usual), 1, most, where=where)
    if _size(config, "dim") % _size(config, "n_heads"):
        raise _refusal(where, "dim", config.get("dim"), f"a multiple of n_heads, {_size(config, 'n_heads')}")
    for name in SHARES:
        value = config.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise _refusal(where, name, value, "a number from 0 to 1")
    if config.get("pad_token_id") is not None:
        _check_whole("pad_token_id", config["pad_token_id"], 0, _size(config, "vocab_size") - 1, where=where)
    pruned_sizes(config, where=where)


def check_shapes(config: Config, stored: Mapping[str, tuple[int, ...]], *, where: str) -> None:
    """Refuse weights that are not those of a model with these sizes; what is missing is told when they are loaded."""
    prefix = BODY if any(name.startswith(BODY) for name in stored) else ""
    layers: set[int] = set()
    for name in sorted(stored):
        if match := LAYER.match(name.removeprefix(BODY)):
            layers.add(int(match[1]))
            if int(match[1]) >= _size(config, "n_layers"):
                raise SourceError(f"{where}: config.json has no place for {name}; save the model again")
    if layers and (missing := sorted(set(range(_size(config, "n_layers"))) - layers)):
        raise SourceError(
            f"{where}: {len(missing)} layers are missing ({prefix}transformer.layer.{missing[0]}); "
            "copy the whole checkpoint"
        )
    for name, shape in _shapes(config, where=where):
        if stored.get(prefix + name, shape) != shape:
            raise SourceError(
                f"{where}: {prefix}{name} has not the shape {list(shape)} of config.json; save the model again"
            )


def _shapes(config: Config, *, where: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the weights that show each of the sizes."""
    width = _size(config, "dim")
    head_width = width // _size(config, "n_heads")
    yield "embeddings.word_embeddings.weight", (_size(config, "vocab_size"), width)
    yield "embeddings.position_embeddings.weight", (_size(config, "max_position_embeddings"), width)
    whole = LayerSize(_size(config, "n_heads"), _size(config, "hidden_dim"))
    for layer, size in enumerate(pruned_sizes(config, where=where) or [whole] * _size(config, "n_layers")):
        yield f"transformer.layer.{layer}.attention.q_lin.weight", (size.heads * head_width, width)
        yield f"transformer.layer.{layer}.ffn.lin1.weight", (size.neurons, width)


def vocab_size(config: Config) -> int:
    """Rows of the embedding."""
    return _size(config, "vocab_size")


def width_of(config: Config) -> int:
    """How many numbers a token's hidden state has."""
    return _size(config, "dim")


def values_at_once(config: Config, tokens: int, *, words: bool, where: str) -> int:
    """How many numbers a text of so many tokens has at one time, at least: in a layer, or as its answers.

    That is the hidden states, and beside them the attention's weights, the FFN's values, or, where `words` are the
    answers, a number for every entry of the vocabulary.
    """
    usual = LayerSize(_size(config, "n_heads"), _size(config, "hidden_dim"))
    largest = vocab_size(config) * tokens if words else 0
    for layer in pruned_sizes(config, where=where) or [usual]:
        largest = max(largest, layer.heads * tokens**2, layer.neurons * tokens)
    return tokens * _size(config, "dim") + largest


def _size(config: Config, name: str) -> int:
    return int(config.get(name, SIZES[name][0]))


def _check_whole(name: str, value: object, least: int, most: int, *, where: str) -> None:
    if type(value) is not int or not least <= value <= most:
        raise _refusal(where, name, value, f"a whole number from {least} to {most}")


def _refusal(where: str, name: str, value: object, must: str) -> SourceError:
    return SourceError(f"{where}: {name} in its config is '{brief(value)}', not {must}; save the model again")
