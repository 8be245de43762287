"""Checkpoints and data that cannot be used: one line, exit code 2, and nothing left behind."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from hostile.cases import HEAD, PROGRESS, Change, assert_refused, command, configure, keep, remove, write

from optimize import planning, running
from optimize.building import Made
from optimize.manifest import ArtifactRecord, Measurement, Size, StageRecord, Verdict
from optimize.measure.subjects import Results


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Evil:
    """Makes a folder called marker beside the model where unpickling runs code."""

    def __init__(self, folder: Path) -> None:
        self.marker = folder.parent / "code-was-run"

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


def plant(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"classifier.weight": Evil(folder)}))


def row(**values: object) -> Change:
    return write("validation.jsonl", json.dumps(values).encode() + b"\n")


DEEP = b'{"text": ' + b"[" * 99_000

INPUT: dict[str, tuple[Change, Change, str, tuple[str, ...]]] = {
    "truncated weights": (truncate, keep, "model.safetensors: not a readable safetensors file", ()),
    "garbage weights": (write("model.safetensors", b"garbage" * 99), keep, "not a readable safetensors file", ()),
    "code in a pickle": (plant, keep, "pytorch_model.bin: holds more than weights", PROGRESS[:1]),
    "no tokenizer": (remove("tokenizer.json", "vocab.txt"), keep, "no tokenizer.json or vocab.txt", ()),
    "a broken tokenizer": (write("tokenizer.json", b"{"), keep, "its tokenizer cannot be loaded", ()),
    "another architecture": (configure(model_type="bert"), keep, "is a 'bert' model", ()),
    "no architecture": (configure(architectures=None), keep, "its config names no known head (none); give --head", ()),
    "nonsense in the config": (configure(n_heads=0), keep, "n_heads in its config is '0'", ()),
    "no data": (keep, shutil.rmtree, "no such folder; check --data", ()),
    "no files": (keep, lambda folder: [path.unlink() for path in folder.iterdir()], "no train, validation", ()),
    "an empty split": (keep, write("validation.jsonl", b""), "validation.jsonl: is empty", ()),
    "no JSON": (keep, write("validation.jsonl", b"{"), "validation.jsonl: cannot be read", ()),
    "no JSON later on": (
        keep,
        write("validation.jsonl", b'{"text": "a", "label": 1}\n{'),
        "validation.jsonl: cannot be read",
        PROGRESS,
    ),
    "a deep row": (keep, write("validation.jsonl", DEEP), "validation.jsonl: cannot be read (maximum recursion", ()),
    "a deep row later on": (
        keep,
        write("validation.jsonl", b'{"text": "a", "label": 1}\n' + DEEP),
        "validation.jsonl: cannot be read (line 2: it is nested deeper than 32 levels)",
        PROGRESS,
    ),
    # of which Arrow alone knows, whose parser would end the process
    "a deep column that nobody reads": (
        keep,
        row(text="a", label=1, other=ast.literal_eval("[" * 60 + "]" * 60)),
        "validation.jsonl: cannot be read (line 1: it is nested deeper than 32 levels)",
        PROGRESS,
    ),
    "a FIFO in place of data": (
        keep,
        lambda folder: (remove("validation.jsonl")(folder), os.mkfifo(folder / "validation.jsonl")),
        "validation.jsonl: is not a regular file; check --data",
        (),
    ),
    "no text column": (keep, row(words="a", label=1), "there are words, label; name them with --columns", ()),
    "no label column": (keep, row(text="a"), "there are text; name them with --columns", ()),
    "another label": (
        keep,
        row(text="a", label="so-so"),
        "validation.jsonl, line 1: label 'so-so' is not in the checkpoint",
        PROGRESS,
    ),
    "no label": (keep, row(text="a", label=-1), "validation.jsonl, line 1: has no label", PROGRESS),
}


@pytest.mark.parametrize(("model", "data", "says", "progress"), INPUT.values(), ids=INPUT)
def test_unusable_input_is_one_line(optimize, folders, tmp_path: Path, model, data, says: str, progress) -> None:
    asked = optimize("run", *folders(model, data))

    assert_refused(asked, 2, says, tmp_path, progress=progress)
    assert not (tmp_path / "code-was-run").exists()


def test_a_checkpoint_without_the_head_is_one_line(optimize, folders, tmp_path: Path) -> None:
    asked = optimize("run", *folders(head="feature-extraction"), "--head", HEAD)

    assert_refused(asked, 2, "no weights for head 'text-classification' (pre_classifier.weight", tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--columns", "text=body"], "no column 'body' for role 'text'"),
        (["--columns", "txt=text"], "has no role 'txt'"),
        (["--certify-on", "tset"], "no split 'tset'"),
        (["--data", "demo"], "the demo's text does not fit another model"),
    ],
    ids=["column", "role", "split", "the demo's data"],
)
def test_options_that_do_not_fit_the_data_are_one_line(optimize, folders, tmp_path: Path, words, says: str) -> None:
    asked = optimize("run", *folders(), *words)

    assert_refused(asked, 2, says, tmp_path)


def test_a_checkpoint_without_data_is_one_line(optimize, checkpoint, tmp_path: Path) -> None:
    asked = optimize("run", "--model", str(checkpoint(HEAD)))

    assert_refused(asked, 2, "--data: missing; name a folder or Hub id with text and label", tmp_path)


def test_texts_that_are_too_long_are_cut_and_counted(folders, tmp_path: Path, silent) -> None:
    def lengthen(folder: Path) -> None:
        rows = [{"text": text, "label": i} for i, text in enumerate(("short", "very long text " * 300))]
        write("validation.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())(folder)

    _, model, _, data = folders(data=lengthen)
    made = planning.make_plan(planning.Options(model=model, data=data, cache=tmp_path / "cache"))

    loaded = running.load(made, silent)

    assert [feature.tokens for feature in loaded.certification.features] == [pytest.approx(6, abs=4), 512]
    measurement = Measurement(
        name="any", artifact_digest="d", size=Size(bytes=1, ratio=1, by_component={}, by_dtype={})
    )
    artifact = ArtifactRecord(kind="onnx", digest="d", size_bytes=1)
    stage = StageRecord(stage="export", params={}, facts={}, seconds=1.0, cached=False, key="k", artifact=artifact)
    built = Made([stage], loaded.origin.artifact, Results([measurement], {}), made.target)
    manifest = running.describe(loaded, built, Verdict(outcome="unverified", checks=[]))
    assert manifest.data["certification"].truncated == 1


def test_a_pickle_with_code_is_one_line_in_a_process_of_its_own(folders, tmp_path: Path) -> None:
    asked = command("run", *folders(plant), tmp_path=tmp_path)

    assert_refused(asked, 2, "pytorch_model.bin: holds more than weights", tmp_path, progress=PROGRESS[:1])
    assert not (tmp_path / "code-was-run").exists()
