from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from source.cases import (
    HEAD,
    Change,
    Weights,
    both,
    configure,
    keep_vocabulary_alone,
    pickled,
    remove,
    remove_tokenizer,
    replace,
    reweigh,
    write,
)

from optimize import cache
from optimize.errors import SourceError
from optimize.source.finding import inspect_checkpoint

QUERY = "distilbert.transformer.layer.1.attention.q_lin.weight"


def shard(suffix: str, save: Callable[[Weights, Path], None]) -> Change:
    """Save the weights in two files with an index, as large checkpoints are."""

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(weights)
        stem, places = ("model" if suffix == "safetensors" else "pytorch_model"), {}
        for number, part in enumerate((names[::2], names[1::2]), 1):
            file = f"{stem}-0000{number}-of-00002.{suffix}"
            save({name: weights[name] for name in part}, folder / file)
            places |= dict.fromkeys(part, file)
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")

    return change


SHARDED = shard("safetensors", lambda weights, path: save_file(weights, path, metadata={"format": "pt"}))
SHARDED_BIN = shard("bin", torch.save)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def stored(entry: cache.Entry) -> Weights:
    return load_file(entry.artifact.path / "model.safetensors")


@dataclass
class Evil:
    """Creates `marker` where unpickling runs code."""

    marker: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize(
    "kept", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn], ids=str
)
def test_weights_are_raised_to_fp32_without_a_change_of_value(changed, acquire, kept: torch.dtype) -> None:
    folder = changed(reweigh(lambda weights: {name: weight.to(kept) for name, weight in weights.items()}))

    entry = acquire(folder)

    expected = {name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()}
    torch.testing.assert_close(stored(entry), expected, rtol=0, atol=0)
    names = {torch.float8_e4m3fn: "F8_E4M3"}
    assert entry.facts["stored_as"] == names.get(kept, str(kept).removeprefix("torch."))


@pytest.mark.parametrize("change", [SHARDED, SHARDED_BIN, pickled(dict)], ids=["shards", "bin shards", "bin"])
def test_every_layout_of_weights_gives_the_same_artifact(changed, acquire, checkpoint, change: Change) -> None:
    plain = acquire(checkpoint(HEAD))

    other = acquire(changed(change))

    assert (other.artifact.digest, other.cached) == (plain.artifact.digest, False)


def test_a_checkpoint_that_mixes_data_types_says_so(changed, acquire) -> None:
    folder = changed(replace("classifier.weight", torch.Tensor.half))

    assert acquire(folder).facts["stored_as"] == "float16, float32"


@pytest.mark.parametrize(
    "geometry",
    [
        {"activation": "relu"},
        {"sinusoidal_pos_embds": True},
        {"sinusoidal_pos_embds": False, "max_position_embeddings": 96},
        {"n_layers": 1, "n_heads": 2, "hidden_dim": 48},
    ],
    ids=str,
)
def test_any_geometry_is_kept(acquire, checkpoint, tmp_path: Path, geometry: dict[str, Any]) -> None:
    import transformers

    small = {"vocab_size": 400, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    model = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**small | geometry))
    shutil.copytree(checkpoint(HEAD), tmp_path / "model", ignore=lambda *_: ["config.json", "model.safetensors"])
    model.save_pretrained(tmp_path / "model")

    entry = acquire(tmp_path / "model")

    config = json.loads((entry.artifact.path / "config.json").read_text(encoding="utf-8"))
    assert small | geometry == {name: config[name] for name in small | geometry}
    torch.testing.assert_close(stored(entry), dict(model.state_dict()), rtol=0, atol=0)


def test_a_cased_tokenizer_stays_cased(changed, acquire) -> None:
    import transformers

    def keep_case(folder: Path) -> None:
        keep_vocabulary_alone(folder)
        write("tokenizer_config.json", b'{"tokenizer_class": "DistilBertTokenizer", "do_lower_case": false}')(folder)

    entry = acquire(changed(keep_case))

    tokenizer = transformers.AutoTokenizer.from_pretrained(entry.artifact.path)
    assert tokenizer.tokenize("The the") == ["[UNK]", "the"]


