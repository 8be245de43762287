"""Run folders that somebody changed: nothing is published or certified that was not judged as it lies there."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from finished import measured_run
from hostile.cases import Change, remove, write
from onnx import TensorProto, helper

from optimize import cache, manifest
from optimize.artifact import folder_digest
from optimize.interfaces import Facts, Score
from optimize.publishing.checksums import CHECKSUMS
from optimize.scores import write_scores

HEAD = "token-classification"  # its few training steps are enough to know more than one tag for every word
STAGES = "[prune: {neuron_multiple: 8}, export, quantize_dynamic]"


@pytest.fixture(scope="module")
def passed(checkpoint: Callable[[str], Path], data_folder: Callable[[str], Path], tmp_path_factory: Any) -> Path:
    """A run folder with a checkpoint beside its model, whose limits are met; not to be written to."""
    gates = "{max_size_ratio: 0.5, max_metric_drop: 0.2, speedup_shape: 1x16}"
    pipeline = f"target: cpu\nstages: {STAGES}\ngates: {gates}\n"
    place = tmp_path_factory.mktemp("work")
    return measured_run(place, "lenient", pipeline, model=checkpoint(HEAD), data=data_folder(HEAD))


@pytest.fixture
def run(passed: Path, tmp_path: Path) -> Path:
    """The same, to be written to."""
    return Path(shutil.copytree(passed, tmp_path / "run"))


def state(folder: Path) -> dict[str, object]:
    """All that lies below a folder: content, where a link leads, or what else it is."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        kind = path.lstat().st_mode
        if path.is_symlink():
            found[str(path)] = path.readlink()
        else:
            found[str(path)] = path.read_bytes() if path.is_file() else kind
    return found


def edit(*changes: tuple[str, object]) -> Change:
    """Change values of the manifest; each place is written with dots."""

    def change(run: Path) -> None:
        content = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        for place, value in changes:
            *way, last = [int(key) if key.lstrip("-").isdigit() else key for key in place.split(".")]
            at = content
            for key in way:
                at = at[key]
            at[last] = value
        (run / "manifest.json").write_text(json.dumps(content), encoding="utf-8")

    return change


def sealed_anew(change: Change) -> Change:
    """The change, and the manifest's digests and size of the model as they are after it."""

    def both(run: Path) -> None:
        change(run)
        digest = folder_digest(run / "model")
        size = sum(path.stat().st_size for path in (run / "model").glob("*.onnx*"))
        content = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        ratio = size / content["measurements"][0]["size"]["bytes"]
        names = [check["name"] for check in content["verdict"]["checks"]]
        edit(
            (f"verdict.checks.{names.index('max_size_ratio')}.value", ratio),
            ("stages.-1.artifact.digest", digest),
            ("measurements.-1.artifact_digest", digest),
            ("measurements.-1.size.bytes", size),
            ("measurements.-1.size.ratio", ratio),
        )(run)

    return both


def outside(keep: str, *, where: str = "graph") -> Change:
    """Keep a tensor of the model's graph, of a subgraph or of a function in another file."""

    def change(run: Path) -> None:
        path = run / "model" / "model.onnx"
        model = onnx.load(path)
        tensor = helper.make_tensor("apart", TensorProto.FLOAT, [1], [1.0])
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=keep)
        tensor.external_data.add(key="length", value="4")
        graph = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
        if where == "graph":
            model.graph.initializer.append(tensor)
        elif where == "subgraph":
            model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph))
        else:
            model.functions.append(helper.make_function("ours", "f", [], ["c"], graph.node, []))
        path.write_bytes(model.SerializeToString())

    return change


def beside(place: str) -> Change:
    """Put another ONNX file, which keeps data outside, beside the model."""

    def change(run: Path) -> None:
        content = (run / "model" / "model.onnx").read_bytes()
        outside("/etc/hostname")(run)
        (run / place).parent.mkdir(exist_ok=True)
        (run / "model" / "model.onnx").rename(run / place)
        (run / "model" / "model.onnx").write_bytes(content)

    return change


