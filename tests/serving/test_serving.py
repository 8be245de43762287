"""The application: the model's own answers, batches, limits, the protocol, and one line for whatever is wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

import optimize
from optimize.serving.app import make_app
from optimize.serving.limits import Limits

HEAD = "text-classification"
SMALL = Limits(max_batch=4, max_queue=3, max_body_bytes=2000, max_texts=3, max_characters=50)


@pytest.fixture(scope="module")
def model(exported_run):
    return optimize.load(exported_run(HEAD), threads=1)


@pytest.fixture(scope="module")
def client(model):
    with TestClient(make_app(model, name="mine", limits=SMALL), raise_server_exceptions=False) as found:
        yield found


def counted(client, name):
    """The value of a counter."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_text_is_answered_as_the_model_answers_it(client, model):
    assert client.post("/predict", json={"inputs": "the train is late"}).json() == model("the train is late")
    plain = client.post("/predict", content="the train", headers={"content-type": "text/plain"})
    assert plain.json() == model("the train")
    given = {"inputs": ["the train", "the bus is here"], "parameters": {"top_k": 2}}
    for found, expected in zip(
        client.post("/predict", json=given).json(), model(given["inputs"], top_k=2), strict=True
    ):
        assert [each["label"] for each in found] == [each["label"] for each in expected]


def test_the_protocol_gives_tensors_and_describes_them(client, model):
    assert client.get("/v2/health/live").status_code == client.get("/v2/health/ready").status_code == 200
    said = client.get("/v2/models/mine").json()
    assert [each["name"] for each in said["inputs"]] == ["text"]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["the train", "a bus"]}

    found = client.post("/v2/models/mine/infer", json={"id": "7", "inputs": [tensor]}).json()

    assert (found["model_name"], found["id"]) == ("mine", "7")
    assert {each["name"]: (each["datatype"], each["shape"]) for each in found["outputs"]} == {
        each["name"]: (each["datatype"], [2]) for each in said["outputs"]
    }
    assert found["outputs"][0]["data"] == [each["label"] for each in model(tensor["data"])]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 1900, 400),
        (b'"text"', 400),
        (b'{"inputs": NaN}', 400),
        (b'{"inputs": ' + b"9" * 1900 + b"}", 400),
        (b'{"inputs": null}', 400),
        (b'{"inputs": "\\ud800"}', 400),
        (b'{"inputs": {"text": ["a"]}}', 400),
        (b'{"inputs": "a", "parameters": [1]}', 400),
        (b'{"inputs": "a", "parameters": {"\\ud800": 1}}', 400),
        (b'{"inputs": "a", "parameters": {"top_k": -1}}', 400),
        (b'{"inputs": "a", "more": 1}', 400),
        (b'{"inputs": ["a", "a", "a", "a"]}', 413),
        (b'{"inputs": "' + b"a" * 51 + b'"}', 413),
        (b"a" * 2001, 413),
        (b"\xff\xfe", 400),
    ],
)
def test_what_is_malformed_is_answered_in_a_line_and_never_with_500(body, status, client):
    answer = client.post("/predict", content=body)

    assert answer.status_code == status
    (line,) = answer.json().values()
    assert line
    assert "\n" not in line


@pytest.mark.parametrize(
    "tensor",
    [
        {"name": "text", "datatype": "FP32", "shape": [1], "data": [1.0]},
        {"name": "text", "datatype": "BYTES", "shape": [3], "data": ["a"]},
        {"name": "text", "datatype": "BYTES", "shape": [-1], "data": ["a"]},
        {"name": "text", "datatype": "BYTES", "shape": [1], "data": [[["a"]]]},
        {"name": "other", "datatype": "BYTES", "shape": [1], "data": ["a"]},
        7,
    ],
)
def test_tensors_that_are_none_of_the_protocol_are_refused(tensor, client):
    assert client.post("/v2/models/mine/infer", json={"inputs": [tensor]}).status_code == 400
    assert client.post("/v2/models/other/infer", json={"inputs": [tensor]}).status_code == 404


