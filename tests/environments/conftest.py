"""Servers of object stores, each with a bucket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from environments.made import azurite, gcs_emulator, moto, run_there, store_clients
from environments.serving import free_port, serving

MAKE_BUCKET = "import fsspec, sys; fsspec.filesystem(sys.argv[1]).mkdir(sys.argv[2])"
AZURITE = "devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Name and key of the account that every Azurite has."""


def moto_server(port: int) -> tuple[list[object], dict[str, str], str, int | None]:
    """Command, what clients need to know, where it answers once it is ready, and with which status if that is none."""
    command = [moto().parent / "moto_server", "-H", "127.0.0.1", "-p", port]
    known = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    known |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    return command, known, "moto-api", None


def google_server(port: int) -> tuple[list[object], dict[str, str], str, int | None]:
    program = gcs_emulator().parent / "gcp-storage-emulator"
    command = [program, "start", "--host", "127.0.0.1", "--port", port, "--in-memory"]
    return command, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}, "", None


def azure_server(port: int) -> tuple[list[object], dict[str, str], str, int | None]:
    command = [azurite(), "--blobPort", port, "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    name, key = AZURITE
    address = f"DefaultEndpointsProtocol=http;BlobEndpoint=http://127.0.0.1:{port}/{name}"
    known = {"AZURE_STORAGE_CONNECTION_STRING": f"{address};AccountName={name};AccountKey={key}"}
    return command, known, f"{name}?comp=list", 403


STORES = {"s3": moto_server, "gs": google_server, "az": azure_server}


@pytest.fixture(scope="module", params=STORES)
def bucket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a bucket of each kind; the environment names its server."""
    command, known, path, refusal = STORES[request.param](port := free_port())
    ready, place = f"http://127.0.0.1:{port}/{path}", tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch, serving(command, place / "log", ready, {}, place, refusal=refusal):
        for name, value in known.items():
            patch.setenv(name, value)
        run_there(store_clients(), "-c", MAKE_BUCKET, request.param, "bucket")
        yield f"{request.param}://bucket"
