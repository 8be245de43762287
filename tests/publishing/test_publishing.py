from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from doubles import FEW, FEW_RUNS, LOOSE, Silent, untimed_engines

import optimize
from optimize import manifest, running
from optimize.checkpoint import encoder_layers, size_of
from optimize.cli import commands
from optimize.config import parse_gates
from optimize.errors import RequestError
from optimize.gates import judge
from optimize.measure import subjects
from optimize.planning import Options, make_plan
from optimize.publishing.checksums import CHECKSUMS, write_checksums
from optimize.publishing.destinations.interface import Terms
from optimize.publishing.fetching import fetch
from optimize.publishing.provenance import BOM, STATEMENT
from optimize.publishing.publish import publish
from optimize.publishing.verifying import verify
from optimize.report.card import render_card
from optimize.report.paths import without_paths
from optimize.running import run

HEAD = "token-classification"  # its few training steps are enough to know more than one tag for every word


@pytest.fixture(scope="module")
def request_of(checkpoint, data_folder, tmp_path_factory) -> Callable[..., Options]:
    place = tmp_path_factory.mktemp("work")

    def make(head: str, **changes) -> Options:
        places = {"out": place / "runs", "cache": place / "cache", **FEW}
        model, data = str(checkpoint(head)), str(data_folder(head))
        return Options(model=model, data=data, examples=40, shapes=("1x16",), threads=1, **places, **changes)

    return make


@pytest.fixture(scope="module")
def passed(request_of, tmp_path_factory) -> Path:
    """A run folder whose lenient limits are met; not to be written to."""
    path = tmp_path_factory.mktemp("pipeline") / "lenient.yaml"
    path.write_text("target: cpu\nstages: [export, quantize_dynamic]\ngates: {max_size_ratio: 0.5}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "Settings", FEW_RUNS)
        return run(make_plan(request_of(HEAD, pipeline=str(path))), progress=Silent())[0]


@pytest.fixture
def copy(passed, tmp_path) -> Path:
    """The same run folder, to be written to."""
    return Path(shutil.copytree(passed, tmp_path / "run"))


@pytest.fixture(scope="module")
def built(request_of) -> Callable[[str], Path]:
    """The model folder of a head's run with the shipped pipeline; made once."""

    @cache
    def make(head: str) -> Path:
        return run(make_plan(request_of(head, build_only=True, settings=LOOSE)), progress=Silent())[0] / "model"

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_publication_holds_the_model_the_card_and_the_evidence(passed, tmp_path):
    publish(passed, str(tmp_path / "out"))

    published = contents(tmp_path / "out")
    model = contents(passed / "model")
    assert set(published) == {*model, "README.md", "manifest.json", STATEMENT, BOM, CHECKSUMS}
    assert {name: published[name] for name in model} == model
    assert published["manifest.json"].decode() == manifest.dump(without_paths(manifest.read(passed)))
    assert published["README.md"].decode() == render_card(manifest.read(passed))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_and_its_publication_are_fetched_as_they_are(passed, tmp_path):
    publish(passed, str(tmp_path / "out"))

    assert fetch(str(passed)) == passed
    assert fetch(str(tmp_path / "out")) == tmp_path / "out"


def test_a_publication_carries_the_pictures_that_its_card_shows(copy, tmp_path):
    record = manifest.read(copy)
    gates = {**record.request.gates, "speedup_shape": "1x16"}
    manifest.write(record.model_copy(update={"request": replace(record.request, gates=gates)}), copy)

    publish(copy, str(tmp_path / "out"))

    published = contents(tmp_path / "out")
    assert published["overview.png"].startswith(b"\x89PNG")
    assert b"](overview.png)" in published["README.md"]
    assert b"  overview.png\n" in published[CHECKSUMS]


def test_the_checksums_are_those_of_all_other_files(passed, tmp_path):
    publish(passed, str(tmp_path / "out"))

    published = contents(tmp_path / "out")
    lines = published.pop(CHECKSUMS).decode().splitlines()
    stated = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert stated == {name: hashlib.sha256(content).hexdigest() for name, content in published.items()}


def test_publishing_again_to_the_same_place_changes_nothing(passed, tmp_path):
    publish(passed, str(tmp_path / "out"))
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "out").iterdir()}

    publish(passed, str(tmp_path / "out"))

    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(passed, tmp_path):
    (tmp_path / "out").mkdir()

    publish(passed, str(tmp_path / "out"))

    assert (tmp_path / "out" / CHECKSUMS).is_file()