@pytest.mark.parametrize("head", ["fill-mask", "question-answering", "token-classification", "multiple-choice"])
def test_the_head_is_read_from_the_checkpoint(checkpoint, head: str) -> None:
    _, chosen = inspect_checkpoint(str(checkpoint(head)))

    assert chosen.name == head


def test_a_head_that_is_asked_for_overrules_the_checkpoint(checkpoint, acquire) -> None:
    entry = acquire(checkpoint(HEAD), "feature-extraction")

    config = json.loads((entry.artifact.path / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["DistilBertModel"]
    assert not any(name.startswith("classifier") for name in stored(entry))


def test_the_second_time_is_a_cache_hit(checkpoint, acquire) -> None:
    first = acquire(checkpoint(HEAD))

    second = acquire(checkpoint(HEAD))

    assert (first.cached, second.cached) == (False, True)
    assert second.artifact == first.artifact


def test_a_changed_tokenizer_is_no_cache_hit(changed, acquire) -> None:
    folder = changed(lambda folder: None)
    first = acquire(folder)
    write("tokenizer_config.json", b'{"tokenizer_class": "DistilBertTokenizer", "do_lower_case": false}')(folder)

    assert acquire(folder).key != first.key


def test_nothing_that_is_sealed_names_a_local_folder(changed, acquire, tmp_path: Path) -> None:
    entry = acquire(changed(configure(_name_or_path="/home/someone/model")))

    texts = {path.name: path.read_text(encoding="utf-8") for path in entry.artifact.path.glob("*.json")}
    assert {"config.json", "tokenizer_config.json"} <= set(texts)
    assert [name for name, text in texts.items() if "/home/someone" in text or str(tmp_path) in text] == []
    assert "local" not in texts["tokenizer_config.json"]  # how it was loaded here is no setting of it


UNUSABLE: dict[str, tuple[Change, str | None, str]] = {
    "no config": (remove("config.json"), None, "no config.json"),
    "config is not JSON": (write("config.json", b"{"), None, "config.json: cannot be read"),
    "config is a list": (write("config.json", b"[]"), None, "config.json: holds no JSON object"),
    "another architecture": (configure(model_type="bert"), None, "is a 'bert' model"),
    "no architecture": (configure(model_type=None), None, "names no model_type"),
    "no known head": (configure(architectures=["DistilBertForMore"]), None, "no known head (DistilBertForMore)"),
    "no weights": (remove("model.safetensors"), None, "no model.safetensors"),
    "truncated": (truncate, None, "model.safetensors: not a readable safetensors file"),
    "garbage": (write("model.safetensors", bytes(range(256)) * 9), None, "not a readable safetensors file"),
    "text in place of weights": (write("model.safetensors", b"version https://git-lfs"), None, "model.safetensors"),
    "a list in the .bin": (pickled(lambda weights: [*weights.values()]), None, "holds no state dict"),
    "an empty .bin": (
        both(remove("model.safetensors"), write("pytorch_model.bin", b"")),
        None,
        "pytorch_model.bin: cannot be read",
    ),
    "no tokenizer": (remove_tokenizer, None, "no tokenizer.json or vocab.txt"),
    "tokenizer is not JSON": (write("tokenizer.json", b"{"), None, "its tokenizer cannot be loaded"),
    "tokenizer is other JSON": (write("tokenizer.json", b"[]"), None, "its tokenizer cannot be loaded"),
    "an encoder's weight is missing": (
        reweigh(lambda weights: {name: weight for name, weight in weights.items() if name != QUERY}),
        None,
        QUERY,
    ),
    "a weight of another shape": (replace(QUERY, lambda weight: weight[:, :64]), None, f"{QUERY} has not the shape"),
    "fewer layers in the config": (configure(n_layers=1), None, "no place for distilbert.transformer.layer.1"),
    "more layers in the config": (configure(n_layers=3), None, "distilbert.transformer.layer.2"),
    "a third class in the config": (
        configure(id2label={"0": "a", "1": "b", "2": "c"}),
        None,
        "and its config 3 classes",
    ),
    "heads that do not divide": (configure(n_heads=3), None, "not a multiple of n_heads, 3"),
    "no heads": (configure(n_heads=0), None, "n_heads in its config is '0'"),
    "NaN": (replace("classifier.weight", lambda weight: weight * float("nan")), None, "classifier.weight holds NaN"),
    "no head weights": (lambda folder: None, "question-answering", "qa_outputs.weight is missing"),
    "another head's weights": (lambda folder: None, "token-classification", "pre_classifier.weight"),
    "another head's shape": (lambda folder: None, "multiple-choice", "has not the shape [1]"),
}


@pytest.mark.parametrize(("change", "head", "says"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_checkpoints_are_refused_by_name(changed, acquire, tmp_path, change: Change, head, says: str) -> None:
    folder = changed(change)

    with pytest.raises(SourceError) as refused:
        acquire(folder, head)

    message = str(refused.value)
    assert says in message
    assert ("; " in message, len(message.splitlines()), refused.value.exit_code) == (True, 1, 2)
    assert [*(tmp_path / "cache").glob(".partial-*")] == []


def test_a_tokenizer_larger_than_the_embedding_is_refused(changed, acquire) -> None:
    rows = slice(0, 300)
    folder = changed(replace("distilbert.embeddings.word_embeddings.weight", lambda weight: weight[rows]))
    configure(vocab_size=300)(folder)

    with pytest.raises(SourceError, match=r"the tokenizer has \d+ tokens, the embedding 300"):
        acquire(folder)


@pytest.mark.parametrize("index", [SHARDED, SHARDED_BIN], ids=["safetensors", "bin"])
def test_a_missing_shard_is_named(changed, acquire, index: Change) -> None:
    folder = changed(index)
    next(folder.glob("*-00002-of-00002.*")).unlink()

    with pytest.raises(SourceError, match=r"shard \w+-00002-of-00002\.\w+ is missing"):
        acquire(folder)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": None}, {"weight_map": {}}], ids=str)
def test_an_index_that_is_none_is_refused(changed, acquire, index: object) -> None:
    folder = changed(remove("model.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    with pytest.raises(SourceError, match="not an index of weights"):
        acquire(folder)


def test_a_shard_outside_of_the_folder_is_refused(changed, acquire, tmp_path: Path) -> None:
    folder = changed(lambda folder: (folder / "model.safetensors").rename(tmp_path / "model.safetensors"))
    index = {"weight_map": {QUERY: "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    with pytest.raises(SourceError, match=r"shard model\.safetensors is missing"):
        acquire(folder)


def test_code_in_a_pickle_is_refused_and_never_run(changed, acquire, tmp_path: Path) -> None:
    marker = tmp_path / "code-was-run"
    folder = changed(pickled(lambda weights: {**weights, "evil": Evil(marker)}))

    with pytest.raises(SourceError, match=r"pytorch_model\.bin: holds more than weights"):
        acquire(folder)

    assert not marker.exists()


def test_the_pickle_of_that_test_does_run_code_where_it_is_let(changed, tmp_path: Path) -> None:
    marker = tmp_path / "code-was-run"
    folder = changed(pickled(lambda weights: {"evil": Evil(marker)}))

    torch.load(folder / "pytorch_model.bin", weights_only=False)

    assert marker.is_dir()


def test_a_base_encoder_has_no_head(changed, acquire) -> None:
    folder = changed(configure(architectures=["DistilBertModel"]), "feature-extraction")

    with pytest.raises(SourceError, match=r"no weights for head 'text-classification' \(pre_classifier\.weight"):
        acquire(folder, HEAD)


@pytest.mark.parametrize(
    ("model", "says"),
    [("/no/such/folder", "no such folder"), ("./here", "no such folder"), ("a/b/c", "no such folder")],
)
def test_a_folder_that_does_not_exist_is_refused(model: str, says: str) -> None:
    with pytest.raises(SourceError, match=f"{model}: {says}; check --model"):
        inspect_checkpoint(model)


def test_a_file_is_no_checkpoint(checkpoint) -> None:
    with pytest.raises(SourceError, match="is a file; name the folder"):
        inspect_checkpoint(str(checkpoint(HEAD) / "config.json"))


@pytest.mark.parametrize("model", ["demo", "."])
def test_only_a_hub_id_has_revisions(model: str) -> None:
    with pytest.raises(SourceError, match=r"--revision: .* only a Hub id has"):
        inspect_checkpoint(model, "main")
