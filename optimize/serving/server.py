"""Running the application by uvicorn, until a signal ends it; what is being answered then is answered first."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from types import FrameType

import uvicorn

from optimize.errors import UnavailableError
from optimize.serving.app import make_app
from optimize.serving.limits import Limits
from optimize.using.model import Model

ENDING = ("SIGINT", "SIGTERM")


class JsonLines(logging.Formatter):
    """Each record as a line of JSON: when, how grave, what, and what else was said."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        said = {"time": when, "level": record.levelname.lower(), "what": record.getMessage()}
        said |= getattr(record, "said", {})
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


def serve(
    model: Model, *, name: str, host: str, port: int, limits: Limits, workers: int = 1, requests: bool = True
) -> None:
    """Serve a model until SIGTERM or SIGINT. Raises UnavailableError where it cannot listen there.

    `workers` are threads that run batches; without `requests`, only failures are logged.
    """
    _log(requests=requests)
    config = uvicorn.Config(
        make_app(model, name=name, limits=limits, workers=workers),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(limits.grace_seconds)),
        timeout_keep_alive=75,  # longer than the 60 s of usual proxies, which would else meet a connection that closes
        lifespan="on",
    )
    server = uvicorn.Server(config)

    def ask_to_end(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises what ended it once more when it has ended, for whoever was there before it: for us it is done then.
    before = {number: signal.signal(number, ask_to_end) for number in map(signal.Signals.__getitem__, ENDING)}
    try:
        listening = config.bind_socket()
        server.run(sockets=[listening])
    except SystemExit as error:  # how uvicorn says that it cannot listen; its log says why
        raise UnavailableError(
            f"--port: cannot listen at {host}:{port}; name another with --host and --port"
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log(*, requests: bool) -> None:
    """Log as JSON lines on stderr, uvicorn's words among them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for logger in (logging.getLogger("optimize.serving"), logging.getLogger("uvicorn")):
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if requests else logging.ERROR)
