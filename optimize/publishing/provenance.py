"""Where a publication comes from, as others read it: an in-toto Statement with SLSA provenance, and a CycloneDX ML-BOM.

Both follow from the manifest and the files alone, so the same publication has the same, and `optimize verify` writes
them anew to compare. https://slsa.dev/spec/v1.0/provenance, https://cyclonedx.org/capabilities/mlbom
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from optimize.machine.environment import version
from optimize.manifest import Manifest

STATEMENT, BOM = "provenance.intoto.json", "bom.cdx.json"
NAME = "distilbert-optimize"
ASKED = ("model", "revision", "head", "data", "data_config", "data_revision", "target", "pipeline", "settings", "seed")
"""What of a request is an external parameter of the build; the rest follows from it."""
Digests = Mapping[str, str]
"""SHA-256 by a file's name."""


def statement(manifest: Manifest, digests: Digests) -> dict[str, Any]:
    """An in-toto Statement v1 about these files, with SLSA provenance v1 as its predicate."""
    request, source = manifest.request, manifest.source
    commit = {"gitCommit": source.revision} if source.revision else {}
    data = [
        {"name": f"{request.data}, {name}", "digest": {"sha256": split.digest}} for name, split in manifest.data.items()
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(digests.items())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"urn:{NAME}:run:{manifest.schema_version}",
                "externalParameters": {name: getattr(request, name) for name in ASKED},
                "internalParameters": {"stages": request.stages, "gates": request.gates, "runtime": request.runtime},
                "resolvedDependencies": [{"name": source.id, "digest": {"sha256": source.digest, **commit}}, *data],
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:{NAME}",
                    "version": {NAME: version(NAME), **manifest.environment.versions},
                },
                "metadata": {"invocationId": manifest.id, "finishedOn": manifest.created},
            },
        },
    }


def bom(manifest: Manifest, digests: Digests) -> dict[str, Any]:
    """A CycloneDX 1.6 bill of materials: the model with its card, what it was made of, and the libraries that did it.

    Its library for Python knows no model cards yet (cyclonedx-python-lib 11), and validates them.
    """
    made, source = manifest.stages[-1].artifact, manifest.source
    libraries = [
        {"type": "library", "bom-ref": f"{name}@{installed}", "name": name, "version": installed}
        for name, installed in sorted(manifest.environment.versions.items())
        if installed != "absent"
    ]
    checkpoint = {
        "type": "machine-learning-model",
        "bom-ref": "checkpoint",
        "name": source.id,
        **({"version": source.revision} if source.revision else {}),
        "hashes": [_hash(source.digest)],
    }
    files = [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [_hash(digest)]}
        for name, digest in sorted(digests.items())
    ]
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": f"{source.id}, optimized for {manifest.request.target}",
        "version": manifest.id,
        "hashes": [_hash(made.digest)],
        "pedigree": {"ancestors": [{key: value for key, value in checkpoint.items() if key != "bom-ref"}]},
        "components": files,
        "modelCard": _model_card(manifest),
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, made.digest + manifest.id)}",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created,
            "tools": {"components": [{"type": "application", "name": NAME, "version": version(NAME)}]},
            "component": model,
        },
        "components": [checkpoint, *libraries],
        "dependencies": [{"ref": "model", "dependsOn": ["checkpoint", *[each["bom-ref"] for each in libraries]]}],
    }


def dump(content: Mapping[str, Any]) -> str:
    """As JSON, in a fixed order."""
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def same(stated: object, follows: Mapping[str, Any]) -> bool:
    """Whether two say the same of a publication, whichever version of this package wrote them."""
    return isinstance(stated, dict) and dump(_without_version(stated)) == dump(_without_version(follows))


def _without_version(content: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(content))
    for place, what in (("predicate", "runDetails"), ("metadata", "tools")):
        if isinstance(within := plain.get(place), dict) and isinstance(said := within.get(what), dict):
            said.pop("builder" if what == "runDetails" else "components", None)
    return plain


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _model_card(manifest: Manifest) -> dict[str, Any]:
    last, data = manifest.measurements[-1] if manifest.measurements else None, manifest.request.data
    measured = [{"type": last.metric.name, "value": str(last.metric.value)}] if last and last.metric else []
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": manifest.request.head,
            "architectureFamily": "transformer",
            "modelArchitecture": "DistilBERT",
            "datasets": [{"type": "dataset", "name": f"{data}, {name}"} for name in manifest.data],
        },
        "quantitativeAnalysis": {"performanceMetrics": measured},
    }
