"""Checkpoints of any layer sizes: loaded as they were saved, and refused where the config makes no sense."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import transformers

import optimize
from optimize.checkpoint import (
    LayerSize,
    encoder_flops,
    encoder_layers,
    layers_stood_for,
    load_model,
    note_sizes,
    pruned_sizes,
    read_config,
    resize_layers,
    size_of,
)
from optimize.errors import SourceError
from optimize.heads import HEADS

NAMES = sorted(HEADS)
SIZES = [LayerSize(1, 40), LayerSize(3, 7)]
GEOMETRY = {
    "vocab_size": 97,
    "max_position_embeddings": 32,
    "dim": 48,
    "hidden_dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "initializer_range": 0.2,
}
IDS = torch.arange(5, 17)[None]


@pytest.fixture
def pruned(tmp_path):
    """A checkpoint with random weights whose layers have sizes of their own: its folder and its model."""

    def make(head="text-classification"):
        model = getattr(transformers, HEADS[head].architecture)(transformers.DistilBertConfig(**GEOMETRY)).eval()
        resize_layers(model, SIZES)
        note_sizes(model.config, SIZES)
        model.save_pretrained(tmp_path / "checkpoint")
        return tmp_path / "checkpoint", model

    return make


def answers(model, head):
    ids = torch.stack([IDS, IDS + 3], dim=1) if head == "multiple-choice" else IDS
    with torch.no_grad():
        outputs = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return [outputs[name] for name in HEADS[head].outputs]


def set_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("head", NAMES)
def test_layers_keep_their_own_sizes_through_saving_and_loading(head, pruned):
    folder, model = pruned(head)
    again = load_model(folder, HEADS[head].auto_class)
    assert type(again) is getattr(transformers, HEADS[head].architecture)
    assert not again.training
    assert [size_of(layer) for layer in encoder_layers(again)] == SIZES
    assert encoder_layers(again)[0].attention.q_lin.weight.shape == (12, 48)
    assert encoder_layers(again)[1].ffn.lin2.weight.shape == (48, 7)
    for ours, theirs in zip(answers(again, head), answers(model, head), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("head", NAMES)
def test_an_ordinary_checkpoint_is_loaded_as_transformers_does(head, checkpoint):
    folder = checkpoint(head)
    usual = getattr(transformers, HEADS[head].auto_class).from_pretrained(folder)
    ours = load_model(folder, HEADS[head].auto_class)
    assert type(ours) is type(usual)
    assert all(torch.equal(one, usual.state_dict()[name]) for name, one in ours.state_dict().items())


def test_without_a_class_the_config_says_which(pruned, checkpoint):
    folder, _ = pruned("question-answering")
    assert type(optimize.load_model(folder)).__name__ == "DistilBertForQuestionAnswering"
    assert type(optimize.load_model(str(checkpoint("fill-mask")))).__name__ == "DistilBertForMaskedLM"


def test_a_base_model_is_read_out_of_a_checkpoint_with_a_head(pruned):
    folder, model = pruned("text-classification")
    base = load_model(folder, "AutoModel")
    assert torch.equal(base.transformer.layer[1].ffn.lin1.weight, model.distilbert.transformer.layer[1].ffn.lin1.weight)


def test_a_tied_projection_stays_tied(pruned):
    folder, _ = pruned("fill-mask")
    model = load_model(folder, "AutoModelForMaskedLM")
    assert model.vocab_projector.weight is model.distilbert.embeddings.word_embeddings.weight


def test_half_precision_and_attention_are_chosen_as_ever(pruned):
    folder, _ = pruned()
    model = load_model(folder, dtype=torch.float16, attn_implementation="eager")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert model.config._attn_implementation == "eager"


def test_transformers_own_word_for_pruned_heads_is_replaced(pruned):
    _, model = pruned()
    model.config.pruned_heads = {0: [1]}
    note_sizes(model.config, SIZES)
    assert model.config.pruned_heads == {}
    assert pruned_sizes(model.config.to_dict(), where="here") == SIZES


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"heads": 1, "neurons": 40}],
        {"heads": 1, "neurons": 40},
        [{"heads": 1, "neurons": 40}, {"heads": 0, "neurons": 7}],
        [{"heads": 1, "neurons": 40}, {"heads": 5, "neurons": 7}],
        [{"heads": 1, "neurons": 40}, {"heads": 3, "neurons": 65}],
        [{"heads": 1, "neurons": 40}, {"heads": 3, "neurons": "7"}],
        [{"heads": 1, "neurons": 40}, {"heads": True, "neurons": 7}],
        [{"heads": 1, "neurons": 40}, {"heads": 3}],
        [{"heads": 1, "neurons": 40}, {"heads": 3, "stands_for": 7}],
        [{"heads": 1, "neurons": 40}, [3, 7]],
    ],
    ids=str,
)
def test_sizes_that_make_no_sense_are_refused_in_one_line(rows, pruned):
    folder, _ = pruned()
    set_config(folder, pruned_layers=rows)
    with pytest.raises(SourceError, match="must list 1 to 4 heads and 1 to 64 neurons for each of 2 layers; ") as told:
        load_model(folder)
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("stood_for", [(1, 4), (0, 1), (None, 3), (None, None)], ids=str)
def test_layers_say_which_of_the_original_they_stand_for(stood_for, pruned):
    folder, model = pruned()
    rows = [{"heads": size.heads, "neurons": size.neurons} for size in SIZES]
    said = [row if layer is None else row | {"stands_for": layer} for row, layer in zip(rows, stood_for, strict=True)]
    set_config(folder, pruned_layers=said)
    again = optimize.load_model(folder)
    wanted = [index if layer is None else layer for index, layer in enumerate(stood_for)]
    assert layers_stood_for(again.config) == wanted
    note_sizes(again.config, SIZES)
    assert layers_stood_for(again.config) == wanted
    assert layers_stood_for(model.config) == [0, 1]


@pytest.mark.parametrize("stood_for", [(1, 1), (3, 2), (-1, 0), (True, 2), (0, "1"), (0, None), (0, 1.0)], ids=str)
def test_layers_that_stand_for_others_out_of_order_are_refused_in_one_line(stood_for, pruned):
    folder, _ = pruned()
    rows = [{"heads": size.heads, "neurons": size.neurons} for size in SIZES]
    set_config(folder, pruned_layers=[row | {"stands_for": x} for row, x in zip(rows, stood_for, strict=True)])
    with pytest.raises(SourceError, match="numbers of layers, each above the one before; prune the model") as told:
        load_model(folder)
    assert len(str(told.value).splitlines()) == 1


def test_a_config_whose_own_sizes_are_no_numbers_is_refused(pruned):
    folder, _ = pruned()
    set_config(folder, n_heads="4")
    with pytest.raises(SourceError, match="'pruned_layers' in its config must list"):
        load_model(folder)


def test_a_folder_without_config_or_class_is_refused(pruned, tmp_path):
    with pytest.raises(SourceError, match=r"config\.json: cannot be read"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"^tester/model/config\.json: cannot be read"):
        read_config(tmp_path, where="tester/model/config.json")
    folder, _ = pruned()
    set_config(folder, architectures=["BertModel"])
    with pytest.raises(SourceError, match="names no DistilBERT class"):
        load_model(folder)


def test_transformers_itself_refuses_weights_of_other_sizes(pruned, tmp_path):
    folder, _ = pruned()
    shutil.copytree(folder, tmp_path / "plain")
    set_config(tmp_path / "plain", pruned_layers=None)
    with pytest.raises(RuntimeError, match=r"size mismatch|ignore_mismatched_sizes"):
        load_model(tmp_path / "plain")


def test_the_loader_is_at_hand_without_torch():
    code = "import sys, optimize; optimize.load_model; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_operations_are_those_of_the_maps_and_the_products_of_all_layers():
    config = {"dim": 8, "n_heads": 2, "hidden_dim": 32, "n_layers": 2}
    tokens, width = 3, 8
    whole = 2 * tokens * width * (4 * width + 2 * 32) + 2 * 2 * tokens * tokens * width
    assert encoder_flops(config, tokens=tokens, where="here") == 2 * whole
    half = 2 * tokens * width * (4 * 4 + 2 * 5) + 2 * 2 * tokens * tokens * 4
    pruned = {**config, "pruned_layers": [{"heads": 2, "neurons": 32}, {"heads": 1, "neurons": 5}]}
    assert encoder_flops(pruned, tokens=tokens, where="here") == whole + half
