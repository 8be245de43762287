"""Load a checkpoint, one whose layers were pruned to sizes of their own included.

transformers gives every layer of a DistilBERT `n_heads` heads and `hidden_dim` neurons, and no config says otherwise.
A pruned checkpoint therefore lists, under `pruned_layers` in its config.json, what each layer has left; the width of
a head stays `dim / n_heads`. The layers are given their sizes before the weights are read, by transformers itself:
shards, data types, tied weights and its complaints are the usual ones. What comes back is an instance of the usual
class.

Where whole layers were dropped, `n_layers` is the number left, and a layer whose output is to be that of a later layer
of the original model says which one it `stands_for`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.errors import SourceError
from optimize.files.small import read_json
from optimize.sentences.layout import lists_modules
from optimize.sentences.modules import attach

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, ModuleList
    from transformers import PretrainedConfig, PreTrainedModel

Config = Mapping[str, Any]
"""A config.json as it is read, or a part of it."""

CONFIG_FILE = "config.json"
PRUNED_LAYERS = "pruned_layers"
"""The config's key: a list of {"heads", "neurons"}, one for each layer, with "stands_for" where layers were dropped."""
STANDS_FOR = "stands_for"
PLAIN = {
    "return_dict": True,
    "output_hidden_states": False,
    "output_attentions": False,
    "torchscript": False,
    "chunk_size_feed_forward": 0,
}
"""What a config may say of how a model hands over its answers, in one version of transformers or another; the answers
are the same, and stages read them in one way."""


@dataclass(frozen=True)
class LayerSize:
    """How many attention heads and FFN neurons a layer has."""

    heads: int
    neurons: int


def layer_flops(size: LayerSize, *, width: int, head_width: int, tokens: int) -> int:
    """Operations of a layer for one text of so many tokens, multiply-adds counted as two.

    A head takes four linear maps and two products of activations, a neuron its row of one map and its column of
    another. Biases, softmax, GELU and LayerNorm are left out: together they are less than 1 % of a layer.
    """
    head = 8 * tokens * width * head_width + 4 * tokens**2 * head_width
    return size.heads * head + size.neurons * 4 * tokens * width


def encoder_flops(config: Config, *, tokens: int, where: str) -> int:
    """Operations of all layers of a DistilBERT with this config for one text; raises SourceError as `pruned_sizes`."""
    whole = LayerSize(config.get("n_heads", 12), config.get("hidden_dim", 3072))
    sizes = pruned_sizes(config, where=where) or [whole] * config.get("n_layers", 6)
    width = config.get("dim", 768)
    head_width = width // config.get("n_heads", 12)
    return sum(layer_flops(size, width=width, head_width=head_width, tokens=tokens) for size in sizes)


def load_model(
    folder: str | Path, auto_class: str | type[PreTrainedModel] | None = None, **options: Any
) -> PreTrainedModel:
    """The model of a folder, ready to run; without `auto_class`, of the class that its config names.

    `options` go to `from_pretrained`; without a `dtype` among them, weights are FP32 whatever they are stored as. A
    sentence encoder's outputs hold its `sentence_embedding` as well. Raises SourceError for a config whose
    `pruned_layers` make no sense, for modules that are not known, and what transformers raises.
    """
    model, _ = load_with_info(folder, auto_class, **options)
    if lists_modules(Path(folder)) and type(model).__name__ == "DistilBertModel":
        attach(model, Path(folder))
    return model


def load_with_info(
    folder: str | Path,
    auto_class: str | type[PreTrainedModel] | None = None,
    *,
    settings: Mapping[str, object] | None = None,
    **options: Any,
) -> tuple[PreTrainedModel, Mapping[str, Sequence[str]]]:
    """The same, and transformers' lists of what did not fit: `missing_keys`, `unexpected_keys`, `mismatched_keys`.

    `settings` take the place of what the config says.
    """
    import torch

    _hush()
    config = read_config(Path(folder))
    usual = class_of(config, auto_class, where=str(folder))
    sizes = pruned_sizes(config, where=str(folder))
    built = _sized(usual, sizes) if sizes else usual
    plain, known = usual.config_class.from_pretrained(folder, local_files_only=True), usual.config_class()
    for key, value in PLAIN.items():
        if hasattr(known, key):
            setattr(plain, key, value)
        elif hasattr(plain, key):
            delattr(plain, key)
    for key, setting in (settings or {}).items():
        setattr(plain, key, setting)
    options = {"dtype": torch.float32, **options}
    model, info = built.from_pretrained(
        folder, config=plain, local_files_only=True, output_loading_info=True, **options
    )
    # Saved again, the model is to name a class that transformers has.
    model.__class__ = usual
    return model, info


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a model's config and weights, as safetensors."""
    _hush()
    # transformers 5 writes in the first of several processes alone; here each has a folder of its own.
    model.should_save_on_this_rank = lambda _: True
    model.save_pretrained(folder)


def _hush() -> None:
    """Keep transformers' own bars and warnings off the terminal: what matters of them is said in our words."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def pruned_sizes(config: Config, *, where: str) -> list[LayerSize]:
    """What `pruned_layers` says of each layer; empty where the layers have the config's own sizes."""
    rows = config.get(PRUNED_LAYERS)
    if rows is None:
        return []
    most = {"heads": config.get("n_heads", 12), "neurons": config.get("hidden_dim", 3072)}
    layers = config.get("n_layers", 6)
    if not isinstance(rows, list) or len(rows) != layers or not all(_makes_sense(row, most) for row in rows):
        raise SourceError(
            f"{where}: '{PRUNED_LAYERS}' in its config must list 1 to {most['heads']} heads and 1 to {most['neurons']} "
            f"neurons for each of {layers} layers; prune the model again"
        )
    if not _rise(rows):
        raise SourceError(
            f"{where}: '{STANDS_FOR}' in its config's '{PRUNED_LAYERS}' must be numbers of layers, each above the one "
            "before; prune the model again"
        )
    return [LayerSize(row["heads"], row["neurons"]) for row in rows]


