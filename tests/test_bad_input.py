"""What a user sees who asks for what cannot be done: one line, an exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from optimize import planning, running
from optimize.building import Made
from optimize.cli import commands
from optimize.manifest import Measurement, Size, Verdict
from optimize.measure.subjects import Results

HEAD = "text-classification"
PROGRESS = ("checkpoint: ", "data: ")
Change = Callable[[Path], object]


@dataclass
class Asked:
    """What came of a command."""

    code: object
    out: str
    err: str


@pytest.fixture
def optimize(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Asked]:
    """Run the command in this process, its output and cache in the test's own folder."""

    def act(*words: str) -> Asked:
        folders = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
        monkeypatch.setattr(sys, "argv", ["optimize", *words, *folders])
        with pytest.raises(SystemExit) as ended:
            commands.main()
        return Asked(ended.value.code, *capfd.readouterr())

    return act


@pytest.fixture
def folders(
    checkpoint: Callable[[str], Path], data_folder: Callable[[str], Path], tmp_path: Path
) -> Callable[..., Any]:
    """Options that name copies of the small checkpoint and its data, each after a change."""

    def make(model: Change = lambda folder: None, data: Change = lambda folder: None, head: str = HEAD) -> list[str]:
        for name, source, change in (("model", checkpoint(head), model), ("data", data_folder(HEAD), data)):
            shutil.copytree(source, tmp_path / name)
            change(tmp_path / name)
        return ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "data")]

    return make


def assert_refused(asked: Asked, code: int, says: str, tmp_path: Path, *, progress: tuple[str, ...] = ()) -> None:
    """One line on stderr after the lines of progress so far, nothing on stdout, nothing left on disk."""
    *before, line = asked.err.splitlines()
    assert line.startswith("optimize: ")
    assert says in line
    assert [said[: said.index(": ") + 2] for said in before] == [*progress]
    assert (asked.code, asked.out) == (code, "")
    assert not (tmp_path / "out").exists()
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".partial") or "incomplete" in path.name]
    assert [name for name in left if not name.endswith(".lock")] == []


WORDS: dict[str, tuple[list[str], str]] = {
    "head": (["run", "--head", "fill-msk"], "head: unknown name 'fill-msk'; did you mean 'fill-mask'?"),
    "target": (["run", "--target", "cpuu"], "target: unknown name 'cpuu'; did you mean 'cpu'?"),
    "pipeline": (["run", "--pipeline", "cpu-fuzed"], "pipeline: unknown name 'cpu-fuzed'; did you mean 'cpu-fused'?"),
    "option": (["run", "--modle", "demo"], "No such option: --modle"),
    "command": (["rnu"], "No such"),
    "shape": (["run", "--shapes", "8by128"], "--shapes: '8by128' is not a shape; write BATCHxTOKENS"),
    "empty shape": (["run", "--shapes", "0x16"], "'0x16' is not a shape"),
    "negative examples": (["run", "--examples", "-1"], "--examples: -1 is too few; give 1 or more"),
    "no calibration": (["run", "--calibration-examples", "0"], "--calibration-examples: 0 is too few"),
    "no threads": (["run", "--threads", "0"], "--threads: 0 is too few"),
    "no tokens": (["run", "--max-tokens", "2"], "--max-tokens: 2 is too few; give 8 or more"),
    "negative seed": (["run", "--seed", "-1"], "--seed: -1 is too few; give 0 or more"),
    "words for examples": (["run", "--examples", "many"], "--examples"),
    "no share": (
        ["run", "--fastest-within", "little"],
        "--fastest-within: 'little' is not a share; write for instance 1%",
    ),
    "two settings of one thing": (
        ["run", "--budget", "0.5", "--set", "prune.budget=0.6"],
        "--set: sets prune.budget, as --budget does; give one of the two",
    ),
    "a setting of no stage": (
        ["run", "--set", "quantize_statik.method=mse"],
        "--set: unknown name 'quantize_statik'; did you mean 'quantize_static'?",
    ),
    "a setting of no parameter": (
        ["run", "--set", "quantize_static.mehtod=mse"],
        "--set: quantize_static: unknown name 'mehtod'; did you mean 'method'?",
    ),
    "a setting that is none": (["run", "--set", "quantize_static"], "'quantize_static' is not stage.parameter=value"),
    "a setting that is not YAML": (["run", "--set", "export.opset=[1"], "'[1' is not YAML"),
    "a setting out of bounds": (["run", "--set", "export.opset=high"], "--set: export: opset: "),
    "a setting of another pipeline": (
        ["run", "--set", "prune.budget=0.5"],
        "--set: pipeline cpu has no stage 'prune', only export, quantize_static",
    ),
    "quiet and verbose": (["run", "-q", "-v"], "--quiet: --verbose asks for the opposite"),
    "columns": (["run", "--columns", "text"], "--columns: 'text' is not role=column"),
    "no checkpoint": (["run", "--model", "/no/such/folder", "--data", "d"], "/no/such/folder: no such folder"),
    "revision of the demo": (["run", "--revision", "main"], "--revision: 'demo' has no revisions"),
    "split of the demo": (["run", "--certify-on", "dev-2"], "demo: no split 'dev-2'"),
    "configuration of the demo": (["run", "--data-config", "sst2"], "--data-config: 'demo' has no 'sst2'"),
    "all heads of a checkpoint": (["run", "--head", "all", "--model", "x"], "--head: 'all' needs --model demo"),
}