def nest(run: Path) -> None:
    """A folder in a folder, and so on; deeper than the stack, within the longest path."""
    before = Path.cwd()
    os.chdir(run / "model")
    try:
        for _ in range(200):
            os.mkdir("a")  # noqa: PTH102 (a path that is as long would be made anew each time)
            os.chdir("a")
    finally:
        os.chdir(before)


def link(place: str, to: str) -> Change:
    """Put a link there, to a file or folder that is made outside the run."""

    def change(run: Path) -> None:
        (run.parent / "secrets").mkdir(exist_ok=True)
        (run.parent / "secrets" / "key").write_bytes(b"secret")
        if (run / place).is_dir():
            shutil.move(run / place, run.parent / "moved")
        (run / place).unlink(missing_ok=True)
        (run / place).symlink_to(to)

    return change


def listen(run: Path) -> None:
    """Leave a socket in the model's folder; its path is too long for bind, so it is made from there."""
    before = Path.cwd()
    os.chdir(run / "model")
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("socket")
    finally:
        os.chdir(before)


def both(*changes: Change) -> Change:
    return lambda run: [change(run) for change in changes]


def rename_head(run: Path) -> None:
    model = onnx.load(run / "model" / "model.onnx")
    model.graph.output[0].name = "other"
    (run / "model" / "model.onnx").write_bytes(model.SerializeToString())


def candidate(**values: object) -> dict[str, object]:
    return {"pipeline": "cpu", "reason": "the fastest", **values}


CHECK = "verdict.checks.0"
LAST = "measurements.-1"
MODEL: dict[str, tuple[Change, str]] = {
    "a linked folder": (link("model/more", "../../secrets"), "model/more: is a link"),
    "a linked file": (link("model/more", "../../secrets/key"), "model/more: is a link"),
    "a linked config": (link("model/config.json", "../../secrets/key"), "model/config.json: is a link"),
    "a link to nowhere": (link("model/more", "nowhere"), "model/more: is a link"),
    "a link to itself": (link("model/more", "more"), "model/more: is a link"),
    "a link in a nested folder": (
        both(lambda run: (run / "model" / "deep").mkdir(), link("model/deep/more", "/etc")),
        "model/deep/more: is a link",
    ),
    "a linked model": (link("model", "../moved"), "model: is a link"),
    "a pipe": (lambda run: os.mkfifo(run / "model" / "pipe"), "model/pipe: is a pipe"),
    "a socket": (listen, "model/socket: is a pipe, socket"),
    "folders without end": (nest, "lies deeper in other folders than any file of a model does"),
    "two lines for a name": (write("model/a\nb", b""), "holds 'a\\nb', whose name is not one line of text"),
    "a name that moves the cursor": (write("model/a\x1b[2K", b""), "holds 'a\\x1b[2K', whose name is not one line"),
    "no model": (lambda run: shutil.rmtree(run / "model"), "model: is missing"),
    "a file as model": (both(lambda run: shutil.rmtree(run / "model"), write("model", b"")), "model: is a file"),
    "another byte": (lambda run: (run / "model/model.onnx").write_bytes(b"x"), "is not what the manifest says"),
    "one more file below": (
        lambda run: [(run / "model" / "a").mkdir(), (run / "model" / "a" / "b").write_bytes(b"")],
        "is not what the manifest says",
    ),
    "junk, sealed anew": (sealed_anew(write("model/model.onnx", b"junk")), "is not a readable ONNX model"),
    "nothing, sealed anew": (sealed_anew(write("model/model.onnx", b"")), "is not a model of head"),
    "no ONNX file, sealed anew": (sealed_anew(remove("model/model.onnx")), "is not a readable ONNX model"),
    "another head's": (sealed_anew(rename_head), f"is not a model of head '{HEAD}'"),
    "data at a system file": (sealed_anew(outside("/etc/hostname")), "in '/etc/hostname', which is not a file"),
    "data above": (sealed_anew(outside("../manifest.json")), "in '../manifest.json', which is not a file"),
    "data above and back": (sealed_anew(outside("../model/config.json")), "which is not a file of the model's"),
    "data nowhere": (sealed_anew(outside("weights")), "in 'weights', which is not a file of the model's"),
    "data in a file that is not counted": (
        sealed_anew(both(write("model/weights", b"abcd"), outside("weights"))),
        "in 'weights', which is not a file of the model's",
    ),
    "data of another file": (sealed_anew(beside("model/other.onnx")), "other.onnx: keeps tensor 'apart' in '/etc/"),
    "data of a file below": (sealed_anew(beside("model/deep/other.onnx")), "other.onnx: keeps tensor 'apart' in"),
    "data without a place": (sealed_anew(outside("")), "in '', which is not a file of the model's"),
    "data at the folder": (sealed_anew(outside(".")), "in '.', which is not a file of the model's"),
    "data in a subgraph": (sealed_anew(outside("/etc/hostname", where="subgraph")), "'/etc/hostname', which is no"),
    "data in a function": (sealed_anew(outside("/etc/hostname", where="function")), "'/etc/hostname', which is no"),
    "data at a drive": (sealed_anew(outside("C:\\secret")), "which is not a file of the model's"),
    "data too short": (
        sealed_anew(both(write("model/weights.onnx_data", b"abc"), outside("weights.onnx_data"))),
        "'apart' goes beyond the end of 'weights.onnx_data'",
    ),
}
"""What is done to a run's model, and what `publish` and `certify` say."""

