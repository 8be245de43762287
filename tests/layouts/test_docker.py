"""The layout for Docker: a publication as any other, and what makes an image that serves it."""

from __future__ import annotations

import re
import shutil
import tarfile
from importlib import metadata
from pathlib import Path

import pytest
from served import record_of

import optimize as package
from optimize import manifest
from optimize.errors import RequestError
from optimize.publishing.checksums import write_checksums
from optimize.publishing.layouts import LAYOUTS, docker
from optimize.publishing.layouts.layout import check_layout

HEAD = "text-classification"


@pytest.fixture
def publication(exported_run, tmp_path) -> Path:
    """A publication with an image, but for its card."""
    run = exported_run(HEAD)
    folder = shutil.copytree(run / "model", tmp_path / "publication")
    LAYOUTS["docker"].arrange(folder, manifest.read(run))
    shutil.copy(run / manifest.FILE, folder)
    write_checksums(folder)
    return folder


def test_it_is_opened_as_a_publication_without_an_image_is(publication, exported_run):
    text = "the train is late"
    assert package.load(publication, threads=1)(text) == package.load(exported_run(HEAD), threads=1)(text)


def test_the_image_has_this_package_and_the_versions_that_are_here(publication):
    with tarfile.open(publication / "docker" / docker.SOURCE) as archive:
        names = set(archive.getnames())
    assert {"optimize/__main__.py", "optimize/publishing/layouts/handlers/Dockerfile"} <= names
    assert not any("__pycache__" in name for name in names)
    lines = (publication / "docker" / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in lines] == list(docker.NEEDS)
    assert f"starlette=={metadata.version('starlette')}" in lines


def test_what_the_dockerfile_takes_is_there(publication):
    text = (publication / "docker" / "Dockerfile").read_text()
    taken = re.findall(r"^(?:COPY|ADD) (?!--from)(?:--\S+ )?(\S+) ", text, re.MULTILINE)
    assert taken == ["docker/requirements.txt", "docker/optimize.tar.gz", "."]
    assert all((publication / name).exists() for name in taken)


def test_an_image_is_for_cpus_and_needs_what_serves_here(monkeypatch):
    record = record_of(HEAD)
    check_layout("docker", LAYOUTS["docker"], record)
    with pytest.raises(RequestError, match="cannot hold a model in openvino"):
        check_layout("docker", LAYOUTS["docker"], record_of(HEAD, "openvino"))
    monkeypatch.setattr(docker, "NEEDS", ("no-such-server",))
    with pytest.raises(RequestError, match="no-such-server is not installed; add 'serve' and 'publish'"):
        check_layout("docker", LAYOUTS["docker"], record)
