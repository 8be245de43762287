"""Where models come from: a Hub id, a folder, or the embedded demo.

`inspect_checkpoint` reads what is needed to refuse (the config, the names in the weights' header) without
torch and before any weights are downloaded. `acquire_checkpoint` loads the checkpoint through transformers,
raises it to FP32, and seals it as the torch artifact that every number is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal

from optimize import cache
from optimize.checkpoint import CONFIG_FILE, Config, read_config
from optimize.demo.generate import train_checkpoint
from optimize.errors import SourceError
from optimize.files.copies import Files, digests_of, private_copy
from optimize.heads import DEFAULT_HEAD, HEADS
from optimize.heads.feature_extraction import NAME as FEATURES
from optimize.heads.feature_extraction import sentence_head
from optimize.hub.refusals import Repository
from optimize.hub.repository import download, download_small, inspect_repository, root_of
from optimize.interfaces import Facts, Head, Progress, Silence
from optimize.machine.environment import version
from optimize.request import user_path
from optimize.sentences.layout import (
    MODULES_FILE,
    SMALL,
    SentenceEncoder,
    check_widths,
    lists_modules,
    makes_vectors,
    read_encoder,
)
from optimize.source.geometry import check_config, vocab_size, width_of
from optimize.source.load import raise_to_fp32
from optimize.source.sentences import module_files, write_encoder
from optimize.source.tokenizer import check_tokenizer
from optimize.source.weights import PICKLES, SAFETENSORS, check_weights, weight_files

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
COMPANIONS = (
    *(CONFIG_FILE, "tokenizer*.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json"),
    *(SAFETENSORS[1], PICKLES[1]),
)
NEEDS = ("transformers", "torch", "safetensors")


@dataclass(frozen=True)
class Found:
    """A checkpoint that was looked at but not loaded. `folder` is None until a Hub id is downloaded.

    `encoder` says what follows the transformer of a sentence encoder; `folder` is then the one that lists its modules.
    """

    kind: Literal["hub", "folder", "demo"]
    id: str
    revision: str | None
    folder: Path | None
    config: Config
    encoder: SentenceEncoder | None = None

    @property
    def transformer(self) -> str:
        """Where the checkpoint itself lies in the folder; "" for the folder itself."""
        return self.encoder.transformer if self.encoder else ""


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
    found = (
        _inspect_folder(folder, head) if folder.is_dir() else _inspect_hub(model, revision, head, progress or Silence())
    )
    kind = found.config.get("model_type")
    if kind != "distilbert":
        what = f"is a '{kind}' model" if kind else "its config names no model_type"
        raise SourceError(f"{model}: {what}; name a DistilBERT checkpoint, nothing else is optimized here")
    check_config(found.config, where=found.id)
    if found.encoder is not None:
        check_widths(found.encoder, width_of(found.config), where=found.id)
        return _checked(found, sentence_head(found.encoder))
    return _checked(found, HEADS[head] if head else _head_of(found))


def _checked(found: Found, head: Head) -> tuple[Found, Head]:
    """The same, once what lies in its folder, if it is here, is no plain reason to refuse."""
    if found.folder is not None:
        folder = found.folder / found.transformer
        check_weights(folder, head, found.config, where=found.id)
        check_tokenizer(folder, vocab_size(found.config), where=found.id)
    return found, head


def _inspect_folder(folder: Path, head: str | None) -> Found:
    encoder = _encoder_of(folder, head, where=str(folder))
    place = folder / (encoder.transformer if encoder else "")
    _check_files(str(place), {path.name for path in place.iterdir()} if place.is_dir() else set())
    return Found("folder", folder.resolve().name, None, folder, read_config(place), encoder)


def _inspect_hub(model: str, revision: str | None, head: str | None, progress: Progress) -> Found:
    if Path(model).is_file():
        raise SourceError(f"{model}: is a file; name the folder that holds it")
    commit, names = inspect_repository(_repository(model, revision), progress)
    asked = _repository(model, commit)
    encoder = None
    if MODULES_FILE in names:
        small = [name for name in sorted(names) if PurePosixPath(name).name in SMALL]
        folders = {root_of(download_small(asked, name, progress), name) for name in small}
        (folder,) = folders  # a commit's files lie in one folder
        encoder = _encoder_of(folder, head, where=model)
    place = _place(encoder.transformer if encoder else "")
    _check_files(model, {name.removeprefix(place) for name in names if name.startswith(place)})
    path = download_small(asked, f"{place}{CONFIG_FILE}", progress)
    return Found("hub", model, commit, None, read_config(path.parent, where=f"{model}/{place}{CONFIG_FILE}"), encoder)


def _encoder_of(folder: Path, head: str | None, *, where: str) -> SentenceEncoder | None:
    """The sentence encoder of a folder, unless another head is asked for, or nothing there makes vectors of texts."""
    if head not in (None, FEATURES) or not (makes_vectors(folder) or (head and lists_modules(folder))):
        return None
    return read_encoder(folder, where=where)


def _place(folder: str) -> str:
    """What the names of files in a folder begin with."""
    return f"{folder}/" if folder else ""


def _repository(model: str, revision: str | None) -> Repository:
    return Repository("model", model, revision, "--model", SourceError)


def _check_files(where: str, names: set[str]) -> None:
    if CONFIG_FILE not in names:
        raise SourceError(f"{where}: no {CONFIG_FILE}; name the folder that save_pretrained wrote")
    if not names & {*SAFETENSORS, *PICKLES}:
        raise SourceError(f"{where}: no model.safetensors or pytorch_model.bin; save the model with save_pretrained")
    if not names & set(TOKENIZER_FILES):
        raise SourceError(f"{where}: no tokenizer.json or vocab.txt; save the tokenizer beside the model")


def _head_of(found: Found) -> Head:
    given = found.config.get("architectures") or []
    # A config is data from elsewhere: some name a single class outside a list.
    names = given if isinstance(given, list) else [given]
    for head in HEADS.values():
        if head.architecture in names:
            return head
    words = ", ".join(map(str, names)) or "none"
    raise SourceError(f"{found.id}: its config names no known head ({words}); give --head")


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
    check_weights(folder / found.transformer, head, found.config, where=found.id)
    check_tokenizer(folder / found.transformer, vocab_size(found.config), where=found.id)
    files = _files_of(folder, found)
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
            lower_case = found.encoder is not None and found.encoder.lower_case
            facts = raise_to_fp32(copy / found.transformer, head, out, where=found.id, lower_case=lower_case)
            if found.encoder is not None:
                write_encoder(copy, out, where=found.id)
            return facts

    return cache.fetch(root, material, "torch", build, progress=progress)


def _files_of(folder: Path, found: Found) -> Files:
    """The files of a checkpoint that shape what becomes of it, by their places in its folder."""
    files = set(weight_files(folder / found.transformer))
    for pattern in COMPANIONS:
        files.update((folder / found.transformer).glob(pattern))
    for name in module_files(found.encoder) if found.encoder else ():
        files.update(path for path in (folder / name,) if path.exists())
    return {path.relative_to(folder).as_posix(): path for path in sorted(files)}


def _train_demo(head: Head, out: Path, seed: int, progress: Progress) -> Facts:
    train_checkpoint(
        head.name, out, seed=seed, progress=lambda done, total: progress.step("train the demo", done, total)
    )
    return {"stored_as": "float32"}


def _download(found: Found, progress: Progress) -> Path:
    progress.say(f"downloading {found.id} at {found.revision}")
    asked = _repository(found.id, found.revision)
    _, all_names = inspect_repository(asked, progress)
    place = _place(found.transformer)
    names = {name.removeprefix(place) for name in all_names if name.startswith(place)}
    weights = ["*.safetensors", SAFETENSORS[1]] if names & set(SAFETENSORS) else ["pytorch_model*.bin", PICKLES[1]]
    patterns = (*COMPANIONS, *weights)
    # What lies in folders of its own, such as "onnx/", is another model.
    wanted = {place + name for name in names if "/" not in name and any(fnmatch(name, each) for each in patterns)}
    return download(asked, wanted | (all_names & {*module_files(found.encoder)} if found.encoder else set()))
