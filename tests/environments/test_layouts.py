"""Each layout by the tool that it is for: its server, its toolkit, its library, or at least its own parser."""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from environments.made import ask_transformers_js, kserve, mlserver, run_there, sagemaker, triton, vertex
from environments.serving import free_port, serving
from layouts.test_answering import same
from served import TEXTS, record_of

from optimize.publishing.layouts.handlers import answering
from optimize.publishing.layouts.layout import model_name

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]  # environments are installed
SERVERS = Path(__file__).parent / "servers"
HEADS = ("text-classification", "token-classification", "question-answering", "multiple-choice")
"""Those whose inputs have different forms."""
LONG = "Ada lives in London, and Bob lives in Rome. " * 90
"""A context of many windows."""
QUESTION = {"question": "Where?", "context": LONG}
ASKED = {**TEXTS, "question-answering": [*TEXTS["question-answering"], QUESTION]}


def named(head: str) -> Any:
    """A manifest whose model has a name of its own."""
    record = record_of(head)
    return record.model_copy(update={"source": record.source.model_copy(update={"id": f"someone/{head}"})})


@pytest.fixture
def expected(arranged) -> Any:
    """What the code beside a model answers, which default tests hold against transformers."""

    def answers(head: str, inputs: Sequence[Any] | None = None) -> list[Any]:
        predict = answering.open_model(arranged("vertex", head) / "vertex" / "model")
        return [predict(given) for given in inputs or ASKED[head]]

    return answers


