"""Where models come from: a Hub id, a folder, or the embedded demo.

`inspect` reads what is needed to refuse (the config, the names in the weights' header) without
torch and before any weights are downloaded. `acquire` loads the checkpoint through transformers,
raises it to FP32, and seals it as the torch artifact that every number is compared with.
Weights are read from safetensors, or from a `.bin` file with `weights_only`, so that no code in a
pickle ever runs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optimize import cache, demo
from optimize.artifact import file_digest, read_safetensors_header
from optimize.environment import version
from optimize.errors import SourceError, UnavailableError, first_line
from optimize.heads import HEADS
from optimize.interfaces import Facts, Head, Progress

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
COMPANIONS = ("config.json", "tokenizer*.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json")
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
NEEDS = ("transformers", "torch", "safetensors")
UNLOADABLE = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError),
    *(ImportError, NameError, ArithmeticError, AssertionError),
)
"""What transformers and torch raise for a config that makes no sense."""


@dataclass(frozen=True)
class Found:
    """A checkpoint that was looked at but not loaded. `folder` is None until a Hub id is downloaded."""

    kind: Literal["hub", "folder", "demo"]
    id: str
    revision: str | None
    folder: Path | None
    config: Mapping[str, Any]


def inspect(model: str, revision: str | None = None, head: str | None = None) -> tuple[Found, Head]:
    """Find a checkpoint and its head; refuse what is plainly unusable.

    `head` overrules the checkpoint's own. Raises SourceError, or UnavailableError without network.
    """
    folder = Path(model).expanduser()
    if revision is not None and (model == "demo" or folder.is_dir()):
        raise SourceError(f"--revision: '{model}' has no revisions, only a Hub id has; leave it out")
    if model == "demo":
        chosen = HEADS[head or "text-classification"]
        return Found("demo", "demo", None, None, {}), chosen
    found = _inspect_folder(folder) if folder.is_dir() else _inspect_hub(model, revision)
    kind = found.config.get("model_type")
    if kind != "distilbert":
        what = f"is a '{kind}' model" if kind else "its config names no model_type"
        raise SourceError(f"{model}: {what}; name a DistilBERT checkpoint, nothing else is optimized here")
    chosen = HEADS[head] if head else _head_of(found)
    if found.folder is not None:
        check_weights(found.folder, chosen, where=found.id)
    return found, chosen


def _inspect_folder(folder: Path) -> Found:
    _check_files(str(folder), {path.name for path in folder.iterdir()})
    return Found("folder", folder.resolve().name, None, folder, _read_config(folder / "config.json"))


def _inspect_hub(model: str, revision: str | None) -> Found:
    if Path(model).is_file():
        raise SourceError(f"{model}: is a file; name the folder that holds it")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise SourceError(f"{model}: no such folder; check --model")
    import huggingface_hub

    with _asking_hub(model, revision):
        info = huggingface_hub.HfApi().model_info(model, revision=revision)
        _check_files(model, {sibling.rfilename for sibling in info.siblings or ()})
        path = Path(huggingface_hub.hf_hub_download(model, "config.json", revision=info.sha))
    return Found("hub", model, info.sha, None, _read_config(path, where=f"{model}/config.json"))


@contextmanager
def _asking_hub(model: str, revision: str | None) -> Iterator[None]:
    """Say in our words what the Hub refuses: a wrong id is the request's fault, a silent Hub is not."""
    import logging

    import requests
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity(logging.ERROR)  # its warnings of another attempt are no news
    try:
        yield
    except GatedRepoError as error:
        raise SourceError(f"{model}: is gated; accept its terms on the Hub and log in with 'hf auth login'") from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{model}: has no revision '{revision}'; check --revision") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SourceError(
            f"{model}: no such folder, and not on the Hub; check --model, or log in if it is private"
        ) from error
    except (requests.RequestException, FileMetadataError, ConnectionError) as error:
        raise UnavailableError(
            f"{model}: the Hub cannot be reached ({type(error).__name__}); name a local folder instead"
        ) from error


def _read_config(path: Path, *, where: str = "") -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{where or path}: cannot be read ({first_line(error)}); save the model again") from error
    if not isinstance(config, dict):
        raise SourceError(f"{where or path}: holds no JSON object; save the model again")
    return config


