"""Requests that cannot be met: one line, exit code 2, and nothing left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hostile.cases import HEAD, assert_refused, command

from optimize import planning, refusals
from optimize.cli import commands
from optimize.errors import RequestError
from optimize.source.geometry import values_at_once

WORDS: dict[str, tuple[list[str], str]] = {
    "head": (["run", "--head", "fill-msk"], "head: unknown name 'fill-msk'; did you mean 'fill-mask'?"),
    "target": (["run", "--target", "cpuu"], "target: unknown name 'cpuu'; did you mean 'cpu'?"),
    "pipeline": (["run", "--pipeline", "cpu-fuzed"], "pipeline: unknown name 'cpu-fuzed'; did you mean 'cpu-fused'?"),
    "option": (["run", "--modle", "demo"], "No such option: --modle"),
    "command": (["rnu"], "No such"),
    "shape": (["run", "--shapes", "8by128"], "--shapes: '8by128' is not a shape; write BATCHxTOKENS"),
    "a shape twice": (["run", "--shapes", "1x16,8x16,1x16"], "--shapes: 1x16 is there twice; leave one out"),
    "a shape of more than any memory": (["run", "--shapes", "999999999999x16"], "has more than 1,048,576 tokens"),
    "a large shape": (["run", "--shapes", "100000x512"], "has more than 1,048,576 tokens; name a smaller one"),
    "a role twice": (["run", "--columns", "text=a,text=b"], "--columns: 'text' is given twice; leave one out"),
    "no model": (["run", "--model", ""], "--model: is empty; name a folder or Hub id"),
    "no data": (["run", "--data", " "], "--data: is empty; name a folder or Hub id"),
    "nobody's home": (["run", "--model", "~nosuchuser/x"], "--model: '~nosuchuser/x' is in no known user's home"),
    "nobody's data": (["run", "--data", "~nosuchuser/x"], "--data: '~nosuchuser/x' is in no known user's home"),
    "an endless corpus": (["run", "--vocabulary", "/dev/zero"], "/dev/zero: is neither a file nor a folder"),
    "too many examples": (["run", "--calibration-examples", "9e29"], "--calibration-examples"),
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


@pytest.mark.parametrize(("out", "says"), [("file", "file: Not a directory"), ("file/x/y", "file: Not a directory")])
@pytest.mark.parametrize("words", [["plan"], ["run"]])
def test_a_place_where_no_folder_can_be_made_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words, out: str, says: str
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["optimize", *words, "--out", str(tmp_path / out)])

    with pytest.raises(SystemExit) as ended:
        commands.main()

    assert ended.value.code == 2
    assert f"{says}; name a folder that can be written to" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this system has no /proc")
def test_a_place_that_takes_no_folders_is_refused_at_once() -> None:
    with pytest.raises(RequestError, match=r"--out: /proc: .+; name a folder that can be written to"):
        planning.make_plan(planning.Options(out=Path("/proc/runs")))


AT_ONCE = 1000 * 4 * 64 * (128 + 512)
"""Bytes of what a thousand texts have in one layer of the small checkpoints: 64 tokens' states and FFN values."""


@pytest.mark.parametrize(("memory", "fits"), [(AT_ONCE, True), (AT_ONCE - 1, False)])
def test_shapes_that_cannot_fit_into_memory_are_refused(
    monkeypatch, optimize, checkpoint, data_folder, tmp_path, memory: int, fits: bool
) -> None:
    monkeypatch.setattr(refusals, "usable_memory", lambda: memory)

    own = ("--model", str(checkpoint(HEAD)), "--data", str(data_folder(HEAD)))
    asked = optimize("plan", *own, "--shapes", "1x8,1000x64")

    if fits:
        assert asked.code == 0
    else:
        assert_refused(asked, 2, "--shapes: 1000x64 needs at least 0.", tmp_path)


@pytest.mark.parametrize(
    ("tokens", "words", "values"),
    # Attention has tokens² numbers in each of 12 heads, the FFN 3072 a token, and answers in words 30522 a token.
    [(1, False, 768 + 3072), (512, False, 512 * 768 + 12 * 512**2), (512, True, 512 * (768 + 30522))],
)
def test_what_a_text_has_at_one_time_is_the_most_that_a_step_makes(tokens: int, words: bool, values: int) -> None:
    assert values_at_once({}, tokens, words=words, where="model") == values


def test_of_a_pruned_checkpoint_the_largest_layer_counts() -> None:
    layers = [{"heads": 2, "neurons": 100}, {"heads": 1, "neurons": 300}]

    assert values_at_once({"n_layers": 2, "pruned_layers": layers}, 10, words=False, where="model") == 10 * (768 + 300)


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


@pytest.mark.parametrize(
    ("words", "says"),
    [WORDS["head"], WORDS["no checkpoint"], WORDS["option"]],
    ids=["head", "no checkpoint", "option"],
)
def test_a_process_of_its_own_says_the_same(tmp_path: Path, words: list[str], says: str) -> None:
    assert_refused(command(*words, tmp_path=tmp_path), 2, says, tmp_path)


def test_a_target_that_this_machine_lacks_is_the_environments_fault(optimize, tmp_path, monkeypatch) -> None:
    from dataclasses import replace

    absent = replace(planning.TARGETS["cpu"], unavailable=lambda _: "no such processor; take another machine")
    monkeypatch.setitem(planning.TARGETS, "cpu", absent)

    assert_refused(optimize("run"), 3, "target cpu: no such processor; take another machine", tmp_path)
