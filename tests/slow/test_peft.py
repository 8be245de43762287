"""Adapters that peft trained a step: merged, they answer as peft's own model does."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from doubles import Silent
from libraries import needs

from optimize.errors import SourceError
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint

pytestmark = [pytest.mark.slow, needs("peft"), pytest.mark.filterwarnings("ignore")]

WORDS = ["zyzzyva", "qoph", "syzygy"]
HEAD_MODULES = ["pre_classifier", "classifier"]
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "LoRA": ("SequenceClassification", "Lora", {"target_modules": ["q_lin", "v_lin"]}),
    "all linear": ("SequenceClassification", "Lora", {"target_modules": ["q_lin", "out_lin", "lin1", "lin2"]}),
    "rsLoRA": ("TokenClassification", "Lora", {"target_modules": ["q_lin"], "use_rslora": True, "r": 4}),
    "biases": ("TokenClassification", "Lora", {"target_modules": ["q_lin"], "bias": "all"}),
    "DoRA": ("SequenceClassification", "Lora", {"target_modules": ["q_lin", "lin1"], "use_dora": True}),
    "ranks": ("SequenceClassification", "Lora", {"target_modules": ["q_lin", "k_lin"], "rank_pattern": {"k_lin": 2}}),
    "IA3": ("SequenceClassification", "IA3", {"target_modules": ["k_lin", "lin2"], "feedforward_modules": ["lin2"]}),
    "LoHa": ("TokenClassification", "LoHa", {"target_modules": ["q_lin"]}),
    "LoKr": ("TokenClassification", "LoKr", {"target_modules": ["q_lin"]}),
    "tokens": ("TokenClassification", "Lora", {"target_modules": ["q_lin"], "trainable_token_indices": [5, 7]}),
    "more words": ("MaskedLM", "Lora", {"target_modules": ["q_lin"]}),
}
TASKS = {"SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS", "MaskedLM": None}


def train(base: Path, out: Path, kind: str, method: str, settings: dict[str, Any]) -> None:
    """A step of training on random tokens, saved as peft does."""
    import peft

    task = TASKS[kind]
    model = getattr(transformers, f"DistilBertFor{kind}").from_pretrained(base, **({"num_labels": 3} if task else {}))
    if task is None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(WORDS)
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8, mean_resizing=False)
        tokenizer.save_pretrained(out)
    whole = {"modules_to_save": HEAD_MODULES} if task == "SEQ_CLS" else {}
    wrapped = peft.get_peft_model(model, getattr(peft, f"{method}Config")(task_type=task, **settings, **whole))
    optimizer = torch.optim.SGD([each for each in wrapped.parameters() if each.requires_grad], lr=1.0)
    for _ in range(2):
        wrapped(input_ids=torch.randint(5, 200, (4, 9))).logits.square().mean().backward()
        optimizer.step()
    wrapped.save_pretrained(out)


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=torch.arange(5, 65).reshape(3, 20)).logits
    return logits


@pytest.fixture
def trained(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(case: str) -> Path:
        torch.manual_seed(0)
        train(checkpoint("fill-mask"), tmp_path / "adapter", *CASES[case])
        return tmp_path / "adapter"

    return make


@pytest.mark.parametrize("case", CASES)
def test_a_merged_adapter_answers_as_pefts_own_model(case: str, trained, checkpoint, tmp_path: Path) -> None:
    import peft

    folder, kind = trained(case), f"DistilBertFor{CASES[case][0]}"

    found, head = inspect_checkpoint(str(folder), None, None)
    entry = acquire_checkpoint(found, head, root=tmp_path / "cache", seed=0, progress=Silent())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = getattr(transformers, kind).from_pretrained(entry.artifact.path)
    labels = {"num_labels": 3} if TASKS[CASES[case][0]] else {}
    base = getattr(transformers, kind).from_pretrained(checkpoint("fill-mask"), **labels)
    if not labels:
        base.resize_token_embeddings(merged.config.vocab_size, mean_resizing=False)
    untouched = answers(base)
    wanted = answers(peft.PeftModel.from_pretrained(base, folder))
    torch.testing.assert_close(answers(merged), wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))
    assert (wanted - untouched).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"r": 3}, "its adapter cannot be merged (Error"),
        ({"target_modules": ["nothing"]}, "its adapter cannot be merged (No modules"),
        (
            {"target_modules": ["q_lin"]},
            "has weights that fit nowhere: base_model.model.distilbert.transformer",
        ),
        ({"target_modules": ["q_lin", "v_lin", "k_lin"]}, "its adapter lacks"),
        ({"lora_alpha": "x"}, "its adapter cannot be merged ("),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_weights_are_refused(trained, tmp_path: Path, settings, says: str) -> None:
    path = trained("LoRA") / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")
    found, head = inspect_checkpoint(str(path.parent))

    with pytest.raises(SourceError) as refused:
        acquire_checkpoint(found, head, root=tmp_path / "cache", seed=0, progress=Silent())

    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