def _makes_sense(row: object, most: Mapping[str, int]) -> bool:
    """Whether a row of `pruned_layers` has just the numbers it must have, within their bounds."""
    if not isinstance(row, dict) or set(row) - {STANDS_FOR} != set(most):
        return False
    return all(type(row[name]) is type(limit) is int and 1 <= row[name] <= limit for name, limit in most.items())


def _rise(rows: Sequence[Config]) -> bool:
    """Whether the layers stand for others in their order."""
    stood_for = _stood_for(rows)
    if any(type(layer) is not int for layer in stood_for):
        return False
    return all(before < after for before, after in pairwise([-1, *stood_for]))


def _stood_for(rows: Sequence[Config]) -> list[int]:
    return [row.get(STANDS_FOR, index) for index, row in enumerate(rows)]


def layers_stood_for(config: PretrainedConfig) -> list[int]:
    """For each layer of a model with this transformers config the original model's layer, from 0, whose output its
    own stands for.
    """
    return _stood_for(getattr(config, PRUNED_LAYERS, None) or [{}] * int(config.n_layers))


def note_sizes(config: PretrainedConfig, sizes: Sequence[LayerSize], stand_for: Sequence[int] | None = None) -> None:
    """Let a transformers config say what each layer has left, under our key alone, in place.

    With `stand_for`, also which layers of the original model they stand for; that stays as it is otherwise.
    """
    stand_for = layers_stood_for(config) if stand_for is None else stand_for
    rows: list[dict[str, int]] = [asdict(size) for size in sizes]
    for index, (row, layer) in enumerate(zip(rows, stand_for, strict=True)):
        if layer != index:
            row[STANDS_FOR] = layer
    config.n_layers = len(sizes)
    # Otherwise transformers would prune heads of its own accord when it loads the model.
    config.pruned_heads = {}
    setattr(config, PRUNED_LAYERS, rows)


def encoder_layers(model: PreTrainedModel) -> ModuleList:
    """The transformer layers of a DistilBERT with or without a head."""
    layers: ModuleList = getattr(model, "distilbert", model).transformer.layer
    return layers


def pass_layer(layer: Module, hidden: Tensor, mask: Tensor) -> Tensor:
    """What a layer makes of hidden states, [B, T, D]."""
    return layer_states(layer(hidden, mask))


def layer_states(answer: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The hidden states in a layer's answer; transformers 4 hands them over as the last item of a tuple."""
    return answer[-1] if isinstance(answer, tuple) else answer


def size_of(layer: Module) -> LayerSize:
    """What a layer has."""
    return LayerSize(int(layer.attention.n_heads), int(layer.ffn.lin1.out_features))


def read_config(folder: Path, *, where: str | None = None) -> dict[str, Any]:
    """The config beside a model; raises SourceError where it is not a JSON object that can be read.

    `where` names the file to the user instead of its path, such as that of a file that was fetched from the Hub.
    """
    where = where or str(folder / CONFIG_FILE)
    config = read_json(folder / CONFIG_FILE, where=where, refusal=SourceError, advice="save the model again")
    if not isinstance(config, dict):
        raise SourceError(f"{where}: holds no JSON object; save the model again")
    return config


def class_of(config: Config, auto_class: str | type[PreTrainedModel] | None, *, where: str) -> type[PreTrainedModel]:
    """The class to load: that of the head asked for, or the config's own."""
    import transformers

    if isinstance(auto_class, type):
        return auto_class
    if auto_class is not None:
        name = "DistilBert" + (auto_class.removeprefix("AutoModel") or "Model")
    else:
        name = next((str(each) for each in config.get("architectures") or [] if str(each).startswith("DistilBert")), "")
    if not name:
        raise SourceError(f"{where}: its config names no DistilBERT class; say which one with auto_class")
    found: type[PreTrainedModel] = getattr(transformers, name)
    return found


def _sized(usual: type[PreTrainedModel], sizes: Sequence[LayerSize]) -> type[PreTrainedModel]:
    """A class that builds the usual model with layers of these sizes."""

    def build(model: PreTrainedModel, config: PretrainedConfig) -> None:
        usual.__init__(model, config)
        resize_layers(model, sizes)

    return type(usual.__name__, (usual,), {"__init__": build, "__module__": usual.__module__})


def resize_layers(model: PreTrainedModel, sizes: Sequence[LayerSize]) -> None:
    """Give each layer new linear maps where its size is another; their values mean nothing yet. In place."""
    for layer, size in zip(encoder_layers(model), sizes, strict=True):
        if size_of(layer) != size:
            _resize(layer, size)


def _resize(layer: Module, size: LayerSize) -> None:
    from torch.nn import Linear

    attention, ffn = layer.attention, layer.ffn
    width, inner = attention.out_lin.out_features, size.heads * attention.attention_head_size
    for name in ("q_lin", "k_lin", "v_lin"):
        setattr(attention, name, Linear(width, inner))
    attention.out_lin = Linear(inner, width)
    attention.n_heads, attention.dim = size.heads, inner
    ffn.lin1, ffn.lin2 = Linear(width, size.neurons), Linear(size.neurons, width)
