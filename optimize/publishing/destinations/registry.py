"""A registry of containers, by the OCI distribution specification: each file is a layer, the manifest comes last.

A tag names the publication once its manifest is there, and in one step; layers without one are seen by nobody, and are
not sent again. https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from optimize.artifact import CHUNK_BYTES, file_digest
from optimize.data.urls import without_secrets
from optimize.errors import OptimizeError, RequestError, UnavailableError, brief, first_line
from optimize.hub.patience import CONNECT_SECONDS, SILENT_SECONDS
from optimize.interfaces import Progress
from optimize.manifest import FILE as MANIFEST
from optimize.publishing.checksums import CHECKSUMS, MOST_FILES, file_names, ordered
from optimize.publishing.destinations.interface import Sent, Terms

if TYPE_CHECKING:
    from oras.container import Container
    from oras.provider import Registry as Provider
    from requests import Response

ARTIFACT_TYPE = "application/vnd.distilbert-optimize.publication.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
EMPTY_TYPE, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
TITLE = "org.opencontainers.image.title"
MEDIA_TYPES = {
    ".onnx": "application/vnd.onnx",
    ".safetensors": "application/vnd.safetensors",
    ".json": "application/json",
    ".xml": "application/xml",
    ".md": "text/markdown",
    ".png": "image/png",
    ".txt": "text/plain",
}
"""By the end of a name; any other file is of bytes alone, and SHA256SUMS is text."""
MOST_MANIFEST_BYTES = 2**22
"""What registries take, too."""
ADDRESS = re.compile(r"oci://[^/]+/[^@:]+(?::[^@:/]+|@sha256:[0-9a-f]{64})?", re.IGNORECASE)
LOCAL = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")
"""Hosts that are asked without TLS, as Docker does."""


class Registry:
    """The destination of `oci://host/name:tag`; credentials are those that `docker login` or `oras login` kept."""

    has = frozenset({"replace"})

    def check(self, place: str, terms: Terms) -> None:
        """Refuse what names no tag, and where the library is missing."""
        _opened(place)
        if "@" in place:
            raise RequestError(f"{place}: names what is there already; name a tag, as oci://host/name:tag")

    def put(self, folder: Path, place: str, terms: Terms, progress: Progress) -> str:
        """Push what the registry has not yet, the manifest last."""
        registry, container = _opened(place)
        names = file_names(folder)
        content = _manifest(folder, names)
        found = _get_manifest(registry, container, place)
        if found is not None and found != content and not terms.replace:
            raise RequestError(f"{place}: has other content; name a new tag, or add --replace")
        pinned = f"{place[: len(place) - len(_tag(place))]}@sha256:{hashlib.sha256(content).hexdigest()}"
        if found == content:
            return pinned
        layers = json.loads(content)["layers"]
        for done, layer in enumerate(layers):
            progress.step("upload", done, len(layers))
            _push(registry, container, layer, folder / layer["annotations"][TITLE], place)
        with NamedTemporaryFile() as empty:
            empty.write(EMPTY)
            empty.flush()
            _push(registry, container, _layer(EMPTY_TYPE, Path(empty.name)), Path(empty.name), place)
        with _asking(place):
            url = f"{registry.prefix}://{container.manifest_url()}"
            _require_taken(registry.do_request(url, "PUT", data=content, headers={"Content-Type": MANIFEST_TYPE}))
        return pinned

    def read(self, place: str, progress: Progress) -> Generator[Sent]:
        """The layers that a manifest names."""
        registry, container = _opened(place)
        content = _get_manifest(registry, container, place)
        if content is None:
            raise RequestError(f"{place}: is not there; check the address")
        if container.digest and f"sha256:{hashlib.sha256(content).hexdigest()}" != container.digest:
            raise RequestError(f"{place}: the registry gives another manifest than its digest says; do not use it")
        layers = _layers(content, place)
        for name in ordered(layers):
            digest, size = layers[name]
            yield Sent(name, size, _chunks(registry, container, digest, place))


class _RefusalError(Exception):
    """An answer with a status that says no."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason


def _opened(place: str) -> tuple[Provider, Container]:
    """The registry of an address, asked in time, and what of it is meant."""
    if ADDRESS.fullmatch(place) is None:
        raise RequestError(f"{without_secrets(place)}: names nothing in a registry; write oci://host/name:tag")
    if find_spec("oras") is None:
        raise UnavailableError(f"{place}: oras is not installed; pip install 'distilbert-optimize[publish]'")
    from oras.container import Container
    from oras.provider import Registry as Provider
    from requests.adapters import HTTPAdapter

    class InTime(HTTPAdapter):
        """What asks with time limits; oras has none."""

        def send(self, *args: Any, **options: Any) -> Response:
            return super().send(*args, **{**options, "timeout": (CONNECT_SECONDS, SILENT_SECONDS)})

    container = Container(place.partition("://")[2])
    registry = Provider(container.registry, insecure=LOCAL.fullmatch(container.registry) is not None)
    for scheme in ("http://", "https://"):
        registry.session.mount(scheme, InTime())
    registry.auth.load_configs(container)
    return registry, container