EVIDENCE: dict[str, tuple[Change, str]] = {
    "a failed check": (edit((f"{CHECK}.outcome", "failed")), "is stated as failed, and is passed"),
    "a drop beyond its limit": (
        edit((f"{LAST}.metric.value", -9.0), (f"{LAST}.metric.drop", 20.0)),
        "the drop is stated as 20.0",
    ),
    "a limit that is not met": (
        edit(("request.gates.max_size_ratio", 1e-6)),
        "check 'max_size_ratio' is stated as passed, and is failed",
    ),
    "a larger model": (edit((f"{LAST}.size.bytes", 5)), "the model's size is stated as 5, and is"),
    "a smaller ratio": (edit((f"{LAST}.size.ratio", 0.01)), "the size's ratio is stated as 0.01"),
    "another reference": (edit((f"{LAST}.metric.reference", 0.0)), "the metric's reference is stated as 0.0"),
    "another relative drop": (edit((f"{LAST}.metric.relative_drop", -0.5)), "the relative drop is stated as -0.5"),
    "no metric": (edit((f"{LAST}.metric", None)), "check 'max_metric_drop' is stated as passed, and is unverified"),
    "no check": (edit(("verdict.checks", [])), "check 'max_metric_drop' is missing"),
    "no limit": (edit(("request.gates", {})), "is of no limit of the run"),
    "neither": (edit(("verdict.checks", []), ("request.gates", {})), "its verdict is unverified by its limits"),
    "another limit": (edit((f"{CHECK}.limit", 0.9)), "for a limit of 0.9, and is"),
    "another value": (edit((f"{CHECK}.value", 0.125)), "is stated as 0.125 for a limit of"),
    "an unknown limit": (edit(("request.gates.min_joy", 1)), "gates: unknown name 'min_joy'"),
    "a limit of the wrong type": (edit(("request.gates.max_size_ratio", "much")), "gates: max_size_ratio: "),
    "no measurements": (edit(("measurements", [])), "nothing was measured; certify the run"),
    "another model's measurement": (edit((f"{LAST}.artifact_digest", "0" * 64)), "is of another model; certify"),
    "the reference alone": (
        lambda run: edit(
            ("measurements", json.loads((run / "manifest.json").read_text(encoding="utf-8"))["measurements"][:1])
        )(run),
        "'pytorch-fp32', is of another model; certify",
    ),
    "another model as reference": (edit(("measurements.0.artifact_digest", "0" * 64)), "is not the checkpoint's as"),
    "another name for the reference": (edit(("measurements.0.name", "pytorch")), "'pytorch', is not the checkpoint's"),
    "another checkpoint": (edit(("source.digest", "0" * 64)), "is not the checkpoint's as pytorch-fp32"),
    "another name for the result": (edit((f"{LAST}.name", "fuse")), "is of 'fuse', and its result is 'quantize_dyn"),
    "answers alone": (edit(("measurements.1.name", "elsewhere-fp32")), "'cpu-fp32' was not measured"),
    "other stages": (edit(("request.stages", [{"export": {}}, {"fuse": {}}])), "its request has other stages"),
    "another parameter": (edit(("stages.-1.params.per_channel", "x")), "its request has other stages"),
    "another runtime": (edit((f"{LAST}.runtime", {"precision": "bf16"})), "with the request's runtime"),
    "no count of answers": (edit((f"{LAST}.metric.answers", None)), "its metric lacks `answers` or `constant`"),
    "no constant answer": (edit((f"{LAST}.metric.constant", None)), "its metric lacks `answers` or `constant`"),
    "more examples": (edit((f"{LAST}.metric.examples", 10**6)), "the number of examples is stated as 1000000"),
    "examples left out": (edit(("data.certification.left_out", 1)), "the number of examples is stated as"),
    "another F1 of a class": (edit((f"{LAST}.metric.classes.0.value", 2.0)), "the drop of class '"),
    "another F1 of a class in FP32": (
        edit((f"{LAST}.metric.classes.0.reference", 2.0)),
        "the reference's F1 of class '",
    ),
    "a class left out": (edit((f"{LAST}.metric.classes", [])), "macro F1 is stated as"),
    "another macro F1": (edit((f"{LAST}.metric.macro_f1.value", 2.0)), "macro F1 is stated as 2.0"),
    "another drop of macro F1": (edit((f"{LAST}.metric.macro_f1.drop", 2.0)), "the drop of macro F1 is stated as 2.0"),
    "faster than its times": (
        edit((f"{LAST}.latency.0.speedup.pytorch-fp32", 99.0)),
        "the speed-up over pytorch-fp32 at 1x16 is stated as 99.0",
    ),
    "over a reference that was not timed": (
        edit((f"{LAST}.latency.0.speedup", {"cpu-fp16": 9.0})),
        "the speed-up over cpu-fp16 at 1x16 is stated as 9.0, and is None",
    ),
    "no time at all": (edit((f"{LAST}.latency.0.p50_ms", 0.0)), "p50_ms': Input should be greater than 0"),
    "nothing chosen": (edit(("candidates", [candidate()])), "0 of its candidates are chosen"),
    "two chosen": (edit(("candidates", [candidate(chosen=True), candidate(chosen=True)])), "2 of its candidates"),
    "another one chosen": (
        edit(("candidates", [candidate(chosen=True, measurement="quantize_dynamic")])),
        "its chosen candidate, 'cpu', is not its result",
    ),
    "a metric that is no number": (edit((f"{LAST}.metric.value", float("nan"))), "not a manifest of schema"),
    "a drop that is no number": (edit((f"{LAST}.metric.drop", float("-inf"))), "not a manifest of schema"),
    "a verdict that failed": (edit(("verdict.outcome", "failed")), "its verdict is failed; only a passed run"),
    "a linked checkpoint": (link("checkpoint", "../moved"), "checkpoint: is a link"),
    "a checkpoint that is a file": (
        both(lambda run: shutil.rmtree(run / "checkpoint"), write("checkpoint", b"")),
        "checkpoint: is a file",
    ),
    "a link in the checkpoint": (link("checkpoint/more", "/etc"), "checkpoint/more: is a link"),
    "a pipe in the checkpoint": (lambda run: os.mkfifo(run / "checkpoint" / "pipe"), "checkpoint/pipe: is a pipe"),
    "a changed checkpoint": (write("checkpoint/config.json", b"{}"), "checkpoint: is not what the manifest says"),
    "a model card of the model's": (
        sealed_anew(write("model/README.md", b"mine")),
        "model/README.md: has a name that publications need",
    ),
    "facts of no stage": (edit(("stages.-1.facts", {"sparsity": "all"})), "states what no stage does"),
}
"""What is done to a run's manifest and checkpoint, and what `publish` says."""


