"""Several runs in one publication: where the Hub's readers look for them, and what is read back of each."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest
import yaml
from finished import measured_run
from publishing.conftest import contents

import optimize
from optimize import manifest
from optimize.errors import RequestError
from optimize.publishing.checksums import CHECKSUMS, write_checksums
from optimize.publishing.destinations.interface import Terms
from optimize.publishing.fetching import fetch, fetch_all
from optimize.publishing.publish import publish
from optimize.publishing.variants import variant_names
from optimize.publishing.verifying import verify
from optimize.report.graph_names import graph_name

HEAD = "token-classification"  # its few training steps are enough to know more than one tag for every word
PIPELINES = {
    "dynamic": "target: cpu\nstages: [export, quantize_dynamic: {reduce_range: true}]\ngates: {max_size_ratio: 0.5}\n",
    "plain": "target: cpu\nstages: [export]\ngates: {max_size_ratio: 1.1}\n",
    "openvino": "target: openvino\nstages: [export, convert_openvino]\ngates: {max_size_ratio: 1.1}\n",
    "pruned": "target: cpu\nstages: [prune: {budget: 0.7}, export]\ngates: {max_size_ratio: 1.1}\n",
}
PAIR = ("model_qint8_avx2", "openvino_model")


@pytest.fixture(scope="module")
def passed(checkpoint, data_folder, tmp_path_factory):
    """A run folder by the name of its pipeline; not to be written to."""
    place = tmp_path_factory.mktemp("runs")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = measured_run(place, name, PIPELINES[name], model=checkpoint(HEAD), data=data_folder(HEAD))
        return made[name]

    return make


@pytest.fixture
def pair(passed, tmp_path) -> Path:
    """A publication of an ONNX and an OpenVINO model; it may be changed."""
    publish([passed("dynamic"), passed("openvino")], str(tmp_path / "both"))
    return tmp_path / "both"


def test_graphs_lie_where_the_hubs_readers_look_and_the_rest_once(pair, passed):
    found = contents(pair)

    assert found["onnx/model_qint8_avx2.onnx"] == (passed("dynamic") / "model" / "model.onnx").read_bytes()
    for suffix in (".xml", ".bin"):
        assert (
            found[f"openvino/openvino_model{suffix}"]
            == (passed("openvino") / "model" / f"openvino_model{suffix}").read_bytes()
        )
    assert {name for name in found if "/" not in name} == {
        "README.md", CHECKSUMS, "config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert {name.split("/")[1] for name in found if name.startswith("variants/")} == set(PAIR)


@pytest.mark.parametrize(("name", "pipeline"), list(zip(PAIR, ("dynamic", "openvino"), strict=True)))
def test_each_is_read_as_if_it_had_been_published_alone(name, pipeline, pair, passed):
    folder = fetch(f"{pair}#{name}")

    assert manifest.read(folder).id == manifest.read(passed(pipeline)).id
    model = contents(passed(pipeline) / "model")
    assert {file: content for file, content in contents(folder).items() if file in model} == model
    assert {each.outcome for each in verify(str(folder))} == {"proven", "not proven"}
    texts = ["a fine film", "a bad one"]
    assert optimize.load(f"{pair}#{name}")(texts) == optimize.load(passed(pipeline))(texts)


def test_the_whole_is_verified_with_the_models_by_their_names(pair):
    findings = verify(str(pair))

    assert [each.outcome for each in findings if each.what == "signature"] == ["not proven"]
    assert {each.outcome for each in findings if each.what != "signature"} == {"proven"}
    for name in PAIR:
        assert [each.what for each in findings if each.words.startswith(f"{name}: ")] == [
            "model", "verdict", "provenance", "bill of materials",
        ]  # fmt: skip


def test_the_card_names_each_with_its_scores_and_how_readers_name_it(pair):
    text = (pair / "README.md").read_text(encoding="utf-8")
    data = yaml.safe_load(text.split("---")[1])

    names = [each["name"] for each in data["model-index"][0]["results"][0]["metrics"]]
    assert [each.partition(" ")[2] for each in names] == [f"({name})" for name in PAIR]
    assert {"onnx", "openvino", "int8"} <= set(data["tags"])
    assert 'subfolder="onnx", file_name="model_qint8_avx2.onnx"' in text
    assert 'model_file_name: "model_qint8_avx2"' in text
    for name in PAIR:
        card = (pair / "variants" / name / "README.md").read_text(encoding="utf-8")
        assert f'optimize.load("PATH#{name}")' in card
        assert "PATH/model.onnx" not in card


def test_no_file_names_a_folder_of_the_machine_that_made_it(pair, passed, tmp_path_factory):
    for name, content in contents(pair).items():
        assert str(tmp_path_factory.getbasetemp().parent).encode() not in content, name
        assert str(Path.home()).encode() + b"/" not in content, name


def test_the_same_again_changes_nothing(pair, passed):
    before = contents(pair)
    publish([passed("dynamic"), passed("openvino")], str(pair))
    assert contents(pair) == before


def test_the_command_takes_runs_and_then_the_destination(passed, optimize, tmp_path, capsys):
    assert optimize("publish", str(passed("dynamic")), str(passed("plain")), str(tmp_path / "out")) == 0
    assert capsys.readouterr().out == f"published to {tmp_path / 'out'}\n"
    assert optimize("verify", str(tmp_path / "out")) == 0
    assert "model: proven: model: is the one" in capsys.readouterr().out


def test_one_of_several_has_to_be_named(pair):
    with pytest.raises(RequestError, match=r"has several models \(model_qint8_avx2, openvino_model\); name one"):
        fetch(str(pair))


@pytest.mark.parametrize(
    ("name", "words"), [("model_fp16", "model: unknown name 'model_fp16'"), ("model_qint8_avx", "model_qint8_avx2")]
)
def test_a_name_that_is_not_there_is_refused_with_those_that_are(name, words, pair):
    with pytest.raises(RequestError, match=words):
        fetch(f"{pair}#{name}")


def test_a_single_model_has_no_name(passed, tmp_path):
    publish(passed("plain"), str(tmp_path / "one"))
    with pytest.raises(RequestError, match="holds one model, which has no name; leave out '#model'"):
        fetch(f"{tmp_path / 'one'}#model")


def test_a_folder_whose_own_name_looks_so_is_that_folder(passed, tmp_path):
    publish(passed("plain"), str(tmp_path / "one#model"))
    assert fetch(str(tmp_path / "one#model")) == tmp_path / "one#model"


def test_verifying_takes_the_whole(pair):
    with pytest.raises(RequestError, match="is checked whole; leave out '#openvino_model'"):
        verify(f"{pair}#openvino_model")


def test_a_file_that_is_of_no_model_is_wrong(pair):
    (pair / "onnx" / "model_other.onnx").write_bytes(b"graph")
    write_checksums(pair)
    wrong = [each.words for each in verify(str(pair)) if each.outcome == "wrong"]
    assert wrong == ["'onnx/model_other.onnx' is of none of its models"]


def test_a_swapped_graph_is_refused(pair):
    graph = pair / "onnx" / "model_qint8_avx2.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    write_checksums(pair)
    with pytest.raises(RequestError, match=r"its 'model\.onnx' is nowhere in the publication"):
        fetch(f"{pair}#model_qint8_avx2")


def test_checksums_that_lead_out_are_refused(pair):
    sums = pair / "variants" / "openvino_model" / CHECKSUMS
    sums.write_text(sums.read_text().replace("  config.json", "  ../config.json"))
    write_checksums(pair)
    with pytest.raises(RequestError, match="which is not a place below it"):
        fetch(f"{pair}#openvino_model")


def test_checksums_that_name_one_file_many_times_are_refused(pair):
    sums = pair / "variants" / "openvino_model" / CHECKSUMS
    (weights,) = (line for line in sums.read_text().splitlines() if line.endswith("  openvino_model.bin"))
    sums.write_text("".join(f"{weights}{count}\n" for count in range(50)))
    write_checksums(pair)
    with pytest.raises(RequestError, match="names more than the publication holds"):
        fetch(f"{pair}#openvino_model")


def test_two_of_one_form_are_refused(passed, tmp_path):
    other = Path(shutil.copytree(passed("plain"), tmp_path / "other"))
    with pytest.raises(RequestError, match="is 'model', as another of the models is"):
        publish([passed("plain"), other], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_models_of_other_shapes_are_refused(passed, tmp_path):
    with pytest.raises(RequestError, match=r"its config\.json is not the one of the models before it"):
        publish([passed("dynamic"), passed("pruned")], str(tmp_path / "out"))


def test_layouts_for_servers_hold_one(passed, tmp_path):
    with pytest.raises(RequestError, match="--layout triton: holds one model"):
        publish([passed("dynamic"), passed("plain")], str(tmp_path / "out"), layout="triton")


# One added to those that are there.

PLACES = {"folder": "{}/there", "archive": "{}/there.tar.zst", "store": "memory://added/{}", "hub": "hf://me/added"}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address of each kind."""
    if request.param == "hub":
        request.getfixturevalue("here")
    return PLACES[request.param].format(tmp_path)


