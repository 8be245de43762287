"""What there is where a request says that a checkpoint is: looked at, not loaded.

Read is what is needed to refuse (the config, the names in the weights' headers), without torch and before any weights
are downloaded.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from optimize.checkpoint import CONFIG_FILE, Config, read_config
from optimize.errors import SourceError
from optimize.heads import DEFAULT_HEAD, HEADS, find_head
from optimize.heads.feature_extraction import NAME as FEATURES
from optimize.heads.feature_extraction import sentence_head
from optimize.hub.refusals import Repository
from optimize.hub.repository import download_small, inspect_repository, root_of
from optimize.interfaces import Head, Progress, Silence
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
from optimize.source.adapter import (
    BASE,
    SETTINGS,
    check_adapter,
    head_of_task,
    is_adapter,
    read_adapter,
)
from optimize.source.formats import format_of
from optimize.source.geometry import check_config, vocab_size, width_of
from optimize.source.labels import check_labels
from optimize.source.names import classes_of, listed
from optimize.source.tokenizer import VOCABULARIES, check_tokenizer, has_tokenizer
from optimize.source.weights import check_weights

SENTENCE_PIECES = "*.model"
PLAIN = ""
"""In a head's place: the checkpoint as it is, whatever may make vectors of what it gives."""


@dataclass(frozen=True)
class Found:
    """A checkpoint that was looked at but not loaded. `folder` is None until a Hub id is downloaded.

    An adapter has its settings beside the config, which is that of its `base`. `encoder` says what follows the
    transformer of a sentence encoder; `folder` is then the one that lists its modules.
    """

    kind: Literal["hub", "folder", "demo"]
    id: str
    revision: str | None
    folder: Path | None
    config: Config
    adapter: Config | None = None
    base: Found | None = None
    encoder: SentenceEncoder | None = None

    @property
    def whole(self) -> Found:
        """The checkpoint that has an encoder's weights: an adapter's base, or what was found itself."""
        return self.base or self

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
        chosen = find_head(head or DEFAULT_HEAD)
        if chosen.code is not None:
            raise SourceError(f"--head: the demo has no head '{chosen.name}'; name your checkpoint with --model")
        return Found("demo", "demo", None, None, {}), chosen
    found = _inspect_distilbert(model, revision, head, progress)
    if found.encoder is not None:
        check_widths(found.encoder, width_of(found.config), where=found.id)
        chosen = sentence_head(found.encoder)
    else:
        chosen = find_head(head) if head else _head_of(found)
    check_folders(found, chosen, found.whole.folder, found.folder)
    return found, chosen


def inspect_base(
    model: str, revision: str | None, head: Head, *, progress: Progress | None = None
) -> tuple[Found, Head]:
    """Find a checkpoint to begin training a head from, and the head as which it is read.

    That is the head itself where the checkpoint has one that can go on, else features: the encoder alone is taken. Of
    a head with classes none can go on, since these are the data's. Raises what `inspect_checkpoint` does.
    """
    if model == "demo":
        found, _ = inspect_checkpoint(model, revision, head.name)
        return found, head
    found = _inspect_distilbert(model, revision, PLAIN, progress)
    goes_on = goes_on_from_its_own(head) and head.architecture in classes_of(found.config)
    taken = head if goes_on else HEADS[FEATURES]
    check_folders(found, taken, found.whole.folder, found.folder)
    return found, taken


def goes_on_from_its_own(head: Head) -> bool:
    """Whether a checkpoint's weights of this head serve other data: those of one without classes of its own do."""
    return head.labels is None or head.has_choices


def _inspect_distilbert(model: str, revision: str | None, head: str | None, progress: Progress | None) -> Found:
    """What there is, and that it is a DistilBERT whose config makes sense."""
    found = _inspect(model, revision, head, progress or Silence())
    kind = found.config.get("model_type")
    if kind != "distilbert":
        what = f"is a '{kind}' model" if kind else "its config names no model_type"
        raise SourceError(f"{model}: {what}; name a DistilBERT checkpoint, nothing else is optimized here")
    check_config(found.config, where=found.id)
    check_labels(found.config, where=found.id)
    return found


