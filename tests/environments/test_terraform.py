"""The Terraform of the examples: as Terraform itself would write it, with arguments that the providers' schemas have.

`terraform validate` needs the providers, whose registry is not asked here. Their schemas are read from what CDK for
Terraform generated of them, which npm has.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from environments.made import PATIENCE
from test_examples import EXAMPLES, FOLDERS, bare, read

from optimize.machine.environment import cache_root

pytestmark = [pytest.mark.environments, pytest.mark.timeout(600)]

PACKAGES = {
    "aws": "provider-aws-21.22.1",
    "google": "provider-google-16.12.1",
    "kubernetes": "provider-kubernetes-12.1.1",
}
FIELD = re.compile(r"#(\w+) \w+#\w+\}\n(?:[^{}]*?\n)?\s+\*/\s+readonly \w+(\??): ([^;]+);")
OF_ALL = frozenset({"count", "depends_on", "for_each", "lifecycle", "provider"})
"""Arguments that Terraform has for every resource."""


class Field(NamedTuple):
    """An argument: whether it may be left out, and the interface of what is in its block."""

    optional: bool
    kind: str


def schema_of(kind: str) -> Path:
    """The declarations of a resource, or of data as `data.TYPE`; skips where they cannot be had."""
    role, _, kind = kind.rpartition(".")
    provider, _, name = kind.partition("_")
    package = PACKAGES[provider]
    home = cache_root() / "environments" / "terraform"
    archive = home / f"cdktf-{package}.tgz"
    if not archive.exists():
        if not shutil.which("npm"):
            pytest.skip("npm is not installed here")
        home.mkdir(parents=True, exist_ok=True)
        wanted = f"@cdktf/{package.rpartition('-')[0]}@{package.rpartition('-')[2]}"
        command = ["npm", "pack", "--silent", "--pack-destination", str(home), wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        if done.returncode:
            pytest.skip(f"{wanted} cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    inside = f"data-{provider}-{name}" if role else name
    member = f"package/lib/{inside.replace('_', '-')}/index.d.ts"
    if not (home / package / member).exists():
        with tarfile.open(archive) as packed:
            packed.extract(member, home / package, filter="data")
    return home / package / member


def interfaces(path: Path) -> dict[str, dict[str, Field]]:
    """Of each interface, its arguments by name; that of the resource itself comes first."""
    found = {}
    for name, body in re.findall(
        r"^export interface (\w+) [^{]*\{\n(.*?)^\}", path.read_text(), re.MULTILINE | re.DOTALL
    ):
        found[name] = {arg: Field(bool(mark), kind.partition("[]")[0]) for arg, mark, kind in FIELD.findall(body)}
    return found


def faults(body: Mapping[str, Any], known: Mapping[str, Mapping[str, Field]], name: str, where: str) -> Iterator[str]:
    """What a block has that its schema lacks, and the other way round."""
    fields = known[name]
    given = {key: value for key, value in body.items() if not key.startswith("__") and key not in OF_ALL}
    yield from (f"{where}: has no argument {key}" for key in sorted(set(given) - set(fields)))
    needed = {key for key, field in fields.items() if not field.optional}
    yield from (f"{where}: needs {key}" for key in sorted(needed - set(given)))
    for key, value in given.items():
        inner = fields[key].kind if key in fields else ""
        for block in value if inner in known else []:
            yield from faults(block, known, inner, f"{where}.{key}")


def resources(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each resource's type and body; data as `data.TYPE`."""
    content = read(folder)
    for role, prefix in (("resource", ""), ("data", "data.")):
        for block in content.get(role, []):
            ((kind, named),) = block.items()
            ((_, body),) = ((name, body) for name, body in named.items() if not name.startswith("__"))
            yield prefix + bare(kind), body


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_argument_is_one_of_the_providers_and_none_is_missing(folder):
    found = list(resources(folder))
    assert found
    for kind, body in found:
        known = interfaces(schema_of(kind))
        assert list(faults(body, known, next(iter(known)), kind)) == []


def test_an_argument_that_no_provider_knows_is_seen():
    known = interfaces(schema_of("aws_sagemaker_endpoint_configuration"))
    body = {"nam": "x", "production_variants": [{"serverless_config": [{"max_concurrency": 1}]}]}

    assert list(faults(body, known, next(iter(known)), "it")) == [
        "it: has no argument nam",
        "it.production_variants.serverless_config: needs memory_size_in_mb",
    ]


def test_terraform_would_write_the_files_as_they_are(tmp_path):
    program = shutil.which("terraform")
    if not program:
        pytest.skip("terraform is not installed here")
    worse = tmp_path / "main.tf"
    worse.write_text((FOLDERS[0] / "main.tf").read_text() + "\n}\n")

    done, broken = (
        subprocess.run([program, "fmt", "-check", "-recursive", each], capture_output=True, check=False)
        for each in (EXAMPLES, worse)
    )

    assert (done.returncode, broken.returncode) == (0, 2)
