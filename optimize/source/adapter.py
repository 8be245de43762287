"""Adapters: what peft trained beside a model, put into the model's own weights.

An adapter's folder names its base, and holds small matrices (LoRA: Hu et al., 2021, arXiv 2106.09685) and the modules
that were trained whole, such as a classifier. These take the place of the base's, which is a whole checkpoint then and
is read as any other; whatever neither of the two has would be random and is refused. peft merges the matrices.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.checkpoint import CONFIG_FILE, Config, read_config
from optimize.data.classes import classes_of
from optimize.errors import SourceError, UnavailableError, brief, first_line
from optimize.files.small import read_json
from optimize.heads import HEADS
from optimize.interfaces import Head
from optimize.machine.environment import version
from optimize.runtimes.quiet import undisturbed
from optimize.source.labels import CLASSES
from optimize.source.names import BODY, listed, wrapping
from optimize.source.plain import read_weights, write_plain
from optimize.source.tokenizer import has_tokenizer, tokenizer_files
from optimize.source.weights import check_stored, header_shapes, stored, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SETTINGS = "adapter_config.json"
BASE = "base_model_name_or_path"
"""Where the settings name what the adapter was trained on."""
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX, INNER = "base_model.model.", ".base_layer."
"""What peft puts before the names of the model that it wraps, and within those of a layer that it adapts."""
TUNED = ("lora_", "ia3_", "hada_", "lokr_", "trainable_tokens_")
"""What parts of names begin with whose weights are added to others; the rest are the model's."""
TWICE = ("modules_to_save", "original_module")
"""Parts of names of weights that peft writes once more, where biases are trained."""
TABLE = f"{BODY}embeddings.word_embeddings.weight"
MERGED = ("IA3", "LOHA", "LOKR", "LORA")
"""Kinds of adapters that become part of the weights, and that are tested; others add tokens, or are not."""
TASKS = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}
MERGER = "peft"
UNMERGEABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError, ArithmeticError)
"""What peft and torch raise for settings that make no sense."""
Shapes = Mapping[str, tuple[int, ...]]


def is_adapter(names: Collection[str], *, where: str) -> bool:
    """Whether a folder with these files holds an adapter; refuses one that holds a whole model as well."""
    if SETTINGS not in names:
        return False
    models = {name for pattern in ("*.safetensors", "pytorch_model*.bin") for name in fnmatch.filter(names, pattern)}
    if whole := sorted(models - set(WEIGHTS)):
        raise SourceError(f"{where}: holds an adapter and a whole model ({whole[0]}); name a folder with one of them")
    return True


def read_adapter(path: Path, *, where: str) -> Config:
    """An adapter's settings; refuses a kind that is not merged, and one without a base."""
    content = read_json(path, where=f"{where}/{SETTINGS}", refusal=SourceError, advice="save the adapter again")
    if not isinstance(content, dict):
        raise SourceError(f"{where}/{SETTINGS}: holds no JSON object; save the adapter again")
    kind, base, revision = (content.get(name) for name in ("peft_type", BASE, "revision"))
    if kind not in MERGED:
        raise SourceError(
            f"{where}: is an adapter of type '{brief(kind)}', and only {', '.join(MERGED)} are merged here; save the "
            "model that it makes"
        )
    if not isinstance(base, str) or not base.strip():
        raise SourceError(f"{where}: its {SETTINGS} names no {BASE}; name the model it was trained on")
    if not isinstance(revision, str | None):
        raise SourceError(f"{where}: revision in its {SETTINGS} is '{brief(revision)}', not a name; correct it")
    if version(MERGER) == "absent":
        raise UnavailableError(f"{where}: is an adapter, and peft is not installed; install distilbert-optimize[peft]")
    return content


def head_of_task(adapter: Config) -> Head | None:
    """What an adapter says that it was trained for, if anything that there is a head for."""
    task = adapter.get("task_type")
    return HEADS[TASKS[task]] if isinstance(task, str) and task in TASKS else None


