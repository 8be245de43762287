"""A sentence encoder's modules in the sealed checkpoint: in FP32, and in words that all versions read."""

import json
import shutil

import numpy as np
import pytest
import torch
from encoders import weights_of, write_json
from safetensors.numpy import load_file, save_file

from optimize.checkpoint import load_model
from optimize.data.tokenized import read_text
from optimize.errors import SourceError
from optimize.sentences.layout import read_encoder
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint

DENSE = {"in_features": 128, "out_features": 16, "activation_function": "torch.nn.modules.activation.Tanh"}
MODULES = (("Dense", DENSE), ("Normalize", {"module_input_name": "sentence_embedding"}))


@pytest.fixture
def acquire(tmp_path, silent):
    """The sealed checkpoint of a folder."""

    def act(folder):
        found, head = inspect_checkpoint(str(folder))
        return acquire_checkpoint(found, head, root=tmp_path / "cache", seed=0, progress=silent).artifact.path

    return act


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def contents(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_what_version_6_writes_is_sealed_in_words_that_version_3_reads(encoder_folder, acquire):
    folder = encoder_folder(*MODULES, described={"prompts": {"q": "find: "}, "model_type": "SentenceTransformer"})
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"another model")
    sealed = acquire(folder)

    types = [each["type"] for each in contents(sealed / "modules.json")]
    assert types == [
        f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Dense", "Normalize")
    ]
    flags = contents(sealed / "1_Pooling" / "config.json")
    assert [name for name, said in flags.items() if said is True] == ["pooling_mode_cls_token", "include_prompt"]
    assert contents(sealed / "2_Dense" / "config.json") == DENSE
    assert contents(sealed / "3_Normalize" / "config.json") == {}
    assert contents(sealed / "sentence_bert_config.json") == {"max_seq_length": 24, "do_lower_case": False}
    assert contents(sealed / "config_sentence_transformers.json") == {"prompts": {"q": "find: "}}
    assert not {name for name in files(sealed) if name.startswith("onnx")}
    assert read_encoder(sealed, where="here").words() == "cls → Dense 128 to 16, Tanh → Normalize"


def test_an_order_of_pooling_that_flags_do_not_have_keeps_the_newer_words(encoder_folder, acquire):
    sealed = acquire(encoder_folder(pooling=["mean", "cls"]))
    assert read_encoder(sealed, where="here").pooling == ("mean", "cls")
    assert read_encoder(acquire(encoder_folder(pooling=["cls", "mean"])), where="here").pooling == ("cls", "mean")


def test_a_transformer_in_a_folder_of_its_own_comes_to_the_root(encoder_folder, acquire):
    inner, outer = acquire(encoder_folder(*MODULES, transformer="0_Transformer")), acquire(encoder_folder(*MODULES))

    assert files(inner) == files(outer)
    assert all((inner / name).read_bytes() == (outer / name).read_bytes() for name in files(outer))


def test_weights_in_half_precision_and_in_pickles_become_fp32(encoder_folder, acquire):
    folder = encoder_folder(*MODULES)
    path, weights = folder / "2_Dense" / "model.safetensors", weights_of("Dense", DENSE)
    half = {name: weight.astype(np.float16) for name, weight in weights.items()}
    save_file(half, path)
    first = load_file(acquire(folder) / "2_Dense" / "model.safetensors")
    path.unlink()
    torch.save({name: torch.from_numpy(weight) for name, weight in half.items()}, path.with_name("pytorch_model.bin"))
    second = load_file(acquire(folder) / "2_Dense" / "model.safetensors")

    for found in (first, second):
        assert all(found[name].dtype == np.float32 for name in weights)
        assert all(np.array_equal(found[name], half[name].astype(np.float32)) for name in weights)


@pytest.mark.parametrize("spoiled", ["missing", "NaN", "another shape"])
def test_weights_that_are_no_use_are_refused(spoiled, encoder_folder, acquire):
    folder = encoder_folder(*MODULES)
    path, weights = folder / "2_Dense" / "model.safetensors", weights_of("Dense", DENSE)
    if spoiled == "missing":
        path.unlink()
    elif spoiled == "NaN":
        save_file({**weights, "linear.bias": weights["linear.bias"] * np.float32("nan")}, path)
    else:
        save_file({**weights, "linear.bias": weights["linear.bias"][:3].copy()}, path)

    with pytest.raises(SourceError, match=r"2_Dense.*;"):
        acquire(folder)


def test_texts_are_put_in_lower_case_once_where_the_encoder_says_so(encoder_folder, acquire):
    kept, lowered = ({"max_seq_length": 24, "do_lower_case": said} for said in (False, True))
    cased = encoder_folder(settings=kept)
    says = contents(cased / "tokenizer.json")
    write_json(cased / "tokenizer.json", says | {"normalizer": {**says["normalizer"], "lowercase": False}})
    says = contents(cased / "tokenizer_config.json")
    write_json(cased / "tokenizer_config.json", says | {"do_lower_case": False})
    lower = cased.with_name("lower")
    shutil.copytree(cased, lower)
    write_json(lower / "sentence_bert_config.json", lowered)

    texts = [read_text(acquire(folder), 64).tokenizer(["The TRAIN"])["input_ids"] for folder in (cased, lower)]

    assert texts[0] != texts[1]
    assert texts[1] == read_text(acquire(cased), 64).tokenizer(["the train"])["input_ids"]


def test_texts_are_cut_at_the_encoders_length_and_come_after_its_prompt(encoder_folder, acquire):
    described = {"prompts": {"q": "the train "}, "default_prompt_name": "q"}
    sealed = acquire(encoder_folder(settings={"max_seq_length": 20}, described=described))
    _, head = inspect_checkpoint(str(sealed))
    text = read_text(sealed, 64)

    encoded = head.encode([{"text": "is late"}, {"text": "late " * 40}], text)

    assert encoded.features[0].inputs["input_ids"].tolist() == text.tokenizer("the train is late")["input_ids"]
    assert [feature.tokens for feature in encoded.features][1:] == [20]
    assert encoded.truncated == 1
    assert read_text(sealed, 8).max_tokens == 8


def test_pytorch_gives_the_embedding_beside_the_hidden_states(encoder_folder, acquire):
    model = load_model(acquire(encoder_folder(*MODULES)), "AutoModel")
    ids = torch.arange(5, 11)[None]
    with torch.inference_mode():
        outputs = model(input_ids=ids)
    weights = {name: torch.from_numpy(each) for name, each in weights_of("Dense", DENSE).items()}

    first = torch.tanh(outputs.last_hidden_state[:, 0] @ weights["linear.weight"].T + weights["linear.bias"])

    assert torch.allclose(outputs["sentence_embedding"], first / first.norm(dim=1, keepdim=True), atol=1e-6)
    assert not [name for name in model.state_dict() if "linear" in name]
