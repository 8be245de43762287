"""Names of weights as training leaves them: what is dropped, what is left out and listed, and what is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from source.cases import HEAD, Change, add, both, configure, pickled, reweigh, wrap

from optimize.errors import SourceError
from optimize.source.acquire import remarks

VOCAB = {"vocab_transform__weight": (128, 128), "vocab_layer_norm__weight": (128,), "vocab_projector__bias": (203,)}


@pytest.mark.parametrize(
    ("change", "wrapper"),
    [
        (wrap("module."), "module."),
        (wrap("_orig_mod."), "_orig_mod."),
        (wrap("module._orig_mod.model."), "module._orig_mod.model."),
        (both(wrap("model."), pickled(lambda weights: {"state_dict": weights, "epoch": 3})), "model."),
        (pickled(lambda weights: {"model_state_dict": weights, "optimizer": {"lr": 1.0}, "step": 7}), ""),
    ],
    ids=["DataParallel", "torch.compile", "stacked", "Lightning", "a training loop"],
)
def test_what_training_puts_around_weights_goes(changed, acquire, checkpoint, change: Change, wrapper: str) -> None:
    plain = acquire(checkpoint(HEAD))

    entry = acquire(changed(change))

    assert (entry.artifact.digest, entry.facts["wrapper"]) == (plain.artifact.digest, wrapper)
    assert [wrapper in remark for remark in remarks(entry.facts)] == [True] * bool(wrapper)


def test_a_wrapper_that_not_all_names_have_is_refused(changed, acquire) -> None:
    folder = changed(both(add(loss__weight=(2,)), wrap("model.", but=("loss.weight",))))

    with pytest.raises(SourceError, match=r"some weights are below 'model\.', and loss\.weight not; save the model"):
        acquire(folder)


@pytest.mark.parametrize(
    ("change", "head", "left_out"),
    [
        (add(distilbert__embeddings__position_ids=(1, 64)), None, "distilbert.embeddings.position_ids"),
        (add(pooler__dense__weight=(128, 128)), None, "pooler.dense.weight"),
        (add(**VOCAB), None, "vocab_layer_norm.weight, vocab_projector.bias, vocab_transform.weight"),
        (add(qa_outputs__weight=(2, 128)), HEAD, "qa_outputs.weight"),
        (lambda _: None, "feature-extraction", "classifier.bias, classifier.weight, pre_classifier.bias"),
    ],
    ids=["buffer", "pooler", "masked LM", "named head", "encoder"],
)
def test_what_the_class_has_no_use_for_is_left_out_and_listed(changed, acquire, change, head, left_out) -> None:
    entry = acquire(changed(change), head)

    weights = load_file(entry.artifact.path / "model.safetensors")
    assert str(entry.facts["left_out"]).startswith(left_out)
    assert not weights.keys() & set(left_out.split(", "))
    assert left_out in remarks(entry.facts)[0]


def rename(old: str, new: str) -> Change:
    return reweigh(lambda weights: {name.replace(old, new): each for name, each in weights.items()})


REFUSED: dict[str, tuple[Change, str | None, str]] = {
    "a head under another name": (
        rename("pre_classifier", "pre"),
        None,
        "DistilBertForSequenceClassification has no pre.",
    ),
    "two heads, and a class of neither": (
        both(add(**VOCAB), configure(architectures=["MyModel"])),
        HEAD,
        "another head than 'text-classification' (vocab_layer_norm.weight",
    ),
    "a pooler of a class that is not known": (
        both(add(pooler__dense__weight=(4, 4)), configure(architectures=["MyModel"])),
        HEAD,
        "(pooler.dense.weight)",
    ),
    "two classes": (
        configure(architectures=["DistilBertForMaskedLM", "DistilBertForSequenceClassification"]),
        None,
        "names several heads (DistilBertForMaskedLM, DistilBertForSequenceClassification); give --head",
    ),
    "types of tokens": (
        add(distilbert__embeddings__token_type_embeddings__weight=(2, 128)),
        None,
        "no place for embeddings.token_type_embeddings.weight",
    ),
    "a LoRA beside its layer": (
        add(distilbert__transformer__layer__0__attention__q_lin__lora_A__weight=(4, 128)),
        None,
        "no place for transformer.layer.0.attention.q_lin.lora_A.weight",
    ),
    "many names": (rename("classifier", "c"), None, "c.bias, c.weight, pre_c.bias, pre_c.weight)"),
    "numbers for names": (pickled(lambda _: {1: torch.ones(2)}), None, "holds no state dict"),
    "a state dict of none": (pickled(lambda _: {"state_dict": [torch.ones(2)]}), None, "holds no state dict"),
}


@pytest.mark.parametrize(("change", "head", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_told_is_refused_in_one_line(changed, acquire, change: Change, head, says: str) -> None:
    folder = changed(change)

    with pytest.raises(SourceError) as refused:
        acquire(folder, head)

    message = str(refused.value)
    assert says in message
    assert ("; " in message, len(message.splitlines())) == (True, 1)


def test_a_buffer_is_no_other_head(changed, acquire) -> None:
    buffer = add(distilbert__embeddings__position_ids=(1, 64))

    entry = acquire(changed(both(buffer, configure(architectures=None))), HEAD)

    assert entry.facts["left_out"] == "distilbert.embeddings.position_ids"
