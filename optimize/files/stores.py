"""Object stores and servers, as fsspec opens them: which library each needs, and how they fail, in our words.

Messages name an address as it is `shown`, without credentials, and quote nothing of what libraries say, which may
repeat them. `what` is what a user would check: an option, or the address. `refusal` is raised where asking again does
not help, and UnavailableError for what may pass; `then` ends all that is said.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
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
    "sftp": "paramiko",
    "ssh": "paramiko",
}
ONLY_READ = frozenset({"data", "gist", "git", "github", "http", "https"})
"""What fsspec opens and nobody can write to through it; no file system says that of itself."""
BUILT_IN = (OSError, ValueError, TypeError, LookupError, RuntimeError)
"""What the libraries raise beside errors of their own, also where a server answers nonsense."""
OWN = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("gcsfs.retry", "ChecksumError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("paramiko.ssh_exception", "SSHException"),
)
"""Errors that are of no other kind."""
UNKNOWN_USER = (
    ("azure.core.exceptions", "ClientAuthenticationError"),
    ("botocore.exceptions", "NoCredentialsError"),
    ("google.auth.exceptions", "DefaultCredentialsError"),
    ("google.auth.exceptions", "RefreshError"),
    ("paramiko.ssh_exception", "AuthenticationException"),
)
"""Those of them that say that no credentials were found, or that these are not good."""
STATUS = ("status", "status_code", "code")
"""Where errors of aiohttp, azure and gcsfs have the status of an answer; botocore's have it in the answer itself."""


def open_store(
    address: str, shown: str, *, refusal: type[OptimizeError], what: str, **options: Any
) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it. Raises `refusal`, and UnavailableError for a library."""
    import fsspec

    if "::" in re.sub(r"\[.*?\]", "", address):  # which are part of a host's number in brackets
        raise refusal(f"{shown}: is a chain of addresses; name one")
    scheme = address.partition("://")[0].lower()
    try:
        urlsplit(address)
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        library = LIBRARIES.get(scheme, f"what fsspec reads {scheme} with")
        raise UnavailableError(f"{shown}: needs {library}, which is not installed; install {library}") from error
    except ValueError as error:
        raise refusal(f"{shown}: is no address of a kind that is known; check {what}") from error
    try:
        found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(address, **options)
    except ValueError as error:
        raise refusal(
            f"{shown}: needs an account or credentials that are not set; set them, and check {what}"
        ) from error
    return found


def require_writable(address: str, shown: str) -> None:
    """Refuse an address of a kind that can only be read."""
    if address.partition("://")[0].lower() in ONLY_READ:
        raise RequestError(f"{shown}: can only be read; name a place that can be written to")


@contextmanager
def asking(shown: str, *, refusal: type[OptimizeError], what: str, then: str = "") -> Iterator[None]:
    """Say in our words what libraries raise meanwhile. A full disk of this machine stays the OSError that it is."""
    try:
        yield
    except _raised() as error:  # by now, whatever library it is of is in use
        raise_if_full(error)
        kind, words = _refused(error.__cause__ or error, refusal, what)
        raise kind(f"{shown}: {words}{then}") from None


def _raised() -> tuple[type[Exception], ...]:
    """All that libraries raise, of those that are in use."""
    return (*BUILT_IN, *_known(OWN))


def _known(names: Iterable[tuple[str, str]]) -> tuple[type[Exception], ...]:
    """Classes of errors, of the libraries that are in use."""
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


def _refused(cause: BaseException, refusal: type[OptimizeError], what: str) -> tuple[type[OptimizeError], str]:
    """What to raise, and in which words."""
    status = _status(cause)
    # gcsfs makes an OSError without a number of a 403.
    forbidden = isinstance(cause, (PermissionError, *_known(UNKNOWN_USER))) or str(cause).startswith("Forbidden: ")
    if status in (401, 403) or forbidden:
        return refusal, f"these credentials do not allow that; check them and {what}"
    if status >= 500:
        return UnavailableError, f"is out of order ({status}); try again later"
    if isinstance(cause, TimeoutError):
        return UnavailableError, "does not answer in time; try again later"
    if isinstance(cause, FileNotFoundError) or status in (404, 410):
        return refusal, f"is not there; check {what}"
    return UnavailableError, f"cannot be reached ({type(cause).__name__}); check the network and {what}"


def _status(cause: BaseException) -> int:
    """The status of the answer that an error is about: of aiohttp, azure, gcsfs and botocore; 0 where it has none."""
    answer = getattr(cause, "response", None)
    if isinstance(answer, dict):
        return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    found = (getattr(cause, name, None) for name in STATUS)
    return next((each for each in found if isinstance(each, int)), 0)
