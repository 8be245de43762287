"""The HTTP library that the installed huggingface_hub asks with: given time limits, and its errors told apart.

Before 1.0 it is requests, since then httpx, and since 2.0 httpx2, which has httpx's names.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from optimize.hub import with_httpx, with_requests


@cache
def library() -> ModuleType:
    """The library that huggingface_hub's own errors are derived from."""
    from huggingface_hub.errors import HfHubHTTPError

    return import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])


def _glue() -> ModuleType:
    return with_requests if library().__name__ == "requests" else with_httpx


@cache
def limit_clients() -> None:
    """From now on, nothing that huggingface_hub or datasets asks in this process waits forever.

    hf_xet asks by itself and knows none of these limits, so files come without it, as where it is not installed.
    """
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_XET = True
    _glue().limit_clients(library())


def errors() -> tuple[type[Exception], ...]:
    """What is raised where the Hub fails or refuses: by Python, the library, and huggingface_hub about an answer."""
    return (ConnectionError, TimeoutError, *_glue().errors(library()))


def response(error: Exception) -> Any:
    """The answer that an error is about, where the Hub gave one of an error status; else None."""
    return getattr(error, "response", None) if isinstance(error, library().HTTPError) else None


def failure(error: Exception) -> Exception:
    """One of the library's errors as one of `failures` or Python's own; any other as it is."""
    ours: Exception = _glue().failure(library(), error) if isinstance(error, _glue().errors(library())) else error
    return ours