def _check_files(where: str, names: set[str]) -> None:
    if "config.json" not in names:
        raise SourceError(f"{where}: no config.json; name the folder that save_pretrained wrote")
    if not names & {*SAFETENSORS, *PICKLES}:
        raise SourceError(f"{where}: no model.safetensors or pytorch_model.bin; save the model with save_pretrained")
    if not names & set(TOKENIZER_FILES):
        raise SourceError(f"{where}: no tokenizer.json or vocab.txt; save the tokenizer beside the model")


def _head_of(found: Found) -> Head:
    given = found.config.get("architectures") or []
    architectures = [str(name) for name in (given if isinstance(given, list) else [given])]
    for head in HEADS.values():
        if head.architecture in architectures:
            return head
    raise SourceError(f"{found.id}: its config names no known head ({', '.join(architectures) or 'none'}); give --head")


def check_weights(folder: Path, head: Head, *, where: str) -> None:
    """Refuse damaged safetensors, and a checkpoint without the head's weights: they would be random.

    `.bin` files are checked when they are loaded, because that takes torch.
    """
    names: set[str] = set()
    files = weight_files(folder)
    if not files[0].name.endswith(".safetensors"):
        return
    for path in files:
        names |= set(read_safetensors_header(path))
    _check_head(where, head, names)


def _check_head(where: str, head: Head, names: set[str]) -> None:
    missing = [name for name in head.weights if name not in names]
    if missing:
        raise SourceError(
            f"{where}: no weights for head '{head.name}' ({missing[0]} is missing); "
            "fine-tune it, or give another --head"
        )
    others = {name for other in HEADS.values() for name in other.weights} - set(head.weights)
    if head.weights and (alien := sorted(others & names)):
        raise SourceError(f"{where}: holds another head than '{head.name}' ({alien[0]}); leave out --head")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors where there are any, else `.bin`; sharded or not."""
    for single, index in (SAFETENSORS, PICKLES):
        if (folder / single).exists():
            return [folder / single]
        if (folder / index).exists():
            return _shards(folder, folder / index)
    raise SourceError(f"{folder}: no model.safetensors or pytorch_model.bin; save the model with save_pretrained")


def _shards(folder: Path, index: Path) -> list[Path]:
    try:
        names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        if not names:
            raise ValueError("it is empty")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{index}: not an index of weights ({first_line(error)}); save the model again") from error
    paths = [folder / name for name in sorted(names)]
    for path in paths:
        if path.parent != folder or not path.exists():
            raise SourceError(f"{folder}: shard {path.name} is missing; copy the whole checkpoint")
    return paths


def acquire(found: Found, head: Head, *, root: Path, seed: int, progress: Progress) -> cache.Entry:
    """The checkpoint as a sealed FP32 torch artifact; facts hold how it was stored.

    `root` is the cache's folder; `seed` matters to the demo alone.
    """
    if found.kind == "demo":
        material: dict[str, Any] = {
            "source": "demo",
            "head": head.name,
            "seed": seed,
            "versions": {"torch": version("torch")},
        }
        return cache.fetch(root, material, "torch", lambda out: _train_demo(head, out, seed, progress))
    folder = found.folder or _download(found, progress)
    check_weights(folder, head, where=found.id)
    files = sorted({path for pattern in COMPANIONS for path in folder.glob(pattern)} | set(weight_files(folder)))
    material = {
        "source": found.kind,
        "head": head.name,
        "files": {path.name: file_digest(path) for path in files},
        "versions": {name: version(name) for name in NEEDS},
    }
    return cache.fetch(root, material, "torch", lambda out: _raise_to_fp32(folder, head, out, where=found.id))


def _train_demo(head: Head, out: Path, seed: int, progress: Progress) -> Facts:
    with _writing():
        demo.train(head.name, out, seed=seed, progress=lambda done, total: progress.step("train the demo", done, total))
    return {"stored_as": "float32"}


def _download(found: Found, progress: Progress) -> Path:
    import huggingface_hub

    progress.say(f"downloading {found.id} at {found.revision}")
    with _asking_hub(found.id, found.revision):
        names = set(huggingface_hub.HfApi().list_repo_files(found.id, revision=found.revision))
        weights = ["*.safetensors", SAFETENSORS[1]] if names & set(SAFETENSORS) else ["pytorch_model*.bin", PICKLES[1]]
        folder = huggingface_hub.snapshot_download(
            found.id, revision=found.revision, allow_patterns=[*COMPANIONS, *weights]
        )
    return Path(folder)


def _raise_to_fp32(folder: Path, head: Head, out: Path, *, where: str) -> Facts:
    """Load, check that nothing was made up, and save in FP32 with the tokenizer."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    stored_as, names = _stored(folder)
    _check_head(where, head, names)
    model = _load(folder, head, where=where)
    tokenizer = _load_tokenizer(folder, where=where)
    if len(tokenizer) > model.config.vocab_size:
        raise SourceError(
            f"{where}: the tokenizer has {len(tokenizer)} tokens, the embedding {model.config.vocab_size}; "
            "resize the embedding or save the tokenizer it was trained with"
        )
    model.config._name_or_path = ""
    with _writing():
        model.save_pretrained(out, safe_serialization=True)
        tokenizer.save_pretrained(out)
    return {"stored_as": stored_as}