def test_one_that_is_added_makes_what_publishing_all_at_once_does(place, pair, passed):
    publish(passed("openvino"), place)
    publish(passed("dynamic"), place, add=True)
    assert contents(fetch_all(place)) == contents(pair)

    publish(passed("plain"), place, add=True)
    assert {each.outcome for each in verify(place) if each.what != "signature"} == {"proven"}
    assert variant_names(fetch_all(place)) == sorted([*PAIR, "model"])
    for name, content in contents(pair).items():
        if name.startswith("variants/"):
            assert (fetch_all(place) / name).read_bytes() == content


def test_the_same_run_added_again_changes_nothing(passed, pair):
    before = contents(pair)
    publish(passed("openvino"), str(pair), add=True)
    assert contents(pair) == before


def test_what_clashes_is_not_added(passed, pair, tmp_path):
    before = contents(pair)
    with pytest.raises(RequestError, match=r"its config\.json is not the one of the models before it"):
        publish(passed("pruned"), str(pair), add=True)

    other = Path(shutil.copytree(passed("dynamic"), tmp_path / "other"))
    record = manifest.read(other)
    manifest.write(record.model_copy(update={"created": "2020-01-01T00:00:00+00:00"}), other)
    with pytest.raises(RequestError, match="other: is 'model_qint8_avx2', as another of the models is"):
        publish(other, str(pair), add=True)
    assert contents(pair) == before


