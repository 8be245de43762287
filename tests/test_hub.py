from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import pytest
from hub_server import Hub, point_to, read_folder

from optimize import planning
from optimize.data.splits import Wanted, inspect_data, load_splits
from optimize.errors import DataError, SourceError, UnavailableError
from optimize.heads import HEADS
from optimize.source.acquire import acquire_checkpoint
from optimize.source.finding import inspect_checkpoint

HEAD = "text-classification"
MODEL = "tester/small"
REVIEWS = "tester/reviews"
NOWHERE = "http://127.0.0.1:9"
CARD = """---
dataset_info:
  features:
  - {name: text, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': Positive, '1': Negative}}}}
---
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages that the runs of this module share, so that only the first one builds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def files(checkpoint: Callable[[str], Path]) -> dict[str, bytes]:
    """The small checkpoint's files."""
    return read_folder(checkpoint(HEAD))


def reviews(data_folder: Callable[[str], Path], card: str = CARD) -> dict[str, bytes]:
    """The demo's reviews as a data set whose classes are numbered the other way round."""
    content = {"README.md": card.encode()}
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (data_folder(HEAD) / f"{split}.jsonl").read_text("utf-8").splitlines()]
        turned = ({**row, "label": 1 - row["label"]} for row in rows)
        content[f"{split}.jsonl"] = "".join(json.dumps(row) + "\n" for row in turned).encode()
    return content


def want(name: str, **changes: Any) -> Wanted:
    values = {"config": None, "columns": {}, "certify_on": None, "examples": 10, "calibration_examples": 4}
    return Wanted(data=name, tuning_examples=4, seed=0, **(values | changes))


FEW = ("--calibration-examples", "8", "--tuning-examples", "8")


