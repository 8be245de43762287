"""For KServe and MLServer: a runtime of MLServer beside the model, and an InferenceService that serves the two."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from optimize.manifest import Manifest
from optimize.publishing.layouts.layout import Layout, model_name, move_into, refuse_fixed
from optimize.publishing.layouts.served import EXAMPLES, inputs_of, write_handler, write_requirements, write_settings
from optimize.report.markdown import code_block

FOLDER, MODELS = "kserve", "model"
SERVICE = "inference-service.yaml"
IMPLEMENTATION = "mlserver_runtime.Answering"
PLACE = "BUCKET/model"
"""Where the reader has to say where the folder was copied to."""


def arrange(folder: Path, record: Manifest) -> str:
    """Make `kserve/model` what MLServer serves, and write the service beside it."""
    inner, root, name = move_into(folder, f"{FOLDER}/{MODELS}"), folder / FOLDER, model_name(record)
    write_settings(inner, record)
    write_handler(inner, "mlserver_runtime.py")
    write_requirements(inner / "requirements.txt", record)
    settings = {"name": name, "implementation": IMPLEMENTATION, "parameters": {"version": "v1", "uri": "."}}
    (inner / "model-settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (root / SERVICE).write_text(yaml.safe_dump(service(record, name), sort_keys=False), encoding="utf-8")
    inputs = []
    for each in inputs_of(record):
        found = "A [MASK]." if record.request.head == "fill-mask" else EXAMPLES[each]
        data = [json.dumps(found) if isinstance(found, list) else found]
        inputs.append({"name": each, "shape": [1], "datatype": "BYTES", "data": data})
    lines = [
        "pip install mlserver -r PATH/kserve/model/requirements.txt && mlserver start PATH/kserve/model",
        f"curl localhost:8080/v2/models/{name}/infer -d '{json.dumps({'inputs': inputs})}'",
    ]
    text = (
        f"`{FOLDER}/{MODELS}` is a model of MLServer, by itself or in KServe: copy it to a store, name that and an "
        f"image with the requirements in `{SERVICE}`, and `kubectl apply` that.\n\n"
        + code_block("\n".join(lines), "sh")
    )
    (root / "README.md").write_text(f"# {name}, for KServe and MLServer\n\n{text}\n", encoding="utf-8")
    return text


def service(record: Manifest, name: str) -> dict[str, object]:
    """An InferenceService of `serving.kserve.io/v1beta1`, with the memory that the model took when it was measured."""
    memory = record.measurements[-1].peak_memory_bytes if record.measurements else None
    requests = {"cpu": str(record.request.threads), "memory": f"{max(1, -(-2 * (memory or 2**29) // 2**30))}Gi"}
    limits: dict[str, str] = dict(requests)
    if record.request.target == "cuda":
        limits["nvidia.com/gpu"] = "1"
    # KServe's own runtime for MLServer takes the formats that it lists alone, and this is none of them.
    container = {
        "name": "kserve-container",
        "image": "REGISTRY/mlserver",
        "env": [
            {"name": "STORAGE_URI", "value": f"s3://{PLACE}"},
            {"name": "MLSERVER_MODELS_DIR", "value": "/mnt/models"},
        ],
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "resources": {"requests": requests, "limits": limits},
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {"minReplicas": 1, "maxReplicas": 4, "containers": [container]}},
    }


LAYOUT = Layout(
    arrange=arrange, summary="For KServe and MLServer: a runtime and an InferenceService", refuses=refuse_fixed
)
