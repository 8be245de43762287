"""The paths of a server, as a Starlette application around one model.

What a caller got wrong is answered with a 4xx and one line, as `{"error": …}`; texts are in no log and no counter.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optimize import __version__
from optimize.errors import DataError, RequestError, brief, first_line
from optimize.interfaces import Params
from optimize.serving import protocol
from optimize.serving.batching import Batcher, FullError
from optimize.serving.limits import Limits
from optimize.serving.metrics import CONTENT_TYPE, Metrics
from optimize.using.asking import Question
from optimize.using.model import Model

LOG = logging.getLogger("optimize.serving")
PLATFORMS = {"onnx": "onnxruntime_onnx", "openvino": "openvino"}
LONG = 10_000
"""Characters from which on a text is tokenized on a thread, since others would wait."""
OTHER = "other"
"""What paths that are not served count as: a caller may make up any number of them."""


@dataclass(frozen=True)
class Service:
    """One model that is served, and how."""

    name: str
    model: Model
    limits: Limits
    batcher: Batcher
    metrics: Metrics = field(default_factory=Metrics)

    async def predict(self, request: Request) -> Response:
        """Text in, answer out: `{"inputs": …, "parameters": {…}}` as JSON, or a text as text/plain."""
        body = await self._body(request)
        if request.headers.get("content-type", "").partition(";")[0].strip() == "text/plain":
            given: Any = _text(body)
            words: dict[str, Any] = {}
        else:
            content = _mapping(body, ("inputs", "parameters"))
            if "inputs" not in content:
                raise DataError("the body: has no inputs; give one, or a list of them")
            given, words = content["inputs"], _parameters(content)
        options = self.model.options(words)
        if self.model.task.is_one(given, options):
            (answer,) = await self._answers([given], options)
            return _json(self.model.task.alone(answer, given, options))
        return _json(await self._answers(given, options))

    async def infer(self, request: Request) -> Response:
        """The same by the Open Inference Protocol."""
        self._require_name(request)
        if "inference-header-content-length" in request.headers:
            raise DataError("the body: has binary tensors, which are not taken; send them as JSON")
        content = _mapping(await self._body(request))
        options = self.model.options(_parameters(content))
        answers = await self._answers(protocol.read_inputs(content, self.model.task), options)
        found = {"model_name": self.name, "outputs": protocol.write_answers(answers)}
        return _json(found | ({"id": str(content["id"])} if "id" in content else {}))

    async def describe_model(self, request: Request) -> Response:
        """Its tensors."""
        self._require_name(request)
        kind = self.model.record.stages[-1].artifact.kind
        task = self.model.task
        tensors = {"inputs": protocol.tensors_in(task), "outputs": protocol.tensors_out(task)}
        return _json({"name": self.name, "versions": [], "platform": PLATFORMS[kind], **tensors})

    async def model_ready(self, request: Request) -> Response:
        """Whether it answers."""
        self._require_name(request)
        return _json({"name": self.name, "ready": True})

    async def describe_server(self, _: Request) -> Response:
        """Name and version."""
        return _json({"name": "distilbert-optimize", "version": __version__, "extensions": []})

    async def live(self, _: Request) -> Response:
        """The server answers."""
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        """A server begins to listen once its model is loaded and warm."""
        return _json({"ready": True})

    async def metrics_text(self, _: Request) -> Response:
        """All counters."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    def _require_name(self, request: Request) -> None:
        if request.path_params["name"] != self.name:
            raise HTTPException(404, f"the model: is called {self.name}; ask for that")

    async def _answers(self, inputs: list[Any] | tuple[Any, ...], options: Params) -> list[Any]:
        """The answers to the inputs of one request."""
        if len(inputs) > self.limits.max_texts:
            raise HTTPException(
                413, f"the request: has {len(inputs)} inputs of at most {self.limits.max_texts}; send fewer"
            )
        characters = [_characters(given) for given in inputs]
        if max(characters, default=0) > self.limits.max_characters:
            most = self.limits.max_characters
            raise HTTPException(
                413, f"the request: an input has {max(characters)} characters of at most {most}; cut it"
            )

        def ask() -> list[Question]:
            return [self.model.ask(given, options) for given in inputs]

        questions = ask() if sum(characters) < LONG else await asyncio.to_thread(ask)
        return await self.batcher.answer(questions)

    async def _body(self, request: Request) -> bytes:
        """A request's body, of which no more is read than may be there, and for no longer than it may take."""
        most, found = self.limits.max_body_bytes, bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in request.stream():
                    found += chunk
                    if len(found) > most:
                        raise HTTPException(413, f"the body: is larger than {most} bytes; send less")
        except TimeoutError:
            seconds = self.limits.body_seconds
            raise HTTPException(408, f"the body: did not come within {seconds:g} s; send it at once") from None
        return bytes(found)