def optimize(*arguments: str, hub: Hub, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own that knows no other Hub."""
    command = [sys.executable, "-m", "optimize", *arguments, "--out", str(home / "out")]
    environment = {**os.environ, **hub.environment(home / "home"), "XDG_CACHE_HOME": str(home)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "revision", [pytest.param(None, marks=pytest.mark.slow), "trial"], ids=["no revision", "a branch"]
)
def test_a_hub_id_is_built_end_to_end_and_its_commits_recorded(
    hub: Hub, files, data_folder, tmp_path: Path, cache: Path, revision: str | None
) -> None:
    commits = {None: hub.model(MODEL).commit(files)}
    commits["trial"] = hub.model(MODEL).commit({**files, "notes.md": b"on trial"}, branch="trial")
    rows = hub.dataset(REVIEWS).commit(reviews(data_folder))
    asked = ("--model", MODEL, "--data", REVIEWS, *(("--revision", revision) if revision else ()))

    done = optimize("run", *asked, "--cache", str(cache), *FEW, "--build-only", "--json", hub=hub, home=tmp_path)

    assert done.returncode == 4, done.stderr
    manifest = json.loads(done.stdout)
    assert (manifest["source"]["kind"], manifest["source"]["id"]) == ("hub", MODEL)
    assert manifest["source"]["revision"] == manifest["request"]["revision"] == commits[revision]
    assert manifest["request"]["data_revision"] == rows
    assert not any("notes.md" in request for request in hub.requests)
    about = tuple(
        f"{place}{name}/"
        for name in (MODEL, REVIEWS)
        for place in ("/", "/api/models/", "/datasets/", "/api/datasets/")
    )
    assert [request for request in hub.requests if not f"{request.split()[1]}/".startswith(about)] == []


def test_a_plan_downloads_no_weights_and_no_data(hub: Hub, files, data_folder, tmp_path: Path) -> None:
    commit = hub.model(MODEL).commit(files)
    hub.dataset(REVIEWS).commit(reviews(data_folder))

    done = optimize("plan", "--model", MODEL, "--data", REVIEWS, "--json", hub=hub, home=tmp_path)

    assert (done.returncode, json.loads(done.stdout)["revision"], done.stderr) == (0, commit, "")
    assert {request.rsplit("/")[-1] for request in hub.requests if "/resolve/" in request} == {"config.json"}


def sharded(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    from safetensors.torch import load, save_file

    weights = load(files["model.safetensors"])
    save_file(weights, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    places = dict.fromkeys(weights, "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": places}
    return {"model.safetensors.index.json": json.dumps(index).encode(), **read_folder(folder)}


def pickled(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    import torch
    from safetensors.torch import load

    torch.save(load(files["model.safetensors"]), folder / "pytorch_model.bin")
    return read_folder(folder)


@pytest.mark.parametrize("layout", [sharded, pickled])
def test_every_layout_of_weights_is_downloaded(here: Hub, files, tmp_path, silent, checkpoint, layout) -> None:
    (tmp_path / "weights").mkdir()
    rest = {name: content for name, content in files.items() if name != "model.safetensors"}
    commit = here.model(MODEL).commit({**rest, **layout(files, tmp_path / "weights"), "tf_model.h5": b"large"})
    local = inspect_checkpoint(str(checkpoint(HEAD)))

    found, head = inspect_checkpoint(MODEL)
    entry = acquire_checkpoint(found, head, root=tmp_path / "cache", seed=0, progress=silent)

    expected = acquire_checkpoint(*local, root=tmp_path / "cache", seed=0, progress=silent)
    assert (found.revision, entry.artifact.digest) == (commit, expected.artifact.digest)
    assert not any("tf_model.h5" in request for request in here.requests)


@pytest.mark.parametrize("save", [foreign.save_tensorflow_shards, foreign.save_flax])
def test_weights_of_other_libraries_are_downloaded_where_there_are_no_others(
    here: Hub, files, tmp_path, silent, checkpoint, save
) -> None:
    from safetensors.numpy import load

    (tmp_path / "weights").mkdir()
    save(load(files["model.safetensors"]), tmp_path / "weights")
    rest = {name: content for name, content in files.items() if name != "model.safetensors"}
    here.model(MODEL).commit({**rest, **read_folder(tmp_path / "weights"), "rust_model.ot": b"large"})

    entry = acquire_checkpoint(*inspect_checkpoint(MODEL), root=tmp_path / "cache", seed=0, progress=silent)

    local = inspect_checkpoint(str(checkpoint(HEAD)))
    expected = acquire_checkpoint(*local, root=tmp_path / "cache", seed=0, progress=silent)
    assert entry.artifact.digest == expected.artifact.digest
    assert not any("rust_model.ot" in request for request in here.requests)


def test_a_sealed_hub_model_names_no_folder_of_this_machine(here: Hub, files, tmp_path: Path, silent) -> None:
    here.model(MODEL).commit(files)

    entry = acquire_checkpoint(*inspect_checkpoint(MODEL), root=tmp_path / "cache", seed=0, progress=silent)

    texts = [path.read_text("utf-8") for path in entry.artifact.path.glob("*.json")]
    assert [text for text in texts if str(tmp_path) in text or here.address in text] == []


def test_classes_of_a_hub_data_set_are_matched_by_name(here: Hub, data_folder) -> None:
    here.dataset(REVIEWS).commit(reviews(data_folder))
    config = {"id2label": {"0": "negative", "1": "positive"}}

    splits = load_splits(want(REVIEWS), HEADS[HEAD], config)

    local = load_splits(want(str(data_folder(HEAD))), HEADS[HEAD], config)
    assert splits.certification == local.certification


def test_a_class_that_the_checkpoint_lacks_is_refused(here: Hub, data_folder) -> None:
    here.dataset(REVIEWS).commit(reviews(data_folder, CARD.replace("Positive", "Delighted")))

    with pytest.raises(DataError, match="label 'Delighted' is not in the checkpoint"):
        load_splits(want(REVIEWS), HEADS[HEAD], {"id2label": {"0": "negative", "1": "positive"}})


def test_data_are_read_at_the_commit_that_was_planned(here: Hub, data_folder) -> None:
    first = here.dataset(REVIEWS).commit(reviews(data_folder))
    commit = inspect_data(want(REVIEWS), HEADS[HEAD])
    here.dataset(REVIEWS).commit({"train.jsonl": b'{"text": "moved on", "label": 0}\n'})

    splits = load_splits(want(REVIEWS, revision=commit), HEADS[HEAD], {})

    assert commit == first
    assert splits.records["certification"].count == 10


def test_a_request_records_the_commits_and_leads_back_to_them(here: Hub, files, data_folder, tmp_path: Path) -> None:
    here.model(MODEL).commit(files)
    rows = here.dataset(REVIEWS).commit(reviews(data_folder))
    here.dataset(REVIEWS).commit({"train.jsonl": b"{}"})
    options = planning.Options(model=MODEL, data=REVIEWS, data_revision=rows, cache=tmp_path / "cache")

    made = planning.make_plan(options)

    assert (made.request.data_revision, made.wanted.revision) == (rows, rows)


MISSING: dict[str, tuple[dict[str, Any], str]] = {
    "no such model": ({"model": "tester/none"}, "tester/none: no such folder, and not on the Hub"),
    "no such branch": ({"model": MODEL, "revision": "gone"}, f"{MODEL}: has no revision 'gone'; check --revision"),
    "a gated model": ({"model": "tester/gated"}, "tester/gated: is gated; accept its terms"),
    "no such data": ({"model": MODEL, "data": "tester/none"}, "tester/none: no such folder, and not on the Hub"),
    "no such data commit": ({"model": MODEL, "data": REVIEWS, "data_revision": "gone"}, "has no revision 'gone'"),
    "gated data": ({"model": MODEL, "data": "tester/gated"}, "tester/gated: is gated; accept its terms"),
    "a model without config": ({"model": "tester/bare"}, "tester/bare: no config.json"),
    "a model without tokenizer": ({"model": "tester/mute"}, "tester/mute: no tokenizer.json"),
    "a config that is no JSON": ({"model": "tester/broken"}, "tester/broken/config.json: cannot be read"),
    "no name at all": ({"model": "no name"}, "no name: no such folder"),
}


@pytest.mark.parametrize(("asked", "says"), MISSING.values(), ids=MISSING)
def test_what_the_hub_lacks_is_refused_while_planning(here: Hub, files, data_folder, asked, says: str) -> None:
    here.model(MODEL).commit(files)
    here.dataset(REVIEWS).commit(reviews(data_folder))
    here.model("tester/gated").refuses = here.dataset("tester/gated").refuses = (403, "GatedRepo")
    here.model("tester/bare").commit({"model.safetensors": b"", "tokenizer.json": b""})
    here.model("tester/mute").commit({"config.json": b"{}", "model.safetensors": b""})
    here.model("tester/broken").commit({**files, "config.json": b"{"})

    with pytest.raises((SourceError, DataError)) as refused:
        planning.make_plan(planning.Options(**{"data": REVIEWS, **asked}))

    assert says in str(refused.value)
    assert (refused.value.exit_code, len(str(refused.value).splitlines())) == (2, 1)


def inspect_rows(name: str) -> object:
    return inspect_data(want(name), HEADS[HEAD])


@pytest.mark.parametrize("inspect", [inspect_checkpoint, inspect_rows])
@pytest.mark.parametrize(
    ("down", "says"), [("refuses connections", "cannot be reached"), ("answers 503", "is out of order")]
)
def test_a_hub_that_is_down_is_no_fault_of_the_request(here: Hub, monkeypatch, down: str, says: str, inspect) -> None:
    here.model("tester/away").refuses = here.dataset("tester/away").refuses = (503, "Unavailable")
    if down == "refuses connections":
        point_to(NOWHERE, monkeypatch)

    with pytest.raises(UnavailableError, match=f"tester/away: no such folder, and the Hub {says}") as refused:
        inspect("tester/away")

    assert (refused.value.exit_code, len(str(refused.value).splitlines())) == (3, 1)


def test_a_model_that_goes_away_before_the_download_is_named(here: Hub, files, monkeypatch, tmp_path, silent) -> None:
    here.model(MODEL).commit(files)
    found, head = inspect_checkpoint(MODEL)
    point_to(NOWHERE, monkeypatch)

    with pytest.raises(UnavailableError, match=f"{MODEL}: no such folder, and the Hub cannot be reached"):
        acquire_checkpoint(found, head, root=tmp_path / "cache", seed=0, progress=silent)


def test_data_that_go_away_before_the_download_are_named(here: Hub, data_folder, monkeypatch, tmp_path) -> None:
    here.dataset(REVIEWS).commit(reviews(data_folder))
    commit = inspect_data(want(REVIEWS), HEADS[HEAD])
    point_to(NOWHERE, monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub waits between its attempts

    with pytest.raises(UnavailableError, match=f"{REVIEWS}: no such folder, and the Hub cannot be reached"):
        load_splits(want(REVIEWS, revision=commit), HEADS[HEAD], {})


def test_an_unknown_configuration_of_a_data_set_is_refused(here: Hub, data_folder) -> None:
    here.dataset(REVIEWS).commit(reviews(data_folder))

    with pytest.raises(DataError, match=f"{REVIEWS}: cannot be loaded .*'sst2'.*--data-config"):
        load_splits(want(REVIEWS, config="sst2"), HEADS[HEAD], {})


def test_a_missing_model_is_one_line_from_outside(hub: Hub, tmp_path: Path) -> None:
    done = optimize("run", "--model", "tester/none", "--data", "x", hub=hub, home=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("optimize: tester/none: no such folder, and not on the Hub")
    assert done.stderr.count("\n") == 1


def test_a_hub_that_is_down_is_one_line_and_an_exit_code_of_its_own(tmp_path: Path) -> None:
    done = optimize("run", "--model", MODEL, "--data", "x", hub=Hub(NOWHERE), home=tmp_path)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"optimize: {MODEL}: no such folder, and the Hub cannot be reached")
    assert done.stderr.count("\n") == 1


def test_a_sentence_encoder_comes_with_its_modules_wherever_they_lie(
    here: Hub, encoder_folder, tmp_path, silent
) -> None:
    dense = {"in_features": 128, "out_features": 16}
    folder = encoder_folder(("Dense", dense), ("Normalize", {}), transformer="0_Transformer")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    here.model("sbert/small").commit({**files, "0_Transformer/onnx/model.onnx": b"another model"})
    sealed = []
    for model in ("sbert/small", str(folder)):
        found, head = inspect_checkpoint(model)
        assert head.outputs == ("sentence_embedding",)
        sealed.append(acquire_checkpoint(found, head, root=tmp_path / "cache", seed=0, progress=silent).artifact)

    assert sealed[0].digest == sealed[1].digest