def adapter_file(folder: Path) -> Path:
    """The file that holds an adapter's weights."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise SourceError(f"{folder}: no {' or '.join(WEIGHTS)}; copy the whole adapter")


def check_adapter(base: Path, adapter: Path, head: Head, config: Config, *, where: str) -> Config:
    """The merged model's config; refuses an adapter and a base that lack weights of the head together, or do not fit.

    What `.bin` files hold is checked when they are merged, because that takes torch.
    """
    own, theirs = header_shapes([adapter_file(adapter)]), header_shapes(weight_files(base))
    if own is None or theirs is None:
        return config
    wrapper = wrapping(theirs, where=where)
    plain = {name.removeprefix(wrapper): shape for name, shape in theirs.items()}
    whole = {name: own[stored_name] for name, stored_name in whole_names(own).items()}
    merged = merged_config(config, whole, head)
    check_stored(plain | whole, head, merged, where=where)
    return merged


def whole_names(names: Iterable[str]) -> dict[str, str]:
    """Of an adapter's weights those that replace a weight of the model: its name there, and its name in the adapter."""
    found = {}
    for name in names:
        plain = name.removeprefix(PREFIX).replace(INNER, ".")
        if not any(part.startswith((*TUNED, *TWICE)) for part in plain.split(".")):
            found[plain] = name
    return found


def merged_config(config: Config, whole: Shapes, head: Head) -> Config:
    """The base's config as the merged model's: its class, and the vocabulary and classes that the adapter brings."""
    merged = {**config, "architectures": [head.architecture]}
    if TABLE in whole:
        (merged["vocab_size"],) = whole[TABLE][:1]
    classes = whole.get(CLASSES, ())[:1]
    if head.labels and not head.has_choices and classes and classes != (classes_of(config).count,):
        names = [f"LABEL_{number}" for number in range(*classes)]
        merged["id2label"] = dict(enumerate(names))
        merged["label2id"] = {name: number for number, name in enumerate(names)}
        merged["num_labels"] = len(names)
    return merged


def complete(base: Path, adapter: Path, head: Head, *, where: str) -> str:
    """Make of a base a whole checkpoint, with all that its adapter replaces; both are copies of ours.

    Gives what wrapped the names of the base's weights.
    """
    _, shapes = stored(base)
    wrapper = wrapping(shapes, where=where)
    weights = read_weights(adapter_file(adapter))
    whole = {plain: weights[name] for plain, name in whole_names(weights).items()}
    write_plain(base, wrapper, whole)
    config = merged_config(read_config(base), {name: tuple(each.shape) for name, each in whole.items()}, head)
    (base / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    if has_tokenizer(adapter):
        for folder in (base, adapter):
            for path in tokenizer_files(folder):
                path.unlink() if folder == base else shutil.copyfile(path, base / path.name)
    return wrapper


def merge(model: PreTrainedModel, adapter: Path, *, where: str) -> PreTrainedModel:
    """The model with its adapter in its weights; refuses weights that have no place in it, and missing ones."""
    try:
        with undisturbed():  # by warnings of missing weights, which are refused below
            import peft

            wrapped = peft.PeftModel.from_pretrained(model, adapter, torch_device="cpu")
            # Loaded once more for what did not fit: `from_pretrained` does not tell.
            result = wrapped.load_adapter(adapter, "default", torch_device="cpu")
            merged: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    except UNMERGEABLE as error:
        said = brief(first_line(error), 200)
        raise SourceError(f"{where}: its adapter cannot be merged ({said}); save it again") from error
    surplus = [name for name in result.unexpected_keys if not set(TWICE).intersection(name.split("."))]
    for names, what in ((result.missing_keys, "lacks"), (surplus, "has weights that fit nowhere:")):
        if names:
            raise SourceError(f"{where}: its adapter {what} {listed(sorted(names))}; save it again")
    return merged