@pytest.mark.parametrize(("change", "says"), [*MODEL.values(), *EVIDENCE.values()], ids=[*MODEL, *EVIDENCE])
def test_a_run_that_was_changed_is_not_published(change, says, run, tmp_path, refuse):
    change(run)
    before = state(tmp_path)

    assert says in refuse("publish", str(run), str(tmp_path / "publication"))
    assert state(tmp_path) == before


@pytest.mark.parametrize(("change", "says"), MODEL.values(), ids=MODEL)
def test_a_model_that_was_changed_is_not_certified(change, says, run, tmp_path, refuse):
    change(run)
    before = state(tmp_path)

    assert says in refuse("certify", str(run), "--cache", str(tmp_path / "cache"))
    assert state(tmp_path) == before


def test_data_beside_the_model_are_published_with_it(run, tmp_path, invoke):
    sealed_anew(both(write("model/weights.onnx_data", b"abcd"), outside("weights.onnx_data")))(run)

    assert invoke("publish", str(run), str(tmp_path / "publication")).code == 0
    assert (tmp_path / "publication" / "weights.onnx_data").read_bytes() == b"abcd"


def occupy(name: str, content: str) -> Change:
    def change(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content, encoding="utf-8")

    return change


def nothing(_: Path) -> None:
    """Leave the place as it is."""