@contextmanager
def _writing() -> Iterator[None]:
    """Turn what safetensors 0.8 raises where it cannot write, a full disk for instance, into OSError."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def _load_tokenizer(folder: Path, *, where: str) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, use_fast=True, trust_remote_code=False
        )
    except Exception as error:
        # tokenizers 0.22 raises a bare Exception for a tokenizer.json that it cannot read.
        if type(error) is not Exception and not isinstance(error, OSError | ValueError | LookupError | TypeError):
            raise
        raise SourceError(f"{where}: its tokenizer cannot be loaded ({first_line(error)}); save it again") from error


def _load(folder: Path, head: Head, *, where: str) -> Any:
    import torch
    import transformers
    from safetensors import SafetensorError

    auto = getattr(transformers, head.auto_class)
    try:
        model, info = auto.from_pretrained(
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
        )
    except (*UNLOADABLE, SafetensorError) as error:
        raise SourceError(f"{where}: cannot be loaded ({first_line(error)}); save the model again") from error
    if mismatched := sorted(info["mismatched_keys"]):
        wanted = list(model.state_dict()[mismatched[0]].shape)
        raise SourceError(f"{where}: {mismatched[0]} has not the shape {wanted} of config.json; save the model again")
    if missing := sorted(info["missing_keys"]):
        raise SourceError(f"{where}: {len(missing)} weights are missing ({missing[0]}); copy the whole checkpoint")
    if surplus := sorted(name for name in info["unexpected_keys"] if "transformer.layer." in name):
        raise SourceError(f"{where}: config.json has no place for {surplus[0]}; save the model again")
    model.float()  # FP8 weights are left as they are by `dtype`, in transformers 4.57
    if broken := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
        raise SourceError(f"{where}: {broken[0]} holds NaN or infinity; train or convert the model again")
    return model.eval()


def _stored(folder: Path) -> tuple[str, set[str]]:
    """The data types of the stored weights, such as 'float16', and the weights' names."""
    import torch

    types: set[str] = set()
    names: set[str] = set()
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            header = read_safetensors_header(path)
            stored = {str(entry.get("dtype")) for entry in header.values()}
            types |= {_SAFETENSORS_TYPES.get(name, name) for name in stored}
            names |= set(header)
            continue
        weights = _read_pickle(path)
        types |= {
            str(tensor.dtype).removeprefix("torch.") for tensor in weights.values() if isinstance(tensor, torch.Tensor)
        }
        names |= set(weights)
    return ", ".join(sorted(types)), names


_SAFETENSORS_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}


def _read_pickle(path: Path) -> dict[str, Any]:
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocol: what cannot be read is refused below
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{path.name}: holds more than weights, and code in a pickle is not run; save as safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise SourceError(f"{path.name}: cannot be read ({first_line(error)}); copy it again") from error
    if not isinstance(weights, dict):
        raise SourceError(f"{path.name}: holds no state dict; save the model with save_pretrained")
    return weights
