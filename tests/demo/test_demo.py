"""The demo data and checkpoints: reproducible, well formed, and readable by transformers."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from optimize.demo.generate import RECIPES, generate_rows, train_checkpoint
from optimize.demo.tokenizer import SPECIALS, build_tokenizer, build_vocabulary
from optimize.demo.training import endless_batches, learning_rate_scale, train_recipe

SMALL = {"train": 200, "validation": 60, "test": 60}
TINY = {"train": 32, "validation": 1, "test": 1}
COLUMNS = {
    "feature-extraction": {"sentence1", "sentence2", "score"},
    "fill-mask": {"text"},
    "text-classification": {"text", "label"},
    "multiple-choice": {"context", "choices", "label"},
    "token-classification": {"tokens", "ner_tags"},
    "question-answering": {"id", "title", "context", "question", "answers"},
}
every_head = pytest.mark.parametrize("head", RECIPES)


def _small_rows(head: str) -> list[dict[str, Any]]:
    return [row for rows in generate_rows(head, sizes=SMALL).values() for row in rows]


def test_importing_the_demo_imports_no_heavy_library() -> None:
    check = "import sys, optimize.demo; print({'torch', 'transformers', 'tokenizers'} & {*sys.modules})"

    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"


@every_head
def test_rows_have_the_columns_of_the_hub(head: str) -> None:
    splits = generate_rows(head, sizes=SMALL)

    assert {name: len(rows) for name, rows in splits.items()} == SMALL
    assert all(set(row) == COLUMNS[head] for rows in splits.values() for row in rows)


@every_head
def test_no_two_rows_read_the_same_within_or_across_splits(head: str) -> None:
    splits = generate_rows(head)

    texts = [tuple(RECIPES[head].texts(row)) for rows in splits.values() for row in rows]

    assert len(set(texts)) == len(texts) >= 6000


@every_head
def test_the_same_seed_gives_the_same_rows_and_another_seed_other_rows(head: str) -> None:
    first = generate_rows(head, 3, SMALL)

    assert generate_rows(head, 3, SMALL) == first
    assert generate_rows(head, 4, SMALL) != first


def test_rows_and_vocabulary_do_not_depend_on_the_process() -> None:
    script = (
        "from optimize.demo.generate import generate_rows; from optimize.demo.tokenizer import build_vocabulary;"
        "rows = generate_rows('token-classification', sizes={'train': 200})['train'];"
        "print(rows[-1], build_vocabulary(' '.join(row['tokens']) for row in rows))"
    )

    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }

    assert len(outputs) == 1


def test_held_out_rows_stay_the_same_when_the_training_split_grows() -> None:
    few = generate_rows("fill-mask", sizes={"train": 10})
    many = generate_rows("fill-mask", sizes={"train": 500})

    assert few["validation"] == many["validation"]
    assert few["test"] == many["test"]


@every_head
def test_texts_differ_in_length(head: str) -> None:
    lengths = {len(" ".join(RECIPES[head].texts(row)).split()) for row in _small_rows(head)}

    assert max(lengths) >= 1.5 * min(lengths)
    assert len(lengths) >= 8


def test_answers_stand_where_they_are_said_to_start_and_nowhere_else() -> None:
    for row in _small_rows("question-answering"):
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]

        assert row["context"][start : start + len(text)] == text
        assert not set("<>{}") & set(row["context"] + row["question"])


def test_tags_are_well_formed_iob2_with_one_tag_a_word() -> None:
    for row in _small_rows("token-classification"):
        tags = row["ner_tags"]

        assert len(tags) == len(row["tokens"])
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert not tag.startswith("I-") or before[2:] == tag[2:]


def test_labels_are_balanced() -> None:
    reviews = [row["label"] for row in _small_rows("text-classification")]
    replies = [row["label"] for row in _small_rows("multiple-choice")]

    assert 0.35 < sum(reviews) / len(reviews) < 0.65
    assert {replies.count(label) > 0.15 * len(replies) for label in range(4)} == {True}


def test_similarity_scores_cover_their_range() -> None:
    scores = [row["score"] for row in _small_rows("feature-extraction")]

    assert 0.0 <= min(scores) < 0.5
    assert 4.5 < max(scores) <= 5.0


def test_an_unknown_head_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'fill-mask'"):
        generate_rows("fill-masks")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="no split dev"):
        generate_rows("fill-mask", sizes={"dev": 3})


def test_the_vocabulary_starts_with_the_special_tokens_and_has_no_duplicates() -> None:
    vocabulary = build_vocabulary(["The cat sat.", "The cat ran, far away."])

    assert tuple(vocabulary[:5]) == SPECIALS
    assert len(set(vocabulary)) == len(vocabulary)
    assert "cat" in vocabulary


def test_rare_words_are_split_and_come_back_whole() -> None:
    tokenizer = build_tokenizer(["the cat sat", "the cat ran", "the harbour", "the harvest"])

    pieces = tokenizer.tokenize("The Harbour")

    assert pieces[0] == "the"
    assert len(pieces) > 2
    assert tokenizer.convert_tokens_to_string(pieces) == "the harbour"


def test_batches_use_every_row_before_any_comes_again() -> None:
    supply = endless_batches([{"text": str(index)} for index in range(6)], 3, Random(0))

    seen = [row["text"] for _ in range(2) for row in next(supply)]

    assert sorted(seen) == list("012345")


def test_the_learning_rate_rises_to_its_peak_and_falls_towards_zero() -> None:
    scales = [learning_rate_scale(step, 100) for step in range(100)]

    assert max(scales) == scales[9] == 1.0
    assert scales[0] == pytest.approx(0.1)
    assert 0.0 < scales[-1] < 0.02


@every_head
def test_a_checkpoint_is_loaded_back_by_the_auto_classes(head: str, tmp_path: Path) -> None:
    import transformers

    ticks: list[tuple[int, int]] = []

    train_checkpoint(head, tmp_path, sizes=TINY, steps=2, progress=lambda *tick: ticks.append(tick))

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    model = getattr(transformers, config.architectures[0]).from_pretrained(tmp_path)
    assert ticks == [(1, 2), (2, 2)]
    assert config.architectures == [RECIPES[head].architecture]
    assert isinstance(tokenizer, transformers.DistilBertTokenizerFast)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == [*SPECIALS]
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert {parameter.dtype.itemsize for parameter in model.parameters()} == {4}
    names = {path.name for path in tmp_path.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= names


def test_label_names_and_problem_type_are_written(tmp_path: Path) -> None:
    import transformers

    train_checkpoint("text-classification", tmp_path, sizes=TINY, steps=1)

    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.id2label == {0: "negative", 1: "positive"}
    assert config.problem_type == "single_label_classification"


def test_training_is_reproducible_and_leaves_torch_as_it_was(tmp_path: Path) -> None:
    import torch

    before, threads = torch.random.get_rng_state(), torch.get_num_threads()

    for name in ("one", "two"):
        train_checkpoint("fill-mask", tmp_path / name, sizes=TINY, steps=3)

    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@every_head
def test_a_few_rows_are_learnt_by_heart(head: str, tmp_path: Path) -> None:
    recipe = replace(RECIPES[head], batch_size=4)
    rows = generate_rows(head, sizes={**TINY, "train": 4})["train"]

    losses = train_recipe(recipe, rows, tmp_path, seed=0, steps=30, progress=lambda done, total: None)

    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
