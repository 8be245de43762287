"""What a folder of sentence-transformers says of its modules, read without torch and without that library.

`modules.json` lists a Transformer, a Pooling and whatever follows; each has a folder with a `config.json`. Versions 2 to
5 write a flag for each kind of pooling and the module `sentence_transformers.models.Pooling`; since 5.4 it is one word,
or several, and longer paths. All of them are read. A class is known by the last part of its path, from the lists here:
what a file names is never imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from optimize.errors import SourceError, brief, shown
from optimize.files.small import read_json

MODULES_FILE = "modules.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
ENCODER_FILE = "config_sentence_transformers.json"
MODULE_FILE = "config.json"
TOKENIZER_FILE = "tokenizer_config.json"
SMALL = frozenset({MODULES_FILE, TRANSFORMER_FILE, ENCODER_FILE, MODULE_FILE, TOKENIZER_FILE})
"""All that is read here."""
OUTPUT = "sentence_embedding"
TOKENS = "last_hidden_state"
PLAIN = "or remove modules.json, to take the mean of all tokens"
"""What else can be done where the modules are not read."""

POOLINGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The kinds of pooling by their flags, in the order in which flags are put one after the other."""
ACTIVATIONS = ("ELU", "GELU", "Identity", "LeakyReLU", "ReLU", "SiLU", "Sigmoid", "Tanh")
"""Classes of torch.nn that a Dense may have; the library makes them without arguments."""
MODULE_KEYS: Mapping[str, frozenset[str]] = {
    "Pooling": frozenset({*POOLINGS, "pooling_mode", "include_prompt", "embedding_dimension", "word_embedding_dimension"}),
    "Dense": frozenset({"in_features", "out_features", "bias", "activation_function", "use_residual"}),
    "LayerNorm": frozenset({"dimension"}),
    "Normalize": frozenset(),
    "Dropout": frozenset({"dropout"}),
}
WEIGHTED = ("Dense", "LayerNorm")
"""Modules with weights of their own."""
FEATURES = ("module_input_name", "module_output_name")
TRANSFORMER_DEFAULTS: Mapping[str, object] = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": TOKENS}},
    "module_output_name": "token_embeddings",
}
TRANSFORMER_KEYS = ("max_seq_length", "do_lower_case", "unpad_inputs")
MOST_NUMBERS = 2**20


@dataclass(frozen=True)
class Module:
    """One module behind the transformer: its class's name, the path that it was written under, and its config."""

    kind: str
    type: str
    path: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class SentenceEncoder:
    """What becomes of a text: `prompt` before it, at most `max_tokens` tokens, the transformer, and the modules.

    `transformer` is the folder that holds it, "" where that is the encoder's own. `pooling` are kinds whose vectors are
    put one after the other. The first `truncate` numbers of the embedding are kept, where that is said. `settings` and
    `described` are the contents of sentence_bert_config.json and config_sentence_transformers.json.
    """

    transformer: str
    transformer_type: str
    pooling: tuple[str, ...]
    modules: tuple[Module, ...]
    max_tokens: int | None
    lower_case: bool
    prompt: str
    truncate: int | None
    settings: Mapping[str, Any]
    described: Mapping[str, Any]

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
                said.append(f"Dense {sizes}, {activation_of(module)}")
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
        raise _refusal(where, f"its first module is {brief(first.type)}", "name one that begins with a Transformer")
    for module in others:
        if module.kind not in MODULE_KEYS:
            raise _refusal(where, f"its module {brief(module.type)} is not known here", f"use {_known()}, {PLAIN}")
    if [module.kind for module in others].count("Pooling") != 1 or others[0].kind != "Pooling":
        raise _refusal(where, "no Pooling, and one alone, follows its Transformer", f"save one that has it, {PLAIN}")
    modules = tuple(_with_config(folder, module, where=where) for module in others)
    settings = _settings(folder / first.path, where=where)
    described = _object(folder / ENCODER_FILE, where=where)
    return SentenceEncoder(
        transformer=first.path,
        transformer_type=first.type,
        pooling=_pooling(modules[0], where=where),
        modules=modules,
        max_tokens=_max_tokens(folder / first.path, settings, where=where),
        lower_case=bool(settings.get("do_lower_case")),
        prompt=_prompt(described, where=where),
        truncate=_whole(described, "truncate_dim", f"{where}/{ENCODER_FILE}"),
        settings=settings,
        described=described,
    )


def check_widths(encoder: SentenceEncoder, width: int, *, where: str) -> None:
    """Refuse modules that do not take what the module before gives; `width` is that of the transformer."""
    for module in encoder.modules:
        name = {"Pooling": _width_key(module), "Dense": "in_features", "LayerNorm": "dimension"}.get(module.kind)
        found = width if name is None else _whole(module.config, name, f"{where}/{module.path}")
        if found != width:
            raise _refusal(where, f"{name} of its module {module.path} is {found}, not {width}", "save it again")
        if module.kind == "Pooling":
            width *= len(encoder.pooling)
        if module.kind == "Dense":
            width = _whole(module.config, "out_features", f"{where}/{module.path}") or 0
    if encoder.truncate is not None and encoder.truncate > width:
        raise _refusal(where, f"truncate_dim in its {ENCODER_FILE} is more than {width}", "save it again")


