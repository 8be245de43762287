"""How clients of stores fail, in our words; each as it was seen to, from an error of its own form."""

from __future__ import annotations

import sys
from types import ModuleType

import fsspec
import pytest

from optimize.errors import RequestError, UnavailableError
from optimize.files.stores import asking, open_store

WHERE = "gs://bucket/folder"


def error(words: str = "", **fields: object) -> OSError:
    made = OSError(words)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("cause", "kind", "says"),
    [
        (error(status_code=404), RequestError, "is not there"),  # azure
        (error(response={"ResponseMetadata": {"HTTPStatusCode": 404}}), RequestError, "is not there"),  # botocore
        (error(code=401), RequestError, "these credentials do not allow that"),  # gcsfs
        (error("Forbidden: bucket\nno"), RequestError, "these credentials do not allow that"),  # gcsfs
        (error(status_code=503), UnavailableError, r"is out of order \(503\)"),
        (error("Forbidden"), UnavailableError, "cannot be reached"),
        (error(code="InvalidKey"), UnavailableError, "cannot be reached"),
    ],
)
def test_errors_of_clients_say_whose_fault_it_is(cause, kind, says):
    with pytest.raises(kind, match=f"^{WHERE}: {says}"), asking(WHERE, refusal=RequestError, what="the address"):
        raise cause


def test_a_client_that_finds_no_account_is_no_unknown_kind_of_address():
    class Lonely(fsspec.AbstractFileSystem):
        """As adlfs, where nothing names an account."""

        protocol = "lonely"

        def __init__(self, **_: object) -> None:
            raise ValueError("Must provide either a connection_string or account_name with credentials!!")

    fsspec.register_implementation("lonely", Lonely, clobber=True)
    with pytest.raises(RequestError, match="lonely://a/b: needs an account or credentials that are not set; set them"):
        open_store("lonely://a/b", "lonely://a/b", refusal=RequestError, what="the address")


def test_a_library_that_is_imported_meanwhile_is_no_less_understood(monkeypatch):
    """paramiko is imported by fsspec, where an address is opened."""
    library = ModuleType("paramiko.ssh_exception")
    library.SSHException = type("SSHException", (Exception,), {})
    library.AuthenticationException = type("AuthenticationException", (library.SSHException,), {})

    def connect() -> None:
        monkeypatch.setitem(sys.modules, "paramiko.ssh_exception", library)
        raise library.AuthenticationException("Authentication failed.")

    with (
        pytest.raises(RequestError, match=r"^sftp://host/x: these credentials do not allow that"),
        asking("sftp://host/x", refusal=RequestError, what="the address"),
    ):
        connect()