PLACES: dict[str, tuple[Change, str, str]] = {
    "the run": (nothing, "run", "lies in the run"),
    "in the run": (nothing, "run/publication", "lies in the run"),
    "in its model": (nothing, "run/model/publication", "lies in the run"),
    "deep in its model": (nothing, "run/model/a/b/c", "lies in the run"),
    "in the run, by a detour": (nothing, "run/model/../../run/checkpoint/../x", "lies in the run"),
    "in the run, by a link": (lambda place: (place / "way").symlink_to("run/model"), "way/x", "lies in the run"),
    "in the run, by two": (
        lambda place: [(place / "way").symlink_to("other"), (place / "other").symlink_to(place / "run")],
        "way/x/y",
        "lies in the run",
    ),
    "around the run": (nothing, ".", "holds the run"),
    "around the run, by a detour": (nothing, "run/..", "holds the run"),
    "high above the run": (nothing, "/", "holds the run"),
    "a link to the run": (lambda place: (place / "out").symlink_to("run"), "out", "lies in the run"),
    "a link to a folder": (
        lambda place: [(place / "empty").mkdir(), (place / "out").symlink_to("empty")],
        "out",
        "out: is a link",
    ),
    "a link to nowhere": (lambda place: (place / "out").symlink_to("nowhere"), "out", "out: is a link"),
    "a link to itself": (lambda place: (place / "out").symlink_to("out"), "out", "out: is a link"),
    "below links that go round": (
        lambda place: (place / "out").symlink_to("out"),
        "out/x",
        "out/x' is not a path (Too many",
    ),
    "a name that is too long": (lambda place: None, "x" * 999, "' is not a path (File name too long); name another"),
    "a file": (occupy("out", "mine"), "out", "out: is not a folder"),
    "an empty file": (occupy("out", ""), "out", "out: is not a folder"),
    "below a file": (occupy("out", "mine"), "out/x", "out: is not a folder"),
    "deep below a file": (occupy("out", "mine"), "out/x/y/z", "out: is not a folder"),
    "a pipe": (lambda place: os.mkfifo(place / "out"), "out", "out: is not a folder"),
    "below a pipe": (lambda place: os.mkfifo(place / "out"), "out/x", "out: is not a folder"),
    "another's folder": (occupy("out/notes.txt", "mine"), "out", "out: has other content"),
    "another's publication": (occupy(f"out/{CHECKSUMS}", ""), "out", "out: has other content"),
}
"""What lies there, where to publish, and what is said."""


