"""Heads of a user's own: the one that the guide shows, from a checkpoint to a publication, and what is refused."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BatchEncoding, DistilBertConfig, DistilBertModel, PreTrainedModel

from optimize.certifying import certify
from optimize.errors import OptimizeError, RequestError
from optimize.heads import find_head
from optimize.planning import make_plan
from optimize.publishing.publish import publish
from optimize.request import Options
from optimize.running import run

pytestmark = pytest.mark.usefixtures("few_runs")

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "custom-heads.md"
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[0]
PIPELINE = "target: cpu\nstages: [export, quantize_dynamic]\ngates: {min_agreement: 0.9}\n"


@pytest.fixture(scope="session")
def learnt(checkpoint: Callable[[str], Path], made_once: Callable[..., Path]) -> Path:
    """A model of the guide's class on a demo's encoder, and data that it has learnt: each class has its words."""

    def fill(folder: Path) -> None:
        base, rng = checkpoint("text-classification"), random.Random(0)
        tokenizer = AutoTokenizer.from_pretrained(base)
        words = sorted(word for word in tokenizer.get_vocab() if word.isalpha())
        (folder / "data").mkdir()
        rows = []
        for split, size in {"validation": 120, "test": 60, "train": 300}.items():
            rows = [{"text": " ".join(rng.choices(words[i % 2 :: 2], k=12)), "label": i % 2} for i in range(size)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "data" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        (folder / "my_head.py").write_text(CODE, encoding="utf-8")
        torch.manual_seed(0)
        model = find_head(f"{folder / 'my_head.py'}:HEAD").auto_class(DistilBertConfig.from_pretrained(base))
        model.distilbert.load_state_dict(DistilBertModel.from_pretrained(base).state_dict())
        teach(model, tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt"))
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")

    return made_once("custom-head", CODE, fill)


def teach(model: PreTrainedModel, tokens: BatchEncoding) -> None:
    """Some steps of training on texts of the classes 0 and 1 in turn."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(30):
        batch = slice(step * 32 % 256, step * 32 % 256 + 32)
        logits = model(tokens["input_ids"][batch], tokens["attention_mask"][batch]).logits
        torch.nn.functional.cross_entropy(logits, torch.arange(32) % 2).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def asked(learnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    """Options of a run of the guide's head."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(learnt / "my_head.py", "my_head.py")
    Path("pipeline.yaml").write_text(PIPELINE, encoding="utf-8")

    def make(**options: object) -> Options:
        usual = {
            "model": str(learnt / "model"),
            "data": str(learnt / "data"),
            "head": "my_head.py:HEAD",
            "pipeline": "pipeline.yaml",
            "shapes": ("1x16",),
            "out": tmp_path / "runs",
            "cache": tmp_path / "cache",
        }
        return Options(**{**usual, **options})

    return make


def test_the_guides_head_goes_from_a_checkpoint_to_a_publication(asked, silent, tmp_path):
    folder, record = run(make_plan(asked()), progress=silent)

    assert record.request.head == "mean-classification"
    assert record.request.head_code.reference == "my_head.py:HEAD"
    assert [each.name for each in record.measurements] == ["pytorch-fp32", "cpu-fp32", "export", "quantize_dynamic"]
    plain, exported, quantized = record.measurements[0], record.measurements[2], record.measurements[-1]
    assert exported.metric.value == plain.metric.value
    assert exported.drift.max_abs < 1e-4 < quantized.drift.max_abs
    assert record.verdict.outcome == "passed"

    # None of what follows runs the file: a finished run is data.
    Path("my_head.py").unlink()
    publish(folder, str(tmp_path / "publication"))
    card = (tmp_path / "publication" / "README.md").read_text(encoding="utf-8")
    assert 'model.run(["logits"], feed)[0]' in card
    assert "optimum" not in card.partition("---\n\n")[2]
    assert "pipeline_tag" not in card


def test_a_run_is_certified_with_the_file_that_it_was_judged_with_and_no_other(asked, silent):
    folder, _ = run(make_plan(asked(build_only=True)), progress=silent)
    places = {"model": None, "data": None, "cache": None, "progress": silent}

    with pytest.raises(RequestError, match=r"was judged with a head of your own; give --head my_head\.py:HEAD"):
        certify(folder, **places)
    shutil.copyfile("my_head.py", "moved.py")
    Path("my_head.py").write_text(CODE + "\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"my_head\.py:HEAD is not what .* was judged with"):
        certify(folder, head="my_head.py:HEAD", **places)

    _, again = certify(folder, head="moved.py:HEAD", **places)
    assert again.verdict.outcome == "passed"


def test_a_file_that_changed_is_another_head(asked, silent):
    def cached() -> list[bool]:
        _, record = run(make_plan(asked(build_only=True)), progress=silent)
        return [each.cached for each in record.stages]

    assert cached() == [False, False]
    assert cached() == [True, True]
    Path("my_head.py").write_text(CODE.replace("tanh(self", "(self"), encoding="utf-8")
    assert cached() == [False, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages",
    [
        "[{prune: {budget: 0.8}}, {export: {lean: true}}, quantize_static]",
        "[{distill: {epochs: 1}}, export]",
        "[{train_quantized: {steps: 5}}, export, quantize_static]",
        "[prune_weights, export]",
        "[quantize_neural_compressor]",
    ],
)
def test_every_stage_that_runs_a_checkpoint_takes_such_a_head(asked, silent, stages):
    Path("pipeline.yaml").write_text(f"target: cpu\nstages: {stages}\n", encoding="utf-8")

    few = {"calibration_examples": 32, "tuning_examples": 32}
    _, record = run(make_plan(asked(build_only=True, **few)), progress=silent)

    assert record.measurements == []
    assert [next(iter(each)) for each in record.request.stages] == [each.stage for each in record.stages]


def test_a_manifest_runs_nothing(asked, silent, tmp_path, optimize):
    folder, record = run(make_plan(asked(build_only=True)), progress=silent)
    Path("evil.py").write_text("open('was-run', 'w').close()\n", encoding="utf-8")
    code = record.request.head_code
    edited = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    edited["request"]["head_code"] |= {"file": "evil.py", "digest": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(edited), encoding="utf-8")

    assert optimize("report", str(folder)) == 0
    assert optimize("certify", str(folder)) == 2
    assert not Path("was-run").exists()
    assert code.file == "my_head.py"


@pytest.mark.parametrize(
    ("reference", "content", "message"),
    [
        ("gone.py:HEAD", None, r"gone\.py: No such file or directory; name the file that holds the head"),
        ("x.py", "", r"'x\.py' names no head in a file; write 'my_head\.py:HEAD'"),
        ("x.py:", "", r"'x\.py:' names no head in a file"),
        ("x.py:a.b", "", r"names no head in a file"),
        ("x.py:HEAD", "", r"x\.py: HEAD: is None and no Head"),
        ("x.py:HEAD", "HEAD = 5", r"x\.py: HEAD: is 5 and no Head"),
        ("x.py:HEAD", "def (", r"cannot be run \(SyntaxError: .*\); mend the file"),
        ("x.py:HEAD", "import nothing_of_the_kind", r"cannot be run \(ModuleNotFoundError: .*\); mend the file"),
        ("x.py:HEAD", CODE.replace('"mean-classification"', '"fill-mask"'), r"cannot be called 'fill-mask'"),
        ("x.py:HEAD", CODE.replace('"mean-classification"', '"../x"'), r"cannot be called '\.\./x'"),
        ("x.py:HEAD", CODE.replace("(DistilBertPreTrainedModel)", "(nn.Module)"), "is no DistilBertPreTrainedModel"),
        ("./:HEAD", None, "unknown name"),
        ("dir.py:HEAD", "/", r"dir\.py: Is a directory"),
    ],
)
def test_what_is_no_head_is_refused_in_one_line(tmp_path, monkeypatch, reference, content, message):
    monkeypatch.chdir(tmp_path)
    place = Path(reference.partition(":")[0])
    if content == "/":
        place.mkdir()
    elif content is not None:
        place.write_text(content, encoding="utf-8")

    with pytest.raises(OptimizeError, match=message) as refused:
        make_plan(Options(head=reference))
    assert "\n" not in str(refused.value)


def test_the_demo_has_no_such_head(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_head.py").write_text(CODE, encoding="utf-8")

    with pytest.raises(OptimizeError, match="the demo has no head 'mean-classification'"):
        make_plan(Options(head="my_head.py:HEAD"))
