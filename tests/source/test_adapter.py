"""Adapters: what is found of them and their base without peft, and what is refused; peft itself is in the slow tier."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Hub, read_folder
from safetensors.torch import save_file

from optimize.errors import SourceError, UnavailableError
from optimize.source import adapter as adapters
from optimize.source.finding import inspect_checkpoint

Make = Callable[..., Path]
PLACE = "base_model.model.distilbert.transformer.layer.0.attention.q_lin"
LORA = {f"{PLACE}.lora_A.weight": (4, 128), f"{PLACE}.lora_B.weight": (128, 4)}
WHOLE = {
    "base_model.model.pre_classifier.weight": (128, 128),
    "base_model.model.pre_classifier.bias": (128,),
    "base_model.model.classifier.weight": (3, 128),
    "base_model.model.classifier.bias": (3,),
}
TABLE = "base_model.model.distilbert.embeddings.word_embeddings.weight"


@pytest.fixture
def peft(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here, plan takes peft for installed."""
    monkeypatch.setattr(adapters, "version", lambda _: "0.21")


@pytest.fixture
def adapter(peft, tmp_path: Path, checkpoint: Callable[[str], Path]) -> Make:
    """An adapter's folder: matrices for one layer, and a classifier of three classes; its base is a masked LM."""

    def make(shapes: dict[str, tuple[int, ...]] = WHOLE, **settings: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir()
        given = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 4, "revision": None, "target_modules": ["q_lin"]}
        given |= {"base_model_name_or_path": str(checkpoint("fill-mask"))} | settings
        (folder / "adapter_config.json").write_text(json.dumps(given), encoding="utf-8")
        weights = {name: torch.ones(shape) for name, shape in (LORA | shapes).items()}
        save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def test_an_adapter_is_found_with_its_base_and_its_head(adapter: Make, checkpoint) -> None:
    found, head = inspect_checkpoint(str(adapter()))

    assert (found.kind, found.id, head.name) == ("folder", "adapter", "text-classification")
    assert (found.base.kind, found.base.folder) == ("folder", checkpoint("fill-mask"))


def test_without_a_task_the_head_is_the_bases_or_the_one_asked_for(adapter: Make) -> None:
    folder = adapter(task_type=None)

    assert inspect_checkpoint(str(folder))[1].name == "fill-mask"
    assert inspect_checkpoint(str(folder), None, "text-classification")[1].name == "text-classification"


def test_an_adapter_brings_classes_and_vocabulary() -> None:
    whole = adapters.whole_names({**LORA, **WHOLE, TABLE: (640, 128), f"{PLACE}.base_layer.bias": (128,)})
    config = {"vocab_size": 203, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    shapes = {"classifier.weight": (3, 128), "distilbert.embeddings.word_embeddings.weight": (640, 128)}

    merged = adapters.merged_config(config, shapes, adapters.HEADS["text-classification"])

    assert not any("lora_" in name for name in whole)
    assert whole["distilbert.transformer.layer.0.attention.q_lin.bias"] == f"{PLACE}.base_layer.bias"
    assert (merged["vocab_size"], merged["id2label"]) == (640, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    assert merged["architectures"] == ["DistilBertForSequenceClassification"]


def test_the_bases_classes_stay_where_there_are_as_many() -> None:
    config = {"id2label": {"0": "a", "1": "b", "2": "c"}}

    merged = adapters.merged_config(config, {"classifier.weight": (3, 8)}, adapters.HEADS["token-classification"])

    assert merged["id2label"] == config["id2label"]


HALF = {name: shape for name, shape in WHOLE.items() if "pre_classifier" not in name}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "prompts": ({"peft_type": "PROMPT_TUNING"}, "type 'PROMPT_TUNING', and only IA3, LOHA, LOKR, LORA are merged here"),
    "a type in a list": ({"peft_type": ["LORA"]}, "type '['LORA']'"),
    "no base": ({"base_model_name_or_path": None}, "names no base_model_name_or_path; name the model"),
    "a base that is gone": ({"base_model_name_or_path": "/no/such"}, "/no/such: no such folder; check base_model_name"),
    "a revision that is a number": ({"revision": 5}, "revision in its adapter_config.json is '5', not a name"),
    "half a head": ({"shapes": HALF}, "no weights for head 'text-classification' (pre_classifier.weight is missing"),
    "another width": (
        {"shapes": {**WHOLE, TABLE: (640, 64)}},
        "word_embeddings.weight has not the shape [640, 128] of config.json",
    ),
    "another head's": ({"task_type": "QUESTION_ANS"}, "(qa_outputs.weight is missing); fine-tune it"),
}


@pytest.mark.parametrize(("settings", "says"), REFUSED.values(), ids=REFUSED)
def test_an_adapter_that_makes_no_model_is_refused_by_plan(adapter: Make, settings: dict[str, Any], says: str) -> None:
    folder = adapter(**settings)

    with pytest.raises(SourceError) as refused:
        inspect_checkpoint(str(folder))

    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_an_adapter_of_an_adapter_is_refused(adapter: Make, tmp_path: Path) -> None:
    folder = adapter(base_model_name_or_path=str(tmp_path / "adapter"))

    with pytest.raises(SourceError, match="is an adapter of an adapter, adapter; merge that first"):
        inspect_checkpoint(str(folder))


def test_an_adapter_beside_a_whole_model_is_refused(adapter: Make, checkpoint) -> None:
    folder = adapter()
    shutil.copyfile(checkpoint("fill-mask") / "model.safetensors", folder / "model.safetensors")

    with pytest.raises(SourceError, match=r"holds an adapter and a whole model \(model\.safetensors\)"):
        inspect_checkpoint(str(folder))


def test_an_adapter_without_weights_is_refused(adapter: Make) -> None:
    folder = adapter()
    (folder / "adapter_model.safetensors").unlink()

    with pytest.raises(SourceError, match=r"no adapter_model\.safetensors or adapter_model\.bin; copy the whole"):
        inspect_checkpoint(str(folder))


def test_without_peft_it_is_said_what_to_install(adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter()
    monkeypatch.setattr(adapters, "version", lambda _: "absent")

    with pytest.raises(UnavailableError, match=r"peft is not installed; install distilbert-optimize\[peft\]"):
        inspect_checkpoint(str(folder))


def test_an_adapter_and_its_base_on_the_hub_are_found_at_their_commits(here: Hub, adapter: Make, checkpoint) -> None:
    base = here.model("tester/base").commit(read_folder(checkpoint("fill-mask")))
    folder = adapter(base_model_name_or_path="tester/base")
    commit = here.model("tester/adapter").commit(read_folder(folder))

    found, head = inspect_checkpoint("tester/adapter")

    assert (found.kind, found.id, found.revision, head.name) == ("hub", "tester/adapter", commit, "text-classification")
    assert (found.base.kind, found.base.id, found.base.revision) == ("hub", "tester/base", base)


def test_an_adapter_on_the_hub_names_no_folder_of_this_machine(here: Hub, adapter: Make) -> None:
    here.model("tester/adapter").commit(read_folder(adapter()))

    with pytest.raises(SourceError, match=r"whose base is not to be had: .*; check base_model_name_or_path"):
        inspect_checkpoint("tester/adapter")