@pytest.mark.parametrize(("words", "says"), WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_request_that_makes_no_sense_is_one_line(optimize, tmp_path: Path, command: str, words, says: str) -> None:
    asked = optimize(*(command if word == "run" else word for word in words))

    assert_refused(asked, 2, says, tmp_path)


STEPS = {
    "stage": ("- exprot", "stages: unknown name 'exprot'; did you mean 'export'?"),
    "parameter": ("- export: {opste: 17}", "export: unknown name 'opste'; did you mean 'opset'?"),
    "value": ("- export: {opset: high}", "export: opset: "),
    "order": ("- fuse", "'fuse' takes onnx but comes after torch"),
}


@pytest.mark.parametrize(("step", "says"), STEPS.values(), ids=STEPS)
def test_a_pipeline_that_makes_no_sense_is_one_line(optimize, tmp_path: Path, step: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"target: cpu\nstages:\n  {step}\n", encoding="utf-8")

    assert_refused(optimize("run", "--pipeline", str(path)), 2, says, tmp_path)


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def remove(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def keep(folder: Path) -> None:
    """Change nothing."""


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


def configure(**values: object) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | values), encoding="utf-8")

    return change


def row(**values: object) -> Change:
    return write("validation.jsonl", json.dumps(values).encode() + b"\n")


INPUT: dict[str, tuple[Change, Change, str, tuple[str, ...]]] = {
    "truncated weights": (truncate, keep, "model.safetensors: not a readable safetensors file", ()),
    "garbage weights": (write("model.safetensors", b"garbage" * 99), keep, "not a readable safetensors file", ()),
    "code in a pickle": (plant, keep, "pytorch_model.bin: holds more than weights", PROGRESS[:1]),
    "no tokenizer": (remove("tokenizer.json", "vocab.txt"), keep, "no tokenizer.json or vocab.txt", ()),
    "a broken tokenizer": (write("tokenizer.json", b"{"), keep, "its tokenizer cannot be loaded", PROGRESS[:1]),
    "another architecture": (configure(model_type="bert"), keep, "is a 'bert' model", ()),
    "no architecture": (configure(architectures=None), keep, "its config names no known head (none); give --head", ()),
    "nonsense in the config": (configure(n_heads=0), keep, "cannot be loaded", PROGRESS[:1]),
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
    "no text column": (keep, row(words="a", label=1), "there are words, label; name them with --columns", ()),
    "no label column": (keep, row(text="a"), "there are text; name them with --columns", ()),
    "another label": (keep, row(text="a", label="so-so"), "row 0: label 'so-so' is not in the checkpoint", PROGRESS),
    "no label": (keep, row(text="a", label=-1), "row 0: has no label", PROGRESS),
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


def test_a_target_that_this_machine_lacks_is_the_environments_fault(optimize, tmp_path, monkeypatch) -> None:
    from dataclasses import replace

    absent = replace(planning.TARGETS["cpu"], unavailable=lambda _: "no such processor; take another machine")
    monkeypatch.setitem(planning.TARGETS, "cpu", absent)

    assert_refused(optimize("run"), 3, "target cpu: no such processor; take another machine", tmp_path)


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
    built = Made([], loaded.origin.artifact, Results([measurement], {}))
    manifest = running.describe(loaded, built, Verdict(outcome="unverified", checks=[]))
    assert manifest.data["certification"].truncated == 1


def command(*words: str, tmp_path: Path, before: str = "", within: tuple[str, ...] = ()) -> Asked:
    """Run the command in a process of its own, after `before` in the same shell; `left` lists the cache then."""
    cache, left = tmp_path / "cache", tmp_path / "left"
    script = f'{before} "$@"; code=$?; ls -A "{cache}" > "{left}" 2> /dev/null; exit $code'
    words = ("-m", "optimize", *words, "--out", str(tmp_path / "out"), "--cache", str(cache))
    shell = [*within, "sh", "-c", script, "sh", sys.executable, *words]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    return Asked(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("words", "says"),
    [WORDS["head"], WORDS["no checkpoint"], WORDS["option"]],
    ids=["head", "no checkpoint", "option"],
)
def test_a_process_of_its_own_says_the_same(tmp_path: Path, words: list[str], says: str) -> None:
    assert_refused(command(*words, tmp_path=tmp_path), 2, says, tmp_path)


def test_a_pickle_with_code_is_one_line_in_a_process_of_its_own(folders, tmp_path: Path) -> None:
    asked = command("run", *folders(plant), tmp_path=tmp_path)

    assert_refused(asked, 2, "pytorch_model.bin: holds more than weights", tmp_path, progress=PROGRESS[:1])
    assert not (tmp_path / "code-was-run").exists()


def test_a_file_that_may_not_grow_stops_a_run_in_one_line(folders, tmp_path: Path) -> None:
    """The limit on file sizes works everywhere, and fails in the middle of a write as a full disk does."""
    asked = command("run", *folders(), tmp_path=tmp_path, before="ulimit -f 1000;")

    assert_refused(asked, 3, "File too large; free space", tmp_path, progress=PROGRESS[:1])
    assert (tmp_path / "left").read_text(encoding="utf-8") == ""


def test_a_full_disk_stops_a_run_in_one_line(folders, tmp_path: Path) -> None:
    """A disk of one MiB, mounted in a namespace of its own, where this machine lets a user do so."""
    (tmp_path / "cache").mkdir()
    mount = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}/cache"'
    alone = ("unshare", "-rm")
    if shutil.which("unshare") is None or subprocess.run([*alone, "sh", "-c", mount], check=False).returncode:
        pytest.skip("nobody may mount a disk here")

    asked = command("run", *folders(), tmp_path=tmp_path, before=f"{mount};", within=alone)

    assert_refused(asked, 3, "cache: the disk is full; free some space", tmp_path, progress=PROGRESS[:1])
    assert (tmp_path / "left").read_text(encoding="utf-8") == ""
