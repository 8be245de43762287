"""huggingface_hub before 1.0 asks with requests; this goes once transformers 4 is no longer supported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from optimize.errors import first_line
from optimize.hub import patience
from optimize.hub.failures import AddressError, CertificateError, NonsenseError, ProxyError

PROXY = re.compile("SOCKS|Proxy URL")
"""What it calls a bad address or a missing schema says so when it speaks of a proxy's."""


def limit_clients(requests: ModuleType) -> None:
    """From now on, no session that huggingface_hub opens waits forever."""
    # It cannot be asked for the factory that is in use, and a caller's own is not to be lost.
    usual = import_module("huggingface_hub.utils._http")._GLOBAL_BACKEND_FACTORY
    import_module("huggingface_hub").configure_http_backend(partial(_limited, requests, usual))


def _limited(requests: ModuleType, make: Callable[[], Any]) -> Any:
    session = make()
    for adapter in session.adapters.values():
        adapter.send = partial(_send, requests, adapter.send)
    return session


def _send(requests: ModuleType, send: Callable[..., Any], *words: Any, timeout: object = None, **options: Any) -> Any:
    """What an adapter's `send` does, with a limit on silence where the caller sets none, and one on slowness."""
    response = send(*words, timeout=timeout or (patience.CONNECT_SECONDS, patience.SILENT_SECONDS), **options)
    response.raw.stream = partial(_stream, requests, response.raw)
    return response


def _stream(requests: ModuleType, raw: Any, amount: int, decode_content: bool | None = None) -> Iterator[bytes]:
    kinds = import_module("urllib3.exceptions")
    # Unlike `read`, `read1` does not wait until all of the amount is there.
    body = iter(partial(raw.read1, amount, decode_content=decode_content), b"")
    try:
        yield from patience.in_time(body, kinds.HTTPError)
    except kinds.ReadTimeoutError as error:
        raise requests.ReadTimeout("it fell silent") from error
    finally:
        raw.close()


def errors(requests: ModuleType) -> tuple[type[Exception], ...]:
    """What it raises."""
    return (requests.RequestException,)


def failure(requests: ModuleType, error: Exception) -> Exception:
    """One of its errors as one of ours."""
    kinds = requests.exceptions
    if isinstance(error, kinds.ProxyError | kinds.InvalidProxyURL) or PROXY.search(str(error)):
        return ProxyError(first_line(error))
    if isinstance(error, kinds.SSLError):
        return CertificateError("REQUESTS_CA_BUNDLE")
    if isinstance(error, kinds.Timeout):
        return TimeoutError(first_line(error))
    if isinstance(error, kinds.InvalidURL | kinds.MissingSchema | kinds.InvalidSchema):
        return AddressError(first_line(error))
    if isinstance(error, kinds.JSONDecodeError | kinds.TooManyRedirects | kinds.ContentDecodingError):
        return NonsenseError(first_line(error))
    return ConnectionError(first_line(error))