def test_nothing_is_added_to_what_is_wrong_or_not_there(passed, pair, tmp_path):
    with pytest.raises(RequestError, match="no such folder"):
        publish(passed("plain"), str(tmp_path / "nothing"), add=True)
    with pytest.raises(RequestError, match="is a run, not a publication"):
        publish(passed("plain"), str(passed("dynamic")), add=True)
    with pytest.raises(RequestError, match="--replace: lets go what is there, and --add keeps it"):
        publish(passed("plain"), str(pair), Terms(replace=True), add=True)
    (pair / "config.json").write_text("{}")
    with pytest.raises(RequestError, match=r"'config\.json' is not what its SHA256SUMS says"):
        publish(passed("plain"), str(pair), add=True)


def test_an_edited_earlier_model_is_not_carried_on(passed, pair):
    edited = manifest.read(pair / "variants" / PAIR[0])
    manifest.write(edited.model_copy(update={"id": "00000000"}), pair / "variants" / PAIR[0])
    sums = pair / "variants" / PAIR[0] / CHECKSUMS
    digest = hashlib.sha256((sums.parent / manifest.FILE).read_bytes()).hexdigest()
    sums.write_text(re.sub(rf"[0-9a-f]{{64}}  {manifest.FILE}", f"{digest}  {manifest.FILE}", sums.read_text()))
    write_checksums(pair)
    with pytest.raises(RequestError, match=r"#model_qint8_avx2: provenance: .*; publish its run again"):
        publish(passed("plain"), str(pair), add=True)


@pytest.mark.parametrize(
    ("facts", "features", "dtypes", "expected"),
    [
        ({"reduce_range": False}, ["avx512_vnni", "avx2"], {"int8": 9}, "onnx/model_static_qint8_avx512_vnni.onnx"),
        ({"reduce_range": True}, ["avx512_vnni", "avx2"], {"int8": 9}, "onnx/model_static_qint8_avx2.onnx"),
        ({"reduce_range": False}, ["asimddp"], {"uint8": 9, "int8": 1}, "onnx/model_static_quint8_arm64.onnx"),
        ({}, [], {"float16": 9, "float32": 1}, "onnx/model_fp16.onnx"),
        ({}, [], {"float32": 1}, "onnx/model.onnx"),
    ],
)
def test_names_say_the_type_of_weights_and_the_cpu(facts, features, dtypes, expected, passed):
    record = manifest.read(passed("plain"))
    last = record.measurements[-1]
    last = last.model_copy(update={"size": last.size.model_copy(update={"by_dtype": dtypes})})
    stage = record.stages[-1].model_copy(update={"stage": "quantize_static" if facts else "export", "facts": facts})
    environment = record.environment.model_copy(update={"features": features})
    changed = record.model_copy(
        update={"measurements": [*record.measurements[:-1], last], "stages": [stage], "environment": environment}
    )
    assert str(graph_name(changed)) == expected