def infer(address: str, name: str, columns: Mapping[str, Any]) -> tuple[int, Any]:
    """Ask by the Open Inference Protocol, each column a tensor of texts."""
    inputs = [{"name": each, "datatype": "BYTES", **column} for each, column in columns.items()]
    body = json.dumps({"inputs": inputs}).encode()
    request = urllib.request.Request(f"{address}/v2/models/{name}/infer", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            (output,) = json.load(answer)["outputs"]
            return answer.status, [json.loads(each) for each in output["data"]]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def fields_of(head: str, given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {"text": given}


def test_triton_serves_texts_to_answers(arranged, expected, tmp_path):
    python, repository = triton(), tmp_path / "repository"
    repository.mkdir()
    for head in HEADS:
        for folder in (arranged("triton", head, named(head)) / "triton").iterdir():
            if folder.is_dir():
                folder.rename(repository / folder.name)
        # The ONNX Runtime backend is in no package; its model runs in the Python backend instead.
        graph = repository / f"{head}-model"
        shutil.copyfile(SERVERS / "triton_graph.py", graph / "1" / "model.py")
        config = (graph / "config.pbtxt").read_text()
        (graph / "config.pbtxt").write_text(config.replace('platform: "onnxruntime_onnx"', 'backend: "python"'))
    packages = next(python.parents[1].glob("lib/python*/site-packages"))
    home, version = tmp_path / "server", packages.parent.name.removeprefix("python")
    shutil.copytree(packages / "pytriton" / "tritonserver", home, ignore=shutil.ignore_patterns("python_backend_stubs"))
    stub = "triton_python_backend_stub"
    shutil.copy(packages / f"pytriton/tritonserver/python_backend_stubs/{version}/{stub}", home / "backends/python")
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [home / "bin" / "tritonserver", "--model-repository", repository, "--http-port", port]
    command += ["--backend-directory", home / "backends", "--allow-grpc=false", "--allow-metrics=false"]
    libraries = f"{packages / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"

    environ = {
        "PYTHONPATH": str(packages),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": libraries,
    }
    with serving(command, tmp_path / "log", f"{address}/v2/health/ready", environ):
        for head in HEADS:
            for given, answer in zip(ASKED[head], expected(head), strict=True):
                columns = {}
                for name, value in fields_of(head, given).items():
                    data = value if isinstance(value, list) else [value]
                    columns[name] = {"shape": [1, len(data)], "data": data}
                status, said = infer(address, head, columns)
                assert status == 200, said
                same(said[0], answer)
        pair = {"text": "A good film.", "text_pair": "It was bad."}
        status, said = infer(address, HEADS[0], {name: {"shape": [1, 1], "data": [pair[name]]} for name in pair})
        assert status == 200
        assert said[0]["score"] != expected(HEADS[0])[0]["score"]
        both = {name: {"shape": [2, 1], "data": [each[name] for each in ASKED[HEADS[2]]]} for name in QUESTION}
        status, said = infer(address, HEADS[2], both)
        assert status == 200, said
        same(said, expected(HEADS[2]))
        longer = {"question": {"shape": [1, 1], "data": ["Where?"]}, "context": {"shape": [1, 1], "data": [LONG * 20]}}
        status, said = infer(address, HEADS[2], longer)
        assert (status, "windows of at most 64; send its contexts in parts" in said) == (500, True)
    batches = (repository / f"{HEADS[0]}-model" / "1" / "batches.txt").read_text().splitlines()
    assert batches[:2] == ["1 (1, 16)", "8 (8, 128)"], "it was warmed up"


def test_triton_reads_every_configuration(arranged):
    files = sorted((arranged("triton", "text-classification") / "triton").glob("*/config.pbtxt"))

    configs = {each["name"]: each for each in json.loads(run_there(triton(), SERVERS / "triton_reads.py", *files))}

    name = model_name(record_of("text-classification"))
    steps = [step["model_name"] for step in configs[name]["ensemble_scheduling"]["step"]]
    assert steps == [f"{name}-tokenize", f"{name}-model", f"{name}-answer"]
    assert set(configs) == {name, *steps}
    graph = configs[f"{name}-model"]
    assert graph["platform"] == "onnxruntime_onnx"
    assert graph["instance_group"] == [{"kind": "KIND_CPU", "count": 1}]
    assert graph["dynamic_batching"] == {"max_queue_delay_microseconds": "1000"}
    assert [each["name"] for each in graph["model_warmup"]] == ["1x16", "8x128"]


def test_mlserver_serves_models_of_all_forms_at_once(arranged, expected, tmp_path):
    python, models = mlserver(), tmp_path / "models"
    models.mkdir()
    for head in HEADS:
        (arranged("kserve", head, named(head)) / "kserve" / "model").rename(models / head)
    ports = {name: str(free_port()) for name in ("HTTP", "GRPC", "METRICS")}
    address = f"http://127.0.0.1:{ports['HTTP']}"
    environ = {f"MLSERVER_{name}_PORT": port for name, port in ports.items()} | {"MLSERVER_PARALLEL_WORKERS": "0"}

    command = [python, "-m", "mlserver.cli.main", "start", models]
    with serving(command, tmp_path / "log", f"{address}/v2/health/ready", environ):
        for head in HEADS:
            for given, answer in zip(ASKED[head], expected(head), strict=True):
                columns = {}
                for name, value in fields_of(head, given).items():
                    columns[name] = {"shape": [1], "data": [json.dumps(value) if name == "choices" else value]}
                status, said = infer(address, head, columns)
                assert status == 200, said
                same(said[0], answer)
        status, said = infer(address, HEADS[0], {"texts": {"shape": [1], "data": ["A."]}})
        assert "an input has to be a text, or an object of text, text_pair" in said
        assert 400 <= status < 600


def test_kserve_knows_every_word_of_the_service(arranged):
    path = arranged("kserve", "text-classification") / "kserve" / "inference-service.yaml"

    read = json.loads(run_there(kserve(), SERVERS / "kserve_reads.py", path))

    assert read["kept"] == read["given"] == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("head", HEADS)
def test_sagemakers_toolkit_answers(head, arranged, expected, tmp_path):
    with tarfile.open(arranged("sagemaker", head) / "sagemaker" / "model.tar.gz") as archive:
        archive.extractall(tmp_path / "opt", filter="data")

    said = json.loads(run_there(sagemaker(), SERVERS / "sagemaker_asks.py", tmp_path / "opt", json.dumps(ASKED[head])))

    assert said["status"] == 200
    same(said["said"], expected(head))
    assert said["wrong"][0] == 500
    assert "an input has to be" in said["wrong"][1]


@pytest.mark.parametrize("head", HEADS)
def test_vertexs_server_answers(head, arranged, expected):
    folder = arranged("vertex", head, named(head)) / "vertex"

    said = json.loads(run_there(vertex(), SERVERS / "vertex_asks.py", folder, json.dumps(ASKED[head])).splitlines()[-1])

    same(said["said"], expected(head))
    assert said["wrong"][0] == 500
    assert "an input has to be" in str(said["wrong"][1])


def test_transformers_js_answers_in_node(arranged, expected, tmp_path):
    models, asked = tmp_path / "models", []
    models.mkdir()
    heads = ("feature-extraction", "fill-mask", "question-answering", "text-classification", "token-classification")
    for head in heads:
        arranged("transformers.js", head).rename(models / head)
        inputs = [list(given.values()) if isinstance(given, dict) else given for given in TEXTS[head]]
        asked.append((head, head, {"dtype": "fp32"}, inputs))

    said = dict(zip(heads, ask_transformers_js(models, asked), strict=True))

    same(said["feature-extraction"], expected("feature-extraction"))
    for ours, theirs in zip(said["text-classification"], expected("text-classification"), strict=True):
        same(ours, [theirs])
    for ours, theirs in zip(said["token-classification"], expected("token-classification"), strict=True):
        assert [(each["entity"], each["index"]) for each in ours] == [
            (each["entity"], each["index"]) for each in theirs
        ]
    for ours, theirs in zip(said["fill-mask"][:1], expected("fill-mask"), strict=False):
        assert [each["token"] for each in ours] == [each["token"] for each in theirs]
    for ours, theirs in zip(
        said["question-answering"], expected("question-answering", TEXTS["question-answering"]), strict=True
    ):
        # The library's own pipeline knows no longest answer, and joins word pieces with spaces between them.
        assert theirs["answer"].lower() in ours["answer"].replace(" ,", ",")
