"""Where models come from: a Hub id, a folder, or the embedded demo.

`inspect_checkpoint` reads what is needed to refuse (the config, the names in the weights' header) without
torch and before any weights are downloaded. `acquire_checkpoint` loads the checkpoint through transformers,
raises it to FP32, and seals it as the torch artifact that every number is compared with.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optimize import cache
from optimize.checkpoint import CONFIG_FILE, Config, read_config
from optimize.demo.generate import train_checkpoint
from optimize.errors import SourceError, brief
from optimize.files.copies import Files, digests_of, private_copy
from optimize.heads import DEFAULT_HEAD, HEADS
from optimize.hub.refusals import Repository
from optimize.hub.repository import download, download_small, inspect_repository
from optimize.interfaces import Facts, Head, Progress, Silence
from optimize.machine.environment import version
from optimize.request import user_path
from optimize.source.geometry import check_config, vocab_size
from optimize.source.labels import check_labels
from optimize.source.load import raise_to_fp32
from optimize.source.names import classes_of, listed
from optimize.source.tokenizer import check_tokenizer
from optimize.source.weights import PICKLES, SAFETENSORS, check_weights, weight_files

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
SENTENCE_PIECES = "*.model"
COMPANIONS = (
    *(CONFIG_FILE, "tokenizer*.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json"),
    *(SAFETENSORS[1], PICKLES[1]),
)
NEEDS = ("transformers", "torch", "safetensors")


@dataclass(frozen=True)
class Found:
    """A checkpoint that was looked at but not loaded. `folder` is None until a Hub id is downloaded."""

    kind: Literal["hub", "folder", "demo"]
    id: str
    revision: str | None
    folder: Path | None
    config: Config


def inspect_checkpoint(
    model: str, revision: str | None = None, head: str | None = None, *, progress: Progress | None = None
) -> tuple[Found, Head]:
    """Find a checkpoint and its head; refuse what is plainly unusable.

    `head` overrules the checkpoint's own; `progress` hears of it where the Hub lets wait. Raises SourceError, or
    UnavailableError without network.
    """
    folder = user_path(model, "--model")
    if revision is not None and (model == "demo" or folder.is_dir()):
        raise SourceError(f"--revision: '{model}' has no revisions, only a Hub id has; leave it out")
    if model == "demo":
        chosen = HEADS[head or DEFAULT_HEAD]
        return Found("demo", "demo", None, None, {}), chosen
    found = _inspect_folder(folder) if folder.is_dir() else _inspect_hub(model, revision, progress or Silence())
    kind = found.config.get("model_type")
    if kind != "distilbert":
        what = f"is a '{kind}' model" if kind else "its config names no model_type"
        raise SourceError(f"{model}: {what}; name a DistilBERT checkpoint, nothing else is optimized here")
    check_config(found.config, where=found.id)
    check_labels(found.config, where=found.id)
    chosen = HEADS[head] if head else _head_of(found)
    if found.folder is not None:
        check_weights(found.folder, chosen, found.config, where=found.id)
        check_tokenizer(found.folder, vocab_size(found.config), where=found.id)
    return found, chosen


def _inspect_folder(folder: Path) -> Found:
    _check_files(str(folder), {path.name for path in folder.iterdir()})
    return Found("folder", folder.resolve().name, None, folder, read_config(folder))


def _inspect_hub(model: str, revision: str | None, progress: Progress) -> Found:
    if Path(model).is_file():
        raise SourceError(f"{model}: is a file; name the folder that holds it")
    commit, names = inspect_repository(_repository(model, revision), progress)
    _check_files(model, names)
    path = download_small(_repository(model, commit), CONFIG_FILE, progress)
    return Found("hub", model, commit, None, read_config(path.parent, where=f"{model}/{CONFIG_FILE}"))


def _repository(model: str, revision: str | None) -> Repository:
    return Repository("model", model, revision, "--model", SourceError)


def _check_files(where: str, names: set[str]) -> None:
    if CONFIG_FILE not in names:
        raise SourceError(f"{where}: no {CONFIG_FILE}; name the folder that save_pretrained wrote")
    if not names & {*SAFETENSORS, *PICKLES}:
        raise SourceError(f"{where}: no model.safetensors or pytorch_model.bin; save the model with save_pretrained")
    if not names & set(TOKENIZER_FILES):
        raise SourceError(f"{where}: no tokenizer.json or vocab.txt; {_what_to_save(names)}")


def _what_to_save(names: set[str]) -> str:
    """What to do about a checkpoint without a tokenizer that is read here."""
    if pieces := sorted(fnmatch.filter(names, SENTENCE_PIECES)):
        return f"install sentencepiece, load {pieces[0]} with AutoTokenizer, and save the tokenizer beside the model"
    return "save the tokenizer beside the model"


def _head_of(found: Found) -> Head:
    names = classes_of(found.config)
    heads = [head for head in HEADS.values() if head.architecture in names]
    if len(heads) == 1:
        return heads[0]
    what = "several heads" if heads else "no known head"
    raise SourceError(f"{found.id}: its config names {what} ({listed(names) or 'none'}); give --head")


def acquire_checkpoint(found: Found, head: Head, *, root: Path, seed: int, progress: Progress) -> cache.Entry:
    """The checkpoint as a sealed FP32 torch artifact; facts hold how it was stored.

    `root` is the cache's folder; `seed` matters to the demo alone.
    """
    if found.kind == "demo":
        material: dict[str, object] = {
            "source": "demo",
            "head": head.name,
            "seed": seed,
            "versions": {"torch": version("torch")},
        }
        return cache.fetch(
            root, material, "torch", lambda out: _train_demo(head, out, seed, progress), progress=progress
        )
    folder = found.folder or _download(found, progress)
    check_weights(folder, head, found.config, where=found.id)
    check_tokenizer(folder, vocab_size(found.config), where=found.id)
    files = _files_of(folder)
    digests = digests_of(files)
    # The name that the checkpoint was asked for by is not in here: what it holds decides.
    material = {
        "source": found.kind,
        "head": head.name,
        "files": digests,
        "versions": {name: version(name) for name in NEEDS},
    }

    def build(out: Path) -> Facts:
        with private_copy(files, digests, root) as copy:
            return raise_to_fp32(copy, head, out, where=found.id)

    entry = cache.fetch(root, material, "torch", build, progress=progress)
    for remark in remarks(entry.facts):
        progress.say(f"{found.id}: {remark}")
    return entry


def remarks(facts: Facts) -> list[str]:
    """What is worth a line about how a checkpoint was read, in words."""
    found = []
    if facts["wrapper"]:
        found.append(f"all names of weights began with '{facts['wrapper']}', which is dropped")
    if facts["left_out"]:
        found.append(f"weights that its class has no use for are left out: {brief(facts['left_out'], 200)}")
    return found


def _files_of(folder: Path) -> Files:
    """The files of a checkpoint that shape what becomes of it."""
    files = set(weight_files(folder))
    for pattern in COMPANIONS:
        files.update(folder.glob(pattern))
    return {path.name: path for path in sorted(files)}


def _train_demo(head: Head, out: Path, seed: int, progress: Progress) -> Facts:
    train_checkpoint(
        head.name, out, seed=seed, progress=lambda done, total: progress.step("train the demo", done, total)
    )
    return {"stored_as": "float32"}


def _download(found: Found, progress: Progress) -> Path:
    progress.say(f"downloading {found.id} at {found.revision}")
    asked = _repository(found.id, found.revision)
    _, names = inspect_repository(asked, progress)
    weights = ["*.safetensors", SAFETENSORS[1]] if names & set(SAFETENSORS) else ["pytorch_model*.bin", PICKLES[1]]
    patterns = (*COMPANIONS, *weights)
    # What lies in folders of its own, such as "onnx/", is another model.
    return download(
        asked, [name for name in names if "/" not in name and any(fnmatch.fnmatch(name, each) for each in patterns)]
    )
