"""Object stores and servers, as fsspec opens them: which library each needs, and how they fail, in our words.

Messages name an address as it is `shown`, without credentials, and quote nothing of what libraries say, which may
repeat them. `what` is what a user would check: an option, or the address.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from optimize.errors import OptimizeError, RequestError, UnavailableError
from optimize.files.putting import raise_if_full

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LIBRARIES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}
BUILT_IN = (OSError, ValueError, TypeError, LookupError, RuntimeError)
"""What the libraries raise beside errors of their own, also where a server answers nonsense."""
OWN = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("gcsfs.retry", "HttpError"),
)
"""Errors that are of no other kind."""


def open_store(
    address: str, shown: str, *, refusal: type[RequestError], what: str, **options: Any
) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it. Raises `refusal`, and UnavailableError for a library."""
    import fsspec

    if "::" in re.sub(r"\[.*?\]", "", address):  # which are part of a host's number in brackets
        raise refusal(f"{shown}: is a chain of addresses; name one")
    scheme = address.partition("://")[0].lower()
    try:
        urlsplit(address)
        found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        library = LIBRARIES.get(scheme, f"what fsspec reads {scheme} with")
        raise UnavailableError(f"{shown}: needs {library}, which is not installed; install {library}") from error
    except ValueError as error:
        raise refusal(f"{shown}: is no address of a kind that is known; check {what}") from error
    return found


@contextmanager
def asking(shown: str, *, refusal: type[RequestError], what: str) -> Iterator[None]:
    """Say in our words what libraries raise meanwhile: `refusal`, or UnavailableError for what may pass."""
    own = tuple(getattr(sys.modules[module], name) for module, name in OWN if module in sys.modules)
    try:
        yield
    except (*BUILT_IN, *own) as error:
        raise_if_full(error)
        raise _refused(error.__cause__ or error, shown, refusal, what) from None


def _refused(cause: BaseException, shown: str, refusal: type[RequestError], what: str) -> OptimizeError:
    status = getattr(cause, "status", None)
    if status in (401, 403) or isinstance(cause, PermissionError):
        return refusal(f"{shown}: these credentials do not allow that; check them and {what}")
    if isinstance(status, int) and status >= 500:
        return UnavailableError(f"{shown}: is out of order ({status}); try again later")
    if isinstance(cause, TimeoutError):
        return UnavailableError(f"{shown}: does not answer in time; try again later")
    if isinstance(cause, FileNotFoundError) or status in (404, 410):
        return refusal(f"{shown}: is not there; check {what}")
    return UnavailableError(f"{shown}: cannot be reached ({type(cause).__name__}); check the network and {what}")
