"""A smaller vocabulary: rows of the embedding go whose word pieces a corpus never uses, and the tokenizer goes along.

With INT8 the table is a third of the file or more, and texts of one domain use half of it. Special tokens, characters
and every piece that the corpus is split into stay (Abdaoui et al., 2020, arXiv 2010.05609, keep what a language uses).
On texts of such pieces the model answers bit for bit as before. What words cost whose pieces are gone is stated by
itself on tuning data: most texts have none, so averages hide it. Where tuning texts are in the corpus, as they are in a
training split, no word of theirs would be unseen; the loss is then that of a twin made without them, which is not kept.

Everything after works with the new tokenizer, so this stage comes first. Words are what fill-mask answers with, and a
masked word is one token, so that head is refused.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from optimize.artifact import Artifact, content_digest
from optimize.checkpoint import load_model, save_model
from optimize.evaluate.accuracy import compare
from optimize.evaluate.drift import agree
from optimize.evaluate.judge import RESAMPLES, observe, pad_id_of
from optimize.interfaces import Context, Encoded, FactRow, Facts, Feature, Head, Score, Stage
from optimize.interfaces import Params as StageParams
from optimize.pruning.corpus import read_corpus, why_no_corpus
from optimize.pruning.word_pieces import (
    Counts,
    Vocabulary,
    choose_kept,
    count_tokens,
    named_ids,
    read_vocabulary,
    write_tokenizer,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedModel

CONFIDENCE = 0.95


class Params(StageParams):
    """Which word pieces stay."""

    corpus: Path | None = Field(
        default=None,
        description="Texts that say which word pieces are used: a UTF-8 file with a text a line, a `.jsonl` file "
        "whose strings all count, or a folder of `.txt` and `.jsonl` files. `--vocabulary` sets it. Left out, the "
        "run's training and calibration examples say it; `--training-examples` sets how many those are.",
    )
    min_count: int = Field(
        default=1,
        ge=1,
        description="How often the corpus has to use a piece for it to stay. Special tokens and single characters "
        "stay whatever the count.",
    )
    tuning_tokens: int = Field(
        default=32_768, ge=1, description="Tokens of tuning data, at most, on which the reported loss is measured."
    )


def refuses(params: Params, head: Head) -> str | None:
    """Why a head has to keep its vocabulary, or why there is nothing to go by."""
    if head.answers_in_words:
        return f"head '{head.name}' answers with the very words that would go; leave the stage out"
    return None if params.corpus is None else why_no_corpus(params.corpus)


def run(source: Artifact, out: Path, params: Params, context: Context) -> Facts:
    """Write the checkpoint with fewer rows, and its tokenizer; facts say what went, and what that costs."""
    vocabulary, named = read_vocabulary(source.path), named_ids(source.path)
    tuning = context.tuning.first(tokens=params.tuning_tokens)
    apart: set[tuple[int, ...]] = set()
    for feature in tuning.features:
        apart.update(vocabulary.texts(tokens_of(feature)))
    if params.corpus is None:
        counts = count_features((*context.training.features, *context.calibration.features), vocabulary, apart)
    else:
        counts = count_tokens(source.path, read_corpus(params.corpus), apart)
    kept = choose_kept(vocabulary, counts.tokens, min_count=params.min_count, named=named.values())
    kept_without = choose_kept(vocabulary, counts.of_others(), min_count=params.min_count, named=named.values())
    sizes = write_smaller(source, out, kept, context)
    with tempfile.TemporaryDirectory() as place:
        judged = out
        if kept_without != kept:
            judged = Path(place)
            write_smaller(source, judged, kept_without, context)
        losses = measure_losses(judged, vocabulary, kept_without, tuning, context)
    return {
        "corpus_texts": counts.texts,
        **({"corpus_digest": content_digest(params.corpus.expanduser())[:12]} if params.corpus else {}),
        **sizes,
        "corpus_texts_of_tuning": counts.texts_apart,
        **losses,
    }


def count_features(features: Sequence[Feature], vocabulary: Vocabulary, apart: Collection[tuple[int, ...]]) -> Counts:
    """Count the ids of texts that are tokenized already; those in `apart` are also counted by themselves."""
    texts = [text for feature in features for text in vocabulary.texts(tokens_of(feature))]
    others = [text for text in texts if text in apart]
    return Counts(Counter(chain.from_iterable(texts)), len(texts), Counter(chain.from_iterable(others)), len(others))


def write_smaller(source: Artifact, out: Path, kept: Sequence[int], context: Context) -> Facts:
    """Write the checkpoint and its tokenizer with these ids alone; what that saves."""
    new_ids = {old: new for new, old in enumerate(kept)}
    model = load_model(source.path, context.head.auto_class)
    sizes = keep_rows(model, new_ids, named_ids(source.path))
    save_model(model, out)
    write_tokenizer(source.path, out, new_ids)
    return sizes


def keep_rows(model: PreTrainedModel, new_ids: Mapping[int, int], named: Mapping[str, int]) -> Facts:
    """Leave a model the rows of these ids, in this order, in place; how many those are, and the bytes saved."""
    import torch

    table = model.get_input_embeddings()
    rows = table.weight.detach()[list(new_ids)].clone()
    pad = None if table.padding_idx is None else new_ids[table.padding_idx]
    model.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=pad))
    for name, old in named.items():
        setattr(model.config, name, new_ids[old])
    model.config.vocab_size = len(rows)
    before = len(table.weight)
    return {
        "vocabulary_before": before,
        "vocabulary": len(rows),
        "rows_dropped": before - len(rows),
        "embedding_bytes_saved": (before - len(rows)) * rows.shape[1] * rows.element_size(),
    }


def measure_losses(out: Path, vocabulary: Vocabulary, kept: Sequence[int], before: Encoded, context: Context) -> Facts:
    """What becomes of the words of tuning texts, and of the answers to texts that have unseen words and that have none.

    No facts where there are no tuning texts.
    """
    after = context.retokenize(out).first(examples=len(before.gold))
    if not after.gold:
        return {}
    score_before = _score(context.reference.path, before, context)
    score_after = _score(out, after, context)
    unseen, split_share = unseen_words(before, vocabulary, kept)
    whole = compare(score_after, score_before, confidence=CONFIDENCE, seed=context.seed, resamples=RESAMPLES)
    parts: list[FactRow] = []
    for name, chosen in (("with an unseen word", unseen), ("without", ~unseen)):
        parts.append({"texts": name, **loss_on(chosen, score_before, score_after, seed=context.seed)})
    return {
        "tuning_examples": len(before.gold),
        "tuning_metric": whole.value,
        "tuning_relative_drop": whole.drop / (abs(whole.reference) or 1.0),
        "tuning_agreement": agree(score_after, score_before)[0],
        "words_resplit_share": split_share,
        "unknown_share_before": share_of(before, vocabulary.unknown),
        "unknown_share": share_of(after, kept.index(vocabulary.unknown)),
        "tokens_per_text_before": count_all(before) / len(before.gold),
        "tokens_per_text": count_all(after) / len(after.gold),
        "unseen_words": parts,
    }


def _score(folder: Path, encoded: Encoded, context: Context) -> Score:
    # Each folder has a padding token of its own: that of the smaller vocabulary may have another id.
    session = context.open("torch", folder)
    return observe(session, context.head, encoded, pad_id=pad_id_of(folder)).score


def unseen_words(encoded: Encoded, vocabulary: Vocabulary, kept: Sequence[int]) -> tuple[npt.NDArray[np.bool_], float]:
    """Which examples have a word with a piece that is gone [N], and how many of all words those are, as a share."""
    known = set(kept)
    unseen = np.zeros(len(encoded.gold), dtype=bool)
    count = split = 0
    for feature in encoded.features:
        for word in vocabulary.words(tokens_of(feature)):
            count += 1
            if not known.issuperset(word):
                split += 1
                unseen[feature.example] = True
    return unseen, split / max(count, 1)


def tokens_of(feature: Feature) -> list[int]:
    """The ids of a feature, padding left out."""
    ids: list[int] = feature.inputs["input_ids"][feature.inputs["attention_mask"] == 1].tolist()
    return ids


def count_all(encoded: Encoded) -> int:
    """How many tokens features have, special ones included."""
    return sum(len(tokens_of(each)) for each in encoded.features)


def share_of(encoded: Encoded, token: int) -> float:
    """How many of all tokens are this one."""
    return sum(tokens_of(each).count(token) for each in encoded.features) / max(count_all(encoded), 1)


def loss_on(chosen: npt.NDArray[np.bool_], before: Score, after: Score, *, seed: int) -> FactRow:
    """What examples scored before and after; of none, nothing but that."""
    count = int(chosen.sum())
    if not count:
        return {"examples": 0}
    theirs = replace(before, statistics=before.statistics[chosen], right=None)
    ours = replace(after, statistics=after.statistics[chosen], right=None)
    metric = compare(ours, theirs, confidence=CONFIDENCE, seed=seed, resamples=RESAMPLES)
    return {"examples": count, "metric_before": metric.reference, "metric": metric.value, "drop": metric.drop}


STAGE = Stage(
    run=run,
    params=Params,
    takes="torch",
    gives="torch",
    needs=("tokenizers", "torch", "transformers"),
    summary="Drop the word pieces that a corpus never uses, from the embedding and the tokenizer",
    depends=lambda params: frozenset({"training"} if params.corpus is None else ()),
    reads=("corpus",),
    refuses=refuses,
    first=True,
)
