"""How each layout arranges a model, and what it refuses before anything is written; the slow tests serve them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import tarfile

import pytest
import yaml
from report.conftest import STAGES
from served import record_of

from optimize.errors import RequestError
from optimize.publishing.layouts import DEFAULT, LAYOUTS, find_layout
from optimize.publishing.layouts.layout import check_layout, model_name
from optimize.runtimes.openvino import load_openvino

HEAD = "text-classification"
SERVED = ("kserve", "sagemaker", "triton", "vertex")
OWN_FOLDER = {"kserve": "kserve", "ovms": "ovms", "sagemaker": "sagemaker", "triton": "triton", "vertex": "vertex"}


def stage(name: str):
    return {**STAGES[-1], "stage": name, "artifact": {**STAGES[-1]["artifact"], "kind": "openvino"}}


@pytest.mark.parametrize(
    ("layout", "head", "kind", "why"),
    [
        ("transformers.js", HEAD, "openvino", "cannot hold a model in openvino; run a pipeline of target cpu or cuda"),
        ("transformers.js", "multiple-choice", "onnx", "cannot hold the head 'multiple-choice'"),
        ("triton", HEAD, "openvino", "cannot hold a model in openvino"),
        ("ovms", HEAD, "onnx", "cannot hold a model in onnx; run a pipeline of target openvino"),
        ("ovms", "question-answering", "openvino", "cannot hold the head 'question-answering'"),
        ("ovms", HEAD, "openvino", "put 'attach_tokenizer' at the end"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused_in_a_line(layout, head, kind, why):
    with pytest.raises(RequestError, match=f"^--layout {layout}: .*{why}"):
        check_layout(layout, LAYOUTS[layout], record_of(head, kind))


@pytest.mark.parametrize("layout", ["kserve", "sagemaker", "vertex"])
def test_a_model_for_texts_of_some_lengths_is_not_served(layout):
    with pytest.raises(RequestError, match="leave 'reshape_openvino' out of the pipeline"):
        check_layout(layout, LAYOUTS[layout], record_of(HEAD, "openvino", stage("reshape_openvino")))
    check_layout(layout, LAYOUTS[layout], record_of(HEAD, "openvino"))


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {DEFAULT}))
def test_a_head_of_the_users_own_goes_into_the_usual_layout_alone(layout):
    from optimize.request import HeadCode

    code = HeadCode("heads.py", "HEAD", "0" * 64, ("logits",), "first token", (), ("batch", "sequence"), ("A.",))
    record = record_of(HEAD)
    record = record.model_copy(update={"request": dataclasses.replace(record.request, head="stars", head_code=code)})

    with pytest.raises(RequestError, match="'stars', a head of your own; take the layout 'optimum'"):
        check_layout(layout, LAYOUTS[layout], record)
    check_layout(DEFAULT, LAYOUTS[DEFAULT], record)


def test_a_layout_that_nobody_knows_is_refused_with_the_nearest():
    with pytest.raises(RequestError, match="did you mean 'triton'"):
        find_layout("tritn")


def test_the_usual_layout_leaves_every_file_where_it_is(arranged):
    names = {path.name for path in arranged(DEFAULT, HEAD).iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json"} <= names


@pytest.mark.parametrize("layout", SERVED)
def test_a_server_has_a_folder_of_its_own_with_a_readme(layout, arranged):
    folder = arranged(layout, HEAD)

    assert [path.name for path in folder.iterdir()] == [OWN_FOLDER[layout]]
    text = (folder / OWN_FOLDER[layout] / "README.md").read_text()
    assert text.startswith("# distil-bert-sst2, for ")
    assert 5 <= len(text.splitlines()) <= 20


def test_transformers_js_finds_the_graph_by_its_data_type(arranged):
    record = record_of(HEAD)
    last = record.measurements[-1]
    eight = last.model_copy(update={"size": last.size.model_copy(update={"by_dtype": {"int8": 1}})})
    quantized = record.model_copy(update={"measurements": [*record.measurements[:-1], eight]})

    assert (arranged("transformers.js", HEAD) / "onnx" / "model.onnx").is_file()
    assert (arranged("transformers.js", HEAD, quantized) / "onnx" / "model_quantized.onnx").is_file()


def test_the_archive_for_sagemaker_is_a_function_of_the_model_alone(arranged):
    first, second = (arranged("sagemaker", HEAD) / "sagemaker" / "model.tar.gz" for _ in range(2))

    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        members = {each.name: each for each in archive}
    assert {"model.onnx", "serving.json", "code/inference.py", "code/answering.py"} <= set(members)
    assert {(each.mtime, each.uid, each.uname) for each in members.values()} == {(0, 0, "")}
    with gzip.open(first) as stream:
        assert len(stream.read(10)) == 10


def test_kserves_service_asks_for_what_the_model_took(arranged):
    service = yaml.safe_load((arranged("kserve", HEAD) / "kserve" / "inference-service.yaml").read_text())

    assert service["metadata"]["name"] == model_name(record_of(HEAD))
    assert service["spec"]["predictor"]["containers"][0]["resources"]["requests"] == {"cpu": "2", "memory": "1Gi"}


def test_requirements_name_the_engine_that_the_model_was_judged_with(arranged):
    record = record_of(HEAD)
    versions = record.environment.model_copy(update={"versions": {"onnxruntime": "1.31.1"}})
    folder = arranged("kserve", HEAD, record.model_copy(update={"environment": versions}))

    lines = (folder / "kserve" / "model" / "requirements.txt").read_text().splitlines()
    assert lines == ["onnxruntime==1.31.1", "numpy", "tokenizers"]


def test_openvinos_server_takes_texts(context, apply, tmp_path):
    openvino = load_openvino()
    import openvino_tokenizers  # noqa: F401  (its operators are in the graph)
    from served import TEXTS

    here = context(HEAD)
    built = apply(here, "attach_tokenizer", apply(here, "convert_openvino", apply(here, "export")))
    record = record_of(HEAD, "openvino", stage("attach_tokenizer"))
    folder = tmp_path / "publication"
    folder.mkdir()
    for path in built.artifact.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    check_layout("ovms", LAYOUTS["ovms"], record)
    LAYOUTS["ovms"].arrange(folder, record)

    (entry,) = json.loads((folder / "ovms" / "config.json").read_text())["model_config_list"]
    place = folder / "ovms" / entry["config"]["base_path"]
    assert [path.name for path in place.iterdir() if path.is_dir()] == ["1"]
    compiled = openvino.Core().compile_model(str(place / "1" / "model.xml"), "CPU", entry["config"]["plugin_config"])
    logits = compiled([openvino.Tensor(TEXTS[HEAD])])["logits"]
    assert logits.shape == (len(TEXTS[HEAD]), len(json.loads((place / "labels.json").read_text())["id2label"]))


@pytest.mark.parametrize(("given", "name"), [("a/B_c.d", "b-c-d"), ("9lives", "model-9lives"), ("demo", "demo")])
def test_a_models_name_is_one_that_kubernetes_takes(given, name):
    record = record_of(HEAD)
    assert model_name(record.model_copy(update={"source": record.source.model_copy(update={"id": given})})) == name