def _characters(value: Any) -> int:
    """Those of all texts of an input."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 0


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"the body: byte {error.start} is not UTF-8; send UTF-8") from None


def _mapping(body: bytes, known: tuple[str, ...] = ()) -> dict[str, Any]:
    """A JSON object; with `known`, of these keys alone."""
    try:
        content = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise DataError(f"the body: is not JSON ({brief(first_line(error))}); send a JSON object") from None
    if not isinstance(content, dict):
        raise DataError("the body: is no JSON object; send one with inputs")
    for name in content:
        if known and name not in known:
            raise DataError(f"the body: has {brief(name)}, which is not known; give {' and '.join(known)}")
    return content


def _parameters(content: Mapping[str, Any]) -> dict[str, Any]:
    words = content.get("parameters")
    if words is not None and not isinstance(words, dict):
        raise DataError("parameters: is no JSON object; give options by name")
    return words or {}


def _plain(value: np.ndarray[Any, Any]) -> Any:
    return value.tolist()


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # Not Starlette's: a message may quote halves of characters, which only escapes can hold.
    body = json.dumps(content, separators=(",", ":"), allow_nan=False, default=_plain)
    return Response(body.encode(), status, headers, "application/json")


def _refused(status: int, line: object, headers: Mapping[str, str] | None = None) -> Response:
    return _json({"error": " ".join(str(line).split())}, status, headers)


async def _on_request_error(_: Request, error: Exception) -> Response:
    return _refused(400, error)


async def _on_full(_: Request, error: Exception) -> Response:
    return _refused(429, error, {"Retry-After": "1"})


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _refused(error.status_code, error.detail, error.headers)


async def _on_left(_: Request, __: Exception) -> Response:
    return _refused(499, "the request: was not sent whole")


async def _on_failure(_: Request, error: Exception) -> Response:
    LOG.error("failure", exc_info=error)
    return _refused(500, "the server: failed; its log says how")


def make_app(model: Model, *, name: str, limits: Limits, workers: int = 1) -> ASGIApp:
    """The application of a model."""
    metrics = Metrics()
    service = Service(name, model, limits, Batcher(model, limits, metrics, workers=workers), metrics)
    routes: list[tuple[str, Callable[[Request], Awaitable[Response]], str]] = [
        ("/predict", service.predict, "POST"),
        ("/v2", service.describe_server, "GET"),
        ("/v2/health/live", service.live, "GET"),
        ("/v2/health/ready", service.ready, "GET"),
        ("/v2/models/{name}", service.describe_model, "GET"),
        ("/v2/models/{name}/ready", service.model_ready, "GET"),
        ("/v2/models/{name}/infer", service.infer, "POST"),
        ("/metrics", service.metrics_text, "GET"),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        service.batcher.close()

    handlers = {
        RequestError: _on_request_error,
        FullError: _on_full,
        HTTPException: _on_http,
        ClientDisconnect: _on_left,
        Exception: _on_failure,
    }
    app = Starlette(
        routes=[Route(path, act, methods=[method]) for path, act, method in routes],
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    return _watched(app, metrics)


def _watched(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """The application with each request counted and logged: its path, status and milliseconds."""

    async def watch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, note)
        finally:
            seconds = time.perf_counter() - began
            route = scope.get("route")
            path = route.path if isinstance(route, Route) else OTHER
            metrics.requests.labels(path, str(status)).inc()
            metrics.seconds.labels(path).observe(seconds)
            said = {"method": scope["method"], "path": path, "status": status, "ms": round(seconds * 1e3, 2)}
            LOG.info("request", extra={"said": said})

    return watch