def _tag(place: str) -> str:
    """The tag of an address with its colon; a host may have a port."""
    found = re.search(r":[^/:]+$", place)
    return found[0] if found else ""


def _manifest(folder: Path, names: list[str]) -> bytes:
    """The manifest of a publication; the same publication has the same."""
    record = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) if (folder / MANIFEST).is_file() else {}
    annotations = {
        "org.opencontainers.image.created": record["created"],
        TITLE: record["source"]["id"],
        "org.opencontainers.image.description": f"for {record['request']['head']} on {record['request']['target']}",
    } if record else {}  # fmt: skip
    layers = []
    for name in names:
        layers.append({**_layer(_media_type(name), folder / name), "annotations": {TITLE: name}})
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": f"sha256:{hashlib.sha256(EMPTY).hexdigest()}", "size": 2},
        "layers": layers,
        "annotations": annotations,
    }
    return json.dumps(content, sort_keys=True).encode()


def _media_type(name: str) -> str:
    return "text/plain" if name == CHECKSUMS else MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")


def _layer(media_type: str, path: Path) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{file_digest(path)}", "size": path.stat().st_size}


def _push(registry: Provider, container: Container, layer: Mapping[str, Any], path: Path, place: str) -> None:
    with _asking(place):
        _require_taken(registry.upload_blob(str(path), container, dict(layer)))


def _get_manifest(registry: Provider, container: Container, place: str) -> bytes | None:
    """The bytes of a manifest; None where there is none."""
    with _asking(place):
        url = f"{registry.prefix}://{container.manifest_url()}"
        answer = registry.do_request(url, "GET", headers={"Accept": MANIFEST_TYPE}, stream=True)
        if answer.status_code == 404:
            return None
        _require_taken(answer)
        content = answer.raw.read(MOST_MANIFEST_BYTES + 1, decode_content=True)
    if len(content) > MOST_MANIFEST_BYTES:
        raise RequestError(f"{place}: its manifest is larger than {MOST_MANIFEST_BYTES // 2**20} MiB; do not use it")
    return bytes(content)


def _layers(content: bytes, place: str) -> dict[str, tuple[str, int]]:
    """Digest and size of each file by its name."""
    try:
        found = json.loads(content)["layers"]
        named = {str(each["annotations"][TITLE]): (str(each["digest"]), int(each["size"])) for each in found}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(f"{place}: its manifest is not that of a publication; check the address") from error
    if not 0 < len(found) == len(named) <= MOST_FILES or not all(_is_digest(digest) for digest, _ in named.values()):
        raise RequestError(f"{place}: its manifest is not that of a publication; check the address")
    return named


def _is_digest(text: str) -> bool:
    return re.fullmatch("sha256:[0-9a-f]{64}", text) is not None


def _chunks(registry: Provider, container: Container, digest: str, place: str) -> Iterator[bytes]:
    """The content of a layer, which has to have its digest."""
    total = hashlib.sha256()
    with _asking(place):
        answer = registry.get_blob(container, digest, stream=True)
        _require_taken(answer)
        chunks = answer.iter_content(CHUNK_BYTES)
    while True:
        with _asking(place):
            chunk = next(chunks, b"")
        if not chunk:
            break
        total.update(chunk)
        yield chunk
    if f"sha256:{total.hexdigest()}" != digest:
        raise RequestError(f"{place}: the registry gives another layer than its digest says; do not use it")


def _require_taken(answer: Response) -> None:
    if not answer.ok:
        raise _RefusalError(answer.status_code, answer.reason)


@contextmanager
def _asking(place: str) -> Iterator[None]:
    """Say in our words what a registry refuses, and how oras and requests fail."""
    from requests import RequestException

    try:
        yield
    except _RefusalError as error:
        raise _refusal(error.status, error.reason, place) from error
    # ValueError is what oras raises where it may not log in.
    except (RequestException, ValueError) as error:
        said = brief(first_line(error)) if type(error) is ValueError else type(error).__name__
        raise UnavailableError(f"{place}: the registry cannot be reached ({said}); check the address") from error


def _refusal(status: int, reason: str, place: str) -> OptimizeError:
    if status in (401, 403):
        return RequestError(f"{place}: the registry does not allow that ({status}); log in with 'docker login'")
    if status >= 500 or status == 429:
        return UnavailableError(f"{place}: the registry is out of order ({status}); try again later")
    return RequestError(f"{place}: the registry refuses that ({status} {brief(reason)}); check the address")
