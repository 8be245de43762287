"""What a folder of sentence-transformers says of its modules, read without torch and without that library.

`modules.json` lists a Transformer, a Pooling and whatever follows; each has a folder with a `config.json`. Versions 2
to 5.3 write a flag for each kind of pooling, and `sentence_transformers.models.Pooling`; since 5.4 it is one word, or
several, and longer paths. All of them are read. A class is known by the last part of its path, from a list: what a file
names is never imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from optimize.errors import SourceError, brief, shown
from optimize.files.small import read_json
from optimize.sentences.configs import (
    ENCODER_FILE,
    MODULE_FILE,
    MODULE_KEYS,
    PLAIN,
    TOKENIZER_FILE,
    TRANSFORMER_FILES,
    activation_of,
    max_tokens_of,
    pooling_of,
    read_defaults,
    read_module,
    read_settings,
    refusal,
    whole,
)

MODULES_FILE = "modules.json"
SMALL = frozenset({MODULES_FILE, *TRANSFORMER_FILES, ENCODER_FILE, MODULE_FILE, TOKENIZER_FILE})
"""All that is read here."""


@dataclass(frozen=True)
class Module:
    """One module: its class's name, or "" where that is not the library's; its folder; and its config."""

    kind: str
    path: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class SentenceEncoder:
    """What becomes of a text: a prompt before it, at most `max_tokens` tokens, the transformer, and the modules.

    `transformer` is the folder that holds it, "" where that is the encoder's own. `pooling` are kinds whose vectors are
    put one after the other. `defaults` are what the library's own object has from config_sentence_transformers.json.
    """

    transformer: str
    pooling: tuple[str, ...]
    modules: tuple[Module, ...]
    max_tokens: int | None
    lower_case: bool
    defaults: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """What is put before every text unless the user names another prompt."""
        name = self.defaults.get("default_prompt_name")
        return "" if name is None else str(self.defaults["prompts"][name])

    @property
    def truncate(self) -> int | None:
        """How many numbers of the embedding are kept, where it is not all of them."""
        return self.defaults.get("truncate_dim")

    @property
    def reads_first_token(self) -> bool:
        """Whether no other token than the first counts."""
        return self.pooling == ("cls",)

    def words(self) -> str:
        """The modules in a few words, such as "cls → Dense 384 to 256, Tanh → Normalize"."""
        said = ["+".join(self.pooling)]
        for module in self.modules[1:]:
            if module.kind == "Dense":
                sizes = f"{module.config['in_features']} to {module.config['out_features']}"
                said.append(f"Dense {sizes}, {activation_of(module.config, where=module.path)}")
            elif module.kind != "Dropout":
                said.append(module.kind)
        return " → ".join(said)


def lists_modules(folder: Path) -> bool:
    """Whether a folder is one of sentence-transformers."""
    return (folder / MODULES_FILE).exists()


def makes_vectors(folder: Path) -> bool:
    """Whether a folder lists a module that makes one vector of a text."""
    return lists_modules(folder) and any(each.kind == "Pooling" for each in _listed(folder))


def read_encoder(folder: Path, *, where: str) -> SentenceEncoder:
    """The sentence encoder of a folder that lists modules. Raises SourceError for what is not known here."""
    first, *others = _listed(folder)
    if first.kind != "Transformer":
        raise refusal(
            where, f"its first module is {brief(first.kind or first.path)}", "name one that begins with a Transformer"
        )
    for module in others:
        if module.kind not in MODULE_KEYS:
            what = f"its module {brief(module.kind or module.path)} is not known here"
            raise refusal(where, what, f"use {', '.join(MODULE_KEYS)}, {PLAIN}")
    if [module.kind for module in others].count("Pooling") != 1 or others[0].kind != "Pooling":
        raise refusal(where, "no Pooling, and one alone, follows its Transformer", f"save one that has it, {PLAIN}")
    modules = tuple(_with_config(folder, module, where=where) for module in others)
    settings = read_settings(folder / first.path, where=where)
    return SentenceEncoder(
        transformer=first.path,
        pooling=pooling_of(modules[0].config, where=where),
        modules=modules,
        max_tokens=max_tokens_of(folder / first.path, settings, where=where),
        lower_case=bool(settings.get("do_lower_case")),
        defaults=read_defaults(folder / ENCODER_FILE, where=f"{where}/{ENCODER_FILE}"),
    )


def check_widths(encoder: SentenceEncoder, width: int, *, where: str) -> None:
    """Refuse modules that do not take what the module before gives; `width` is that of the transformer."""
    for module in encoder.modules:
        name = _takes(module)
        found = width if name is None else whole(module.config, name, f"{where}/{module.path}")
        if found != width:
            raise refusal(where, f"{name} of its module {module.path} is {found}, not {width}", "save it again")
        if module.kind == "Pooling":
            width *= len(encoder.pooling)
        if module.kind == "Dense":
            width = whole(module.config, "out_features", f"{where}/{module.path}") or 0
    if encoder.truncate is not None and encoder.truncate > width:
        raise refusal(where, f"truncate_dim in its {ENCODER_FILE} is more than {width}", "save it again")


def _listed(folder: Path) -> list[Module]:
    """The entries of modules.json, in their order."""
    path = folder / MODULES_FILE
    entries = read_json(path, where=str(path), refusal=SourceError, advice="save the encoder again")
    if not isinstance(entries, list) or not entries:
        raise SourceError(f"{path}: lists no modules; save the encoder again")
    return [_entry(each, where=str(path)) for each in entries]


def _entry(entry: object, *, where: str) -> Module:
    """One entry of modules.json; refuse one that leads out of the folder."""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in ("type", "path")):
        raise SourceError(f"{where}: an entry has no type and path; save the encoder again")
    place = PurePosixPath(entry["path"])
    if place.is_absolute() or ".." in place.parts or "\\" in entry["path"] or not entry["path"].isprintable():
        raise SourceError(f"{where}: {shown(entry['path'])} is no folder in it; save the encoder again")
    if entry.get("kwargs"):
        raise SourceError(f"{where}: a module is called with kwargs, which is not known here; save it without")
    known = entry["type"].startswith("sentence_transformers.")
    kind = entry["type"].rpartition(".")[2] if known else ""
    return Module(kind, "" if entry["path"] == "." else entry["path"], {})


def _with_config(folder: Path, module: Module, *, where: str) -> Module:
    return replace(module, config=read_module(folder / module.path, module.kind, where=where))


def _takes(module: Module) -> str | None:
    """The word of a module's config for the width that it takes, where it has one."""
    if module.kind == "Pooling":
        return "embedding_dimension" if "embedding_dimension" in module.config else "word_embedding_dimension"
    return {"Dense": "in_features", "LayerNorm": "dimension"}.get(module.kind)