def activation_of(module: Module) -> str:
    """The class of torch.nn behind a Dense; raises SourceError for any that is not listed."""
    named = str(module.config.get("activation_function", "torch.nn.Tanh"))
    name = named.rpartition(".")[2]
    if not named.startswith("torch.nn.") or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise SourceError(
            f"{module.path}: its activation function is {shown(named)}, which is not known here; use one of {known}"
        )
    return name


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
    return Module(kind, entry["type"], "" if entry["path"] == "." else entry["path"], {})


def _with_config(folder: Path, module: Module, *, where: str) -> Module:
    """The module with its config; refuse what the config asks for beyond what is known."""
    config = _object(folder / module.path / MODULE_FILE, where=where)
    place = f"its module {module.path}"
    for name in FEATURES:
        if config.get(name, OUTPUT) != OUTPUT:
            raise _refusal(where, f"{place} works on {brief(config[name])}", f"use one that works on {OUTPUT}, {PLAIN}")
    for name in sorted(set(config) - MODULE_KEYS[module.kind] - {*FEATURES}):
        raise _refusal(where, f"{place} has {brief(name)}, which is not known here", f"save it without, {PLAIN}")
    if config.get("use_residual"):
        raise _refusal(where, f"{place} has a residual, which is not known here", f"train it without, {PLAIN}")
    if not isinstance(config.get("bias", True), bool):
        raise _refusal(where, f"bias of {place} is {shown(config['bias'])}", "save it again")
    if not config.get("include_prompt", True):
        raise _refusal(where, f"{place} leaves the prompt's tokens out", f"train it with include_prompt, {PLAIN}")
    found = Module(module.kind, module.type, module.path, config)
    if module.kind == "Dense":
        activation_of(found)
    return found


def _pooling(module: Module, *, where: str) -> tuple[str, ...]:
    """The kinds of pooling, as words or as flags; as in the library, it is the mean where nothing is said."""
    said = module.config.get("pooling_mode")
    if said is None:
        return tuple(kind for flag, kind in POOLINGS.items() if module.config.get(flag)) or ("mean",)
    kinds = [said] if isinstance(said, str) else said
    if not isinstance(kinds, list) or not kinds or not all(kind in POOLINGS.values() for kind in kinds):
        known = ", ".join(POOLINGS.values())
        raise _refusal(where, f"pooling_mode of its module {module.path} is {shown(said)}", f"use {known}, {PLAIN}")
    return tuple(kinds)


def _settings(folder: Path, *, where: str) -> Mapping[str, Any]:
    """What is said of the transformer; refuse what would make other hidden states of it."""
    settings = _object(folder / TRANSFORMER_FILE, where=where)
    for name, value in settings.items():
        if name in TRANSFORMER_KEYS or not value or value == TRANSFORMER_DEFAULTS.get(name):
            continue
        raise _refusal(
            where, f"{brief(name)} in its {TRANSFORMER_FILE} is {shown(value)}, which is not known here", "save it without"
        )
    return settings


def _max_tokens(folder: Path, settings: Mapping[str, Any], *, where: str) -> int | None:
    """The longest text: since 6.0 the tokenizer says it, before that the settings of the transformer."""
    if settings.get("max_seq_length") is not None:
        return _whole(settings, "max_seq_length", f"{where}/{TRANSFORMER_FILE}")
    longest = _object(folder / TOKENIZER_FILE, where=where).get("model_max_length")
    # transformers writes 1e30 where there is no limit.
    return longest if type(longest) is int and 1 <= longest <= MOST_NUMBERS else None


def _prompt(described: Mapping[str, Any], *, where: str) -> str:
    """What is put before every text unless the user names another prompt."""
    name, prompts = described.get("default_prompt_name"), described.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(name, str) or not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise _refusal(where, f"its prompt {shown(name)} is not one of its prompts", "save it again")
    return str(prompts[name])


def _width_key(module: Module) -> str:
    return "embedding_dimension" if "embedding_dimension" in module.config else "word_embedding_dimension"


def _whole(config: Mapping[str, Any], name: str, where: str) -> int | None:
    """A whole number of a config, or None."""
    value = config.get(name)
    if value is not None and (type(value) is not int or not 1 <= value <= MOST_NUMBERS):
        raise SourceError(f"{where}: {name} is {shown(value)}, not a whole number from 1; save it again")
    return value


def _object(path: Path, *, where: str) -> Mapping[str, Any]:
    """A JSON object; empty where there is no file."""
    if not path.exists():
        return {}
    content = read_json(path, where=str(path), refusal=SourceError, advice="save the encoder again")
    if not isinstance(content, dict):
        raise SourceError(f"{path}: holds no JSON object; save the encoder again")
    return content


def _known() -> str:
    return ", ".join(["Transformer", *MODULE_KEYS])


def _refusal(where: str, what: str, todo: str) -> SourceError:
    return SourceError(f"{where}: {what}; {todo}")