@pytest.mark.parametrize(("change", "place", "says"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_no_place_is_taken_that_is_not_free(change, place, says, relative, run, tmp_path, monkeypatch, refuse):
    change(tmp_path)
    before = state(tmp_path)
    monkeypatch.chdir(tmp_path)

    run, there = (Path("run"), Path(place)) if relative else (run, tmp_path / place)

    assert says in refuse("publish", str(run), str(there))
    assert state(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this system has no /proc")
def test_a_publication_needs_a_place_that_takes_folders(run: Path, refuse) -> None:
    said = refuse("publish", str(run), "/proc/publication")

    assert said.startswith("optimize: the folder to publish to: /proc: ")
    assert said.endswith("; name a folder that can be written to")


def test_a_publication_one_of_whose_files_became_a_link_is_not_taken_for_the_same(run, tmp_path, refuse, invoke):
    assert invoke("publish", str(run), str(tmp_path / "out")).code == 0
    shutil.move(tmp_path / "out" / "config.json", tmp_path / "config.json")
    (tmp_path / "out" / "config.json").symlink_to("../config.json")

    assert "has other content" in refuse("publish", str(run), str(tmp_path / "out"))


def test_a_run_that_is_named_by_a_link_is_published(run, tmp_path, invoke):
    (tmp_path / "latest").symlink_to("run")

    assert invoke("publish", str(tmp_path / "latest"), str(tmp_path / "new" / "out")).code == 0
    assert (tmp_path / "new" / "out" / CHECKSUMS).is_file()


def point(path: Path) -> None:
    path.symlink_to(path.parents[1] / "mine")


@pytest.mark.parametrize("name", ["report.md", "report.md.partial", "card.md", "card.md.partial", "overview.png"])
@pytest.mark.parametrize("occupy", [point, os.mkfifo], ids=["a link", "a pipe"])
def test_a_report_is_written_through_no_link_and_into_no_pipe(occupy, name, run, tmp_path, invoke):
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    (run / name).unlink(missing_ok=True)
    occupy(run / name)

    assert invoke("report", str(run), "--card").code == 0
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"
    assert all(path.is_file() and not path.is_symlink() for path in run.iterdir() if not path.is_dir())


@pytest.mark.parametrize("name", ["manifest.json.partial", "scores.npz", "scores.npz.partial"])
def test_a_record_is_written_through_no_link(name, run, tmp_path):
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to("../mine")

    manifest.write(manifest.read(run), run)
    write_scores({"any": Score("f1", np.zeros((1, 1)), np.mean, np.zeros(1))}, run)

    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"
    assert (run / "scores.npz").read_bytes().startswith(b"PK")


@pytest.mark.parametrize("name", ["more", "model.onnx"])
def test_an_entry_of_the_cache_with_a_link_in_it_is_built_anew(name, tmp_path):
    def build(out: Path) -> Facts:
        (out / "model.onnx").write_bytes(b"weights")
        return {}

    made = cache.fetch(tmp_path / "cache", {"input": "abc"}, "onnx", build)
    (tmp_path / "outside").write_bytes(b"weights")
    link(f"artifact/{name}", str(tmp_path / "outside"))(made.artifact.path.parent)

    again = cache.fetch(tmp_path / "cache", {"input": "abc"}, "onnx", build)

    assert (again.cached, again.artifact.digest) == (False, made.artifact.digest)
    assert [path.name for path in again.artifact.path.iterdir() if not path.is_symlink()] == ["model.onnx"]
