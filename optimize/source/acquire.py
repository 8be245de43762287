"""Where models come from: a Hub id, a folder, or the embedded demo.

`inspect_checkpoint` reads what is needed to refuse (the config, the names in the weights' header) without
torch and before any weights are downloaded. `acquire_checkpoint` loads the checkpoint through transformers,
raises it to FP32, and seals it as the torch artifact that every number is compared with.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from optimize.source.adapter import (
    BASE,
    MERGER,
    SETTINGS,
    adapter_file,
    check_adapter,
    head_of_task,
    is_adapter,
    read_adapter,
)
from optimize.source.adapter import WEIGHTS as ADAPTER_WEIGHTS
from optimize.source.formats import format_of
from optimize.source.geometry import check_config, vocab_size
from optimize.source.labels import check_labels
from optimize.source.load import raise_to_fp32
from optimize.source.names import classes_of, listed
from optimize.source.tokenizer import VOCABULARIES, check_tokenizer, has_tokenizer
from optimize.source.weights import check_weights, weight_files, weight_format

ADAPTER = "adapter"
"""Where an adapter's files lie in a copy of its base."""
SENTENCE_PIECES = "*.model"
COMPANIONS = (CONFIG_FILE, "tokenizer*.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json")
NEEDS = ("transformers", "torch", "safetensors")


@dataclass(frozen=True)
class Found:
    """A checkpoint that was looked at but not loaded. `folder` is None until a Hub id is downloaded.

    An adapter has its settings beside the config, which is that of its `base`.
    """

    kind: Literal["hub", "folder", "demo"]
    id: str
    revision: str | None
    folder: Path | None
    config: Config
    adapter: Config | None = None
    base: Found | None = None

    @property
    def whole(self) -> Found:
        """The checkpoint that has an encoder's weights: an adapter's base, or what was found itself."""
        return self.base or self


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
    found = _inspect(model, revision, progress or Silence())
    kind = found.config.get("model_type")
    if kind != "distilbert":
        what = f"is a '{kind}' model" if kind else "its config names no model_type"
        raise SourceError(f"{model}: {what}; name a DistilBERT checkpoint, nothing else is optimized here")
    check_config(found.config, where=found.id)
    check_labels(found.config, where=found.id)
    chosen = HEADS[head] if head else _head_of(found)
    _check_folders(found, chosen, found.whole.folder, found.folder)
    return found, chosen


def _inspect(model: str, revision: str | None, progress: Progress) -> Found:
    folder = user_path(model, "--model")
    found = _inspect_folder(folder) if folder.is_dir() else _inspect_hub(_repository(model, revision), progress)
    return found if found.adapter is None else _on_its_base(found, found.adapter, progress)


def _on_its_base(found: Found, adapter: Config, progress: Progress) -> Found:
    """An adapter with the checkpoint that it names as its base; what the Hub holds names nothing on this machine."""
    name, revision = adapter["base_model_name_or_path"], adapter.get("revision")
    folder = user_path(name, BASE)
    try:
        if found.kind == "folder" and folder.is_dir():
            base = _inspect_folder(folder)
        else:
            base = _inspect_hub(_repository(name, revision, BASE), progress)
    except SourceError as error:
        raise SourceError(f"{found.id}: is an adapter, whose base is not to be had: {error}") from error
    if base.adapter is not None:
        raise SourceError(f"{found.id}: is an adapter of an adapter, {base.id}; merge that first, with peft")
    return replace(found, config=base.config, base=base)


def _check_folders(found: Found, head: Head, folder: Path | None, adapter: Path | None) -> None:
    """Refuse weights and a tokenizer that cannot be used, as far as they are on this machine."""
    if folder is None:
        return
    if found.base is None:
        check_weights(folder, head, found.config, where=found.id)
        check_tokenizer(folder, vocab_size(found.config), where=found.id)
    elif adapter is not None:
        config = check_adapter(folder, adapter, head, found.config, where=found.id)
        check_tokenizer(adapter if has_tokenizer(adapter) else folder, vocab_size(config), where=found.id)


