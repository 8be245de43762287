"""The Terraform of the examples, as python-hcl2 reads it."""

from __future__ import annotations

import re
from pathlib import Path

import hcl2
import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/main.tf"))


def read(folder: Path) -> dict:
    return hcl2.loads((folder / "main.tf").read_text(encoding="utf-8"))


def bare(name: str) -> str:
    """A label without the quotes that the parser keeps."""
    return name.strip('"')


def names(blocks: list[dict], depth: int = 1) -> set[str]:
    """Labels of blocks, joined by dots."""
    found = set()
    for block in blocks:
        inner, labels = block, []
        for _ in range(depth):
            label = next(name for name in inner if not name.startswith("__"))
            labels.append(bare(label))
            inner = inner[label]
        found.add(".".join(labels))
    return found


def test_every_cloud_of_the_guide_has_an_example():
    assert [folder.name for folder in FOLDERS] == ["kserve", "sagemaker-serverless", "vertex"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_variable_and_resource_that_is_named_is_declared(folder):
    content, text = read(folder), (folder / "main.tf").read_text(encoding="utf-8")
    declared = names(content["variable"])

    assert set(re.findall(r"\bvar\.(\w+)", text)) == declared
    resources = names(content["resource"], 2)
    used = set(re.findall(r"(?<![\w.])((?:aws|google|kubernetes)_\w+\.\w+)", re.sub(r"data\.\w+\.\w+", "", text)))
    assert used <= resources
    data = names(content.get("data", []), 2)
    assert set(re.findall(r"\bdata\.(\w+\.\w+)", text)) == data


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_variable_is_described_and_the_readme_gives_those_without_a_default(folder):
    needed = set()
    for block in read(folder)["variable"]:
        for name, body in block.items():
            assert body["description"], name
            if "default" not in body:
                needed.add(bare(name))
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"-var (\w+)=", text)) == needed
    assert "Not run: `terraform validate`" in text


def test_kserves_example_asks_for_the_service_that_the_layout_writes():
    from served import record_of

    from optimize.publishing.layouts.kserve import service

    text = (EXAMPLES / "kserve" / "main.tf").read_text(encoding="utf-8")
    written = service(record_of("text-classification"), "distilbert")
    for word in (
        written["apiVersion"],
        written["kind"],
        *written["spec"]["predictor"]["containers"][0],
        "STORAGE_URI",
        "MLSERVER_MODELS_DIR",
    ):
        assert re.search(rf"\b{re.escape(word)}\b", text), word
