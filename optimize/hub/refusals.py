"""What the Hub refuses and how it fails, each in a line with what to do about it.

What the request names wrongly, or may not read, is the request's fault; a Hub, a network or a proxy that fails is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from optimize.errors import OptimizeError, RequestError, UnavailableError, first_line
from optimize.hub import client
from optimize.hub.failures import AddressError, CertificateError, NonsenseError, ProxyError

LOCALLY = "set HF_HUB_OFFLINE=1 for what is in the Hub's cache, or name a local folder"
NO_ANSWER = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
LOG_IN = "log in with 'hf auth login' or set HF_TOKEN"


@dataclass(frozen=True)
class Repository:
    """A repository as a request names it: its kind, the option that names it, and what a wrong name is refused with.

    One that is named `by_address` (hf://…) can be meant for nothing else; any other name may be a mistyped folder's.
    """

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None
    option: str
    refusal: type[RequestError]
    by_address: bool = False

    @property
    def named(self) -> str:
        """How a refusal begins."""
        return f"{self.name}:" if self.by_address else f"{self.name}: no such folder, and"

    @property
    def revision_option(self) -> str:
        """The option that names the revision, or, where a file of the user's does, its key."""
        if not self.option.startswith("--"):
            return "revision"
        return "--revision" if self.option == "--model" else f"{self.option}-revision"


@contextmanager
def asking_hub(asked: Repository) -> Iterator[None]:
    """Turn what huggingface_hub, datasets and the HTTP library raise meanwhile into errors of ours; set time limits.

    Whatever is computed of the Hub's answers belongs in here too: it fails where they make no sense.
    """
    import logging

    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity(logging.ERROR)  # it warns of each new attempt, in lines of its own
    client.limit_clients()
    try:
        yield
    except NO_ANSWER + client.errors() as error:
        network = isinstance(error, ConnectionError | TimeoutError)
        if isinstance(error, OSError) and error.errno is not None and not network:
            raise  # the disk's, not the Hub's
        raise _refusal(error, asked) from error


def _refusal(error: Exception, asked: Repository) -> OptimizeError:
    from huggingface_hub.errors import LocalEntryNotFoundError

    wraps = isinstance(error, LocalEntryNotFoundError) or type(error) is ConnectionError
    if wraps and isinstance(error.__cause__, Exception):
        return _refusal(error.__cause__, asked)  # which says more than that nothing was found
    if (response := client.response(error)) is not None:
        return _refused(error, response, asked)
    what, todo = _failure(client.failure(error))
    return UnavailableError(f"{asked.named} the Hub {what}; {todo}")


def _failure(error: Exception) -> tuple[str, str]:
    """What came instead of an answer, and what to do."""
    from huggingface_hub.errors import FileMetadataError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "may not be asked", "unset HF_HUB_OFFLINE, or name a local folder"
    if isinstance(error, ProxyError):
        return "cannot be reached through the proxy", "check HTTPS_PROXY, and NO_PROXY"
    if isinstance(error, CertificateError):
        return "shows a certificate that is not trusted here", f"check the clock, and {error} behind a proxy"
    if isinstance(error, TimeoutError):
        return "does not answer in time", f"try again later, {LOCALLY}"
    if isinstance(error, AddressError):
        return f"has no such address ({first_line(error)})", "correct or unset HF_ENDPOINT"
    if isinstance(error, OSError) and not isinstance(error, NonsenseError | FileMetadataError):
        return f"cannot be reached ({type(error).__name__})", f"check the network, {LOCALLY}"
    return f"gives an answer that makes no sense ({first_line(error)})", "check HF_ENDPOINT and the proxy, or try later"


def _refused(error: Exception, response: Any, asked: Repository) -> OptimizeError:
    """What an answer with an error status means."""
    from huggingface_hub import errors

    named = asked.named
    if isinstance(error, errors.GatedRepoError):
        return asked.refusal(f"{asked.name}: is gated; accept its terms on the Hub, and {LOG_IN}")
    if isinstance(error, errors.DisabledRepoError):
        return asked.refusal(f"{asked.name}: is disabled on the Hub; name another")
    if isinstance(error, errors.RevisionNotFoundError):
        return asked.refusal(f"{asked.name}: has no revision '{asked.revision}'; check {asked.revision_option}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return asked.refusal(f"{named} not on the Hub; check {asked.option}, or, if it is private, {LOG_IN}")
    status = response.status_code
    if status == 429:
        wait = response.headers.get("Retry-After", "")
        pause = f"{wait} s" if wait.isdecimal() else "some minutes"
        return UnavailableError(f"{named} the Hub had too many questions from here (429); wait {pause}, or {LOG_IN}")
    if status == 407:
        return UnavailableError(f"{named} the proxy wants to know who asks (407); put user and password in HTTPS_PROXY")
    if status >= 500:
        return UnavailableError(f"{named} the Hub is out of order ({status}); try again later, {LOCALLY}")
    if status == 401:
        # Whoever gave no token is told so by most Hubs with RepositoryNotFoundError; not by all.
        token = "authorization" in response.request.headers
        what = "does not know the token that it was given" if token else "wants to know who asks"
        return asked.refusal(f"{named} the Hub {what} (401); {LOG_IN}")
    if status == 403:
        return asked.refusal(f"{named} the Hub does not let this account do that (403); check what HF_TOKEN may do")
    return asked.refusal(f"{named} the Hub has not what was asked for ({status}); check {asked.option}")
