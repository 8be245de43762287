"""The Python API: what its page shows is run as it stands there."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import optimize
from optimize import certifying, running
from optimize.interfaces import Silence

ROOT = Path(optimize.__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
HEAD = "text-classification"


@pytest.fixture
def example(tmp_path, checkpoint, data_folder, monkeypatch):
    """The blocks of the page in one file, in a folder where its checkpoint and data lie."""
    (tmp_path / "my-checkpoint").symlink_to(checkpoint(HEAD))
    (tmp_path / "my-data").symlink_to(data_folder(HEAD))
    first, second = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert first.startswith("import optimize\n")
    imports, rest = first.split("\n", 1)
    body = f"{rest}\n{second}"
    indented = "\n".join(f"    {line}".rstrip() for line in body.splitlines())
    path = tmp_path / "example.py"
    path.write_text(f"{imports}\n\nif __name__ == '__main__':\n{indented}\n", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.slow
def test_the_example_of_the_page_runs_as_it_stands(example, few_runs, capsys):
    runpy.run_path(str(example), run_name="__main__")

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "text-classification ['export', 'quantize_static']"
    assert re.match(r"(passed|failed|unverified) in reports/runs/\S+$", lines[1])
    assert re.match(r"accuracy 0\.\d{4}, \d+\.\d\d ms, \d+ bytes$", lines[2])
    assert "stage quantize_static: cached" in lines
    assert "nothing to redo: every stage is in the cache" in lines


def test_importing_the_package_is_light():
    heavy = {"pydantic", "numpy", "torch", "yaml"}
    code = f"import sys, optimize; optimize.Options(); print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_that_is_offered_is_there_and_said_on_the_page():
    for name in optimize.__all__:
        assert getattr(optimize, name).__doc__
        assert name in PAGE


def test_a_plan_is_what_a_run_would_do():
    made = optimize.plan(optimize.Options(pipeline="cpu-fused"))

    assert [step.stage for step in made.pipeline.stages] == ["export", "fuse", "quantize_dynamic"]


def test_what_is_refused_raises_an_error_with_its_exit_code():
    with pytest.raises(optimize.OptimizeError, match="did you mean 'cpu-static'") as refused:
        optimize.plan(optimize.Options(pipeline="cpu-statik"))
    assert refused.value.exit_code == 2


def test_a_run_takes_options_or_a_plan_and_is_silent(monkeypatch, capfd):
    carried_out = []
    monkeypatch.setattr(
        running, "run", lambda made, progress: carried_out.append((made, progress)) or ("folder", "manifest")
    )
    options = optimize.Options()

    done = optimize.run(options)
    again = optimize.run(optimize.plan(options))

    assert (done.folder, done.manifest) == again == ("folder", "manifest")
    assert carried_out[0][0] == carried_out[1][0]
    assert isinstance(carried_out[0][1], Silence)
    assert tuple(capfd.readouterr()) == ("", "")


def test_certify_takes_a_folder_as_text_and_passes_on_where_things_lie(monkeypatch, silent):
    asked = {}
    monkeypatch.setattr(certifying, "certify", lambda folder, **words: (folder, asked.update(words)))

    done = optimize.certify("some/run", model="here", head="mine.py:HEAD", progress=silent)

    assert done.folder == Path("some/run")
    places = {"model": "here", "data": None, "head": "mine.py:HEAD"}
    assert asked == {**places, "cache": None, "progress": silent}


def test_options_are_frozen_and_can_be_replaced():
    options = optimize.Options()
    with pytest.raises(AttributeError):
        options.seed = 1

    assert replace(options, seed=1).seed == 1


def test_the_package_says_that_it_is_typed():
    assert (Path(optimize.__file__).parent / "py.typed").is_file()
