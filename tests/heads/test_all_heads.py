"""What holds for every head in the table."""

import subprocess
import sys
from pathlib import Path

import pytest

import optimize.heads
from optimize.errors import DataError
from optimize.heads import HEADS

NAMES = sorted(HEADS)
FOLDER = Path(optimize.heads.__file__).parent
HEAVY = {"torch", "transformers", "sklearn", "scipy", "seqeval", "onnxruntime", "datasets"}

LAYOUTS = [
    (
        "text-classification",
        ["idx", "sentence1", "sentence2", "label"],
        {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
    ),
    (
        "text-classification",
        ["question", "sentence", "label"],
        {"text": "question", "text_pair": "sentence", "label": "label"},
    ),
    ("text-classification", ["sentence", "label"], {"text": "sentence", "label": "label"}),
    ("text-classification", ["text", "labels", "id"], {"text": "text", "label": "labels"}),
    (
        "multiple-choice",
        ["startphrase", "sent1", "sent2", "ending0", "ending1", "ending2", "ending3", "label"],
        {
            "context": "sent1",
            "start": "sent2",
            "choice0": "ending0",
            "choice1": "ending1",
            "choice2": "ending2",
            "choice3": "ending3",
            "label": "label",
        },
    ),
    (
        "multiple-choice",
        ["article", "question", "options", "answer", "example_id"],
        {"context": "article", "question": "question", "choices": "options", "label": "answer"},
    ),
    (
        "multiple-choice",
        ["context", "choices", "label"],
        {"context": "context", "choices": "choices", "label": "label"},
    ),
    (
        "multiple-choice",
        ["id", "question", "question_concept", "choices", "answerKey"],
        {"context": "question", "choices": "choices", "label": "answerKey"},
    ),
    (
        "token-classification",
        ["id", "tokens", "pos_tags", "chunk_tags", "ner_tags"],
        {"tokens": "tokens", "tags": "ner_tags"},
    ),
    (
        "question-answering",
        ["context", "question", "answers"],
        {"context": "context", "question": "question", "answers": "answers"},
    ),
    ("fill-mask", ["text", "label"], {"text": "text"}),
    (
        "feature-extraction",
        ["sentence1", "sentence2", "label"],
        {"text": "sentence1", "text_pair": "sentence2", "score": "label"},
    ),
    ("feature-extraction", ["sentence", "label"], {"text": "sentence"}),
]


@pytest.mark.parametrize("name", NAMES)
def test_the_key_is_the_name_of_the_head_and_of_its_file(name):
    assert HEADS[name].name == name
    assert (FOLDER / f"{name.replace('-', '_')}.py").is_file()
    assert (Path(__file__).parent / f"test_{name.replace('-', '_')}.py").is_file()


def test_every_head_file_is_in_the_table():
    files = {path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_")}
    assert files == {name.replace("-", "_") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_architecture_is_a_class_of_transformers_with_the_stated_weights(name):
    import transformers

    config = transformers.DistilBertConfig(
        vocab_size=9, dim=4, hidden_dim=4, n_layers=1, n_heads=1, max_position_embeddings=8
    )
    model = getattr(transformers, HEADS[name].architecture)(config)
    assert set(HEADS[name].weights) <= set(model.state_dict())
    assert bool(HEADS[name].weights) == (name != "feature-extraction")


@pytest.mark.parametrize("name", [name for name in NAMES if HEADS[name].labels])
def test_the_role_of_the_labels_is_in_every_layout(name):
    assert all(HEADS[name].labels in layout for layout in HEADS[name].dataset)


@pytest.mark.parametrize(("name", "columns", "expected"), LAYOUTS)
def test_the_first_layout_that_fits_is_the_right_one(name, columns, expected):
    layout = next(
        layout
        for layout in HEADS[name].dataset
        if all(set(options) & set(columns) for role, options in layout.items() if role[-1] != "?")
    )
    roles = {
        role.rstrip("?"): next(column for column in options if column in columns)
        for role, options in layout.items()
        if set(options) & set(columns)
    }
    assert roles == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_split_without_rows_is_refused(name, make_text):
    with pytest.raises(DataError, match=f"{name}: there are no rows; give a split that has some"):
        HEADS[name].encode([], make_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_its_roles_is_refused_by_its_index(name, make_text):
    with pytest.raises(DataError, match=rf"^{name}: row 0 has .*; \w+"):
        HEADS[name].encode([{"nothing": 1}], make_text())


def test_importing_the_heads_imports_nothing_heavy():
    code = f"import sys, optimize.heads; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_head_is_named_and_classed_as_optimum_names_and_classes_its_task(name):
    from optimum.exporters.tasks import TasksManager

    known = TasksManager.get_model_class_for_task(name, model_type="distilbert")

    assert known.__name__ == HEADS[name].auto_class
