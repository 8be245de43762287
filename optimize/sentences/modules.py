"""The modules behind a transformer in PyTorch: from hidden states to one vector a text.

Each kind of pooling is that of sentence-transformers for texts that are padded on the right: the first token, or the
last that is no padding; the largest number of each dimension; the sum over the number of tokens or over its root; and
the mean in which tokens weigh as much as their place, from 1.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.artifact import stored_tensors
from optimize.errors import SourceError
from optimize.sentences.configs import OUTPUT, SCOPE, TOKENS, activation_of
from optimize.sentences.layout import Module, SentenceEncoder, read_encoder

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

WEIGHTS_FILE = "model.safetensors"
NORMALIZE_LEAST = 1e-12
COUNT_LEAST = 1e-9
ENCODER = "sentence_modules"
"""The attribute of a model that has them; it is none of the model's modules, so nothing trains or saves them."""


def attach(model: PreTrainedModel, folder: Path) -> None:
    """Let the model's outputs hold the sentence embedding beside the hidden states, by the modules of a folder."""
    modules = build(read_encoder(folder, where=str(folder)), folder)
    object.__setattr__(model, ENCODER, modules)

    def add(_: object, args: tuple[Any, ...], given: Mapping[str, Any], outputs: Any) -> Any:
        import torch

        hidden, mask = outputs[TOKENS], given.get("attention_mask", args[1] if len(args) > 1 else None)
        if mask is None:
            mask = torch.ones(hidden.shape[:2], dtype=torch.int64, device=hidden.device)
        outputs[OUTPUT] = modules.to(device=hidden.device, dtype=hidden.dtype)(hidden, mask)
        return outputs

    model.register_forward_hook(add, with_kwargs=True)


def build(encoder: SentenceEncoder, folder: Path) -> torch.nn.Module:
    """What maps hidden states [B, T, D] and a mask [B, T] to embeddings [B, E]; its weights stay as they are."""
    import torch

    layers = torch.nn.ModuleList()
    for module in encoder.modules[1:]:
        if module.kind != "Dropout":
            layers.append(_layer(module, folder))
    modules = torch.nn.Module()
    modules.layers = layers

    def forward(modules: torch.nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
        vector = pool(hidden, mask, encoder.pooling)
        for layer in modules.layers:
            vector = layer(vector)
        return vector[:, : encoder.truncate]

    modules.forward = types.MethodType(forward, modules)
    return modules.eval().requires_grad_(False)


def pool(hidden: Tensor, mask: Tensor, kinds: Sequence[str]) -> Tensor:
    """Vectors [B, kinds x D] of hidden states [B, T, D]; the mask [B, T] is 1 at what is no padding."""
    import torch

    vectors = [_pooled(hidden, mask, kind) for kind in kinds]
    return torch.cat(vectors, dim=1) if len(vectors) > 1 else vectors[0]


def _pooled(hidden: Tensor, mask: Tensor, kind: str) -> Tensor:
    import torch

    counted = mask.unsqueeze(-1).to(hidden.dtype)
    places = torch.arange(1, hidden.shape[1] + 1, device=hidden.device)
    match kind:
        case "cls":
            return hidden[:, 0]
        case "max":
            return hidden.masked_fill(counted == 0, float("-inf")).max(dim=1).values
        case "lasttoken":
            last = ((mask * places).amax(dim=1) - 1).clamp(min=0)
            return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        case "weightedmean":
            counted = counted * places[None, :, None].to(hidden.dtype)
    total = (hidden * counted).sum(dim=1)
    count = counted.sum(dim=1).clamp(min=COUNT_LEAST)
    return total / (count.sqrt() if kind == "mean_sqrt_len_tokens" else count)


def _layer(module: Module, folder: Path) -> torch.nn.Module:
    """A module behind the pooling, with the weights of its folder."""
    import torch

    if module.kind == "Normalize":
        return _normalize()
    config = module.config
    parts: dict[str, torch.nn.Module] = {}
    if module.kind == "LayerNorm":
        parts["norm"] = torch.nn.LayerNorm(config["dimension"])
    else:
        parts["linear"] = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        parts["activation"] = getattr(torch.nn, activation_of(config, where=module.path))()
    layer = torch.nn.Sequential()
    for name, part in parts.items():
        layer.add_module(name, part)
    layer.load_state_dict(_read(folder / module.path / WEIGHTS_FILE, layer.state_dict()))
    return layer


def _normalize() -> torch.nn.Module:
    import torch

    def forward(_: torch.nn.Module, vector: Tensor) -> Tensor:
        return torch.nn.functional.normalize(vector, dim=1, eps=NORMALIZE_LEAST)

    module = torch.nn.Module()
    module.forward = types.MethodType(forward, module)
    return module


def _read(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file; raises SourceError where they are not those that the config implies."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise SourceError(f"{path}: is missing; save the encoder again, as safetensors")
    found = stored_tensors(path)
    for name in sorted({*found, *wanted}):
        if name not in found or name not in wanted or found[name].shape != tuple(wanted[name].shape):
            raise SourceError(f"{path}: {name} is not what config.json beside it says; save the encoder again")
    weights: dict[str, Tensor] = load_file(path)
    return weights


def traced(model: PreTrainedModel, outputs: Sequence[str]) -> torch.nn.Module:
    """A module from `input_ids` and `attention_mask` to these outputs of the model, in their order, for exporters."""
    import torch

    def forward(module: torch.nn.Module, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        found = module.distilbert(input_ids=input_ids, attention_mask=attention_mask)
        return tuple(found[name] for name in outputs)

    module = torch.nn.Module()
    # Nodes and weights of the graph are named as those of a model with a head are.
    module.distilbert = model
    module.add_module(SCOPE, getattr(model, ENCODER))
    module.forward = types.MethodType(forward, module)
    return module.eval()