@pytest.mark.parametrize("outcome", ["failed", "unverified"])
def test_only_a_passed_run_is_published(outcome, copy, tmp_path):
    record = manifest.read(copy)
    verdict = record.verdict.model_copy(update={"outcome": outcome})
    manifest.write(record.model_copy(update={"verdict": verdict}), copy)

    with pytest.raises(RequestError, match=f"its verdict is {outcome}"):
        publish(copy, str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "extra.txt"])
def test_a_model_that_was_tampered_with_is_refused(name, copy, tmp_path):
    with (copy / "model" / name).open("ab") as stream:
        stream.write(b" ")

    with pytest.raises(RequestError, match="is not what the manifest says"):
        publish(copy, str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_with_other_content_is_refused_and_left_alone(passed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(RequestError, match="has other content"):
        publish(passed, str(tmp_path / "out"))
    assert contents(tmp_path) == {"out/notes.txt": b"mine"}


@pytest.mark.parametrize("change", ["model.onnx", "notes.txt"])
def test_a_publication_that_was_changed_is_refused_and_left_alone(change, passed, tmp_path):
    publish(passed, str(tmp_path / "out"))
    (tmp_path / "out" / change).write_bytes(b"changed")
    before = contents(tmp_path)

    with pytest.raises(RequestError, match="has other content"):
        publish(passed, str(tmp_path / "out"))
    assert contents(tmp_path) == before


def test_a_destination_that_is_a_file_is_refused_and_left_alone(passed, tmp_path):
    (tmp_path / "out").write_text("mine", encoding="utf-8")

    with pytest.raises(RequestError, match="out: is not a folder"):
        publish(passed, str(tmp_path / "out"))
    assert contents(tmp_path) == {"out": b"mine"}


def test_an_interrupted_publication_leaves_nothing(passed, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optimize.publishing.destinations.folder.shutil.copytree", interrupted)

    with pytest.raises(KeyboardInterrupt):
        publish(passed, str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_the_command_publishes_and_says_where(passed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["optimize", "publish", str(passed), str(tmp_path / "deep" / "out")])

    with pytest.raises(SystemExit) as stopped:
        commands.main()

    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"published to {tmp_path / 'deep' / 'out'}\n"
    assert (tmp_path / "deep" / "out" / CHECKSUMS).is_file()


@pytest.fixture(scope="module")
def pruned(request_of, tmp_path_factory) -> Path:
    """A run folder of a pruned model that passed; not to be written to."""
    path = tmp_path_factory.mktemp("pipeline") / "pruned.yaml"
    path.write_text(
        "target: cpu\nstages: [prune: {neuron_multiple: 8}, export, quantize_dynamic]\ngates: {max_size_ratio: 0.5}\n",
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subjects, "measure_latency", untimed_engines)
        return run(make_plan(request_of(HEAD, pipeline=str(path))), progress=Silent())[0]


def test_a_pruned_checkpoint_is_published_beside_the_model_and_loads_there(pruned, tmp_path):
    publish(pruned, str(tmp_path / "out"))

    model = optimize.load_model(tmp_path / "out" / "checkpoint")
    rows = next(record.facts["layers"] for record in manifest.read(pruned).stages if record.stage == "prune")
    assert [(size.heads, size.neurons) for size in map(size_of, encoder_layers(model))] == [
        (row["heads"], row["neurons"]) for row in rows
    ]
    assert "checkpoint/model.safetensors" in (tmp_path / "out" / CHECKSUMS).read_text(encoding="utf-8")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert 'optimize.load_model("PATH/checkpoint")' in card
    assert "![" in card.split("layers.png")[0].splitlines()[-1]


def test_the_same_publication_twice_sees_a_checkpoint_that_was_changed(pruned, tmp_path):
    publish(pruned, str(tmp_path / "out"))
    publish(pruned, str(tmp_path / "out"))
    (tmp_path / "out" / "checkpoint" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RequestError, match="has other content"):
        publish(pruned, str(tmp_path / "out"))


def test_a_checkpoint_that_is_not_the_runs_is_not_published(pruned, tmp_path):
    copied = Path(shutil.copytree(pruned, tmp_path / "run"))
    (copied / "checkpoint" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RequestError, match="checkpoint: is not what the manifest says"):
        publish(copied, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_report_is_rendered_again_from_the_manifest(copy, optimize, capsys):
    before = (copy / "report.md").read_bytes()
    (copy / "report.md").write_text("gone", encoding="utf-8")

    assert optimize("report", str(copy), "--json") == 0

    written = json.loads(capsys.readouterr().out)["written"]
    assert (copy / "report.md").read_bytes() == before
    assert str(copy / "report.md") in written
    assert not (copy / "card.md").exists()


def test_a_card_can_be_rendered_beside_the_report(copy, optimize, tmp_path):
    publish(copy, str(tmp_path / "out"))

    assert optimize("report", str(copy), "--card", "-q") == 0

    assert (copy / "card.md").read_bytes() == (tmp_path / "out" / "README.md").read_bytes()


def test_a_publication_is_not_rendered_again(copy, optimize, tmp_path, capsys):
    publish(copy, str(tmp_path / "out"))
    before = contents(tmp_path / "out")

    assert optimize("report", str(tmp_path / "out")) == 2

    assert "is a publication" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before


def test_what_was_published_can_be_had_as_json(copy, optimize, tmp_path, capsys):
    assert optimize("publish", str(copy), str(tmp_path / "out"), "--json") == 0

    files = json.loads(capsys.readouterr().out)["files"]
    assert files["manifest.json"] == hashlib.sha256((tmp_path / "out" / "manifest.json").read_bytes()).hexdigest()


def outcomes(where: object, **more) -> dict[str, str]:
    return {each.what: each.outcome for each in verify(str(where), **more)}


def test_all_of_a_publication_is_proven_but_who_made_it(passed, tmp_path):
    publish(passed, str(tmp_path / "out.tar.zst"))

    found = outcomes(tmp_path / "out.tar.zst")
    assert found.pop("signature") == "not proven"
    assert set(found.values()) == {"proven"}


def test_no_file_of_ours_names_a_place_of_this_machine(passed, tmp_path):
    publish(passed, str(tmp_path / "out"))

    places = (str(passed.parent), str(Path.home()), str(Path.cwd()), str(tmp_path))
    ours = [tmp_path / "out" / name for name in ("README.md", "manifest.json", STATEMENT, BOM, CHECKSUMS)]
    assert [(path, place) for path in ours for place in places if place in path.read_text(encoding="utf-8")] == []


def rewrite(folder: Path, name: str, change: Callable[[dict], None]) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    change(content)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / CHECKSUMS).unlink()
    write_checksums(folder)


WRONG = {
    "another source": (STATEMENT, lambda it: it["predicate"]["runDetails"]["metadata"].update(x=1), "provenance"),
    "no provenance at all": (STATEMENT, lambda it: it.clear(), "provenance"),
    "another bill": (BOM, lambda it: it["components"].pop(), "bill of materials"),
    "another measurement": ("manifest.json", lambda it: it["measurements"][-1]["size"].update(ratio=0.1), "verdict"),
    "another model": ("config.json", lambda it: it.update(x=1), "model"),
}


@pytest.mark.parametrize(("name", "change", "what"), WRONG.values(), ids=WRONG)
def test_what_does_not_follow_is_wrong_though_its_checksums_are_right(name, change, what, passed, tmp_path):
    publish(passed, str(tmp_path / "out"))
    rewrite(tmp_path / "out", name, change)
    assert outcomes(tmp_path / "out")[what] == "wrong"


def keys(folder: Path) -> tuple[Path, Path]:
    """A private and a public key, in PEM."""
    made = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "key.pem", folder / "key.pub"
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(made.private_bytes(*plain))
    public.write_bytes(made.public_key().public_bytes(plain[0], serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_signature_is_of_all_files_and_of_one_key(passed, tmp_path):
    private, public = keys(tmp_path)
    (tmp_path / "more").mkdir()
    publish(passed, str(tmp_path / "out"), sign_key=private)

    assert outcomes(tmp_path / "out", key=public)["signature"] == "proven"
    assert outcomes(tmp_path / "out", key=keys(tmp_path / "more")[1])["signature"] == "wrong"
    publish(passed, str(tmp_path / "plain"))
    assert outcomes(tmp_path / "plain", key=public)["signature"] == "wrong"
    rewrite(tmp_path / "out", BOM, lambda it: it.update(version=2))
    assert outcomes(tmp_path / "out", key=public)["signature"] == "wrong"


def test_the_bill_of_materials_is_valid(passed, tmp_path):
    publish(passed, str(tmp_path / "out"))

    text = (tmp_path / "out" / BOM).read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_an_unverified_run_is_published_only_if_asked_and_its_card_says_so(copy, tmp_path):
    record = manifest.read(copy)
    gates = {**record.request.gates, "min_speedup": 1.0, "speedup_shape": "7x7"}
    record = record.model_copy(update={"request": replace(record.request, gates=gates)})
    verdict = judge(parse_gates(gates, "cpu", where="gates"), record.measurements[-1])
    manifest.write(record.model_copy(update={"verdict": verdict}), copy)
    assert verdict.outcome == "unverified"

    with pytest.raises(RequestError, match="its verdict is unverified"):
        publish(copy, str(tmp_path / "out"))
    publish(copy, str(tmp_path / "out"), unverified=True)

    assert "**Not verified**" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert outcomes(tmp_path / "out")["verdict"] == "not proven"


def test_a_term_that_means_nothing_there_is_refused(passed, tmp_path):
    with pytest.raises(RequestError, match="--public: means nothing for"):
        publish(passed, str(tmp_path / "out"), Terms(public=True))


def test_the_command_says_what_is_proven_and_ends_with_2_where_something_is_wrong(passed, tmp_path, optimize, capsys):
    assert optimize("publish", str(passed), str(tmp_path / "out")) == 0
    capsys.readouterr()
    assert optimize("verify", str(tmp_path / "out")) == 0
    assert "model: proven: is the one that manifest.json says was judged" in capsys.readouterr().out
    rewrite(tmp_path / "out", BOM, lambda it: it.update(version=2))
    assert optimize("verify", str(tmp_path / "out")) == 2
    assert "bill of materials: bom.cdx.json is not what follows" in capsys.readouterr().err


def test_a_layout_arranges_the_publication_and_its_checksums_hold_what_is_there(passed, optimize, tmp_path):
    assert optimize("publish", str(passed), str(tmp_path / "out"), "--layout", "kserve", "-q") == 0

    published = contents(tmp_path / "out")
    assert published["kserve/model/model.onnx"] == (passed / "model" / "model.onnx").read_bytes()
    assert not {"model.onnx", "config.json"} & set(published)
    assert "mlserver start PATH/kserve/model" in published["README.md"].decode().split("## Use")[1]
    assert {line.split("  ")[1] for line in published[CHECKSUMS].decode().splitlines()} == set(published) - {CHECKSUMS}
    assert fetch(str(tmp_path / "out")) == tmp_path / "out", "it is verified as it is"
    assert outcomes(tmp_path / "out")["model"] == "proven"


def test_a_graph_that_was_not_judged_is_seen_in_a_layout_and_an_archive_is_not_said_to_be_proven(passed, tmp_path):
    publish(passed, str(tmp_path / "out"), layout="kserve")
    publish(passed, str(tmp_path / "packed"), layout="sagemaker")
    (tmp_path / "out" / "kserve" / "model" / "model.onnx").write_bytes(b"another")
    (tmp_path / "out" / CHECKSUMS).unlink()
    write_checksums(tmp_path / "out")

    assert outcomes(tmp_path / "out")["model"] == "wrong"
    assert outcomes(tmp_path / "packed")["model"] == "not proven"


def test_a_layout_that_cannot_hold_the_model_is_refused_before_anything_is_written(passed, optimize, tmp_path, capsys):
    assert optimize("publish", str(passed), str(tmp_path / "out"), "--layout", "ovms") == 2

    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_every_layout(optimize, capsys):
    from optimize.publishing.layouts import LAYOUTS

    assert optimize("publish", "--help") == 0

    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in LAYOUTS)