def _inspect_folder(folder: Path) -> Found:
    where, names = str(folder), {path.name for path in folder.iterdir()}
    if is_adapter(names, where=where):
        adapter = read_adapter(folder / SETTINGS, where=where)
        return Found("folder", folder.resolve().name, None, folder, {}, adapter)
    _check_files(where, names)
    return Found("folder", folder.resolve().name, None, folder, read_config(folder))


def _inspect_hub(asked: Repository, progress: Progress) -> Found:
    if Path(asked.name).is_file():
        raise SourceError(f"{asked.name}: is a file; name the folder that holds it")
    commit, names = inspect_repository(asked, progress)
    asked = replace(asked, revision=commit)
    if is_adapter(names, where=asked.name):
        adapter = read_adapter(download_small(asked, SETTINGS, progress), where=asked.name)
        return Found("hub", asked.name, commit, None, {}, adapter)
    _check_files(asked.name, names)
    path = download_small(asked, CONFIG_FILE, progress)
    return Found("hub", asked.name, commit, None, read_config(path.parent, where=f"{asked.name}/{CONFIG_FILE}"))


def _repository(model: str, revision: str | None, option: str = "--model") -> Repository:
    return Repository("model", model, revision, option, SourceError)


def _check_files(where: str, names: set[str]) -> None:
    if CONFIG_FILE not in names:
        raise SourceError(f"{where}: no {CONFIG_FILE}; name the folder that save_pretrained wrote")
    format_of(names, where=where)
    if not names & set(VOCABULARIES):
        raise SourceError(f"{where}: no tokenizer.json or vocab.txt; {_what_to_save(names)}")


def _what_to_save(names: set[str]) -> str:
    """What to do about a checkpoint without a tokenizer that is read here."""
    if pieces := sorted(fnmatch.filter(names, SENTENCE_PIECES)):
        return f"install sentencepiece, load {pieces[0]} with AutoTokenizer, and save the tokenizer beside the model"
    return "save the tokenizer beside the model"


def _head_of(found: Found) -> Head:
    if found.adapter is not None and (head := head_of_task(found.adapter)):
        return head
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
    folder = found.whole.folder or _download(found.whole, progress)
    adapter = None if found.base is None else found.folder or _download(found, progress)
    _check_folders(found, head, folder, adapter)
    merger = [MERGER] if adapter else []
    files = _files_of(folder, adapter)
    digests = digests_of(files)
    # The name that the checkpoint was asked for by is not in here: what it holds decides.
    material = {
        "source": found.kind,
        "head": head.name,
        "files": digests,
        "versions": {name: version(name) for name in (*NEEDS, *weight_format(folder).needs, *merger)},
    }

    def build(out: Path) -> Facts:
        with private_copy(files, digests, root) as copy:
            return raise_to_fp32(copy, head, out, where=found.id, adapter=copy / ADAPTER if adapter else None)

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


def _files_of(folder: Path, adapter: Path | None) -> Files:
    """The files that shape what becomes of a checkpoint, an adapter's in a folder of their own."""
    index = folder.glob(weight_format(folder).index)
    files = {path.name: path for path in (*weight_files(folder), *index, *_companions(folder))}
    if adapter is not None:
        for path in (adapter / SETTINGS, adapter_file(adapter), *_companions(adapter)):
            files[f"{ADAPTER}/{path.name}"] = path
    return dict(sorted(files.items()))


def _companions(folder: Path) -> Iterator[Path]:
    for pattern in COMPANIONS:
        yield from folder.glob(pattern)


def _train_demo(head: Head, out: Path, seed: int, progress: Progress) -> Facts:
    train_checkpoint(
        head.name, out, seed=seed, progress=lambda done, total: progress.step("train the demo", done, total)
    )
    return {"stored_as": "float32"}


def _download(found: Found, progress: Progress) -> Path:
    progress.say(f"downloading {found.id} at {found.revision}")
    asked = _repository(found.id, found.revision)
    _, names = inspect_repository(asked, progress)
    patterns = [*COMPANIONS]
    if found.adapter is not None:
        patterns += [SETTINGS, *ADAPTER_WEIGHTS]
    else:
        kind = format_of(names, where=found.id)
        patterns += [kind.files, kind.index]
    # What lies in folders of its own, such as "onnx/", is another model.
    return download(
        asked, [name for name in names if "/" not in name and any(fnmatch.fnmatch(name, each) for each in patterns)]
    )
