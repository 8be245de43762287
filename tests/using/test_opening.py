"""What is opened is what its manifest says, runs here as it was judged, and needs neither torch nor transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import optimize as package
from optimize import manifest
from optimize.errors import RequestError, UnavailableError
from optimize.machine import environment
from optimize.publishing.checksums import write_checksums
from optimize.publishing.names import JUDGED

HEAD = "text-classification"
LIGHT = """
import sys
for name in ("torch", "transformers", "datasets", "optimum"):
    sys.modules[name] = None  # cannot be imported
import optimize
model = optimize.load(sys.argv[1])
print(model("the train is late")[0]["label"])
from optimize.serving.app import make_app
from optimize.serving.limits import Limits
make_app(model, name="mine", limits=Limits())
"""


@pytest.fixture(scope="module")
def run(exported_run):
    return exported_run(HEAD)


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def publication(run, tmp_path):
    """The layout of a publication, to be written to."""
    folder = shutil.copytree(run / "model", tmp_path / "publication")
    shutil.copy(run / manifest.FILE, folder)
    write_checksums(folder)
    return folder


def test_a_publication_answers_as_its_run_does(publication, run):
    assert package.load(publication)("the train") == package.load(run)("the train")


def test_neither_torch_nor_transformers_is_needed(run):
    done = subprocess.run([sys.executable, "-c", LIGHT, run], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == package.load(run)("the train is late")[0]["label"]


def test_a_model_that_was_changed_is_refused(copy, publication):
    for model in (copy / "model" / "model.onnx", publication / "model.onnx"):
        model.write_bytes(model.read_bytes() + b"\0")
        with pytest.raises(RequestError):
            package.load(model.parent if model.parent == publication else copy)


def test_digests_that_were_swapped_with_the_model_are_refused_by_the_manifest(publication):
    model = publication / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    write_checksums(publication)
    with pytest.raises(RequestError, match="its model is not the one of its manifest"):
        package.load(publication)


def test_links_and_files_that_do_not_belong_are_refused(publication, tmp_path):
    (publication / "more.txt").write_text("more")
    with pytest.raises(RequestError):
        package.load(publication)
    (publication / "more.txt").unlink()
    (publication / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (publication / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(RequestError):
        package.load(publication)


def test_full_8_bit_weights_are_refused_where_their_sums_would_overflow(copy, monkeypatch):
    record = manifest.read(copy)
    last = record.stages[-1]
    stages = [*record.stages[:-1], last.model_copy(update={"facts": {**last.facts, "reduce_range": False}})]
    manifest.write(record.model_copy(update={"stages": stages}), copy)

    monkeypatch.setattr(environment, "cpu_features", lambda: ("avx2",))
    with pytest.raises(UnavailableError, match="sums would overflow"):
        package.load(copy)
    assert package.load(copy, allow_overflow=True)("the train")
    monkeypatch.setattr(environment, "cpu_features", lambda: ("avx2", "avx_vnni"))
    assert package.load(copy)("the train")


def test_a_head_of_a_users_own_is_refused_with_the_reason(copy):
    path = copy / manifest.FILE
    content = json.loads(path.read_text())
    content["request"]["head_code"] = {
        "file": "my.py",
        "attribute": "HEAD",
        "digest": "0" * 64,
        "outputs": ["logits"],
        "reads": "first token",
        "weights": [],
        "axes": ["batch", "sequence"],
        "example": ["a"],
    }
    path.write_text(json.dumps(content))
    with pytest.raises(RequestError, match="one of a user's own"):
        package.load(copy)


def test_texts_are_answered_at_the_command_line(run, optimize, capsys, monkeypatch):
    assert optimize("predict", str(run), "the train", "a bus", "-o", "top_k=1") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == package.load(run)(["the train", "a bus"], top_k=1)
    assert optimize("predict", str(run), "the train", "-o", "top_k") == 2
    assert optimize("predict", str(run), "the train", "-o", "topk=1") == 2


def test_lines_of_json_are_answered_a_line_each(run):
    given = '{"text": "the train", "text_pair": "a bus"}\n\n"a bus"\n'
    words = [sys.executable, "-m", "optimize", "predict", str(run), "--json-lines"]
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=True, timeout=60)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 2
    done = subprocess.run(words, input='"a"\n{', capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "stdin: line 2 is not JSON" in done.stderr) == (2, True)


def test_what_is_arranged_for_another_server_is_refused_as_such(publication):
    write_checksums(publication, publication / JUDGED)
    write_checksums(publication)
    with pytest.raises(RequestError, match="arranged for another server; name the run"):
        package.load(publication)
