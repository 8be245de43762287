"""huggingface_hub asks with httpx since 1.0, and with httpx2, whose names are the same, since 2.0."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any
from urllib.request import getproxies, proxy_bypass

from optimize.errors import first_line
from optimize.hub import patience
from optimize.hub.failures import AddressError, CertificateError, NonsenseError, ProxyError

CERTIFICATES = "SSL_CERT_FILE"


def limit_clients(httpx: ModuleType) -> None:
    """From now on, no client that huggingface_hub opens waits forever."""
    # It cannot be asked for the factory that is in use, and a caller's own is not to be lost.
    usual = import_module("huggingface_hub.utils._http")._GLOBAL_CLIENT_FACTORY
    import_module("huggingface_hub").set_client_factory(partial(_limited, httpx, usual))


def _limited(httpx: ModuleType, make: Callable[[], Any]) -> Any:
    """A client with limits, or what in the environment keeps it from being made."""
    try:
        client = make()
    except OSError as error:
        raise CertificateError(CERTIFICATES) from error
    except (ValueError, ImportError, httpx.InvalidURL) as error:  # the second for SOCKS
        raise ProxyError(first_line(error)) from error
    client.event_hooks["request"].append(_limit)
    client.event_hooks["response"].append(partial(_heed, httpx))
    return client


def _limit(request: Any) -> None:
    """Limit how long it waits, where the caller does not."""
    silent = dict.fromkeys(("read", "write", "pool"), patience.SILENT_SECONDS)
    limits = {"connect": patience.CONNECT_SECONDS, **silent}
    for what, seconds in request.extensions["timeout"].items():
        limits[what] = seconds or limits[what]
    request.extensions["timeout"] = limits


def _heed(httpx: ModuleType, response: Any) -> None:
    """Limit how slowly the body comes, and raise at once what huggingface_hub would try again after a long pause."""
    stream = response.stream
    methods = {"__iter__": lambda _: patience.in_time(stream, httpx.TransportError), "close": lambda _: stream.close()}
    response.stream = type("LimitedStream", (httpx.SyncByteStream,), methods)()
    if response.is_error and _pause(response.headers) > patience.PAUSE_SECONDS:
        import_module("huggingface_hub.utils").hf_raise_for_status(response)


def _pause(headers: Any) -> int:
    """For how many seconds a Hub wants to be left alone, in either way in which huggingface_hub is told."""
    limit = import_module("huggingface_hub.utils").parse_ratelimit_headers(headers)
    if limit and limit.remaining == 0:
        return int(limit.reset_in_seconds)
    after = headers.get("Retry-After", "")
    return int(after) if after.isdecimal() else 0


def errors(httpx: ModuleType) -> tuple[type[Exception], ...]:
    """What it raises."""
    return (httpx.HTTPError, httpx.InvalidURL)


def failure(httpx: ModuleType, error: Exception) -> Exception:
    """One of its errors as one of ours."""
    if isinstance(error, httpx.ConnectError):
        return _unconnected(error)
    if isinstance(error, httpx.ProxyError):
        return ProxyError(first_line(error))
    if isinstance(error, httpx.TimeoutException):
        return TimeoutError(first_line(error))
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return AddressError(first_line(error))
    if isinstance(error, httpx.TooManyRedirects | httpx.DecodingError):
        return NonsenseError(first_line(error))
    return ConnectionError(first_line(error))


def _unconnected(error: Any) -> Exception:
    if _is_of_tls(error):
        return CertificateError(CERTIFICATES)
    return ProxyError(first_line(error)) if _has_proxy(error.request.url) else ConnectionError(first_line(error))


def _is_of_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


def _has_proxy(url: Any) -> bool:
    """Whether the environment names a proxy for an address; a connection to it that fails is not told apart."""
    proxies = getproxies()
    return bool(proxies.get(url.scheme) or proxies.get("all")) and not proxy_bypass(url.host)