def _inspect(model: str, revision: str | None, head: str | None, progress: Progress) -> Found:
    folder = user_path(model, "--model")
    if folder.is_dir():
        found = _inspect_folder(folder, head)
    else:
        found = _inspect_hub(repository(model, revision), head, progress)
    return found if found.adapter is None else _on_its_base(found, found.adapter, progress)


def _on_its_base(found: Found, adapter: Config, progress: Progress) -> Found:
    """An adapter with the checkpoint that it names as its base; what the Hub holds names nothing on this machine."""
    name, revision = adapter["base_model_name_or_path"], adapter.get("revision")
    folder = user_path(name, BASE)
    try:
        if found.kind == "folder" and folder.is_dir():
            base = _inspect_folder(folder, PLAIN)
        else:
            base = _inspect_hub(repository(name, revision, BASE), PLAIN, progress)
    except SourceError as error:
        raise SourceError(f"{found.id}: is an adapter, whose base is not to be had: {error}") from error
    if base.adapter is not None:
        raise SourceError(f"{found.id}: is an adapter of an adapter, {base.id}; merge that first, with peft")
    return replace(found, config=base.config, base=base)


def check_folders(found: Found, head: Head, folder: Path | None, adapter: Path | None) -> None:
    """Refuse weights and a tokenizer that cannot be used, as far as they are on this machine."""
    if folder is None:
        return
    folder /= found.transformer
    if found.base is None:
        check_weights(folder, head, found.config, where=found.id)
        check_tokenizer(folder, vocab_size(found.config), where=found.id)
    elif adapter is not None:
        config = check_adapter(folder, adapter, head, found.config, where=found.id)
        check_tokenizer(adapter if has_tokenizer(adapter) else folder, vocab_size(config), where=found.id)


def _inspect_folder(folder: Path, head: str | None) -> Found:
    where, names = str(folder), {path.name for path in folder.iterdir()}
    if is_adapter(names, where=where):
        adapter = read_adapter(folder / SETTINGS, where=where)
        return Found("folder", folder.resolve().name, None, folder, {}, adapter)
    encoder = _encoder_of(folder, head, where=where)
    place = folder / (encoder.transformer if encoder else "")
    _check_files(str(place), {path.name for path in place.iterdir()} if place.is_dir() else set())
    return Found("folder", folder.resolve().name, None, folder, read_config(place), encoder=encoder)


def _inspect_hub(asked: Repository, head: str | None, progress: Progress) -> Found:
    if Path(asked.name).is_file():
        raise SourceError(f"{asked.name}: is a file; name the folder that holds it")
    commit, names = inspect_repository(asked, progress)
    asked = replace(asked, revision=commit)
    if is_adapter(names, where=asked.name):
        adapter = read_adapter(download_small(asked, SETTINGS, progress), where=asked.name)
        return Found("hub", asked.name, commit, None, {}, adapter)
    encoder = None
    if MODULES_FILE in names:
        small = [name for name in sorted(names) if PurePosixPath(name).name in SMALL]
        folders = {root_of(download_small(asked, name, progress), name) for name in small}
        (folder,) = folders  # a commit's files lie in one folder
        encoder = _encoder_of(folder, head, where=asked.name)
    place = place_of(encoder.transformer if encoder else "")
    _check_files(asked.name, {name.removeprefix(place) for name in names if name.startswith(place)})
    path = download_small(asked, f"{place}{CONFIG_FILE}", progress)
    config = read_config(path.parent, where=f"{asked.name}/{place}{CONFIG_FILE}")
    return Found("hub", asked.name, commit, None, config, encoder=encoder)


def _encoder_of(folder: Path, head: str | None, *, where: str) -> SentenceEncoder | None:
    """The sentence encoder of a folder, unless another head is asked for, or nothing there makes vectors of texts."""
    if head not in (None, FEATURES) or not (makes_vectors(folder) or (head and lists_modules(folder))):
        return None
    return read_encoder(folder, where=where)


def place_of(folder: str) -> str:
    """What the names of files in a folder begin with."""
    return f"{folder}/" if folder else ""


def repository(model: str, revision: str | None, option: str = "--model") -> Repository:
    """A checkpoint on the Hub, as the option names it."""
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