def test_who_comes_while_a_batch_runs_goes_together_and_a_full_queue_says_so(model):
    running, go_on = threading.Event(), threading.Event()
    sizes = []

    def held(feed):
        sizes.append(len(feed["input_ids"]))
        running.set()
        assert go_on.wait(20)
        return model.session(feed)

    app = make_app(replace(model, session=held), name="mine", limits=SMALL)
    with TestClient(app) as client, ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(client.post, "/predict", json={"inputs": "the train"})]
        assert running.wait(20)
        asked += [callers.submit(client.post, "/predict", json={"inputs": f"a bus {count}"}) for count in range(3)]
        deadline = time.monotonic() + 20
        while counted(client, "optimize_queue_features") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        refused = client.post("/predict", json={"inputs": "too many"})
        go_on.set()
        answers = [each.result(20) for each in asked]

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert [each.status_code for each in answers] == [200] * 4
    assert sizes == [1, 3]


def test_those_of_similar_length_run_together(model):
    from optimize.serving.batching import Batcher, Waiting
    from optimize.serving.metrics import Metrics

    batcher = Batcher(model, replace(SMALL, max_batch=2), Metrics())
    questions = [model.ask("the " * count, model.options({})) for count in (3, 30, 4)]
    batcher.waiting = [Waiting(question, answer=None) for question in questions]

    assert [each.question for each in batcher._take()] == [questions[0], questions[2]]
    assert [each.question for each in batcher.waiting] == [questions[1]]
    batcher.close()


@pytest.mark.parametrize(("most", "together"), [(0.1, 1), (0.6, 2), (10.0, 3)])
def test_no_batch_has_more_padding_than_it_may(model, most, together):
    from optimize.serving.batching import Batcher, Waiting
    from optimize.serving.metrics import Metrics

    batcher = Batcher(model, replace(SMALL, max_padding=most), Metrics())
    # Of 12, 5 and 32 tokens: with the second 24 are computed for 17, with both 96 for 49.
    questions = [model.ask("the " * count, model.options({})) for count in (10, 3, 30)]
    batcher.waiting = [Waiting(question, answer=None) for question in questions]

    assert [each.question for each in batcher._take()] == questions[:together]
    batcher.close()


def test_a_request_that_is_not_sent_in_time_is_given_up(model):
    sent = []

    async def receive():
        if not sent:
            await asyncio.sleep(20)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    app = make_app(model, name="mine", limits=replace(SMALL, body_seconds=0.05))
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))

    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"]) == {"error": "the body: did not come within 0.05 s; send it at once"}


def test_requests_are_logged_and_counted_without_their_texts(client, caplog):
    logging.getLogger("optimize").propagate = True
    with caplog.at_level(logging.INFO, logger="optimize.serving"):
        client.post("/predict", json={"inputs": "secretive words"})
        client.post("/predict", json={"inputs": 7})
        client.get("/nowhere/secretive")

    said = [record.said for record in caplog.records if hasattr(record, "said")]
    assert [(each["path"], each["status"]) for each in said] == [("/predict", 200), ("/predict", 400), ("other", 404)]
    assert "secretive" not in json.dumps(said) + client.get("/metrics").text
    assert counted(client, 'optimize_requests_total{path="other",status="404"}') >= 1


def test_a_failure_of_ours_is_a_line_and_the_next_request_is_answered(model, caplog):
    calls = []

    def fails_once(feed):
        calls.append(feed)
        if len(calls) == 1:
            raise RuntimeError("out of order")
        return model.session(feed)

    app = make_app(replace(model, session=fails_once), name="mine", limits=SMALL)
    with TestClient(app, raise_server_exceptions=False) as client:
        first = client.post("/predict", json={"inputs": "a"})
        second = client.post("/predict", json={"inputs": "a"})

    assert (first.status_code, second.status_code) == (500, 200)
    assert first.json() == {"error": "the server: failed; its log says how"}
