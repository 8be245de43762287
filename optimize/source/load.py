"""Load a checkpoint through transformers, raise it to FP32, and save it with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from optimize.checkpoint import load_with_info, read_config, save_model
from optimize.errors import SourceError, first_line
from optimize.interfaces import Facts, Head
from optimize.source.adapter import complete, merge
from optimize.source.names import surplus_in_encoder
from optimize.source.plain import write_plain
from optimize.source.sentences import save_lowering
from optimize.source.tokenizer import check_loaded, reading, settle
from optimize.source.weights import check_stored, convert_foreign, stored

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

UNLOADABLE = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError),
    *(ImportError, NameError, ArithmeticError, AssertionError),
)
"""What transformers and torch raise for a config that makes no sense."""
OF_LOADING = ("is_local", "local_files_only")
"""How a tokenizer was loaded here, which transformers 5 saves among its settings."""


def raise_to_fp32(
    folder: Path, head: Head, out: Path, *, where: str, adapter: Path | None = None, lower_case: bool = False
) -> Facts:
    """Load, check that nothing was made up, merge the adapter, if any, and save in FP32 with the tokenizer.

    With `lower_case`, the tokenizer writes texts so before anything else.

    The folders are copies of ours: what they hold is put into the form that transformers reads.
    """
    stored_as, shapes = stored(folder)
    convert_foreign(folder)
    outer = ""
    if adapter:
        outer = complete(folder, adapter, head, where=where)
        _, shapes = stored(folder)
    wrapper, spare = check_stored(shapes, head, read_config(folder), where=where)
    write_plain(folder, wrapper)
    model = _load(folder, head, where=where)
    if adapter:
        model = merge(model, adapter, where=where)
    tokenizer = _load_tokenizer(folder, where=where)
    check_loaded(tokenizer, model.config.vocab_size, where=where)
    model.config.label2id = {name: number for number, name in model.config.id2label.items()}
    save_model(model, out)
    if lower_case:
        save_lowering(tokenizer, out)
    else:
        tokenizer.save_pretrained(out)
    return {"stored_as": stored_as, "wrapper": outer or wrapper, "left_out": ", ".join(spare)}


def _load_tokenizer(folder: Path, *, where: str) -> PreTrainedTokenizerBase:
    import transformers

    settle(folder)
    with reading(where):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, use_fast=True, trust_remote_code=False
        )
    for name in OF_LOADING:
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


def _load(folder: Path, head: Head, *, where: str) -> PreTrainedModel:
    import torch
    from safetensors import SafetensorError

    try:
        # Weights of other shapes are let through here and refused below: transformers' own error takes many lines.
        model, info = load_with_info(folder, head.auto_class, dtype=torch.float32, ignore_mismatched_sizes=True)
    except (*UNLOADABLE, SafetensorError) as error:
        raise SourceError(f"{where}: cannot be loaded ({first_line(error)}); save the model again") from error
    # transformers 5 tells the shapes beside the names.
    if mismatched := sorted(each if isinstance(each, str) else each[0] for each in info["mismatched_keys"]):
        wanted = list(model.state_dict()[mismatched[0]].shape)
        raise SourceError(f"{where}: {mismatched[0]} has not the shape {wanted} of config.json; save the model again")
    if missing := sorted(info["missing_keys"]):
        raise SourceError(f"{where}: {len(missing)} weights are missing ({missing[0]}); copy the whole checkpoint")
    if surplus := surplus_in_encoder(info["unexpected_keys"]):
        raise SourceError(f"{where}: config.json has no place for {surplus[0]}; save the model again")
    model.float()  # FP8 weights are left as they are by `dtype`, in transformers 4.57
    if broken := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
        raise SourceError(f"{where}: {broken[0]} holds NaN or infinity; train or convert the model again")
    return model.eval()
