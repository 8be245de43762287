"""Ask the Hub, and say in our words what it refuses: a wrong id is the request's fault, a silent Hub is not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from optimize.errors import RequestError, UnavailableError


@contextmanager
def asking_hub(name: str, revision: str | None, *, option: str, refusal: type[RequestError]) -> Iterator[None]:
    """Turn huggingface_hub's errors about repository `name` into `refusal`, or UnavailableError without network.

    `option` is the command line's word for what was asked for, such as `--model`.
    """
    import requests
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity(logging.ERROR)  # it warns of each new attempt, in lines of its own
    try:
        yield
    except GatedRepoError as error:
        raise refusal(f"{name}: is gated; accept its terms on the Hub and log in with 'hf auth login'") from error
    except RevisionNotFoundError as error:
        flag = "--revision" if option == "--model" else f"{option}-revision"
        raise refusal(f"{name}: has no revision '{revision}'; check {flag}") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise refusal(
            f"{name}: no such folder, and not on the Hub; check {option}, or log in if it is private"
        ) from error
    except (requests.RequestException, FileMetadataError, ConnectionError) as error:
        raise UnavailableError(
            f"{name}: the Hub cannot be reached ({type(error).__name__}); name a local folder instead"
        ) from error
