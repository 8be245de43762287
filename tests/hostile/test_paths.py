"""Names of files and folders that something takes for a pattern, an address or a command: they are names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hostile.cases import HEAD, assert_refused

from optimize import planning, running
from optimize.data.files import find_files
from optimize.data.read import read_file
from optimize.errors import RequestError

NAMES = (
    *(
        "x[1]",
        "x[!a]",
        "x*",
        "x?",
        "{x,y}",
        "[[]",
        "**",
        "a b",
        " a",
        "a::b",
        "zip::a",
        "a#b",
        "a%20b",
        "a&b=c",
        "é",
        "日本",
    ),
    *(
        "$HOME",
        "${HOME}",
        "~",
        "~root",
        "-x",
        "a\tb",
        "a\nb",
        "a'b",
        'a"b',
        "a\\b",
        "hf:",
        "s3:",
        "file:",
        "a@b",
        "a;b",
    ),
)
SIBLINGS = ("x1", "xa", "x", "y", "a", "b", "[")
"""What some of the names would match, were they patterns."""


def write_parquet(path: Path, text: str) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), path)


WRITERS = {
    "jsonl": lambda path, text: path.write_text(json.dumps({"text": text}) + "\n", encoding="utf-8"),
    "parquet": write_parquet,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", WRITERS)
def test_data_are_read_from_just_the_folder_that_is_named(tmp_path: Path, name: str, suffix: str) -> None:
    for each in (*SIBLINGS, name):
        (tmp_path / "data" / each).mkdir(parents=True)
        WRITERS[suffix](tmp_path / "data" / each / f"validation.{suffix}", each)
    files = find_files(tmp_path / "data" / name)
    (tmp_path / "place").mkdir()

    read = read_file(files, tmp_path / "place", "validation")

    assert read["text"][:] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_a_request_with_odd_names_is_planned(checkpoint, data_folder, tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    shutil.copytree(checkpoint(HEAD), root / "model")
    shutil.copytree(data_folder(HEAD), root / "data")
    (root / "mine.yaml").write_text("target: cpu\nstages: [export]\n", encoding="utf-8")
    options = planning.Options(
        model=str(root / "model"),
        data=str(root / "data"),
        pipeline=str(root / "mine.yaml"),
        out=root / "out",
        cache=root / "cache",
    )

    made = planning.make_plan(options)

    assert (made.found.folder, made.pipeline.name) == (root / "model", "mine")
    assert sorted(path.name for path in root.iterdir()) == ["data", "mine.yaml", "model"]


@pytest.mark.parametrize("name", ["x[1] é::b#%20{a}*?$HOME", "hf:"])
def test_checkpoint_and_data_with_odd_names_are_loaded(checkpoint, data_folder, tmp_path, silent, name: str) -> None:
    root = tmp_path / name
    shutil.copytree(checkpoint(HEAD), root / "model")
    shutil.copytree(data_folder(HEAD), root / "data")
    options = planning.Options(model=str(root / "model"), data=str(root / "data"), cache=root / "cache")

    loaded = running.load(planning.make_plan(options), silent)

    text = (root / "data" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(loaded.certification.gold) == len({json.loads(line)["text"] for line in text})


@pytest.mark.parametrize("option", ["--model", "--data", "--pipeline"])
def test_a_name_that_is_too_long_is_one_line(optimize, folders, tmp_path: Path, option: str) -> None:
    name = str(tmp_path / f"{'x' * 300}.yaml")

    asked = optimize("plan", *folders(), option, name)

    assert_refused(asked, 2, "File name too long", tmp_path)


@pytest.mark.parametrize("option", ["out", "cache"])
@pytest.mark.parametrize("place", ["file", "file/x", "x" * 300, "nowhere"])
def test_a_place_where_no_folder_can_be_made_is_refused(tmp_path: Path, option: str, place: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    options = {"out": tmp_path / "out", "cache": tmp_path / "cache", option: tmp_path / place}

    with pytest.raises(RequestError, match=f"^--{option}: "):
        planning.make_plan(planning.Options(**options))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "nowhere"]


@pytest.mark.parametrize("option", ["--model", "--data", "--pipeline"])
@pytest.mark.parametrize("name", ["/a\nb/c.yaml", "/a\x1b[31mb/c.yaml", "/a\rb/c.yaml", "/\u202eb/c.yaml"])
def test_a_name_cannot_write_to_the_terminal(optimize, folders, tmp_path: Path, option: str, name: str) -> None:
    asked = optimize("plan", *folders(), option, name)

    assert_refused(asked, 2, "", tmp_path)
    assert asked.err.rstrip("\n").isprintable()
